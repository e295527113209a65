"""The card of an exported model for people: what it is, what it was trained on, how good it is, where it ends."""

from lamella.exports.card import ExportCard, TrainedOn
from lamella.runs.record import SettingsRecord

_NAMES = {
    "auc": "AUC within folds",
    "auc_pooled": "AUC pooled",
    "balanced_accuracy": "balanced accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "positive predictive value",
    "npv": "negative predictive value",
    "average_precision": "average precision",
    "brier": "Brier score",
    "log_loss": "log-loss",
}


def list_limits(card: ExportCard) -> tuple[str, ...]:
    """Return what a user of a model must know, a sentence each."""
    trained, threshold = card.trained_on, card.threshold
    licences = sorted({encoder.licence for encoder in card.encoders.values()})
    weights = {encoder.weights for encoder in card.encoders.values()}
    limits = ["For research. It is not a medical device, and no prediction of it is fit to decide about a patient."]
    limits.append(
        "The figures are of predictions by single folds' models of patients they had not seen. What predicts new "
        "slides, the mean of all models, was measured by nobody: measure it on labelled slides of your own "
        "(lamella predict MODEL COHORT)."
        if card.figures.cross_validated
        else "The figures are of one test set of the same cohort. Measure it on labelled slides of your own "
        "(lamella predict MODEL COHORT)."
    )
    few = [name for name, n in trained.n_slides_by_class.items() if n < 30]
    if few:
        limits.append(f"Few slides of class {', '.join(few)}: " + _count_classes(trained) + ".")
    if threshold is None and len(card.classes) == 2:
        limits.append("No threshold was frozen for it: only probabilities are given, and no class is decided.")
    if threshold is not None:
        limits.append(
            f"Probabilities hold at the prevalence of training, {threshold.prevalence:.0%} "
            f"{card.positive}; where it is another, they are off."
        )
    if "random" in weights:
        limits.append("The encoder's weights are random: it is a control, not a result.")
    if trained.in_regions:
        limits.append("It was trained on tiles inside drawn regions; new slides are cut over all their tissue.")
    if trained.slide_mpp is None:
        limits.append(
            "Slides are flagged where their mean embedding is unlike those of training, which is no proof that the "
            "others fit."
        )
    else:
        limits.append(
            f"Slides of training were scanned at {_span(*trained.slide_mpp)} um/px, in "
            f"{', '.join(trained.formats)}; slides of another scanner or stain are flagged where they look "
            "unlike, which is no proof that the others fit."
        )
    if card.pseudonyms:
        limits.append(
            "Ids of patients did not come along: slides of training are known again by their files, not by patient."
        )
    if card.settings.bags is None:
        limits.append(f"Licence of the encoder's weights: {', '.join(licences)}. Whoever passes this on must keep it.")
    else:
        limits.append(
            "No encoder came along: it reads features, and only those of the encoder, weights and tiles that it was "
            f"trained on. What its bags did not state ({', '.join(card.settings.unknown) or 'nothing'}) cannot be "
            "compared. The licence of that encoder's weights is not known here."
        )
    return tuple(limits)


def write_readme(card: ExportCard) -> str:
    """Return the card as Markdown."""
    trained = card.trained_on
    scanned = ""
    if trained.slide_mpp is not None:
        formats = ", ".join(f"{name} ({n})" for name, n in trained.formats.items())
        scanned = f"; scanned at {_span(*trained.slide_mpp)} um/px, in {formats}"
    pair = len(card.classes) == 2
    what = f"Tells {' from '.join(card.classes)}" if pair else f"Tells apart {', '.join(card.classes)}"
    parts = [
        f"# {card.arm}",
        f"{what} on whole slides. Made by lamella {card.lamella_version} on {card.made}.",
        _say_commands(card),
        "## How it predicts",
        _say_method(card),
        "A patient's slides are one bag: name each slide's patient_id in a table, and patients are predicted."
        if card.settings.unit == "patient"
        else "",
        _say_threshold(card),
        "## Trained on",
        f"{trained.n_slides} slides of {trained.n_patients} patients ({_count_classes(trained)}), "
        f"{trained.n_tiles:,} tiles{scanned}.",
        "## Figures",
        _tabulate(card),
        *(f"- {note}" for note in card.notes),
        "## Limits",
        "\n".join(f"- {limit}" for limit in card.limits),
        "## Files",
        "`model.json` holds all of this for programs, with the SHA-256 of every file; `lamella predict` refuses the "
        "folder where one differs.",
    ]
    if card.onnx is not None:
        parts.append(f"For other programs, as ONNX: {card.onnx.said}")
    return "\n\n".join(part for part in parts if part) + "\n"


