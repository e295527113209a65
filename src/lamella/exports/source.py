"""What an export needs, gathered from a finished run or from an arm of a study."""

import csv
import dataclasses
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import RootModel

from lamella.analysis.figure import Figure
from lamella.analysis.scores import Score
from lamella.analysis.thresholds import Threshold
from lamella.analysis.verdict import Conclusion, Verdict
from lamella.cohort import CohortSlide
from lamella.defaults import UnitName
from lamella.encoders import EncoderSpec, find_encoder, fingerprint_encoder
from lamella.encoders.packing import refuse_own_code, refuse_own_name
from lamella.errors import ModelError
from lamella.exports.card import AmongArms, Figures
from lamella.exports.validation import encode_validation, find_arm_threshold
from lamella.features.bag import BagFolder
from lamella.features.layouts import open_own_bag
from lamella.files import refuse_links
from lamella.machine import refuse_passing
from lamella.progress import Progress, SilentProgress
from lamella.records import load_content
from lamella.runs.bags import load_good_bags
from lamella.runs.facts import BagFacts, read_facts
from lamella.runs.folder import RunFolder
from lamella.runs.given import GIVEN
from lamella.runs.metrics import Metrics
from lamella.runs.predict import FinishedRun, open_run, read_run_encoder
from lamella.runs.predictor import Member
from lamella.runs.record import BagsPlace, SettingsRecord
from lamella.runs.reference import find_mean_embedding
from lamella.runs.settings import restore_extract_settings
from lamella.studies.arms import Arm
from lamella.studies.folder import StudyFolder
from lamella.studies.record import ArmRecord, StudyRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSlide:
    """A slide that at least one of the models has learned from.

    Attributes:
        slide: Its patient and label.
        facts: What its bag states of itself.
        n_tiles: How many tiles it has.
    """

    slide: CohortSlide
    facts: BagFacts
    n_tiles: int


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ExportSource:
    """What an export needs.

    Attributes:
        arm: What people call it.
        finetuned: `frozen`, `head` or `tuned`.
        classes: In the order of the logits.
        positive: The class whose probability is scored.
        settings: How slides were cut and encoded.
        threshold: What was frozen for new slides; None where there is none.
        members: Models, each beside its encoder.
        slides: What they have learned from.
        embeddings: By encoder, mean embeddings of slides of the cohort by slide id; empty where there are no bags.
        figures: What is known of how good it is.
        notes: What must be said of these figures, a sentence each.
        patients: Whose each slide of the cohort is.
        local: Folder for what is not passed on.
    """

    arm: str
    finetuned: str
    classes: tuple[str, ...]
    positive: str | None
    settings: SettingsRecord
    threshold: Threshold | None
    members: tuple[Member, ...]
    slides: tuple[SourceSlide, ...]
    embeddings: Mapping[EncoderSpec, Mapping[str, NDArray[np.float64]]]
    figures: Figures
    notes: tuple[str, ...]
    patients: Mapping[str, str]
    local: Path

    @property
    def encoders(self) -> tuple[EncoderSpec, ...]:
        """Its encoders, each once."""
        return tuple(dict.fromkeys(member.encoder for member in self.members))

    @property
    def tile_px(self) -> int:
        """Side of a tile, pixels, where an encoder is exported."""
        assert self.settings.tile_px is not None, "an encoder of ours states it"
        return self.settings.tile_px


def find_source(path: Path, arm: str | None = None, *, progress: Progress | None = None) -> ExportSource:
    """Gather what an export of a run, or of an arm of a study, needs.

    Args:
        path: Folder of a finished run or study.
        arm: Of a study, the arm's name; None takes the one that is recommended. Of a run `frozen`, `head` or `tuned`;
            None takes `frozen`.
        progress: Where to report to; the validation slides of a tuned arm are encoded here.

    Raises:
        ModelError: If the folder holds neither, or not that arm, or the study recommends none.
        WeightsError: If the encoder's weights are not on this machine.
    """
    study = StudyFolder(Path(path))
    refuse_links(study.path)
    progress = progress or SilentProgress()
    if study.record.exists():
        return _find_in_study(study, arm, progress)
    return _find_in_run(RunFolder(Path(path)), arm, progress)


