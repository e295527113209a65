"""Arms judged from one long table of predictions, whoever made them: ours, another tool's, a spreadsheet's.

arm, patient_id, label    always
logit_<class> or prob_<class> for each class; or score, of the class called positive
slide_id, seed, fold, batch, side    where there are several of them; of `side` only rows of `test` count
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lamella.analysis.contest import ArmFacts, Contest, judge_contest
from lamella.analysis.predictions import number_groups
from lamella.analysis.predictions_frame import find_logits, prepare_frame
from lamella.analysis.verdict import ExternalVerdict, PlannedTable, Summary, Verdict
from lamella.defaults import MARGIN
from lamella.errors import CohortError, SettingsError

_Judged = TypeVar("_Judged", Verdict, ExternalVerdict)
_LOST = 1e3  # log-odds beyond those of any model


def judge_arms(
    predictions: pd.DataFrame,
    *,
    margin: float = MARGIN,
    costs: Mapping[str, float] | None = None,
    chains: Sequence[Sequence[str]] = (),
    tables: Sequence[PlannedTable] = (),
    positive: str | int | None = None,
    n_left_out: int = 2,
) -> Verdict:
    """Return the verdict on arms from their predictions of slides that they did not learn from.

    Arms are compared on the patients and seeds that all of them have; a patient that one arm lost leaves every
    comparison. Labels and names are taken as text, without blanks around them. Of several kinds of scores logits are
    taken before probabilities, and these before `score`.

    Args:
        predictions: A row an arm, slide and seed: `arm`, `patient_id`, `label`, and `logit_<class>` or `prob_<class>`
            for each class, or `score`; perhaps `slide_id`, `seed`, `fold`, `batch`, `side`.
        margin: How much AUC the recommended arm may give up.
        costs: What each arm costs, in one unit; None takes them as first listed, the cheapest first.
        chains: Arms equal in all but depth, of each reference encoder, the whole network first. With one chain the
            verdict is how much of that network may be cut; without, which is the cheapest arm of all.
        tables: Declared comparisons, dicts of `name`, `title` and `rows` of (arm, base).
        positive: The class that `score` is of; None takes the last label.
        n_left_out: With several folds: how many of them the model that scores a fold did not learn from: itself and one
            that validates (2, as in a study), or itself alone (1). It widens the errors of differences.

    Returns:
        What `verdict.json` holds: `verdict` (with `use`, `worse` and `open`, each a sentence), `arms` (`cost` and
        `gflops` are None where no costs are given), `ladder`, `tables`, `chains`, `notes`. Its values are attributes;
        `verdict["arms"]` has them as plain JSON.

    Raises:
        CohortError: If a column is missing, a patient has two labels or folds that do not go together, or no fold tests
            two classes.
        ModelError: If a score is not finite.
        SettingsError: If margin, costs, chains, tables or folds left out cannot be.

    Example:
        >>> rows = [
        ...     {"arm": arm, "patient_id": f"P{i}", "label": "tumour" if i % 2 else "normal", "score": i % 2 + i * step}
        ...     for arm, step in (("small", 0.002), ("large", 0.001)) for i in range(200)]
        >>> judged = judge_arms(pd.DataFrame(rows), costs={"small": 1.0, "large": 5.0}, positive="tumour")
        >>> judged.verdict.use
        'Use small: it is the cheapest arm, and non-inferior to every other (margin 0.05 AUC).'
    """
    given: object = margin  # whoever calls from a notebook may give anything
    if not isinstance(given, int | float) or not 0 < given < 0.5:
        raise SettingsError(f"the margin is {margin!r} and must be an AUC between 0 and 0.5. Pass margin=0.05.")
    if n_left_out not in (1, 2):
        raise SettingsError(
            f"{n_left_out!r} folds left out are asked for. Pass n_left_out=2, or 1 where none validates."
        )

    def judge(contest: Contest) -> Verdict:
        order = {name: float(index + 1) * 2 for index, name in enumerate(contest.names)}
        in_order = order if costs is None else _take_costs(costs, contest.names)
        facts = ArmFacts(
            costs=in_order,
            gflops=in_order,
            imagenet_top1=dict.fromkeys(contest.names),
            chains=chains,
            is_priced=costs is not None,
        )
        _check_chains(contest.names, chains)
        _check_tables(contest.names, tables)
        return judge_contest(replace(contest, n_left_out=n_left_out), facts, margin=float(margin), tables=tables)

    judged = judge_with_lost(predictions, judge, positive=None if positive is None else str(positive).strip())
    return judged if costs is not None else judged.without_costs()


def judge_with_lost(
    predictions: pd.DataFrame,
    judge: Callable[[Contest], _Judged],
    *,
    classes: Sequence[str] | None = None,
    positive: str | None = None,
) -> _Judged:
    """Return the verdict on the patients that all arms have, and what it would be with lost ones counted as wrong.

    Args:
        predictions: As `judge_arms` takes them.
        judge: Makes a verdict of arms on the same units.
        classes: In their order; None sorts those of the columns, or the labels.
        positive: The class that `score` is of; None takes the last.
    """
    contest, lost = gather_contest(predictions, classes=classes, positive=positive)
    verdict = judge(contest)
    notes: tuple[str, ...] = verdict.notes
    other: Summary | None = None
    if lost:
        whole, _ = gather_contest(count_lost_as_wrong(predictions, classes=classes, positive=positive), classes=classes)
        other = judge(whole).summary
        if (other.kind, other.arm) != (verdict.summary.kind, verdict.summary.arm):
            n = "1 patient is" if len(lost) == 1 else f"{len(lost)} patients are"
            said = (
                f"{n} left out because an arm lacks a slide of theirs. Counted as misclassified by that arm, the "
                f"verdict would be: {other.use}"
            )
            notes = (*notes, said)
    return verdict.model_copy(update={"notes": notes, "n_lost": len(lost), "lost_as_wrong": other})


def count_lost_as_wrong(
    predictions: pd.DataFrame, *, classes: Sequence[str] | None = None, positive: str | None = None
) -> pd.DataFrame:
    """Return predictions in which each slide that an arm lacks is ranked last for its own class by that arm."""
    frame = prepare_frame(predictions)
    names = find_logits(frame, classes, positive)
    kept = [name for name in ("slide_id", "patient_id", "label", "fold", "batch") if name in frame]
    slides = frame.drop_duplicates("slide_id")[kept]
    parts = [frame]
    for (arm, _), group in frame.groupby(["arm", "seed"], sort=False):
        missing = slides[~slides["slide_id"].isin(set(group["slide_id"]))].copy()
        for name in names:
            missing[f"logit_{name}"] = np.where(missing["label"] == name, -_LOST, 0.0)
        parts.append(missing.assign(arm=str(arm), seed=group["seed"].iloc[0], side="test"))
    filled = pd.concat(parts, ignore_index=True)
    return filled[[*kept, "arm", "seed", *(f"logit_{name}" for name in names)]]


def gather_contest(
    predictions: pd.DataFrame, *, classes: Sequence[str] | None = None, positive: str | None = None
) -> tuple[Contest, tuple[str, ...]]:
    """Bring all arms of a table of predictions to the same units and seeds.

    Args:
        predictions: As `judge_arms` takes them.
        classes: In their order; None sorts those of the columns, or the labels.
        positive: The class that `score` is of; None takes the last.

    Returns:
        The contest, and the patients that some arm lost, which are left out.

    Raises:
        CohortError: If a column is missing, or patients do not hang together.
        ModelError: If a score is not finite.
    """
    frame = prepare_frame(predictions)
    columns = find_logits(frame, classes, positive)
    logits = [f"logit_{name}" for name in columns]
    names = tuple(dict.fromkeys(frame["arm"]))
    seeds = sorted(set.intersection(*(set(group["seed"]) for _, group in frame.groupby("arm"))))
    if not seeds:
        raise CohortError("no seed was run by every arm, so arms cannot be compared. Give each arm the same seeds.")
    n_lost_seeds = frame["seed"].nunique() - len(seeds)
    frame, lost = _keep_shared(frame[frame["seed"].isin(seeds)])
    slides = frame.drop_duplicates("slide_id").set_index("slide_id").sort_index()
    _check_slides(frame, slides, columns)
    mixed = bool((slides.groupby("patient_id")["label"].nunique() > 1).any())
    unit = "slide_id" if mixed else "patient_id"
    by_slide = frame.groupby(["arm", "seed", "slide_id"], sort=True)[logits].mean().reset_index()
    by_slide["unit"] = by_slide["slide_id"] if mixed else by_slide["slide_id"].map(slides["patient_id"])
    units = list(dict.fromkeys(slides.index if mixed else slides["patient_id"]))
    scored = by_slide.groupby(["arm", "seed", "unit"])[logits].mean()
    cube = np.stack([
        np.stack([scored.loc[(name, seed)].loc[units].to_numpy(np.float64) for seed in seeds]) for name in names
    ])  # fmt: skip
    first = slides.reset_index().drop_duplicates(unit).set_index(unit).loc[units]
    patients = None
    if mixed:
        patients = number_groups([str(name) for name in first["patient_id"]])
    contest = Contest(
        names=names,
        units=tuple(units),
        logits=cube.mean(axis=1),
        by_seed=cube if len(seeds) > 1 else None,
        targets=np.array([columns.index(str(label)) for label in first["label"]], dtype=np.int64),
        folds=np.unique(first["fold"].astype(str), return_inverse=True)[1].astype(np.int64),
        patients=patients,
        batches=_number_batches(slides, unit, units) if "batch" in slides else None,
        notes=() if not n_lost_seeds else (f"{n_lost_seeds} seeds that an arm did not run are left out.",),
    )
    return contest, lost


def _keep_shared(frame: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Leave out the patients of which some arm, with some seed, lacks a slide."""
    tested = [set(group["slide_id"]) for _, group in frame.groupby(["arm", "seed"])]
    shared = set.intersection(*tested)
    lost = sorted(set(frame.loc[~frame["slide_id"].isin(shared), "patient_id"]))
    kept = frame[~frame["patient_id"].isin(lost)]
    if kept.empty:
        raise CohortError("no patient was scored by every arm, so arms cannot be compared. Give each the same slides.")
    return kept, tuple(lost)