def _say_commands(card: ExportCard) -> str:
    """Return how it is used, and what that needs."""
    bags = card.settings.bags is not None
    what, table = ("--features DIR", "--features DIR --cohort cohort.csv") if bags else ("SLIDE...", "cohort.csv")
    lines = [
        (f"lamella predict MODEL {what} --out predicted", "probabilities, their spread, heatmaps, flags"),
        (f"lamella predict MODEL {table} --out validated", "with labels: measured at the frozen threshold"),
    ]
    longest = max(len(command) for command, _ in lines)
    shown = "\n".join(f"{command:<{longest}}  # {said}" for command, said in lines)
    needs = "lamella[torch]" if bags else "lamella[torch,openvino]"
    return f"```sh\n{shown}\n```\n\nIt needs `pip install '{needs}'` and nothing else: no study, no cohort, no network."


def _say_method(card: ExportCard) -> str:
    """Return how slides, or bags, become predictions."""
    cut, n_folds = card.settings, len({member.fold for member in card.members})
    heads = f"{len(card.members)} heads ({n_folds} folds) make each a logit a class, whose mean is the prediction."
    if cut.bags is not None:
        known = [
            f"encoder {cut.encoder}" if cut.encoder else "",
            f"tiles of {cut.tile_px} px" if cut.tile_px else "",
            f"{cut.mpp:g} um/px" if cut.mpp else "",
            f"{cut.bags.magnification:g}x" if cut.bags.magnification else "",
            f"written by {', '.join(cut.bags.tools)}",
        ]
        return (
            f"It reads bags: embeddings of {cut.bags.width} numbers a tile ({'; '.join(filter(None, known))}). Bags of "
            f"another encoder, revision, width or scale are refused where that is known. {heads}"
        )
    encoder = next(iter(card.encoders.values()))
    return (
        f"Tiles of {cut.tile_px} px at {cut.mpp:g} um/px, every {cut.stride_px} px, with more than "
        f"{cut.min_tissue:.0%} tissue{_say_most(cut)}, become embeddings of {encoder.width} numbers by {encoder.name} "
        f"({encoder.source}); {heads}"
    )


def _say_most(cut: SettingsRecord) -> str:
    """Return how many tiles of a slide are read, where not all are."""
    return "" if cut.tiles_per_slide is None else f", at most {cut.tiles_per_slide} a slide"


def _say_threshold(card: ExportCard) -> str:
    threshold = card.threshold
    if threshold is None:
        return ""
    return (
        f"A {card.settings.unit} counts as {card.positive} from a probability of {threshold.value:.3f} on "
        f"({threshold.rule}, found on validation slides)."
    )


def _tabulate(card: ExportCard) -> str:
    figures = card.figures
    rows = ["| figure | value | 95% interval |", "|---|---|---|"]
    for key, name in _NAMES.items():
        figure = getattr(figures, key)
        if figure is None or figure.value is None:
            continue
        span = "" if figure.interval is None else f"{figure.interval[0]:.3f} to {figure.interval[1]:.3f}"
        rows.append(f"| {name} | {figure.value:.3f} | {span} |")
    if len(rows) == 2:
        return "None are known."
    n = figures.n_patients
    said = "" if n is None else f"\n\nBy {figures.unit}, {n} patients of the cohort it was made from."
    return "\n".join(rows) + said


def _count_classes(trained: TrainedOn) -> str:
    return ", ".join(f"{n} {name}" for name, n in trained.n_slides_by_class.items())


def _span(low: float, high: float) -> str:
    return f"{low:.3g}" if f"{low:.3g}" == f"{high:.3g}" else f"{low:.3g} to {high:.3g}"
