"""What a study's page says in words: the figures behind the recommendation, cautions, and why a part is not there."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lamella.reports.scrub import drop_folders
from lamella.reports.sentences import count, say_reversed
from lamella.reports.study.record import StudyRecord
from lamella.reports.study.tables import format_interval, format_number, format_short

_PAPER_RHO = (
    " The paper's own table gives -0.49 (Gastro, p 0.19) and -0.51 (CAMELYON16, p 0.16) over nine encoders, which "
    "cannot tell either."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A figure beside the recommendation.

    Attributes:
        name: What it is.
        value: The figure.
        beside: Its interval, or what must be known of it.
    """

    name: str
    value: str
    beside: str = ""


def list_sentences(record: StudyRecord) -> list[str]:
    """Return the verdict: what to use, what is shown to be worse, what is open."""
    own = record.own
    said = [own.get(key) or "" for key in ("use", "worse", "open")]
    if not any(said):  # of version 0.1.0, or no arm ran
        said = [own.get("sentence") or "No arm ran, so nothing can be recommended: 'What was not run' says why."]
    return [text for text in said if text]


def list_facts(record: StudyRecord) -> list[Fact]:
    """List the figures behind the recommendation."""
    own, arms = record.own, {one["arm"]: one for one in record.arms}
    chosen, best = arms.get(own.get("arm") or ""), arms.get(own.get("best_arm") or "")
    facts = []
    if chosen is not None:
        interval = format_interval(chosen["interval"], digits=2)
        facts.append(Fact(name=f"AUC of {chosen['arm']}", value=format_number(chosen["auc"]), beside=interval))
        facts.append(_say_deficit(record, chosen))
    if best is not None:
        beside = format_interval(best["interval"], digits=2)
        if own.get("best_auc_corrected") is not None:
            beside += f"; {format_number(own['best_auc_corrected'])} corrected for having been the highest"
        facts.append(Fact(name=f"highest AUC, {best['arm']}", value=format_number(own["best_auc_raw"]), beside=beside))
    if chosen is not None and best is not None:
        facts.append(_say_cost(chosen, best))
    if own.get("patients_needed") is not None:
        low, high = own["patients_range"]
        facts.append(
            Fact(
                name=f"patients needed for {own.get('patients_needed_for') or 'the cheapest'}",
                value=f"{own['patients_needed']:,}",
                beside=f"90% range {low:,} to {'no upper limit' if high is None else f'{high:,}'}",
            )
        )
    if record.verdict:
        lost = record.verdict.get("n_lost") or 0
        whole = record.verdict.get("cross_validated", True)
        same = "the same for every arm" if whole else "of the test set, the same for every arm"
        facts.append(
            Fact(
                name="patients compared",
                value=str(record.verdict["n_patients"]),
                beside=f"{lost} lost by an arm and left out of all" if lost else same,
            )
        )
    return facts


def _say_deficit(record: StudyRecord, chosen: dict[str, Any]) -> Fact:
    """Return how far the recommended arm may lie below what it was held against."""
    against, bound = "every other arm", chosen["deficit_upper"]
    if record.own.get("question") == "reference" and chosen.get("margin_to_whole") is not None:
        against, bound = "the whole network", chosen["margin_to_whole"]
    return Fact(
        name=f"AUC deficit against {against}",
        value=f"below {format_number(bound)}",
        beside=f"margin {record.verdict['margin']:g}",
    )


def _say_cost(chosen: dict[str, Any], best: dict[str, Any]) -> Fact:
    beside = ""
    if chosen["arm"] != best["arm"] and chosen["cost"] > 0:
        times = best["cost"] / chosen["cost"]
        beside = f"{times:.1f} times less than the highest's" if times > 1.05 else "no less than the highest's"
    return Fact(name="seconds a slide, encoding", value=format_short(chosen["cost"]), beside=beside)


def say_validity(record: StudyRecord) -> str:
    """Return what kind of validation this is, and what it does not tell."""
    said = "This is internal validation: every patient was scored by models that had not seen them, but all come from "
    said += "the same source. It is not another hospital, and says nothing of one."
    if record.verdict.get("cross_validated", True):
        said += " The mean over the folds' models, which is what is exported, was not itself measured."
    return said


def say_patients_needed(record: StudyRecord) -> str:
    """Return what the number of patients needed means; nothing where there is none."""
    if record.own.get("patients_needed") is None:
        return ""
    return (
        f"Patients needed: with so many, {record.own.get('patients_needed_for') or 'the cheapest arm'} would be shown "
        f"to be non-inferior (margin {record.verdict['margin']:g} AUC) in 80% of studies, if it is truly as good as "
        "these patients allow; same prevalence, same models; the range holds 90% of bootstrap draws of patients."
    )


