"""What the later sections say in words: controls, correlations, and why a part is not there."""

from lamella.reports.record import Record
from lamella.reports.scrub import drop_folders
from lamella.reports.words import format_number

_PAPER_RHO = (
    " The paper's own table gives -0.49 (Gastro, p 0.19) and -0.51 (CAMELYON16, p 0.16) over nine encoders, which "
    "cannot tell either."
)


def say_leak(record: Record) -> str:
    """Return the warning of a leak; nothing where the control found none."""
    control = record.controls.permutations
    if control is None or not control.leak:
        return ""
    mean = control.mean if control.mean_within is None else control.mean_within
    return (
        f"with permuted labels a mean AUC of {format_number(mean)} is still reached where chance is 0.5. Something of "
        "the test slides is known in training. Do not use the figures of this page until it is found."
    )


def say_permutations(record: Record) -> str:
    """Return what the control with permuted labels found, or why there is none."""
    control = record.controls.permutations
    if control is None:
        return "Labels were not permuted, so no leak was looked for (lamella study --permutations 19 does it)."
    said = (
        f"Labels permuted among patients within fold and, where given, batch, everything retrained, "
        f"{len(control.aucs)} times, one seed, {control.arm}: mean AUC {format_number(control.mean)}"
    )
    if control.sd is not None:
        said += f", SD {format_number(control.sd)}"
    if control.mean_within is not None and control.exchanged:
        said += (
            f"; among those whose labels were exchanged {format_number(control.mean_within)} (a batch of mostly one "
            "class keeps its labels, so the first may lie above 1/2 without a leak)"
        )
    own = f" of its own AUC, {format_number(control.auc)}" if control.auc is not None else ""
    said = f"{said}; p{own}: {format_number(control.p)}. "
    if control.leak:
        return said
    if control.smallest_leak is None:
        return f"{said}No leak is seen."
    return f"{said}No leak is seen; one of less than {format_number(control.smallest_leak)} AUC could not have been."


def say_imagenet(record: Record) -> str:
    """Return how AUC goes with ImageNet accuracy over the encoders, or why that cannot be said."""
    correlation = None if record.verdict is None else record.verdict.imagenet
    if correlation is None:
        return (
            "Whether AUC follows ImageNet accuracy cannot be looked at here: it needs at least four whole, frozen "
            "encoders whose accuracy is known."
        )
    said = f"Rank correlation with the encoders' ImageNet accuracy: {correlation.rho:+.2f}"
    if correlation.interval is not None:
        said += f" ({correlation.interval[0]:+.2f} to {correlation.interval[1]:+.2f})"
    said += f", p {correlation.p:.3f}. {correlation.caption}"
    return said + (_PAPER_RHO if record.study is not None and record.study.preset == "paper" else "")


def say_cka(record: Record) -> str:
    """Return what CKA compared, or why there is nothing to show."""
    notes = list(dict.fromkeys(drop_folders(pair.note) for pair in record.cka if pair.note))
    if any(pair.cka for pair in record.cka):
        said = (
            "Which blocks of the encoder moved in fine-tuning: linear CKA, debiased, over the slides that each fold "
            "tested."
        )
        return said + (f" Left out: {' '.join(notes)}" if notes else "")
    if notes:
        return "No fine-tuned encoder could be compared with its frozen one: " + " ".join(notes)
    if record.study is None:
        if record.stage_two:
            return "CKA was not computed: this folder holds no cka.json."
        return "This run fine-tunes no encoder (lamella run --finetune does), so none moved: there is no CKA to show."
    tuned = [arm for arm in record.described.values() if arm.finetuned == "tuned"]
    if not tuned:
        return "No arm of this design is fine-tuned, so no encoder moved and there is no CKA to show."
    if not any(arm.state == "done" for arm in tuned):
        return "No fine-tuned arm ran, so there is no CKA to show; 'What was not run' says why."
    return "CKA was not computed: the design does not ask for it (cka: true)."


def say_no_localisation(record: Record) -> str:
    """Return why there is no localisation; nothing where there is."""
    if record.localisation:
        return ""
    if record.no_localisation:
        return drop_folders(record.no_localisation)
    verb = "lamella localise DIR --lesions DIR" if record.study is None else "--lesions DIR"
    return f"No outlines of lesions were given ({verb}), so where the maps light up was not measured."


def list_localisation_notes(record: Record) -> list[str]:
    """List what localisation left out."""
    return list(dict.fromkeys(drop_folders(note) for arm in record.localisation for note in arm.notes))
