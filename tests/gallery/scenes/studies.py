"""Studies, and files that declare them."""

from pathlib import Path

from lamella.files import write_json
from tests.gallery.scenes.tables import write_cohort, write_table


def save_undecided_study(folder: str) -> None:
    """Write the record and the verdict of a study that is inconclusive."""
    from lamella.studies.design import check_design

    plain = check_design({"arms": [{"encoders": ["resnet18"]}]}, "here").as_plain()
    arm = {"arm": "resnet18@2", "key": "0", "encoder": "resnet18", "depth": 2, "weights": "auto", "finetuned": "frozen",
           "head": "attention", "tiles": "default", "state": "done", "reason": None, "declared": True}  # fmt: skip
    record = {"format": "lamella-study", "format_version": 1, "status": "finished", "preset": None, "design": plain,
              "classes": ["benign", "malignant"], "positive": "malignant", "arms": [arm],
              "cohort": {"n_slides": 12, "n_patients": 12, "per_class": {}, "n_rounds": 5}}  # fmt: skip
    write_json(Path(folder) / "study.json", record)
    verdict = {"kind": "inconclusive", "arm": None, "best_arm": "resnet18@2", "sentence": ""}
    write_json(Path(folder) / "verdict.json", {"margin": 0.05, "n_patients": 12, "arms": [], "verdict": verdict})


def save_study(folder: str, design: str) -> None:
    """Write a study's record of three seeds, a cohort, and a file that declares two."""
    from lamella.studies.design import check_design

    write_cohort("slides.csv", n_slides=12)
    arms = {"arms": [{"encoders": ["efficientnet-lite0"]}]}
    plain = check_design(arms, "here").as_plain()
    record = {"format": "lamella-study", "format_version": 1, "status": "finished", "preset": None, "design": plain,
              "classes": ["benign", "malignant"], "positive": "malignant", "arms": [],
              "cohort": {"n_slides": 12, "n_patients": 12, "per_class": {}, "n_rounds": 5}}  # fmt: skip
    write_json(Path(folder) / "study.json", record)
    write_table(design, "arms:", "  - encoders: [efficientnet-lite0]", "seeds: 2")


def write_given(design: str) -> None:
    """Write a cohort without folds, and a file that takes given ones."""
    write_cohort("slides.csv", n_slides=12)
    write_table(design, "arms:", "  - encoders: [efficientnet-lite0]", "split: given")
