"""What predicts new slides: the models of a finished run or of an export, each beside its encoder."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lamella.analysis.thresholds import Threshold
from lamella.cohort import Cohort
from lamella.cohort.spelling import find_look
from lamella.encoders import EncoderSpec
from lamella.encoders.tuned import list_hashes
from lamella.errors import LeakageError
from lamella.mil import SlideModel, SlidePrediction, Spread
from lamella.progress import Progress
from lamella.runs.given import GIVEN, refuse_slides
from lamella.runs.record import SettingsRecord
from lamella.runs.reference import Reference
from lamella.slide import hash_readable


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Member:
    """One model, the fold it was trained in, and the encoder whose bags it reads.

    Of bags that were there before the run, the encoder is a name for them and may not be known here.
    """

    model: SlideModel
    fold: int
    encoder: EncoderSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenBefore:
    """What models have learned from.

    Attributes:
        patients: Their ids, as salted hashes where there is a salt.
        images: Hashes of the slides' files.
        salt: Of the hashes; empty where ids stand as they are.
        knows_patients: False where patients did not come along, so that only files can be compared.
    """

    patients: frozenset[str]
    images: frozenset[str]
    salt: str = ""
    knows_patients: bool = True

    def has_patient(self, patient_id: str) -> bool:
        """True for a patient that was learned from, under this spelling or one that looks the same."""
        if self.salt:
            return not list_hashes(patient_id, self.salt).isdisjoint(self.patients)
        return self.find_spelling(patient_id) is not None

    def find_spelling(self, patient_id: str) -> str | None:
        """Return how a patient was spelt in training; None where it was not learned from or ids are hashes."""
        if self.salt or not self.patients:
            return None
        if patient_id in self.patients:
            return patient_id
        look = find_look(patient_id)
        return next((name for name in sorted(self.patients) if find_look(name) == look), None)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Predictor:
    """What predicts new slides.

    Attributes:
        called: What it is, in a word for people: `run` or `model`.
        folder: Where it lies.
        classes: In the order of the logits.
        positive: The class whose probability is scored.
        settings: How slides are cut and encoded.
        members: Its models; their logits are averaged.
        threshold: What was frozen for new slides; None where there is none.
        seen: What the models have learned from.
        reference: What the slides of training look like; None where that is not known.
    """

    called: str
    folder: Path
    classes: tuple[str, ...]
    positive: str | None
    settings: SettingsRecord
    members: tuple[Member, ...]
    threshold: Threshold | None
    seen: SeenBefore
    reference: Reference | None = None

    @property
    def encoders(self) -> tuple[EncoderSpec, ...]:
        """Its encoders, each once.

        Raises:
            ModelError: If it was trained on bags that were there, and slides cannot be made into such bags.
        """
        if self.settings.unknown or any(member.encoder.name == GIVEN for member in self.members):
            raise refuse_slides(self.settings, self.folder)
        return tuple(dict.fromkeys(member.encoder for member in self.members))


def list_seen(models: Iterable[SlideModel]) -> SeenBefore:
    """Return what models say of themselves that they have learned from."""
    models = list(models)
    return SeenBefore(
        patients=frozenset(str(i) for model in models for i in model.provenance.get("seen_patients", ())),
        images=frozenset(str(i) for model in models for i in model.provenance.get("seen_images", ()) if i),
    )


def measure_spread(members: Sequence[Member], predictions: Sequence[SlidePrediction]) -> Spread | None:
    """Return how far the folds' models differ in probability; of one fold, its seeds'; None for one model."""
    folds = sorted({member.fold for member in members})
    if len(folds) > 1:
        logits = np.stack(
            [
                np.mean([p.logits for m, p in zip(members, predictions, strict=True) if m.fold == fold], axis=0)
                for fold in folds
            ]
        )
    else:
        logits = np.stack([prediction.logits for prediction in predictions])
    if len(logits) < 2:
        return None
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = shifted / shifted.sum(axis=1, keepdims=True)
    return Spread(sd=probabilities.std(axis=0, ddof=1), low=probabilities.min(axis=0), high=probabilities.max(axis=0))


def refuse_seen(
    predictor: Predictor,
    cohort: Cohort,
    *,
    labelled: bool,
    progress: Progress,
    images: Mapping[str, str] | None = None,
) -> None:
    """Refuse to measure on what the models learned from; predicting it without labels is only said aloud.

    Args:
        predictor: The models.
        cohort: What is to be predicted.
        labelled: Whether it is to be measured.
        progress: Where to report to.
        images: Hashes of slides by what their bags say, by id: then patients and files were looked at before.

    Raises:
        LeakageError: If there are labels, and one of the slides or patients was learned from.
    """
    known = predictor.seen
    if images is None:
        hashes: Mapping[str, str] = hash_readable({slide.slide_id: slide.path for slide in cohort.slides})
        same_patient = [s.slide_id for s in cohort.slides if known.has_patient(s.patient_id)]
    else:
        hashes, same_patient = images, []
    same_image = [slide_id for slide_id, sha256 in hashes.items() if sha256 in known.images]
    seen = same_image or same_patient
    if labelled and not known.knows_patients and images is None:
        progress.say(
            "the ids of the patients of training did not come along (exported with --pseudonyms): slides are compared "
            "by their files alone"
        )
    if not seen:
        return
    what = "the image" if same_image else "the patient"
    patient = next(s.patient_id for s in cohort.slides if s.slide_id == seen[0])
    spelling = known.find_spelling(patient)
    if not same_image and spelling not in (None, patient):
        what = f"patient '{patient}', spelt '{spelling}' in training,"
    if labelled:
        raise LeakageError(
            f"{what} of slide '{seen[0]}' was learned from by this {predictor.called} ({_count(seen)}), so a "
            "measurement on it would flatter. Take these slides out, or leave the labels out."
        )
    progress.say(f"the models have learned from {what} of slide '{seen[0]}' ({_count(seen)}); they know the answer.")


def _count(seen: Sequence[str]) -> str:
    return f"{len(seen)} slide{'' if len(seen) == 1 else 's'} of the table"
