"""Tables of 10^5 rows."""

from pathlib import Path

from resource_rows.shared import Work, make_predictions, row, save_cohort_table, save_predictions

N_ROWS = 100_000


@row("table of 10^5 rows: cohort read")
def read_cohort(folder: Path) -> Work:
    """CSV."""
    from lamella.cohort import load_cohort

    table = save_cohort_table(folder, n=N_ROWS, name="large.csv")
    return lambda: load_cohort(table) and None


@row("table of 10^5 rows: folds made, checked and saved")
def split_large(folder: Path) -> Work:
    """As `lamella split`."""
    from lamella.cohort import list_rounds, load_cohort, save_cohort, split_folds

    cohort = load_cohort(save_cohort_table(folder, n=N_ROWS, name="large.csv"))

    def run() -> None:
        made = split_folds(cohort)
        list_rounds(made)
        save_cohort(made, folder / "large_folds.csv")

    return run


@row("table of 10^5 rows: predictions measured")
def measure_large(folder: Path) -> Work:
    """As `lamella measure`."""
    from lamella.runs.measure import measure_table

    path = save_predictions(folder, N_ROWS)
    return lambda: measure_table(path) and None


@row("table of 10^5 rows: verdict on 5 arms of 20,000 patients")
def judge_large(folder: Path) -> Work:
    """One seed."""
    from lamella.analysis.frames import judge_arms

    frame = make_predictions(5, 20_000, n_seeds=1)
    return lambda: judge_arms(frame) and None


@row("table of 10^5 rows: failures written")
def write_failures(folder: Path) -> Work:
    """A reason a slide."""
    from lamella.files import write_table

    rows = [
        {"slide_id": f"S{i}", "stage": "open", "reason": "it cannot be read. Copy it again."} for i in range(N_ROWS)
    ]
    return lambda: write_table(folder / "failures.csv", ["slide_id", "stage", "reason"], rows)
