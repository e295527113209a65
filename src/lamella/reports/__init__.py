"""10. Report: what came out, as pictures, files for QuPath, and one page.

    draw/          pictures of slides: attention and class activation maps, the most attended tiles; files for QuPath
    charts/        charts, from numbers to SVG text
    models.py      what the JSON files of runs and studies hold, typed
    record.py      one record of a run or of a study
    loading.py     their folders read back into it: the one place that knows their file names and columns
    page/          such a folder as one self-contained HTML page, `report.html`, with its numbers, `report.parquet`
    words.py       how figures are printed and things are called
    pseudonyms.py  identifiers as salted hashes, for what is passed on (`lamella.renaming` renames with them)

Nothing here imports torch: results open on a laptop.
"""
