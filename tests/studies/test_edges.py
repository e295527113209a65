"""Edge cases in every pair: judged, measured, on page and screen, without a NaN, a crash or nonsense in words."""

import itertools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lamella.analysis.frames import judge_arms
from lamella.analysis.metrics import measure
from lamella.analysis.predictions import PredictionTable
from lamella.analysis.verdict import Verdict
from lamella.cli.tables import print_verdict
from lamella.errors import CohortError
from lamella.files import write_json
from lamella.reports.page import write_page
from lamella.studies.design import check_design

ARMS = ("net@4", "net@3", "net@2")
AXES = {
    "scores": ("plain", "ties", "constant", "all constant", "copies", "perfect", "reversed"),
    "classes": (2, 3),
    "balance": ("even", "one positive", "one class in a fold", "few"),
    "seeds": (1, 2),
    "folds": (1, 2, 3),
    "slides": ("one", "several", "both labels"),
    "lost": ("none", "one arm lost some", "one arm lost a class"),
    "batches": ("none", "two", "of one class", "one each"),
    "chain": (True, False),
}
NONSENSE = re.compile(r"(?<![\w-])(?:nan|NaN|null|inf|Inf|Infinity)(?![\w-])|\bNone\b(?!: every)")


def list_pairs() -> list[dict[str, Any]]:
    """Return cases in which every two values of two axes meet; greedy, and the same each time."""
    names = list(AXES)
    left = {
        ((a, x), (b, y)) for a, b in itertools.combinations(names, 2) for x in AXES[a] for y in AXES[b]
    }  # fmt: skip
    rng, cases = np.random.default_rng(0), []
    while left:
        best: tuple[int, dict[str, Any]] = (0, {})
        for _ in range(60):
            case = {name: values[int(rng.integers(len(values)))] for name, values in AXES.items()}
            (first, x), (second, y) = min(left, key=repr)
            case |= {first: x, second: y}
            new = sum(((a, case[a]), (b, case[b])) in left for a, b in itertools.combinations(names, 2))
            best = max(best, (new, case), key=lambda one: one[0])
        cases.append(best[1])
        left -= {((a, best[1][a]), (b, best[1][b])) for a, b in itertools.combinations(names, 2)}
    return cases


CASES = list_pairs()


