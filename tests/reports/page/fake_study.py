"""A study folder as `lamella study` leaves one, drawn and invented here: nothing in it comes from a slide.

The verdict and the metrics are those of `judge_contest` and `measure` on invented scores, so their shape is real.
"""

import numpy as np
import pandas as pd
from PIL import Image

from lamella.analysis.contest import ArmFacts, Contest, judge_contest
from lamella.analysis.metrics import measure
from lamella.analysis.permutation import judge_permutations
from lamella.analysis.predictions import PredictionTable
from lamella.analysis.thresholds import Decisions, Threshold
from lamella.files import write_json, write_table
from lamella.reports.draw.overlay import ColourRange, OverlayStyle, blend_map
from tests.reports.fake_run import draw_tissue

ENCODERS = {
    # name: seconds a tile, GFLOPs, parameters, width, ImageNet top-1, pretraining
    "efficientnet-lite0": (0.0021, 0.768, 3_371_008, 1280, 75.1, "imagenet"),
    "resnet18": (0.0048, 1.82, 11_176_512, 512, 69.8, "imagenet"),
    "resnet34": (0.0089, 3.67, 21_284_672, 512, 73.3, "imagenet"),
    "resnet50": (0.0131, 4.11, 23_508_032, 2048, 76.1, "imagenet"),
    "densenet121": (0.0126, 2.87, 6_953_856, 1024, 74.4, "imagenet"),
    "densenet169": (0.0171, 3.40, 12_484_480, 1664, 75.6, "imagenet"),
    "efficientnet-b0-pytorch": (0.0064, 0.40, 4_007_548, 1280, 76.3, "imagenet"),
    "resnet18-ciga": (0.0048, 1.82, 11_176_512, 512, None, "histology"),
    "densenet121-capricorn": (0.0126, 2.87, 6_953_856, 1024, None, "histology"),
}
SHARES = {4: 1.0, 3: 0.62, 2: 0.34, 1: 0.2}
STRENGTH = {4: 2.35, 3: 2.38, 2: 2.0, 1: 1.2}
TABLES = [
    {"name": "I", "title": "ImageNet encoders, each against the first", "rule": "each against the first",
     "encoders": [name for name, one in ENCODERS.items() if one[5] == "imagenet"], "pairs": []},
    {"name": "II", "title": "Histology weights against ImageNet's, same network", "rule": "histology against ImageNet",
     "encoders": None, "pairs": []},
    {"name": "III", "title": "Head only and fine-tuned against frozen", "rule": "tuned against frozen",
     "encoders": None, "pairs": []},
    {"name": "IV", "title": "Cut after a block, against whole", "rule": "depth against 4",
     "encoders": None, "pairs": []},
]  # fmt: skip
WAITING = "lamella weights fetch resnet18-ciga, or lamella weights add resnet18-ciga FILE"


def name_arm(encoder, depth=4, finetuned="frozen"):
    return f"{encoder}@{depth}" + {"frozen": "", "head": ", head only", "tuned": ", tuned"}[finetuned]


def list_arms():
    """(encoder, depth, finetuned, state) of every arm."""
    whole = [(name, 4, "frozen") for name in ("resnet18", "resnet34", "resnet50", "densenet121")]
    cut = [(name, d, "frozen") for name in ("resnet18", "densenet121") for d in (3, 2, 1)]
    lite = [("efficientnet-lite0", depth, "frozen") for depth in (4, 3, 2, 1)]
    stage_two = [(name, 4, kind) for name in ("resnet18", "densenet121") for kind in ("head", "tuned")]
    done = [*whole, *cut, *lite, *stage_two, ("densenet121-capricorn", 4, "frozen")]
    return [(*one, "done") for one in done] + [
        ("densenet169", 4, "frozen", "not run"),
        ("efficientnet-b0-pytorch", 4, "frozen", "failed"),
        ("resnet18-ciga", 4, "frozen", "waiting for weights"),
        ("efficientnet-lite0", 4, "tuned", "not run"),
    ]


