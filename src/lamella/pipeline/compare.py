"""Predictions of any tool, compared, ending with the page."""

from collections.abc import Mapping
from pathlib import Path

from lamella.reports.page import write_page
from lamella.studies.compare import CompareSettings, Comparison, compare_predictions


def compare_tables(
    tables: Mapping[str, Path | str],
    out: Path | str,
    *,
    settings: CompareSettings | None = None,
    costs: Path | str | None = None,
    patients: Path | str | None = None,
) -> Comparison:
    """Compare predictions as `compare_predictions` does, and write the page.

    Args:
        tables: Tables or folders of predictions by the name of their arm.
        out: The folder; `report.html` in it is the page.
        settings: How they are compared.
        costs: Table of what each arm costs.
        patients: Table of patients, labels, batches and folds, for what the predictions do not say.

    Raises:
        LamellaError: Whatever cannot be done, in one line.
    """
    compared = compare_predictions(tables, out, settings=settings, costs=costs, patients=patients)
    write_page(compared.folder.path)
    return compared