def _check_slides(frame: pd.DataFrame, slides: pd.DataFrame, classes: Sequence[str]) -> None:
    """Refuse slides that arms describe differently, and patients tested in several folds."""
    for name in ("patient_id", "label", "fold", *(["batch"] if "batch" in frame else [])):
        several = frame.groupby("slide_id")[name].nunique() > 1
        if several.any():
            raise CohortError(
                f"slide '{several.idxmax()}' has several values of {name} in the predictions. Give it one in all rows."
            )
    several = slides.groupby("patient_id")["fold"].nunique() > 1
    if several.any():
        raise CohortError(
            f"patient '{several.idxmax()}' is tested in several folds, so models that saw the patient score the "
            "patient. Split by patient."
        )
    assert set(slides["label"]) <= set(classes)


def _number_batches(slides: pd.DataFrame, unit: str, units: Sequence[str]) -> NDArray[np.int64] | None:
    """Return a number for each unit's batch, -1 where it is not known; batches that a patient has together are one."""
    known = slides["batch"].dropna().astype(str)
    groups = known.groupby(known.index if unit == "slide_id" else slides.loc[known.index, "patient_id"])
    joined = groups.agg(lambda names: " + ".join(sorted(set(names)))).reindex(list(units)).fillna("")
    batch = joined.astype(str).to_numpy()
    if not any(batch):
        return None
    return np.where(batch == "", -1, number_groups(batch.tolist())).astype(np.int64)