def make_frame(case: Mapping[str, Any], n: int = 54) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    n_classes = case["classes"]
    n = 24 if case["balance"] == "few" else n
    label = np.arange(n) % n_classes
    fold = np.arange(n) // n_classes % case["folds"]
    if case["balance"] == "one positive":
        label = np.where(np.arange(n) == 7, n_classes - 1, np.arange(n) % (n_classes - 1))
    if case["balance"] == "one class in a fold":
        label = np.where((fold == 0) & (np.arange(n) > n // 3), 0, label)
        label = np.where(fold == 0, 0, label) if case["folds"] > 1 else label
    batch = {
        "none": None,
        "two": np.arange(n) // 2 % 2,
        "of one class": label,
        "one each": np.arange(n),
    }[case["batches"]]
    signal = 1.5 * np.eye(n_classes)[label] + rng.normal(size=(n, n_classes))
    rows = []
    for place, arm in enumerate(ARMS):
        for seed in range(case["seeds"]):
            own = signal + 0.3 * rng.normal(size=signal.shape)
            own = {
                "ties": np.round(own),
                "constant": np.zeros_like(own) if place == 2 else own,
                "all constant": np.zeros_like(own),
                "copies": signal,
                "perfect": 10.0 * np.eye(n_classes)[label],
                "reversed": -signal if place == 1 else own,
            }.get(case["scores"], own)
            for i in range(n):
                several = case["slides"] != "one" and i % 3 == 0
                for slide in range(2 if several else 1):
                    other = case["slides"] == "both labels" and slide == 1 and i % 6 == 0
                    shown = (label[i] + 1) % n_classes if other else label[i]
                    is_lost = case["lost"] == "one arm lost some" and place == 2 and i in (4, 5, 6)
                    is_lost |= case["lost"] == "one arm lost a class" and place == 2 and label[i] == n_classes - 1
                    if is_lost:
                        continue
                    rows.append(
                        {"arm": arm, "slide_id": f"S{i}-{slide}", "patient_id": f"P{i}", "label": f"grade {shown}",
                         "fold": fold[i], "seed": seed, "side": "test",
                         **({} if batch is None else {"batch": f"site {batch[i]}"}),
                         **{f"logit_grade {c}": own[i, c] for c in range(n_classes)}}
                    )  # fmt: skip
    return pd.DataFrame(rows)


def tabulate(frame: pd.DataFrame, arm: str, classes: tuple[str, ...]) -> PredictionTable:
    own = frame[(frame["arm"] == arm) & (frame["seed"] == 0)]
    return PredictionTable(
        classes=classes,
        positive=classes[-1] if len(classes) == 2 else None,
        slide_ids=tuple(own["slide_id"]),
        patient_ids=tuple(own["patient_id"]),
        labels=tuple(own["label"]),
        folds=own["fold"].to_numpy(np.int64),
        logits=own[[f"logit_{name}" for name in classes]].to_numpy(np.float64),
        batches=tuple(own["batch"]) if "batch" in own else None,
    )


def write_study(folder: Path, frame: pd.DataFrame, verdict: Verdict, classes: tuple[str, ...]) -> None:
    """Write what a page is made of."""
    design = check_design({"arms": [{"encoders": ["resnet18"], "depths": [4, 3, 2]}]}, "here")
    described = {"encoder": "net", "weights": "auto", "finetuned": "frozen", "head": "attention", "tiles": "default",
                 "state": "done", "reason": None, "command": None, "estimated_seconds": 1.0, "declared": True,
                 "pretraining": "imagenet", "imagenet_top1": None, "parameters": 1000, "gflops": 1.0, "dim": 8,
                 "licence": "MIT"}  # fmt: skip
    patients = frame.drop_duplicates(["patient_id", "label"])
    counts = {name: int((patients["label"] == name).sum()) for name in classes}
    record = {
        "format": "lamella-study", "format_version": 1, "status": "finished", "preset": None,
        "design": design.as_plain(), "classes": list(classes), "positive": classes[-1] if len(classes) == 2 else None,
        "arms": [described | {"arm": arm, "key": arm, "depth": 4 - place} for place, arm in enumerate(ARMS)],
        "cohort": {"n_slides": frame["slide_id"].nunique(), "n_patients": frame["patient_id"].nunique(),
                   "n_rounds": int(frame["fold"].nunique()), "n_failed": 0, "per_class": counts,
                   "tiles_a_slide": {"default": 9.0}},
        "notes": [], "versions": {},
    }  # fmt: skip
    write_json(folder / "study.json", record)
    verdict.save(folder / "verdict.json")
    write_json(
        folder / "metrics.json", {arm: measure(tabulate(frame, arm, classes), n_draws=50).as_json() for arm in ARMS}
    )
    frame.to_parquet(folder / "predictions.parquet", index=False)


def list_texts(content: Any) -> list[str]:
    """Return every text in JSON."""
    if isinstance(content, Mapping):
        return [text for value in content.values() for text in list_texts(value)]
    if isinstance(content, list):
        return [text for value in content for text in list_texts(value)]
    return [content] if isinstance(content, str) else []


def find_nonsense(text: str) -> list[str]:
    """Return words that are no English, with what is around them."""
    text = " ".join(text.split())
    return [text[max(0, m.start() - 40) : m.end() + 40] for m in NONSENSE.finditer(text)]


def read_page(path: Path) -> str:
    """Return what a reader sees of a page, the labels of its pictures included."""
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"<(script|style)\b.*?</\1>", " ", text, flags=re.DOTALL)
    return re.sub(r"<[^>]*>", " ", text)


def test_every_pair_of_edges_meets_in_some_case() -> None:
    met = {
        ((a, case[a]), (b, case[b])) for case in CASES for a, b in itertools.combinations(AXES, 2)
    }  # fmt: skip
    assert len(met) == sum(len(AXES[a]) * len(AXES[b]) for a, b in itertools.combinations(AXES, 2))


def test_nonsense_is_noticed() -> None:
    assert all(map(find_nonsense, ("an AUC of nan", "loses None AUC", "below inf.")))
    assert not find_nonsense("why there is none; information is finance. Failures None: every slide was read")


@pytest.mark.parametrize("number", range(len(CASES)))
def test_edges_in_pairs_are_judged_shown_and_said_without_nonsense(
    number: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = CASES[number]
    frame = make_frame(case)
    classes = tuple(f"grade {c}" for c in range(case["classes"]))
    costs = {"net@4": 9.0, "net@3": 5.0, "net@2": 2.0}
    chains = [ARMS] if case["chain"] else []
    tables = [{"name": "IV", "title": "Cut", "rows": [("net@3", "net@4"), ("net@2", "net@4")]}]
    try:
        verdict = judge_arms(frame, costs=costs, chains=chains, tables=tables)
    except CohortError as error:
        known = ("no fold tests slides of two classes", "no patient was scored by every arm")
        if not str(error).startswith(known):
            raise
        return
    json.dumps(verdict.as_json(), allow_nan=False)
    own = verdict["verdict"]
    assert own["use"]
    assert all(0 <= one["interval"][0] <= one["auc"] <= one["interval"][1] <= 1 for one in verdict["arms"])
    if case["balance"] == "one positive" or case["lost"] == "one arm lost a class":
        assert own["arm"] is None
    if case["scores"] == "all constant":
        assert own["arm"] is None
    assert [said for text in list_texts(verdict.as_json()) for said in find_nonsense(text)] == [], case
    write_study(tmp_path, frame, verdict, classes)
    assert "NaN" not in (tmp_path / "metrics.json").read_text()
    print_verdict(verdict)
    assert find_nonsense(capsys.readouterr().out) == [], case
    assert find_nonsense(read_page(write_page(tmp_path))) == [], case