def _find_in_run(folder: RunFolder, arm: str | None, progress: Progress) -> ExportSource:
    kind = arm or "frozen"
    if kind not in ("frozen", "head", "tuned"):
        raise ModelError(f"a run has the arms frozen, head and tuned, not '{arm}'. Pass one of those, or leave it out.")
    run = open_run(folder.path)
    metrics = load_content(folder.metrics, Metrics, made_by="lamella run")
    model = None if metrics is None else metrics.scores.model
    figures = _choose_figures(model) if kind == "frozen" else _find_stage_two(metrics, kind)
    name = {"frozen": "", "head": ", head only", "tuned": ", tuned"}[kind]
    notes = () if model is None else model.notes
    return _gather(run, kind, progress, arm=f"{run.settings.encoder_name}{name}", figures=figures, notes=notes)


def _find_stage_two(metrics: Metrics | None, kind: str) -> Figures:
    """Return what stage 2 of a run reaches on all tiles, and what more than stage 1."""
    scores = () if metrics is None or metrics.stage_two is None else metrics.stage_two.scores
    whole = next((score for score in scores if (score.finetuned, score.reading) == (kind, "all")), None)
    if whole is None:
        return Figures(less_stage_1=None)
    return Figures(auc=Figure(value=whole.auc, interval=whole.interval), less_stage_1=whole.less_stage_1)


def _find_in_study(folder: StudyFolder, name: str | None, progress: Progress) -> ExportSource:
    record = StudyRecord.load(folder.record, made_by="lamella study")
    verdict = load_content(folder.verdict, Verdict, made_by="lamella study")
    said = None if verdict is None or verdict.verdict.kind is None else verdict.verdict
    rows = {row.arm: row for row in record.arms}
    name = name or _find_recommended(folder, said)
    if name not in rows:
        raise ModelError(f"the study has no arm '{name}'. Its arms: {'; '.join(rows)}.")
    row = rows[name]
    if row.state != "done":
        raise ModelError(f"arm '{name}' is '{row.state}': {row.reason}. Run it first: lamella study.")
    if row.chosen:
        folds = ", ".join(f"{choice.arm} in fold {choice.fold}" for choice in row.chosen)
        raise ModelError(f"arm '{name}' is no one network: {folds}. Export one of them: --arm '{row.chosen[0].arm}'")
    run = find_arm_run(folder, row, record.arms)
    metrics = load_content(folder.metrics, RootModel[dict[str, Score]], made_by="lamella study")
    score = None if metrics is None else metrics.root.get(name)
    judged = None if verdict is None else next((arm for arm in verdict.arms if arm.arm == name), None)
    among = AmongArms(**{key: getattr(judged, key, None) for key in AmongArms.model_fields})
    notes = [] if score is None else list(score.notes)
    if said is not None:
        notes.append(f"The study of {len(rows)} arms: {said.sentence}")
    if len(rows) > 1:
        notes.append("An arm chosen among several looks better than it is; only slides of elsewhere tell.")
    figures = _choose_figures(score).model_copy(update={"among_arms": among})
    source = _gather(run, row.finetuned, progress, arm=name, figures=figures, notes=tuple(notes))
    return dataclasses.replace(source, local=folder.local)


def _find_recommended(folder: StudyFolder, said: Conclusion | None) -> str:
    if said is None:
        raise ModelError(f"the study in '{folder.path}' is not finished. Run it again: it makes what is missing.")
    if said.arm is None:
        guess = shlex.quote(str(said.best_guess or said.best_arm))
        raise ModelError(f"the study recommends no arm ({said.kind}). Choose one yourself: --arm {guess}")
    return said.arm


def find_arm_run(folder: StudyFolder, row: ArmRecord, rows: Iterable[ArmRecord]) -> FinishedRun:
    """Return the run of the frozen arm in whose folder an arm of a study lies.

    Args:
        folder: The study's.
        row: What `study.json` says of the arm.
        rows: What it says of all arms.

    Raises:
        ModelError: If its models are not there.
    """
    alike = (
        other
        for other in rows
        if other.finetuned == "frozen" and (other.series, other.depth) == (row.series, row.depth)
    )
    base = next(alike, None)
    if row.depth is None and row.features is None:
        raise ModelError(f"arm '{row.arm}' was predicted elsewhere, and its models are not here. Name another --arm.")
    if row.depth is None:
        arm = Arm(encoder=row.encoder, head=row.head, features=row.features or "")
    else:
        arm = Arm(encoder=row.encoder, depth=row.depth, weights=row.weights, head=row.head, tiles=row.tiles)
    return open_run(folder.models(arm, key=None if base is None else base.key))


