"""The first section in words: the answer, the figures behind it, and what a reader of the first figure must know."""

from lamella.analysis.figure import NO_FIGURE
from lamella.analysis.verdict import ArmVerdict
from lamella.defaults import HEAD
from lamella.reports.page.parts import Fact
from lamella.reports.record import Record
from lamella.reports.scrub import drop_folders
from lamella.reports.words import (
    HEADS,
    count,
    format_estimate,
    format_interval,
    format_number,
    format_short,
    join_words,
    say_reversed,
)

_ALONE = {
    "colour": "the mean and spread of colour alone reach",
    "tissue": "tissue area with tile count",
    "amount": "tissue area with tile count",
    "batch": "the batch alone",
}
_SHORT = {
    "colour": "colour",
    "tissue": "the amount of tissue",
    "amount": "the amount of tissue",
    "batch": "the batch",
}
_NEAR = {"colour": "Colour alone", "tissue": "The amount of tissue", "amount": "The amount of tissue"}
_LEAST_PATIENTS = 10


def list_answers(record: Record) -> list[str]:
    """Return what a folder has to say first: of a study what to use, what is worse, what is open; of a run its AUC."""
    if record.study is None:
        return [drop_folders(_say_run(record)), drop_folders(_say_baselines(record))]
    conclusion = record.conclusion
    said = [text for text in (conclusion.use, conclusion.worse, conclusion.open) if text]
    if said:
        return said
    # Of version 0.1.0, or no arm ran.
    return [conclusion.sentence or "No arm ran, so nothing can be recommended: 'What was not run' says why."]


def name_model(record: Record) -> str:
    """Return what was trained on what, as in 'Attention over efficientnet-lite0 tiles'."""
    settings = None if record.run is None else record.run.settings
    head = HEAD if settings is None else str(settings.train.get("head", HEAD))
    encoder = "" if settings is None or settings.encoder is None else f"{settings.encoder} "
    return f"{HEADS.get(head, head)} over {encoder}tiles"


def say_counts(record: Record) -> str:
    """Return how many slides of how many patients were predicted."""
    slides = [slide for slide in record.slides if slide.shares] or record.slides
    said = f"{count(len(slides), 'slide')} of {count(len({slide.patient_id for slide in slides}), 'patient')}"
    return said if record.unit == "slide" else f"{said}, a patient's slides being one bag"


def _say_run(record: Record) -> str:
    """Return what the model of a run can do, in a figure with its interval."""
    metrics = record.shown_metrics
    auc = NO_FIGURE if metrics is None else metrics.auc
    counts = say_counts(record)
    if auc.value is None:
        return f"Predictions for {counts}; there is no figure to say how good they are."
    where = "within folds" if not record.is_one_round else "on the test slides of one split"
    where = "on slides new to it" if record.is_external else where
    kind = "an AUC" if len(record.classes) == 2 else "a mean one-against-rest AUC"
    interval = "" if auc.interval is None else f" (95% CI {format_interval(auc.interval)})"
    figure = f"{kind} of {format_number(auc.value)}{interval} {where}"
    model, classes = name_model(record), _name_classes(record)
    if auc.interval is not None and auc.interval[1] < 0.5:
        reverse = say_reversed(record.positive if len(record.classes) == 2 else None)
        return f"{model} separates {classes}, in reverse: {figure}. {reverse}"
    if auc.interval is not None and auc.interval[0] <= 0.5:
        return f"{model} does not separate {classes} better than chance (AUC 0.50): {figure}; {counts}."
    return f"{model} separates {classes} with {figure}, on {counts}."


def _name_classes(record: Record) -> str:
    others = [name for name in record.classes if name != record.positive]
    return f"{record.positive} from {others[0]}" if len(others) == 1 else join_words(record.classes)


