"""Predicting new slides from bags that are there, of any tool: external validation without slides and encoder."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from lamella.cohort import Cohort, CohortSlide
from lamella.encoders.tuned import list_hashes
from lamella.errors import ModelError
from lamella.features.encoder_choice import split_address
from lamella.features.failures import Failure
from lamella.features.finding import find_bags
from lamella.mil import SlidePrediction
from lamella.progress import Progress, SilentProgress
from lamella.runs.bags import RunBags, load_good_bags
from lamella.runs.facts import BagFacts
from lamella.runs.leaks import refuse_seen_by_encoder
from lamella.runs.predict import FinishedRun
from lamella.runs.predicting import begin_prediction, finish_prediction, is_labelled, predict_slide
from lamella.runs.predictor import Predictor, refuse_seen
from lamella.runs.units import gather_units
from lamella.words import name_some

_SAME = 0.005  # um per pixel may have been rounded
_NOMINAL = 0.2  # a magnification is one of a scanner's type, not of the scanner


def list_bag_slides(features: Path) -> Cohort:
    """Return the slides of a folder of bags, each its own patient, without labels.

    Raises:
        BagError: If it is no folder, or holds no bag.
    """
    folder = split_address(features)[0].absolute()
    names = [slide_id for slide_id, _ in find_bags(features)]
    slides = tuple(CohortSlide(slide_id=name, path=folder / name, patient_id=name) for name in names)
    return Cohort(slides=slides, classes=(), positive=None, notes=(), patients_given=False)


def predict_bag_cohort(
    source: FinishedRun | Predictor,
    cohort: Cohort,
    features: Path,
    out: Path,
    *,
    prevalence: float | None = None,
    progress: Progress | None = None,
) -> tuple[list[SlidePrediction], tuple[Failure, ...]]:
    """Predict new slides from their bags; with labels, measure at the frozen threshold (external validation).

    Args:
        source: Of `open_run`, `open_export` or `open_predictor`; made from slides or from bags.
        cohort: New slides, labelled or not; their files need not be there.
        features: Folder of the bags; `FOLDER#ENCODER` where files hold those of several encoders.
        out: Where to write predictions, attention and, with labels, `metrics.json`.
        prevalence: With labels: where predictive values and net benefit are wanted besides.
        progress: Where to report to.

    Returns:
        One prediction a slide, and the slides without a bag that can be read.

    Raises:
        LeakageError: If labels are given and the models have learned from one of these slides or patients.
        ModelError: If the bags are of another encoder, width or scale than those that the models learned from.
        BagError: If no slide has a bag.
    """
    progress = progress or SilentProgress()
    predictor = source.predictor() if isinstance(source, FinishedRun) else source
    encoders = tuple(dict.fromkeys(member.encoder for member in predictor.members))
    if len(encoders) > 1:
        raise ModelError(
            f"'{predictor.folder}' has {len(encoders)} fine-tuned encoders, and --features names bags of one. Give its "
            "slides instead."
        )
    folder = begin_prediction(predictor, cohort, out, prevalence=prevalence, progress=progress)
    bags, bad = load_good_bags(features, [slide.slide_id for slide in cohort.slides])
    done = [slide for slide in cohort.slides if slide.slide_id not in bad]
    notes = [f"predicted from bags that were there ({', '.join(_list_tools(bags))})"]
    notes += compare_bags(predictor, bags)
    if is_labelled(cohort):
        refuse_seen_by_encoder([slide.slide_id for slide in done], bags.facts, cohort)
        notes += _say_same_ids(predictor, done)
    images = {slide_id: facts.image for slide_id, facts in bags.facts.items() if facts.image}
    refuse_seen(predictor, cohort, labelled=is_labelled(cohort), progress=progress, images=images)
    if predictor.settings.tiles_per_slide is not None:
        bags = bags.keep_tiles(predictor.settings.tiles_per_slide)[0]  # as those that the models learned from
    units = gather_units(dataclasses.replace(cohort, slides=tuple(done)), bags, predictor.settings.unit)
    notes += units.notes
    predictions = []
    with progress.stage("predict", len(units.cohort.slides), f"{predictor.settings.unit}s") as stage:
        for row in units.cohort.slides:
            predictions.append(predict_slide(predictor, row, {encoders[0]: units}, folder))
            stage.advance()
    unlocated = [slide.slide_id for slide in done if bags.facts[slide.slide_id].tile_l0 is None]
    if unlocated:
        notes.append(
            f"no attention for {len(unlocated)} of {len(done)} slides ({name_some(unlocated, 3)}): their bags do not "
            "state where tiles lie in level-0 pixels and how large they are"
        )
    for note in notes[1:]:
        progress.say(note)
    finish_prediction(predictor, predictions, folder, prevalence=prevalence, notes=notes, progress=progress)
    return predictions, tuple(Failure(slide_id, "bags", reason) for slide_id, reason in bad.items())


def compare_bags(predictor: Predictor, bags: RunBags) -> list[str]:
    """Refuse bags that are known not to be such as the models learned from; return what could not be compared.

    Raises:
        ModelError: Naming the slide, what differs, and both values.
    """
    unknown: dict[str, list[str]] = {}
    for slide_id, facts in bags.facts.items():
        try:
            for what in _compare(predictor, facts, bags.width):
                unknown.setdefault(what, []).append(slide_id)
        except ModelError as error:
            raise ModelError(
                f"the bag of slide '{slide_id}' cannot be predicted by this {predictor.called}: {error}"
            ) from error
    if not unknown:
        return []
    n_all = len(bags.facts)
    said = [what if len(ids) == n_all else f"{what} ({len(ids)} of {n_all} bags)" for what, ids in unknown.items()]
    return [f"not compared, since the bags or those of training do not state it: {', '.join(said)}"]


def _compare(predictor: Predictor, facts: BagFacts, width: int) -> list[str]:
    """List what of a bag cannot be held against the models' own."""
    settings, model = predictor.settings, predictor.members[0].model
    tools = () if settings.bags is None else settings.bags.tools
    unknown = []
    if width != model.embedding_dim:
        raise ModelError(
            f"the models read embeddings of {model.embedding_dim} features and it has {width}. Extract it with "
            f"{settings.encoder or 'the encoder of training'}."
        )
    known = model.provenance
    fingerprint = known.get("fingerprint")
    if None in (fingerprint, facts.fingerprint):
        if None not in (settings.encoder, facts.encoder) and _simplify(settings.encoder) != _simplify(facts.encoder):
            raise ModelError(
                f"the models learned from bags of encoder '{settings.encoder}'{_say_tools(tools)} and it is of "
                f"'{facts.encoder}'{_say_tools((facts.tool,) if facts.tool else ())}. Extract it with the encoder of "
                "training."
            )
        unknown += ["the encoder"] if None in (settings.encoder, facts.encoder) else []
        unknown.append("the revision of its weights")
    elif facts.fingerprint not in (fingerprint, known.get("trained_fingerprint")):
        raise ModelError(
            f"the models learned from bags of encoder '{settings.encoder}' (fingerprint {str(fingerprint)[:12]}) and "
            f"it is of '{facts.encoder}' (fingerprint {str(facts.fingerprint)[:12]}). Extract it with the encoder and "
            "weights of training."
        )
    return [*unknown, *_compare_scale(predictor, facts)]