def _gather(
    run: FinishedRun, kind: str, progress: Progress, *, arm: str, figures: Figures, notes: tuple[str, ...]
) -> ExportSource:
    """Bring models and bags of one arm together."""
    if run.settings.bags is not None:
        return _gather_given(run, kind, arm=arm, figures=figures, notes=notes)
    encoder = read_run_encoder(run)
    refuse_own_name(encoder.name)  # before anything of it is built
    refuse_own_code(find_encoder(encoder.name))
    members = _list_members(run, kind, encoder)
    _refuse_other_weights(members)
    cohort = _read_cohort(run.folder)
    frozen = restore_extract_settings(run.settings, encoder).folder(run.folder.features)
    slides, embeddings = _read_slides(_list_learned(members, frozen, cohort, run.settings.unit), frozen, cohort)
    by_encoder: dict[EncoderSpec, Mapping[str, NDArray[np.float64]]] = {encoder: embeddings}
    bags = {encoder: frozen}
    if kind == "tuned":
        bags = encode_validation(run, members, progress)
        by_encoder = {spec: _read_embeddings(folder, cohort) for spec, folder in bags.items()}
    return ExportSource(
        arm=arm,
        finetuned=kind,
        classes=run.classes,
        positive=run.positive,
        settings=run.settings,
        threshold=run.threshold if kind == "frozen" else find_arm_threshold(run, members, bags, cohort),
        members=members,
        slides=slides,
        embeddings=by_encoder,
        figures=figures,
        notes=notes,
        patients={slide_id: slide.patient_id for slide_id, slide in cohort.items()},
        local=run.folder.local,
    )


def _gather_given(run: FinishedRun, kind: str, *, arm: str, figures: Figures, notes: tuple[str, ...]) -> ExportSource:
    """Bring the models of a run and the bags together that were there before it."""
    if kind != "frozen":
        raise ModelError(f"'{run.folder.path}' was made from bags, so it has no arm '{kind}'. Leave --arm out.")
    members, cohort = run.list_members(EncoderSpec(GIVEN)), _read_cohort(run.folder)
    place = load_content(run.folder.given_bags, BagsPlace, made_by="lamella run")
    units = {i for member in members for i in (*member.model.training.train, *member.model.training.val)}
    of_patients = run.settings.unit == "patient"
    learned = sorted(i for i, row in cohort.items() if row.patient_id in units) if of_patients else sorted(units)
    lacking = next((slide_id for slide_id in learned if slide_id not in cohort), None)
    if place is None or lacking is not None:
        what = "where its bags lie (local/bags.json)" if place is None else f"whose slide '{lacking}' is (cohort.csv)"
        raise ModelError(
            f"'{run.folder.path}' does not say {what}, and what slides of training look like is learned from the bags. "
            "Export where the run was made."
        )
    bags, bad = load_good_bags(Path(place.folder), learned)
    if bad and not of_patients:  # of a patient some slides may have had no bag
        raise ModelError(f"a bag of training is gone: {next(iter(bad.values()))} Put it back, and export again.")
    if run.settings.tiles_per_slide is not None:
        bags = bags.keep_tiles(run.settings.tiles_per_slide)[0]
    slides = tuple(
        SourceSlide(slide=cohort[slide_id], facts=facts.model_copy(update={"slide_id": slide_id}), n_tiles=n_tiles)
        for slide_id in learned
        if slide_id in bags.facts
        for facts, n_tiles in [(bags.facts[slide_id], len(bags.features[slide_id]))]
    )
    return ExportSource(
        arm=arm,
        finetuned=kind,
        classes=run.classes,
        positive=run.positive,
        settings=run.settings,
        threshold=run.threshold,
        members=members,
        slides=slides,
        embeddings={EncoderSpec(GIVEN): {i: find_mean_embedding(rows) for i, rows in bags.features.items()}},
        figures=figures,
        notes=notes,
        patients={slide_id: slide.patient_id for slide_id, slide in cohort.items()},
        local=run.folder.local,
    )


