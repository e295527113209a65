"""Arms judged from one long table of predictions, whoever made them: ours, another tool's, a spreadsheet's.

arm, patient_id, label    always
logit_<class> or prob_<class> for each class; or score, of the class called positive
slide_id, seed, fold, batch, side    where there are several of them; of `side` only rows of `test` count
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lamella.analysis.contest import ArmFacts, Contest, judge_contest
from lamella.analysis.predictions import number_groups
from lamella.errors import CohortError, ModelError

Floats = NDArray[np.float64]
_NEEDED = ("arm", "patient_id", "label")
_LOST = 1e3  # log-odds beyond those of any model


def judge_arms(
    predictions: pd.DataFrame,
    *,
    margin: float = 0.05,
    costs: Mapping[str, float] | None = None,
    chains: Sequence[Sequence[str]] = (),
    tables: Sequence[Mapping[str, Any]] = (),
    positive: str | None = None,
) -> dict[str, Any]:
    """Return the verdict on arms from their predictions of slides that they did not learn from.

    Arms are compared on the patients and seeds that all of them have; a patient that one arm lost leaves every
    comparison. With several folds, fold k is taken to have been scored by a model that was trained on folds other than
    k and k + 1.

    Args:
        predictions: A row an arm, slide and seed: `arm`, `patient_id`, `label`, and `logit_<class>` or `prob_<class>`
            for each class, or `score`; perhaps `slide_id`, `seed`, `fold`, `batch`, `side`.
        margin: How much AUC the recommended arm may give up.
        costs: What each arm costs, in one unit; None takes them as first listed, the cheapest first.
        chains: Arms equal in all but depth, of each reference encoder, the whole network first. With one chain the
            verdict is how much of that network may be cut; without, which is the cheapest arm of all.
        tables: Declared comparisons: `name`, `title`, `rows` of (arm, base).
        positive: The class that `score` is of; None takes the last label.

    Returns:
        What `verdict.json` holds: `verdict` (with `use`, `worse` and `open`, each a sentence), `arms`, `ladder`,
        `tables`, `chains`.

    Raises:
        CohortError: If a column is missing, a patient has two labels or folds that do not go together, or no fold tests
            two classes.
        ModelError: If a score is not finite.

    Example:
        >>> rows = [
        ...     {"arm": arm, "patient_id": f"P{i}", "label": "tumour" if i % 2 else "normal", "score": i % 2 + i * step}
        ...     for arm, step in (("small", 0.002), ("large", 0.001)) for i in range(200)]
        >>> found = judge_arms(pd.DataFrame(rows), costs={"small": 1.0, "large": 5.0}, positive="tumour")
        >>> found["verdict"]["use"]
        'Use small: it is the cheapest arm, and non-inferior to every other (margin 0.05 AUC).'
    """

    def judge(contest: Contest) -> dict[str, Any]:
        order = {name: float(index + 1) * 2 for index, name in enumerate(contest.names)}
        facts = ArmFacts(
            costs=_take(costs, contest.names, order),
            gflops=_take(costs, contest.names, order),
            imagenet_top1=dict.fromkeys(contest.names),
            chains=chains,
        )
        _check_names(contest.names, chains, tables)
        return judge_contest(contest, facts, margin=margin, tables=tables)

    return judge_with_lost(predictions, judge, positive=positive)


def judge_with_lost(
    predictions: pd.DataFrame,
    judge: Callable[[Contest], dict[str, Any]],
    *,
    classes: Sequence[str] | None = None,
    positive: str | None = None,
) -> dict[str, Any]:
    """Return the verdict on the patients that all arms have, and what it would be with lost ones counted as wrong.

    Args:
        predictions: As `judge_arms` takes them.
        judge: Makes a verdict of arms on the same units.
        classes: In their order; None sorts those of the columns, or the labels.
        positive: The class that `score` is of; None takes the last.
    """
    contest, lost = gather_contest(predictions, classes=classes, positive=positive)
    verdict = judge(contest) | {"n_lost": len(lost), "lost_as_wrong": None}
    if lost:
        whole, _ = gather_contest(count_lost_as_wrong(predictions, classes=classes, positive=positive), classes=classes)
        other = judge(whole)["verdict"]
        verdict["lost_as_wrong"] = {key: other[key] for key in ("kind", "arm", "use")}
        if (other["kind"], other["arm"]) != (verdict["verdict"]["kind"], verdict["verdict"]["arm"]):
            n = (
                f"{len(lost)} patients that an arm could not score are"
                if len(lost) > 1
                else "1 patient that an arm could "
            )
            n += "" if len(lost) > 1 else "not score is"
            said = f"{n} left out. Counted as misclassified by that arm, the verdict would be: {other['use']}"
            verdict["notes"] = [*verdict["notes"], said]
    return verdict


def count_lost_as_wrong(
    predictions: pd.DataFrame, *, classes: Sequence[str] | None = None, positive: str | None = None
) -> pd.DataFrame:
    """Return predictions in which each slide that an arm lacks is ranked last for its own class by that arm."""
    frame = _prepare(predictions)
    names = _find_logits(frame, classes, positive)
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
    frame = _prepare(predictions)
    columns = _find_logits(frame, classes, positive)
    logits = [f"logit_{name}" for name in columns]
    names = tuple(dict.fromkeys(frame["arm"]))
    frame, lost = _keep_shared(frame, names)
    seeds = sorted(set.intersection(*(set(group["seed"]) for _, group in frame.groupby("arm"))))
    if not seeds:
        raise CohortError("no seed was run by every arm, so arms cannot be compared. Give each arm the same seeds.")
    frame = frame[frame["seed"].isin(seeds)]
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
    )
    return contest, lost


def _prepare(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return the test rows with all columns that may be absent."""
    missing = [name for name in _NEEDED if name not in predictions]
    if missing:
        raise CohortError(
            f"the predictions have no column '{missing[0]}'. They need {', '.join(_NEEDED)} and a score: "
            "logit_<class>, prob_<class> or score."
        )
    frame = predictions[predictions["side"] == "test"] if "side" in predictions else predictions
    frame = frame.copy()
    if frame.empty:
        raise CohortError("the predictions hold no row of a test slide. Give a row an arm and slide.")
    for name in ("arm", "patient_id", "label"):
        if frame[name].isna().any():
            raise CohortError(f"column '{name}' of the predictions has empty cells. Fill them, or leave the rows out.")
        frame[name] = frame[name].astype(str)
    frame["slide_id"] = (frame["slide_id"] if "slide_id" in frame else frame["patient_id"]).astype(str)
    frame["fold"] = frame.get("fold", 0)
    frame["seed"] = frame.get("seed", 0)
    twice = frame.duplicated(["arm", "slide_id", "seed"])
    if twice.any():
        row = frame[twice].iloc[0]
        raise CohortError(
            f"arm '{row['arm']}' predicts slide '{row['slide_id']}' twice with seed {row['seed']}. Keep one row an "
            "arm, slide and seed."
        )
    return frame


