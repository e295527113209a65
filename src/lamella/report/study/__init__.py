"""The page of a study: the recommendation and its evidence, in one file that needs nothing else."""

from lamella.report.study.page import write_study_page

__all__ = ["write_study_page"]