def _say_baselines(record: Record) -> str:
    """Return what the baselines reach on the same folds, and whether the model is clear of them."""
    known = {name: figure for name, figure in record.controls.baselines.items() if figure.value is not None}
    if not known:
        return "No baselines were measured, so what colour, tissue area or the batch alone would reach is not known."
    parts = [
        f"{_ALONE.get(name, name)} {format_estimate(figure.value, figure.interval)}" for name, figure in known.items()
    ]
    said = f"On the same folds, {', '.join(parts)}."
    metrics = record.shown_metrics
    interval = None if metrics is None else metrics.auc.interval
    if interval is None:
        return said
    near = [name for name, figure in known.items() if figure.value is not None and figure.value >= interval[0]]
    if near:
        names = join_words([_SHORT.get(name, name) for name in near])
        verb = "reaches" if len(near) == 1 else "reach"
        said += (
            f" What {names} {verb} lies inside the model's interval or above it, so whether the model sees more than "
            "that is not settled here."
        )
    return said


def list_facts(record: Record) -> list[Fact]:
    """List the figures behind the answer."""
    return _list_run_facts(record) if record.study is None else _list_study_facts(record)


def _list_run_facts(record: Record) -> list[Fact]:
    metrics = record.shown_metrics
    measures = None if metrics is None else metrics.headline_units
    if measures is None:
        return []
    figures = {"AUC": measures.auc, "Sensitivity": measures.sensitivity, "Specificity": measures.specificity}
    if measures.sensitivity.value is None:
        figures = {"AUC": measures.auc, "Balanced accuracy": measures.balanced_accuracy}
    return [
        Fact(
            name=name,
            value=format_number(figure.value),
            beside=format_interval(figure.interval) if figure.interval is not None else "",
        )
        for name, figure in figures.items()
        if figure.value is not None
    ]


def _list_study_facts(record: Record) -> list[Fact]:
    conclusion, verdict = record.conclusion, record.verdict
    if verdict is None:
        return []
    arms = {arm.arm: arm for arm in record.arms}
    chosen, best = arms.get(conclusion.arm or ""), arms.get(conclusion.best_arm or "")
    facts = []
    if chosen is not None:
        interval = format_interval(chosen.interval)
        facts.append(Fact(name=f"AUC of {chosen.arm}", value=format_number(chosen.auc), beside=interval))
        facts.append(_say_deficit(record, chosen))
    if best is not None:
        beside: str = format_interval(best.interval)
        if conclusion.best_auc_corrected is not None:
            beside += f"; {format_number(conclusion.best_auc_corrected)} corrected for having been the highest"
        value = format_number(conclusion.best_auc_raw)
        facts.append(Fact(name=f"highest AUC, {best.arm}", value=value, beside=beside))
    if chosen is not None and best is not None and chosen.cost is not None:
        facts.append(_say_cost(record, chosen, best))
    if conclusion.patients_needed is not None and conclusion.patients_range is not None:
        low, high = conclusion.patients_range
        facts.append(
            Fact(
                name=f"patients needed for {conclusion.patients_needed_for or 'the cheapest'}",
                value=f"{conclusion.patients_needed:,}",
                beside=f"90% range {low:,} to {'no upper limit' if high is None else f'{high:,}'}",
            )
        )
    lost = verdict.n_lost or 0
    same = "the same for every arm" if verdict.cross_validated else "of the test set, the same for every arm"
    facts.append(
        Fact(
            name="patients compared",
            value=str(verdict.n_patients),
            beside=f"{lost} lost by an arm and left out of all" if lost else same,
        )
    )
    return facts


def _say_deficit(record: Record, chosen: ArmVerdict) -> Fact:
    """Return how far the recommended arm may lie below what it was held against."""
    against, bound = "every other arm", chosen.deficit_upper
    if record.conclusion.question == "reference" and chosen.margin_to_whole is not None:
        against, bound = "the whole network", chosen.margin_to_whole
    margin = 0.0 if record.verdict is None else record.verdict.margin
    return Fact(
        name=f"AUC deficit against {against}", value=f"below {format_number(bound)}", beside=f"margin {margin:g}"
    )


def _say_cost(record: Record, chosen: ArmVerdict, best: ArmVerdict) -> Fact:
    beside = ""
    if chosen.arm != best.arm and chosen.cost and best.cost is not None:
        times = best.cost / chosen.cost
        beside = f"{times:.1f} times less than the highest's" if times > 1.05 else "no less than the highest's"
    return Fact(name=record.cost_unit or "seconds a slide, encoding", value=format_short(chosen.cost), beside=beside)