def describe(encoder, depth, finetuned, state):
    _, gflops, parameters, dim, top1, pretraining = ENCODERS[encoder]
    said = {
        "done": (None, None, 41.5),
        "not run": ("the budget was spent before it began", None, 5210.0),
        "failed": ("slide 'S-007.svs' in '/data/ward 7/S-007.svs' cannot be read any more. Mend the path.", None, None),
        "waiting for weights": ("its weights are not on this machine", WAITING, 310.0),
    }[state]
    return {
        "arm": name_arm(encoder, depth, finetuned), "key": "0f" * 6, "encoder": encoder, "depth": depth,
        "weights": "auto", "finetuned": finetuned, "head": "attention", "tiles": "default", "state": state,
        "reason": said[0], "command": said[1], "estimated_seconds": said[2],
        "declared": encoder != "densenet121-capricorn", "pretraining": pretraining, "imagenet_top1": top1,
        "parameters": int(parameters * SHARES[depth] ** 2), "gflops": gflops * SHARES[depth], "dim": dim // (5 - depth),
        "licence": "apache-2.0", "warnings": [],
    }  # fmt: skip


def make_cohort(rng, n_slides, classes, slide_ids):
    """Slides, one in five the second of its patient."""
    ids = list(slide_ids) + [f"S-{n:03d}" for n in range(len(slide_ids), n_slides)]
    patients = [f"P-{n - (n % 5 == 4):03d}" for n in range(n_slides)]
    names = list(dict.fromkeys(patients))
    order = rng.permutation(len(names))
    target_of = {name: int(order[n]) % len(classes) for n, name in enumerate(names)}
    fold_of = {name: (int(order[n]) // len(classes)) % 5 for n, name in enumerate(names)}
    rows = [
        {"slide_id": slide, "patient_id": patient, "label": classes[target_of[patient]], "split": "",
         "fold": fold_of[patient], "batch": "block A" if n < n_slides * 0.6 else "block B & C"}
        for n, (slide, patient) in enumerate(zip(ids, patients, strict=True))
    ]  # fmt: skip
    return pd.DataFrame(rows)


def make_logits(rng, cohort, classes, arms, n_seeds=3):
    """`{arm: (S, n, C)}`: arms agree for the most part, as encoders do."""
    names, place = np.unique(cohort["patient_id"], return_inverse=True)
    targets = np.array([classes.index(label) for label in cohort["label"]])
    shared = rng.normal(size=(len(names), len(classes)))[place] + 0.3 * rng.normal(size=(len(cohort), len(classes)))
    found = {}
    for encoder, depth, finetuned, _ in arms:
        own = 0.16 * rng.normal(size=(len(names), len(classes)))[place]
        strength = STRENGTH[depth] + {"frozen": 0.0, "head": 0.02, "tuned": 0.06}[finetuned]
        logits = 1.2 * (shared + own)
        logits[np.arange(len(targets)), targets] += strength
        seeds = logits + 0.12 * rng.normal(size=(n_seeds, *logits.shape))
        found[name_arm(encoder, depth, finetuned)] = seeds
    return found, targets


def average(values, places, n):
    sums = np.zeros((n, *values.shape[1:]))
    np.add.at(sums, places, values)
    return sums / np.bincount(places, minlength=n)[(...,) + (None,) * (values.ndim - 1)]


def list_rows(table, arms):
    """The (arm, base) rows of a declared table."""
    done = {(e, d, f) for e, d, f, state in arms if state == "done"}
    rows = {
        "I": [((e, 4, "frozen"), ("resnet18", 4, "frozen")) for e in TABLES[0]["encoders"] if e != "resnet18"],
        "II": [(("densenet121-capricorn", 4, "frozen"), ("densenet121", 4, "frozen"))],
        "III": [((e, d, f), (e, d, "frozen")) for e, d, f, _ in arms if f != "frozen"],
        "IV": [((e, d, f), (e, 4, f)) for e, d, f, _ in arms if d != 4],
    }[table]
    return [(name_arm(*a), name_arm(*b)) for a, b in rows if a in done and b in done]


def write_study(
    folder, *, n_slides=150, classes=("benign", "tumour"), slide_ids=(), n_drawn=6, side_px=420, leak=False
):
    """Write a study folder of 19 arms that ran and four that did not.

    Args:
        folder: Where to write.
        n_slides: Of the cohort.
        classes: Labels, sorted.
        slide_ids: Identifiers of the first slides, in place of S-000 and so on.
        n_drawn: Slides that have pictures.
        side_px: Longer side of these.
        leak: Whether the control with permuted labels finds a leak.
    """
    rng = np.random.default_rng(5)
    folder.mkdir(parents=True, exist_ok=True)
    classes = list(classes)
    arms = list_arms()
    done = [one for one in arms if one[3] == "done"]
    cohort = make_cohort(rng, n_slides, classes, slide_ids)
    logits, targets = make_logits(rng, cohort, classes, done)
    write_table(folder / "cohort.csv", list(cohort), cohort.to_dict("records"))
    _write_record(folder, arms, cohort, classes)
    _write_predictions(folder, cohort, classes, logits)
    verdict = _write_verdict(folder, arms, cohort, targets, logits)
    shown = verdict["verdict"]["arm"] or verdict["verdict"]["best_arm"]
    names = {shown, verdict["verdict"]["best_arm"]}
    write_json(folder / "metrics.json", {name: _measure(cohort, classes, logits[name]) for name in sorted(names)})
    _write_controls(rng, folder, verdict, leak=leak)
    _write_cka(rng, folder)
    _write_localisation(rng, folder)
    _write_tissue(rng, folder, cohort)
    _draw_slides(rng, folder, cohort, targets, logits[shown].mean(axis=0), n_drawn, side_px)


def _write_record(folder, arms, cohort, classes):
    tiles = {"tile_px": 512, "mpp": 0.5, "stride_px": None, "min_tissue": 0.5, "tissue": "glass", "max_upsample": 1.1}
    design = {
        "preset": "paper", "tiles": {"default": tiles}, "arms": [], "finetune_best": False, "seeds": 3, "folds": 5,
        "split": "folds", "split_seed": 0,
        "train": {"epochs": 20, "patience": 20, "lr": 1e-3, "weight_decay": 0.0},
        "finetune": {"k": 64, "epochs": 20, "patience": 20, "encoder_lr": 1e-5, "head_lr": 1e-4, "train_blocks": None,
                     "flips": False, "stain_jitter": 0.0, "precision": "fp32", "n_seeds": 3, "evaluate": "all"},
        "comparisons": TABLES, "margin": 0.05, "permutations": 19, "control_arm": None, "cka": True, "cam": True,
        "localise": "lesions", "budget": "3h",
    }  # fmt: skip
    patients = cohort.drop_duplicates("patient_id")
    write_json(
        folder / "study.json",
        {
            "format": "lamella-study", "format_version": 1, "status": "budget spent", "preset": "paper",
            "design": design, "classes": classes, "positive": classes[-1] if len(classes) == 2 else None,
            "arms": [describe(*one) for one in arms],
            "cohort": {"n_slides": len(cohort), "n_patients": len(patients), "n_failed": 1, "n_rounds": 5,
                       "per_class": {name: int((patients["label"] == name).sum()) for name in classes},
                       "tiles_a_slide": {"default": 212.0}},
            "notes": ["the positive label is the last one sorted; --positive chooses another.",
                      "slide 'S-003' was found in '/data/ward 7/old scans/S-003.svs'."],
            "versions": {"lamella": "0.1.0", "python": "3.11.7", "torch": "2.14.1", "openvino": "2026.4.1"},
        },
    )  # fmt: skip


def _write_predictions(folder, cohort, classes, logits):
    frames, results = [], []
    for arm, values in logits.items():
        for seed, own in enumerate(values):
            frame = cohort[["slide_id", "patient_id", "label", "batch", "fold"]].copy()
            frame.insert(0, "arm", arm)
            frame["seed"], frame["side"] = seed, "test"
            for place, name in enumerate(classes):
                frame[f"logit_{name}"] = own[:, place]
            frames += [frame, frame.assign(side="val")]
            results += [{"arm": arm, "fold": fold, "seed": seed, "auc": 0.9} for fold in range(5)]
    pd.concat(frames).to_parquet(folder / "predictions.parquet", index=False)
    write_table(folder / "results.csv", list(results[0]), results)


def _write_verdict(folder, arms, cohort, targets, logits):
    done = {name_arm(*one[:3]): one for one in arms if one[3] == "done"}
    names, places = np.unique(cohort["patient_id"], return_inverse=True)
    by_patient = np.stack([np.stack([average(s, places, len(names)) for s in logits[name]]) for name in done])
    first = np.array([int(np.flatnonzero(places == n)[0]) for n in range(len(names))])
    contest = Contest(
        names=tuple(done),
        logits=by_patient.mean(axis=1),
        by_seed=by_patient,
        targets=targets[first],
        folds=cohort["fold"].to_numpy()[first],
    )
    seconds = {n: ENCODERS[e][0] * SHARES[d] for n, (e, d, _, _) in done.items()}
    facts = ArmFacts(
        costs={name: 212 * value for name, value in seconds.items()},
        gflops={n: ENCODERS[e][1] * SHARES[d] for n, (e, d, _, _) in done.items()},
        imagenet_top1={n: ENCODERS[e][4] for n, (e, d, f, _) in done.items() if d == 4 and f == "frozen"},
        added_later={"densenet121-capricorn@4"},
        chains=[
            [
                n
                for n, (e, _, f, _) in sorted(done.items(), key=lambda one: -one[1][1])
                if e == "efficientnet-lite0" and f == "frozen"
            ]
        ],
    )
    tables = [{**table, "rows": list_rows(table["name"], arms)} for table in TABLES]
    verdict = judge_contest(contest, facts, margin=0.05, tables=tables).as_json() | {"n_lost": 2}
    write_json(folder / "verdict.json", verdict)
    costs = {
        f"default/auto/{e}@{d}": {"seconds_per_tile": seconds[n], "runs": [seconds[n]] * 5, "gflops": 1.0,
                                  "device": "cpu", "precision": "bf16", "runtime": "openvino 2026.4.1",
                                  "processor": "x86_64", "n_cores": 2}
        for n, (e, d, f, _) in done.items() if f == "frozen"
    }  # fmt: skip
    write_json(folder / "costs.json", costs)
    return verdict


def _measure(cohort, classes, logits):
    two = len(classes) == 2
    threshold = Threshold(value=0.5, rule="youden", note="Youden's index on the validation patients", n_positive=14,
                          n_negative=15, prevalence=0.48)  # fmt: skip
    table = PredictionTable(
        classes=tuple(classes),
        slide_ids=tuple(cohort["slide_id"]),
        patient_ids=tuple(cohort["patient_id"]),
        labels=tuple(cohort["label"]),
        folds=cohort["fold"].to_numpy(),
        logits=logits.mean(axis=0),
        batches=tuple(cohort["batch"]),
        positive=classes[-1] if two else None,
    )
    return measure(
        table, decisions=Decisions(thresholds=dict.fromkeys(range(5), threshold) if two else None), n_draws=50
    ).as_json()


def _write_controls(rng, folder, verdict, *, leak):
    arm = min(verdict["arms"], key=lambda one: one["cost"])
    aucs = (rng.normal(0.5, 0.07, 19) + (0.2 if leak else 0)).tolist()
    within = (rng.normal(0.5, 0.07, 19) + (0.2 if leak else 0)).tolist()

    def figure(value, low, high):
        return {"value": value, "interval": [low, high], "method": "score interval", "reason": None}

    write_json(
        folder / "controls.json",
        {
            "permutations": judge_permutations(arm["auc"], aucs, within=within, arm=arm["arm"]).as_json(),
            "baselines": {"colour": figure(0.66, 0.55, 0.75), "tissue": figure(0.53, 0.42, 0.64),
                          "batch": figure(0.61, 0.51, 0.70)},
            "robustness": [
                {"arm": arm["arm"], "gap": {"value": 0.031, "standard_error": 0.012},
                 "index": {"value": 0.742, "k": 11, "n_same_label": 230, "n_same_batch": 80},
                 "batch_auc": {"value": 0.913, "interval": [0.85, 0.95], "reason": None}},
                {"arm": "efficientnet-lite0@4, tuned", "gap": None, "index": None, "batch_auc": None},
            ],
            "batches": [
                {"batch": "block A", "n": 74, "n_by_class": {"benign": 36, "tumour": 38},
                 "auc": figure(0.93, 0.84, 0.97)},
                {"batch": "block B & C", "n": 46, "n_by_class": {"benign": 46, "tumour": 0},
                 "auc": {"value": None, "interval": None, "method": "", "reason": "one class only"}},
            ],
        },
    )  # fmt: skip


def _write_cka(rng, folder):
    pairs = []
    for arm, moved in (("resnet18@4", 0.3), ("densenet121@4", 0.15)):
        for fold in range(5):
            cka = 1 - moved * np.array([0.01, 0.05, 0.3, 1.0]) - rng.uniform(0, 0.02, 4)
            half = np.array([0.004, 0.01, 0.03, 0.05])
            pair = {"arm": f"{arm}, tuned", "base": arm, "fold": fold, "seed": 0, "cka": cka.tolist(),
                    "low": (cka - half).tolist(), "high": np.minimum(cka + half, 1).tolist(),
                    "random": [0.71, 0.52, 0.38, 0.21], "another_seed": None, "one_block": (cka + 0.002).tolist(),
                    "weight_change": [1e-5, 3e-5, 8e-5, 3e-4]}  # fmt: skip
            if fold == 0 and arm.startswith("resnet18"):
                pair["matrix"] = np.clip(np.eye(4) * 0.6 + 0.3 + rng.uniform(0, 0.1, (4, 4)), 0, 1).tolist()
            pairs.append(pair)
    pairs.append({"arm": "resnet18@4, tuned", "base": "resnet18@4", "fold": 5, "seed": 0,
                  "note": "fold 5 tested 6 slides and CKA needs 8."})  # fmt: skip
    write_json(folder / "cka.json", {"pairs": pairs})


def _write_localisation(rng, folder):
    maps = {"attention": 0.86, "cam": 0.91, "attention, random weights": 0.61, "cam, random weights": 0.57,
            "attention, permuted labels": 0.55, "darkness": 0.68}  # fmt: skip
    arms = []
    for arm in ("resnet18@4", "resnet18@3", "efficientnet-lite0@3", "resnet18@4, tuned"):
        found = {}
        for name, centre in maps.items():
            one = {"n_slides": 31, "n_patients": 26, "pooled_tile_auc": centre}
            for measure_name in ("tile_auc", "tile_ap", "pixel_auc", "pixel_ap", "pointing", "top_k", "tile_share"):
                value = float(np.clip(centre + rng.normal(0, 0.03), 0, 1)) if measure_name != "tile_share" else 0.14
                one[measure_name] = {"value": value, "interval": [value - 0.08, min(value + 0.07, 1.0)], "n": 26}
            one["froc"] = {
                "sensitivities": [0.1, 0.2, 0.4, 0.5, 0.6, 0.7],
                "score": 0.42,
                "n_lesions": 44,
                "n_slides": 60,
            }
            found[name] = one
        arms.append({"arm": arm, "maps": found, "settings": {"k": 10},
                     "notes": ["slide 'S-011' is labelled tumour and has no outlines: it was left out."]})  # fmt: skip
    write_json(folder / "localisation.json", {"arms": arms})


def _write_tissue(rng, folder, cohort):
    rows = []
    for slide_id in cohort["slide_id"]:
        area, n_tiles = rng.uniform(4e7, 9e7), int(rng.integers(80, 900))
        for step, share in (("darker than glass", 0.5), ("pen ink", 0.02), ("specks and holes", 0.01)):
            removed = area * share * rng.random()
            area -= removed
            rows.append([slide_id, step, round(area, 1), round(removed, 1), n_tiles])
    columns = ["slide_id", "step", "kept_um2", "removed_um2", "n_tiles"]
    write_table(folder / "ledger.csv", columns, [dict(zip(columns, row, strict=True)) for row in rows])
    last = cohort["slide_id"].iloc[-1]
    reason = f"slide '{last}' cannot be drawn: '/data/ward 7/{last}.svs' is not there any more. Mend the path."
    write_table(folder / "failures.csv", ["slide_id", "stage", "reason"],
                [{"slide_id": last, "stage": "draw", "reason": reason}])  # fmt: skip


def _draw_slides(rng, folder, cohort, targets, logits, n_drawn, side_px):
    loss = np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(targets)), targets]
    for place in np.argsort(-loss, kind="stable")[:n_drawn]:
        shape = (round(side_px * 0.7), side_px) if place % 3 else (side_px, round(side_px * 0.6))
        lesion = (shape[1] * 0.55, shape[0] * 0.45, side_px * 0.09) if targets[place] else None
        panel, tissue = draw_tissue(rng, *shape, lesion)
        rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]]
        near = np.exp(-(((columns - shape[1] * 0.55) ** 2 + (rows - shape[0] * 0.45) ** 2) / (0.15 * side_px) ** 2))
        step = max(side_px // 40, 1)
        values = (2.4 * near + 0.3 * rng.random(shape))[::step, ::step].repeat(step, 0).repeat(step, 1)
        raster = np.where(tissue, values[: shape[0], : shape[1]], np.nan).astype(np.float32)
        views = {
            "thumbnail": panel,
            "attention": blend_map(panel, raster, ColourRange(0, 3, capped=False, label="", ticks=()), OverlayStyle()),
            "cam": blend_map(panel, raster - 1, ColourRange(-2, 2, capped=False, label="", ticks=()),
                             OverlayStyle(colours="RdBu_r")),
        }  # fmt: skip
        home = folder / "slides" / cohort["slide_id"].iloc[place]
        home.mkdir(parents=True, exist_ok=True)
        for name, view in views.items():
            Image.fromarray(view).save(home / f"{name}.jpg", quality=82)
