"""The page's sentences: the answer, and what must be said with it."""

from collections.abc import Sequence

from lamella.reports.record import RunRecord
from lamella.reports.results import Arm, Results, format_number

ARM_TITLES = {
    "model": "Model",
    "colour": "Colour alone",
    "tissue": "Tissue area, tile count",
    "batch": "Batch alone",
    "left out": "Model, batches left out",
}
_BASELINES = {
    "colour": "the mean and spread of colour alone reach",
    "tissue": "tissue area with tile count",
    "batch": "the batch alone",
}
_SHORT = {"colour": "colour", "tissue": "the amount of tissue", "batch": "the batch"}
_HEADS = {
    "attention": "Attention",
    "ilse": "Attention (Ilse)",
    "gated": "Gated attention",
    "mean": "Mean pooling",
    "max": "Max pooling",
}
_LEAST_PATIENTS = 10


def say_answer(record: RunRecord) -> str:
    """Return the page's first sentence: what the model can do, in a figure with its interval."""
    what = f"{name_model(record)} {_say_classes(record)}"
    auc = record.results.model.auc if record.results else None
    counts = say_counts(record)
    if auc is None:
        return f"Predictions for {counts}; there is no figure to say how good they are."
    one_round = "on the test slides of one split" if record.is_one_round else "within folds"
    where = "on slides new to it" if record.external else one_round
    kind = "an AUC" if len(record.classes) == 2 else "a mean one-against-rest AUC"
    interval = "" if auc.low is None else f" (95% interval {format_number(auc.low)} to {format_number(auc.high or 1)})"
    figure = f"{kind} of {format_number(auc.value)}{interval} {where}"
    if auc.high is not None and auc.high < 0.5:
        return f"{what}, in reverse: {figure}. {say_reversed(record.positive if len(record.classes) == 2 else None)}"
    if auc.low is not None and auc.low <= 0.5:
        return f"{what.replace(' separates ', ' is not shown to separate ')}: {figure}, and chance is 0.50; {counts}."
    return f"{what} with {figure}, on {counts}."


def say_reversed(positive: str | None) -> str:
    """Return what to look for where the whole interval of an AUC lies below chance."""
    which = f" that '{positive}' is the class meant to be positive," if positive else ""
    return (
        "The 95% interval lies wholly below 0.50, so the scores rank the slides in reverse. Check"
        f"{which} that no two labels are swapped in the table or in the predictions' columns, and that training and "
        "test slides are labelled alike."
    )


def say_baselines(results: Results) -> str:
    """Return what the baselines reach on the same folds, and whether the model is clear of them."""
    known = [(arm, arm.auc) for arm in results.baselines if arm.auc is not None]
    if not known:
        return "No baselines were measured, so what colour, tissue area or the batch alone would reach is not known."
    parts = [f"{_BASELINES.get(arm.name, arm.name)} {auc}" for arm, auc in known]
    text = f"On the same folds, {', '.join(parts)}."
    own = results.model.auc
    if own is None or own.low is None:
        return text
    near = [arm for arm, auc in known if auc.value >= own.low]
    if near:
        names = join_words([_SHORT.get(arm.name, arm.name) for arm in near])
        text += (
            f" What {names} {'reaches' if len(near) == 1 else 'reach'} lies inside the model's interval or above it, "
            "so whether the model sees more than that is not settled here."
        )
    return text


def say_validity(record: RunRecord) -> str:
    """Return what kind of validation this is, and what it does not tell."""
    if record.external and record.results is None:
        return (
            "The models are new to these slides, and without labels nothing says how good their predictions are here."
        )
    if record.external:
        return (
            "External validation: the models had not seen these slides, and the threshold was frozen beforehand. The "
            "figures hold for slides like these."
        )
    return (
        "Internal validation: each slide was predicted by models that had not seen its patient, but all come from the "
        f"same source; this is not another hospital. {_say_predictor(record)}"
    )


def _say_predictor(record: RunRecord) -> str:
    """Return what predicts new slides, and whether that very thing was measured."""
    if record.is_one_round:
        return "New slides are predicted by the models that were measured here."
    return "New slides are predicted by the mean over the folds' models, which was itself not measured."


def list_cautions(record: RunRecord) -> list[str]:
    """List what a reader of the first figure must know: few patients, failures, batches that tell."""
    cautions = []
    for label in record.classes:
        patients = {slide.patient_id for slide in record.slides if slide.label == label and slide.probabilities}
        if 0 < len(patients) < _LEAST_PATIENTS:
            cautions.append(
                f"Only {count(len(patients), 'patient')} of class {label}: fewer than {_LEAST_PATIENTS} are too few "
                "for any verdict."
            )
    batch = next((arm.auc for arm in record.results.baselines if arm.name == "batch"), None) if record.results else None
    if batch is not None and batch.low is not None and batch.low > 0.5:
        cautions.append(
            f"The batch alone predicts the label (AUC {batch}): a model may do well by knowing the batch. Read the "
            "results within each batch and with batches left out."
        )
    failed = {failure.slide_id for failure in record.failures}
    if failed:
        cautions.append(f"{count(len(failed), 'slide')} could not be done in full; the reasons are listed below.")
    return cautions


def name_model(record: RunRecord) -> str:
    """Return what was trained on what, as in 'Attention over efficientnet-lite0 tiles'."""
    train = record.settings.get("train")
    head = str(train.get("head", "attention")) if isinstance(train, dict) else "attention"
    encoder = record.settings.get("encoder")
    return f"{_HEADS.get(head, head)} over {f'{encoder} ' if encoder else ''}tiles"


def title_arm(arm: Arm) -> str:
    """Return an arm's name for a table's head."""
    return ARM_TITLES.get(arm.name, arm.name)


def say_counts(record: RunRecord) -> str:
    """Return how many slides of how many patients were predicted."""
    predicted = [slide for slide in record.slides if slide.probabilities]
    slides, patients = predicted or record.slides, {slide.patient_id for slide in predicted or record.slides}
    return f"{count(len(slides), 'slide')} of {count(len(patients), 'patient')}"


def count(n: int, noun: str) -> str:
    """Return a number with its noun.

    Example:
        >>> count(1, "slide"), count(1200, "slide")
        ('1 slide', '1,200 slides')
    """
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def join_words(words: Sequence[str]) -> str:
    """Return words as in 'a, b and c'."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _say_classes(record: RunRecord) -> str:
    others = [name for name in record.classes if name != record.positive]
    if len(record.classes) == 2:
        return f"separates {record.positive} from {others[0]}"
    return f"separates {join_words(list(record.classes))}" if record.classes else "separates the classes"