def list_cautions(record: StudyRecord) -> list[str]:
    """List what a reader of the first figure must know."""
    cautions = []
    if record.study.get("scope"):  # what the figures hold for, where that is less than patients like these
        cautions.append(drop_folders(str(record.study["scope"])))
    if record.study.get("status") != "finished":
        cautions.append(f"This study is not finished ({record.study.get('status')}): arms may be missing below.")
    cautions += [
        f"{one['arm']}: {say_reversed(record.positive if len(record.classes) == 2 else None)}"
        for one in record.arms
        if one.get("interval") and one["interval"][1] < 0.5
    ]
    few = [f"{n} of {name}" for name, n in record.study["cohort"]["per_class"].items() if n < 10]
    if few:
        cautions.append(f"Only {' and '.join(few)} patients: fewer than 10 are too few for any verdict.")
    batch = record.controls.get("baselines", {}).get("batch") or {}
    if batch.get("interval") and batch["interval"][0] > 0.5:
        cautions.append(
            f"The batch alone predicts the label (AUC {batch['value']:.3f}, {format_interval(batch['interval'])}): an "
            "arm may do well by knowing the batch (Howard 2021). Read the AUC within each batch."
        )
    shown = next((one for one in record.arms if one["arm"] == record.shown), None)
    for name, said in (
        ("colour", "Colour alone"),
        ("tissue", "The amount of tissue"),
        ("amount", "The amount of tissue"),
    ):
        value = (record.controls.get("baselines", {}).get(name) or {}).get("value")
        if shown is not None and value is not None and value >= shown["interval"][0]:
            cautions.append(
                f"{said} reaches an AUC of {value:.3f}, inside the interval of {shown['arm']} or above it: whether "
                "that arm sees more is not settled here."
            )
    later = [one["arm"] for one in record.arms if one.get("added_later")]
    if later:
        cautions.append(f"Added after results had been seen: {'; '.join(later)}.")
    if record.failures:
        failed = len({row.get("slide_id") for row in record.failures})
        cautions.append(f"{count(failed, 'slide')} could not be done in full; the reasons are listed under Cohort.")
    return cautions


def say_leak(record: StudyRecord) -> str:
    """Return the warning of a leak; nothing where the control found none."""
    found = record.controls.get("permutations")
    if not found or not found.get("leak"):
        return ""
    mean = found.get("mean_within", found["mean"])
    return (
        f"with permuted labels a mean AUC of {mean:.3f} is still reached where chance is 0.5. Something of the test "
        "slides is known in training. Do not use the figures of this page until it is found."
    )


def find_exchanged(found: Mapping[str, Any]) -> tuple[float, ...]:
    """Return the AUCs among those whose labels were exchanged, where that is not everybody."""
    within = found.get("within") or ()
    return tuple(within) if list(within) != list(found["aucs"]) else ()


def say_permutations(record: StudyRecord) -> str:
    """Return what the control with permuted labels found, or why there is none."""
    found = record.controls.get("permutations")
    if not found:
        return "Labels were not permuted, so no leak was looked for (--permutations 19 does it)."
    said = (
        f"Labels permuted among patients within fold and, where given, batch, everything retrained, "
        f"{len(found['aucs'])} times, one seed, {found['arm']}: mean AUC {found['mean']:.3f}"
    )
    if found.get("sd") is not None:
        said += f", SD {found['sd']:.3f}"
    if found.get("mean_within") is not None and find_exchanged(found):
        said += (
            f"; among those whose labels were exchanged {found['mean_within']:.3f} (a batch of mostly one class keeps "
            "its labels, so the first may lie above 1/2 without a leak)"
        )
    own = f" of its own AUC, {found['auc']:.3f}" if found.get("auc") is not None else ""
    said = f"{said}; p{own}: {found['p']:.3f}. "
    if found.get("leak"):
        return said
    if found.get("smallest_leak") is None:
        return f"{said}No leak is seen."
    return f"{said}No leak is seen; one of less than {found['smallest_leak']:.3f} AUC could not have been."


def say_imagenet(record: StudyRecord) -> str:
    """Return how AUC goes with ImageNet accuracy over the encoders, or why that cannot be said."""
    found = record.verdict.get("imagenet")
    if not found:
        return (
            "Whether AUC follows ImageNet accuracy cannot be looked at here: it needs at least four whole, frozen "
            "encoders whose accuracy is known."
        )
    said = f"Rank correlation with the encoders' ImageNet accuracy: {found['rho']:+.2f}"
    if found.get("interval"):
        said += f" ({found['interval'][0]:+.2f} to {found['interval'][1]:+.2f})"
    said += f", p {found['p']:.3f}. {found['caption']}"
    return said + (_PAPER_RHO if record.study.get("preset") == "paper" else "")


def say_cka(record: StudyRecord) -> str:
    """Return what CKA compared, or why there is nothing to show."""
    pairs = record.cka.get("pairs", [])
    notes = list(dict.fromkeys(drop_folders(str(pair["note"])) for pair in pairs if "note" in pair))
    if not any("cka" in pair for pair in pairs):
        if notes:
            return "No fine-tuned encoder could be compared with its frozen one: " + " ".join(notes)
        tuned = [row for row in record.study["arms"] if row["finetuned"] == "tuned"]
        if not tuned:
            return "No arm of this design is fine-tuned, so no encoder moved and there is no CKA to show."
        if not any(row["state"] == "done" for row in tuned):
            return "No fine-tuned arm ran, so there is no CKA to show; 'What was not run' says why."
        return "CKA was not computed: the design does not ask for it (cka: true)."
    said = "Which blocks of the encoder moved in fine-tuning: linear CKA, debiased, over the slides that each fold "
    said += "tested."
    return said + (f" Left out: {' '.join(notes)}" if notes else "")


def say_no_localisation(record: StudyRecord) -> str:
    """Return why there is no localisation; nothing where there is."""
    if record.localisation.get("arms") or record.localisation.get("rows"):
        return ""
    if record.localisation.get("reason"):
        return drop_folders(str(record.localisation["reason"]))
    return "No outlines of lesions were given (--lesions DIR), so where the maps light up was not measured."


def list_localisation_notes(record: StudyRecord) -> list[str]:
    """List what localisation left out."""
    notes = [str(note) for arm in record.localisation.get("arms", []) for note in arm.get("notes", [])]
    return list(dict.fromkeys(drop_folders(note) for note in notes))


def say_no_slides(record: StudyRecord) -> str:
    """Return why no slide is shown."""
    if record.shown is None:
        return "No arm ran, so no slide was predicted or drawn."
    return "No slide was drawn: the study's folder holds no pictures that can be read."