def _take_costs(costs: Mapping[str, float], names: Sequence[str]) -> Mapping[str, float]:
    given = {str(name): cost for name, cost in costs.items()}
    missing = [name for name in names if name not in given]
    if missing:
        raise CohortError(f"arm '{missing[0]}' has no cost. Give one for each arm: {', '.join(names)}.")
    for name in names:
        if not isinstance(given[name], int | float | np.number) or not 0 <= float(given[name]) < np.inf:
            raise SettingsError(f"arm '{name}' costs {given[name]!r}. Give a number from 0, in one unit for all arms.")
    return {name: float(given[name]) for name in names}


def _check_chains(names: Sequence[str], chains: Sequence[Sequence[str]]) -> None:
    """Refuse chains of arms that there are not, and an arm that stands in them twice."""
    listed = [str(name) for chain in chains for name in chain]
    _refuse_unknown(names, listed)
    twice = next((name for name in listed if listed.count(name) > 1), None)
    if twice is not None or not all(len(chain) for chain in chains):
        what = "a chain is empty" if twice is None else f"arm '{twice}' stands in the chains twice"
        raise SettingsError(f"{what}. A chain is the whole network and its depths, each once.")


def _check_tables(names: Sequence[str], tables: Sequence[PlannedTable]) -> None:
    """Refuse tables without rows of (arm, base), of arms that there are not, or of an arm against itself."""
    for table in tables:
        stated = {key for key, value in table.items() if value is not None}  # a notebook may give anything
        if not {"name", "title", "rows"} <= stated or any(len(row) != 2 for row in table["rows"]):
            raise SettingsError(
                "a table needs 'name', 'title' and 'rows', each row an arm and what it is held against."
            )
        _refuse_unknown(names, [name for row in table["rows"] for name in row])
        alike = next((arm for arm, base in table["rows"] if arm == base), None)
        if alike is not None:
            raise SettingsError(f"table '{table['name']}' holds arm '{alike}' against itself. Name two arms a row.")


def _refuse_unknown(names: Sequence[str], listed: Sequence[str]) -> None:
    unknown = next((name for name in listed if name not in names), None)
    if unknown is not None:
        raise CohortError(f"no arm is called '{unknown}'. The predictions hold {', '.join(names)}.")