def say_patients_needed(record: Record) -> str:
    """Return what the number of patients needed means; nothing where there is none."""
    conclusion = record.conclusion
    if conclusion.patients_needed is None or record.verdict is None:
        return ""
    return (
        f"Patients needed: with so many, {conclusion.patients_needed_for or 'the cheapest arm'} would be shown to be "
        f"non-inferior (margin {record.verdict.margin:g} AUC) in 80% of studies, if it is truly as good as these "
        "patients allow; same prevalence, same models; the range holds 90% of bootstrap draws of patients."
    )


def say_validity(record: Record) -> str:
    """Return what kind of validation this is, and what it does not tell."""
    if record.is_external and record.shown_metrics is None:
        return "The models are new to these slides; without labels nothing says how good their predictions are here."
    if record.is_external:
        return (
            "External validation: the models had not seen these slides, and the threshold was frozen beforehand. The "
            "figures hold for slides like these."
        )
    if record.study is not None and record.study.given is not None:
        return (
            "The predictions were made elsewhere. The figures hold if no model had learned from the patients that it "
            "scores here; Lamella cannot see whether that is so."
        )
    said = (
        "Internal validation: every patient was scored by models that had not seen them, but all come from the same "
        "source. It is not another hospital: generalisation to other hospitals was not tested."
    )
    if record.is_one_round:
        return f"{said} New slides are predicted by the models that were measured here."
    return (
        f"{said} The mean over the folds' models, which predicts new slides and is exported, was not itself measured."
    )


def list_cautions(record: Record) -> list[str]:
    """List what a reader of the first figure must know."""
    cautions = []
    study = record.study
    if study is not None and study.scope:  # what the figures hold for, where that is less than patients like these
        cautions.append(drop_folders(study.scope))
    if study is not None and study.status != "finished":
        cautions.append(f"This study is not finished ({study.status}): arms may be missing below.")
    cautions += [
        f"{arm.arm}: {say_reversed(record.positive if len(record.classes) == 2 else None)}"
        for arm in record.arms
        if arm.interval[1] < 0.5
    ]
    cautions += [*_say_few(record), *_say_batch(record)]
    if study is not None:
        cautions += _say_near(record)
    later = [arm.arm for arm in record.arms if arm.added_later]
    if later:
        cautions.append(f"Added after results had been seen: {'; '.join(later)}.")
    if record.failures:
        failed = len({failure.slide_id for failure in record.failures})
        cautions.append(f"{count(failed, 'slide')} could not be done in full; the reasons are listed under Cohort.")
    return cautions


def _say_few(record: Record) -> list[str]:
    """Return that a class has too few patients."""
    if record.study is not None:
        per_class = record.study.cohort.per_class
    else:
        predicted = [slide for slide in record.slides if slide.shares]
        per_class = {
            label: len({slide.patient_id for slide in predicted if slide.label == label}) for label in record.classes
        }
    few = [f"{n} of {name}" for name, n in per_class.items() if (n or record.study) and n < _LEAST_PATIENTS]
    return [f"Only {join_words(few)} patients: fewer than 10 are too few for any verdict."] if few else []


def _say_batch(record: Record) -> list[str]:
    """Return that the batch alone predicts the label."""
    batch = record.controls.baselines.get("batch")
    if batch is None or batch.interval is None or batch.value is None or batch.interval[0] <= 0.5:
        return []
    return [
        f"The batch alone predicts the label (AUC {format_number(batch.value)}, 95% CI "
        f"{format_interval(batch.interval)}): an arm may do well by knowing the batch (Howard 2021). Read the AUC "
        "within each batch."
    ]


def _say_near(record: Record) -> list[str]:
    """Return which baselines come near the shown arm."""
    shown = next((arm for arm in record.arms if arm.arm == record.shown), None)
    if shown is None:
        return []
    return [
        f"{_NEAR[name]} reaches an AUC of {format_number(figure.value)}, inside the "
        f"interval of {shown.arm} or above it: whether that arm sees more is not settled here."
        for name, figure in record.controls.baselines.items()
        if name in _NEAR and figure.value is not None and figure.value >= shown.interval[0]
    ]
