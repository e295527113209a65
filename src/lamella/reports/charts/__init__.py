"""Charts, from numbers to SVG text.

marks.py     what is drawn: flat rows of names and numbers, as a page's data file holds them
canvas.py    axes, lettering, colours; a figure as SVG text
arms.py      arms with intervals, cost against AUC, permuted labels
curves.py    ROC, precision and recall, calibration, probabilities
blocks.py    CKA by block
draw.py      a page's chart, drawn by its name
"""
