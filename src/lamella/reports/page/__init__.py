"""The page of a run or of a study: `report.html`, and beside it every number of it, `report.parquet`.

parts.py       what a page is made of: sections of texts, tables, charts and slides, as data
run_page.py    the sections of a run's page        study_page.py    those of a study's
answers.py reasons.py methods.py                   what they say in words
cohort.py arms.py declared.py evidence.py          what they tabulate
figures.py cards.py                                which charts and slides they show
data.py        a page's numbers as Parquet, and back
joined.py      one page of several folders
render.py pictures.py                              a page as HTML

write.py       all of it, for a folder
"""

from lamella.reports.page.render import PageSettings
from lamella.reports.page.write import build_page, rewrite_page, write_page, write_report

__all__ = ["PageSettings", "build_page", "rewrite_page", "write_page", "write_report"]
