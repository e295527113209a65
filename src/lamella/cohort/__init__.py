"""Slides, patients, labels, folds, splits.

A cohort is a table with one row a slide. The patient, not the slide, is the unit of splitting.
"""

from lamella.cohort.cohort import Cohort, CohortColumns, CohortSlide, find_missing
from lamella.cohort.rounds import Round, check_same_images, list_rounds, list_same_images
from lamella.cohort.slides import fill_in, gather_slides
from lamella.cohort.splits import split_by_batch, split_folds, split_holdout
from lamella.cohort.table import load_cohort, save_cohort

__all__ = [
    "Cohort",
    "CohortColumns",
    "CohortSlide",
    "Round",
    "check_same_images",
    "fill_in",
    "find_missing",
    "gather_slides",
    "list_rounds",
    "list_same_images",
    "load_cohort",
    "save_cohort",
    "split_by_batch",
    "split_folds",
    "split_holdout",
]