def _find_logits(frame: pd.DataFrame, classes: Sequence[str] | None, positive: str | None) -> list[str]:
    """Give the frame `logit_<class>` columns; return the classes in their order."""
    kind = next((k for k in ("logit_", "prob_") if any(str(c).startswith(k) for c in frame.columns)), None)
    if kind is None and "score" not in frame:
        raise CohortError(
            "the predictions have no score. Give a column logit_<class> or prob_<class> a class, or score."
        )
    labels = sorted(set(frame["label"]))
    if kind is None:
        names = list(classes or labels)
        if len(names) != 2 or (positive is not None and positive not in names):
            raise CohortError(
                f"a column 'score' speaks of two classes and the labels are {', '.join(names)}. Give prob_<class> for "
                "each class, or name one of the labels as positive."
            )
        last = positive or names[-1]
        names = [name for name in names if name != last] + [last]
        frame[f"logit_{names[0]}"], frame[f"logit_{last}"] = 0.0, frame["score"].astype(np.float64)
    else:
        columns = [str(c).removeprefix(kind) for c in frame.columns if str(c).startswith(kind)]
        names = list(classes or sorted(columns))
        unknown = [label for label in labels if label not in names] + [name for name in names if name not in columns]
        if unknown or len(names) < 2:
            raise CohortError(
                f"the predictions have columns for {', '.join(columns)} and labels {', '.join(labels)}. Give one "
                f"column {kind}<class> for every label."
            )
        values = frame[[f"{kind}{name}" for name in names]].to_numpy(np.float64)
        if kind == "prob_":
            values = np.log(np.clip(values, 1e-12, 1))
        frame[[f"logit_{name}" for name in names]] = values
    bad = ~np.isfinite(frame[[f"logit_{name}" for name in names]].to_numpy(np.float64)).all(axis=1)
    if bad.any():
        row = frame[bad].iloc[0]
        raise ModelError(
            f"arm '{row['arm']}' gives slide '{row['slide_id']}' a score that is not finite. Predict it again, or "
            "leave it out."
        )
    return names


def _keep_shared(frame: pd.DataFrame, names: Sequence[str]) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Leave out the patients of which some arm lacks a slide."""
    tested = {name: set(group["slide_id"]) for name, group in frame.groupby("arm")}
    shared = set.intersection(*(tested[name] for name in names))
    lost = sorted(set(frame.loc[~frame["slide_id"].isin(shared), "patient_id"]))
    kept = frame[~frame["patient_id"].isin(lost)]
    if kept.empty:
        raise CohortError("no patient was scored by every arm, so arms cannot be compared. Give each the same slides.")
    return kept, tuple(lost)


def _check_slides(frame: pd.DataFrame, slides: pd.DataFrame, classes: Sequence[str]) -> None:
    """Refuse slides that arms describe differently, and patients tested in several folds."""
    for name in ("patient_id", "label", "fold"):
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
    """Return a number for each unit's batch, -1 where it is not known or a patient's slides lie in several."""
    known = slides["batch"].astype(object).where(slides["batch"].notna(), "")
    groups = known.groupby(slides.index if unit == "slide_id" else slides["patient_id"])
    batch = groups.agg(lambda values: str(values.iloc[0]) if values.nunique() == 1 else "").loc[list(units)]
    if not any(batch):
        return None
    return np.where(batch.to_numpy() == "", -1, number_groups(batch.tolist())).astype(np.int64)


def _take(costs: Mapping[str, float] | None, names: Sequence[str], order: Mapping[str, float]) -> Mapping[str, float]:
    if costs is None:
        return order
    missing = [name for name in names if name not in costs]
    if missing:
        raise CohortError(f"arm '{missing[0]}' has no cost. Give one for each arm: {', '.join(names)}.")
    return {name: float(costs[name]) for name in names}


def _check_names(names: Sequence[str], chains: Sequence[Sequence[str]], tables: Sequence[Mapping[str, Any]]) -> None:
    """Refuse chains and tables that name an arm that there is not."""
    asked = [name for chain in chains for name in chain]
    asked += [name for table in tables for row in table["rows"] for name in row]
    unknown = next((name for name in asked if name not in names), None)
    if unknown is not None:
        raise CohortError(f"no arm is called '{unknown}'. The predictions hold {', '.join(names)}.")