def _list_members(run: FinishedRun, kind: str, encoder: EncoderSpec) -> tuple[Member, ...]:
    if kind == "frozen":
        return run.list_members(encoder)
    trained = run.list_finetuned(kind)
    if not trained:
        raise ModelError(
            f"'{run.folder.path}' holds no arm '{kind}'. Fine-tune first (lamella run --finetune tuned), or name "
            "another --arm."
        )
    return tuple(
        Member(model=finetuned.model, fold=finetuned.fold, encoder=finetuned.encoder if kind == "tuned" else encoder)
        for finetuned in trained
    )


def _refuse_other_weights(members: Sequence[Member]) -> None:
    """Refuse an encoder that is not the one whose bags the models learned from."""
    fingerprints = {encoder: fingerprint_encoder(encoder) for encoder in {member.encoder for member in members}}
    for member in members:
        if member.model.provenance.get("fingerprint") != fingerprints[member.encoder]:
            raise ModelError(
                f"the weights of encoder '{Path(member.encoder.name).name}' on this machine are not those that the "
                "models were trained with. Put back those weights (lamella weights), or run again."
            )


def _list_learned(
    members: Sequence[Member], bags: BagFolder, cohort: Mapping[str, CohortSlide], unit: UnitName
) -> list[str]:
    """List the slides that the models have learned from; of patients, those of their slides that were encoded."""
    learned = {i for member in members for i in (*member.model.training.train, *member.model.training.val)}
    if unit == "slide":
        return sorted(learned)
    return sorted(
        slide_id
        for slide_id, row in cohort.items()
        if row.patient_id in learned and bags.features_path(slide_id).exists()
    )


def _read_slides(
    learned: Sequence[str], bags: BagFolder, cohort: Mapping[str, CohortSlide]
) -> tuple[tuple[SourceSlide, ...], dict[str, NDArray[np.float64]]]:
    """Return the slides that the models have learned from, and their mean embeddings."""
    slides, embeddings = [], {}
    for slide_id in learned:
        path = bags.features_path(slide_id)
        if not path.exists() or slide_id not in cohort:
            raise ModelError(
                f"the bag of slide '{slide_id}' is not in '{bags.out}', and what slides of training look like is "
                "learned from the bags. Export where the run was made, with its features folder."
            )
        bag = open_own_bag(path)
        embeddings[slide_id] = find_mean_embedding(bag.read_stored())
        slides.append(SourceSlide(slide=cohort[slide_id], facts=read_facts(bag), n_tiles=bag.shape[0]))
    return tuple(slides), embeddings


def _read_embeddings(bags: BagFolder, cohort: Mapping[str, CohortSlide]) -> dict[str, NDArray[np.float64]]:
    """Return the mean embeddings of all slides of the cohort that have a bag."""
    paths = {path.stem: path for path in sorted(bags.features.glob("*.h5")) if path.stem in cohort}
    return {slide_id: find_mean_embedding(open_own_bag(path).read_stored()) for slide_id, path in paths.items()}


def _read_cohort(folder: RunFolder) -> dict[str, CohortSlide]:
    """Return the slides with patient and label; where they lie is not known."""
    try:
        with folder.cohort.open(encoding="utf-8", newline="") as stream:
            rows = [(row["slide_id"], row["patient_id"], row["label"]) for row in csv.DictReader(stream)]
            return {i: CohortSlide(slide_id=i, patient_id=who, label=label, path=Path(i)) for i, who, label in rows}
    except (OSError, KeyError) as error:
        refuse_passing(error, str(folder.cohort))
        raise ModelError(f"'{folder.cohort}' cannot be read. Run `lamella run` again.") from error


def _choose_figures(score: Score | None) -> Figures:
    """Return the headline figures, without what names batches or folds."""
    units = None if score is None else score.headline_units
    known = {name: value for name in Figures.model_fields if (value := getattr(units, name, None)) is not None}
    return Figures(
        unit="patients" if score is None else score.headline,
        cross_validated=None if score is None else score.cross_validated,
        **{"n_patients": None, "n_by_class": None, **known},
    )
