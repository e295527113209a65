"""The page of a study: the recommendation and its evidence, in one file that needs nothing else."""

from lamella.reports.study.page import StudyPageSettings, render_study_page, write_study_page

__all__ = ["StudyPageSettings", "render_study_page", "write_study_page"]