def _compare_scale(predictor: Predictor, facts: BagFacts) -> list[str]:
    """List what of a bag's tiles cannot be held against those of training."""
    settings, unknown = predictor.settings, []
    if None in (settings.tile_px, facts.tile_px):
        unknown.append("the size of tiles")
    elif settings.tile_px != facts.tile_px:
        raise ModelError(
            f"the models learned from tiles of {settings.tile_px} px and it has {facts.tile_px} px. Extract it with "
            f"tiles of {settings.tile_px} px."
        )
    wanted_x = None if settings.bags is None else settings.bags.magnification
    pairs = [
        (settings.mpp, facts.mpp, _SAME, "um/px"),
        (wanted_x, facts.tile_magnification, _SAME, "x"),
        (settings.mpp, _to_mpp(facts.tile_magnification), _NOMINAL, "um/px"),
        (_to_mpp(wanted_x), facts.mpp, _NOMINAL, "um/px"),
    ]
    for wanted, given, tolerance, unit in pairs:
        if wanted is None or given is None:
            continue
        if abs(given - wanted) > tolerance * wanted:
            raise ModelError(
                f"the models learned from tiles at {wanted:g} {unit} and its tiles are at {given:g} {unit}. Extract it "
                f"at {wanted:g} {unit}."
            )
        return unknown
    return [*unknown, "um per pixel of tiles"]


def _to_mpp(magnification: float | None) -> float | None:
    return None if not magnification else 10 / magnification


def _simplify(name: str | None) -> str:
    """Return an encoder's name as tools agree on it: without its owner, its case and what joins its words.

    Example:
        >>> _simplify("hf-hub:MahmoodLab/UNI2-h"), _simplify("uni2_h")
        ('uni2h', 'uni2h')
    """
    return re.sub(r"[^a-z0-9@]", "", (name or "").rpartition("/")[2].rpartition(":")[2].lower())


def _say_tools(tools: Sequence[str]) -> str:
    return f" ({', '.join(tools)})" if tools else ""


def _list_tools(bags: RunBags) -> list[str]:
    return sorted({facts.tool or "lamella" for facts in bags.facts.values()})


def _say_same_ids(predictor: Predictor, slides: Sequence[CohortSlide]) -> list[str]:
    """Say which slides bear ids that models learned from: neither patient nor content has told that they are the same.

    Other hospitals count from 1 too, so an id alone refuses nothing.
    """
    learned = {i for member in predictor.members for i in (*member.model.training.train, *member.model.training.val)}
    salt = predictor.seen.salt
    same = [
        slide.slide_id
        for slide in slides
        if not learned.isdisjoint(list_hashes(slide.slide_id, salt) if salt else [slide.slide_id])
    ]
    if not same:
        return []
    return [
        f"{len(same)} slides bear ids that the models learned from ({name_some(same, 3)}), of other patients and with "
        "other features: make sure that they are other slides"
    ]
