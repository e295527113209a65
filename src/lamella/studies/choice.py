"""Fine-tuning the best frozen arm, chosen anew in each fold: in round k by the validation patients of round k alone.

A choice over all folds has seen every test label, since fold k + 1 validates round k and is tested in round k + 1. One
within a fold has not: what it is scored on took no part in it. So the three arms here are a procedure, not a network:
"best of each fold" takes each fold's predictions from the arm that was chosen there, and its two continuations go on
from that same arm.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from lamella.analysis.metrics import measure
from lamella.cohort import Cohort
from lamella.progress import Progress
from lamella.runs.settings import StageTwo
from lamella.studies.arm_runs import FrozenRun, continue_fold
from lamella.studies.arms import CHOSEN_ARMS, Arm
from lamella.studies.outcome import ArmOutcome, average_arm
from lamella.studies.record import ArmRecord, ChosenArm


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldChoice:
    """The frozen arm that did best on one fold's validation patients.

    Attributes:
        fold: Number of the round.
        arm: Which arm.
        losses: Log-loss on validation of every arm that it was chosen from, by name; the mean over seeds.
    """

    fold: int
    arm: Arm
    losses: Mapping[str, float]


def choose_in_folds(outcomes: Sequence[ArmOutcome]) -> tuple[FoldChoice, ...]:
    """Choose in each fold the arm of least log-loss on that fold's own validation patients; ties go to the first.

    Args:
        outcomes: Of the frozen arms, in the order of the design.

    Returns:
        A choice for each fold that any of them was validated in, by fold.
    """
    choices = []
    for fold in sorted({fold for outcome in outcomes for fold in outcome.val_losses}):
        losses = {outcome.arm: outcome.val_losses[fold] for outcome in outcomes if fold in outcome.val_losses}
        best = min(losses, key=lambda arm: losses[arm])
        choices.append(FoldChoice(fold=fold, arm=best, losses={arm.name: loss for arm, loss in losses.items()}))
    return tuple(choices)


def run_choices(
    choices: Sequence[FoldChoice],
    frozen: Mapping[Arm, FrozenRun],
    cohort: Cohort,
    stage: StageTwo,
    progress: Progress,
) -> list[ArmOutcome]:
    """Return what came out of the best arm of each fold: frozen, its head trained on alone, and fine-tuned.

    Args:
        choices: Of each fold.
        frozen: The frozen arms that were chosen from.
        cohort: With folds or splits.
        stage: How the chosen arm is trained on; finished trainings are kept.
        progress: Where to report to.

    Raises:
        EncoderError: If an encoder cannot be trained as asked.
        SlideError: If a slide that is learned from cannot be read any more.
    """
    parts: dict[str, list[pd.DataFrame]] = {arm.finetuned: [] for arm in CHOSEN_ARMS}
    for choice in choices:
        base = frozen[choice.arm]
        table = base.outcome.predictions
        parts["frozen"].append(table[table["fold"] == choice.fold])
        for kind, part in continue_fold(base, choice.fold, cohort, stage, progress).items():
            parts[kind].append(part)
    return [_join(arm, pd.concat(parts[arm.finetuned], ignore_index=True), cohort) for arm in CHOSEN_ARMS]


def describe_chosen(arm: Arm, *, declared: bool, choices: Sequence[FoldChoice] = ()) -> ArmRecord:
    """Return what `study.json` says of an arm that is chosen in each fold.

    Args:
        arm: One of `CHOSEN_ARMS`.
        declared: Whether it stood in the design before results were seen.
        choices: Of each fold, where they are made.
    """
    return ArmRecord(
        arm=arm.name,
        key=arm.key,
        encoder=arm.encoder,
        depth=arm.depth,
        weights=arm.weights,
        finetuned=arm.finetuned,
        head=arm.head,
        tiles=arm.tiles,
        state="not run",
        reason="no frozen arm ran that could be chosen",
        command=None,
        estimated_seconds=None,
        declared=declared,
        pretraining="other",
        imagenet_top1=None,
        parameters=None,
        gflops=None,
        dim=None,
        licence=None,
        chosen=tuple(
            ChosenArm(fold=choice.fold, arm=choice.arm.name, val_log_loss=dict(choice.losses)) for choice in choices
        ),
    )


def say_choices(choices: Sequence[FoldChoice]) -> str:
    """Return which arm was chosen in which fold, in a sentence."""
    folds: dict[str, list[str]] = {}
    for choice in choices:
        folds.setdefault(choice.arm.name, []).append(str(choice.fold))
    said = "; ".join(f"{name} (fold {', '.join(numbers)})" for name, numbers in folds.items())
    return f"Fine-tuned in each fold: the frozen arm of least log-loss on that fold's own validation patients: {said}."


def _join(arm: Arm, predictions: pd.DataFrame, cohort: Cohort) -> ArmOutcome:
    measured = measure(average_arm(predictions, cohort))
    return ArmOutcome(arm=arm, predictions=predictions, best_epochs={}, val_losses={}, metrics=measured)


def count_chosen(choices: Sequence[FoldChoice]) -> Arm:
    """Return the arm that was chosen in the most folds; of several, the first of them."""
    arms = [choice.arm for choice in choices]
    return max(dict.fromkeys(arms), key=arms.count)
