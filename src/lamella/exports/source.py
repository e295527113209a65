"""What an export needs, gathered from a finished run or from an arm of a study."""

import csv
import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamella.encoders import EncoderSpec, find_encoder, fingerprint_encoder
from lamella.encoders.packing import refuse_own_code, refuse_own_name
from lamella.errors import ModelError
from lamella.exports.validation import encode_validation, find_arm_threshold
from lamella.features.bag import BagFolder
from lamella.features.layouts import open_own_bag
from lamella.files import parse_json_file, refuse_links
from lamella.machine import refuse_passing
from lamella.mil import SlideModel
from lamella.progress import Progress, SilentProgress
from lamella.runs.folder import RunFolder
from lamella.runs.predict import FinishedRun, open_run, read_run_encoder
from lamella.runs.predictor import Member
from lamella.runs.reference import find_mean_embedding
from lamella.runs.settings import restore_extract_settings
from lamella.studies.arms import Arm
from lamella.studies.folder import StudyFolder

_FIGURES = ("auc", "auc_pooled", "balanced_accuracy", "sensitivity", "specificity", "ppv", "npv", "average_precision",
            "brier", "log_loss", "calibration")  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSlide:
    """A slide that at least one of the models has learned from.

    Attributes:
        slide_id: Which slide.
        patient_id: Whose it is.
        label: Its class.
        provenance: Attributes of its bag.
        n_tiles: How many tiles it has.
    """

    slide_id: str
    patient_id: str
    label: str
    provenance: Mapping[str, Any]
    n_tiles: int


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ExportSource:
    """What an export needs.

    Attributes:
        arm: What people call it.
        finetuned: `frozen`, `head` or `tuned`.
        classes: In the order of the logits.
        positive: The class whose probability is scored.
        settings: How slides were cut and encoded, as `describe_settings` gives it.
        threshold: What was frozen for new slides; None where there is none.
        members: Models, each beside its encoder.
        slides: What they have learned from.
        embeddings: By encoder, mean embeddings of slides of the cohort by slide id; empty where there are no bags.
        figures: What is known of how good it is, as JSON.
        notes: What must be said of these figures, a sentence each.
        patients: Whose each slide of the cohort is.
        local: Folder for what is not passed on.
    """

    arm: str
    finetuned: str
    classes: tuple[str, ...]
    positive: str | None
    settings: Mapping[str, Any]
    threshold: Mapping[str, Any] | None
    members: tuple[Member, ...]
    slides: tuple[SourceSlide, ...]
    embeddings: Mapping[EncoderSpec, Mapping[str, NDArray[np.float64]]]
    figures: Mapping[str, Any]
    notes: tuple[str, ...]
    patients: Mapping[str, str]
    local: Path

    @property
    def encoders(self) -> tuple[EncoderSpec, ...]:
        """Its encoders, each once."""
        return tuple(dict.fromkeys(member.encoder for member in self.members))


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
    metrics = _read_json(folder.metrics)
    model = metrics.get("arms", {}).get("model", {})
    figures = _choose_figures(model)
    notes = [str(note) for note in model.get("notes", ())]
    if kind != "frozen":
        rows = [row for row in metrics.get("stage_two", {}).get("arms", ()) if row["arm"] == kind]
        whole: Mapping[str, Any] = next((row for row in rows if row["reading"] == "all"), {})
        figures = {"auc": {"value": whole.get("auc"), "interval": whole.get("interval")}} if whole else {}
        figures["less_stage_1"] = whole.get("less_stage_1")
    name = {"frozen": "", "head": ", head only", "tuned": ", tuned"}[kind]
    source = _gather(run, kind, progress)
    return dataclasses.replace(source, arm=f"{run.settings['encoder']}{name}", figures=figures, notes=tuple(notes))


def _find_in_study(folder: StudyFolder, name: str | None, progress: Progress) -> ExportSource:
    record, verdict = _read_json(folder.record), _read_json(folder.verdict)
    rows = {str(row["arm"]): row for row in record.get("arms", ())}
    name = name or _find_recommended(folder, verdict)
    if name not in rows:
        raise ModelError(f"the study has no arm '{name}'. Its arms: {'; '.join(rows)}.")
    row = rows[name]
    if row["state"] != "done":
        raise ModelError(f"arm '{name}' is '{row['state']}': {row['reason']}. Run it first: lamella study.")
    if row.get("chosen"):
        folds = ", ".join(f"{row_['arm']} in fold {row_['fold']}" for row_ in row["chosen"])
        first = row["chosen"][0]["arm"]
        raise ModelError(f"arm '{name}' is no one network: {folds}. Export one of them: --arm '{first}'")
    run = find_arm_run(folder, row, rows)
    metrics = _read_json(folder.metrics).get(name, {})
    judged: Mapping[str, Any] = next((row_ for row_ in verdict.get("arms", ()) if row_["arm"] == name), {})
    said = verdict.get("verdict") or {}
    figures = _choose_figures(metrics)
    figures["among_arms"] = {
        key: judged.get(key)
        for key in ("auc", "interval", "auc_pooled", "auc_pooled_interval", "seed_sd", "deficit", "deficit_upper")
    }
    notes = [str(note) for note in metrics.get("notes", ())]
    if said:
        notes.append(f"The study of {len(rows)} arms: {said.get('sentence')}")
    if len(rows) > 1:
        notes.append("An arm chosen among several looks better than it is; only slides of elsewhere tell.")
    source = _gather(run, str(row["finetuned"]), progress)
    return dataclasses.replace(source, arm=name, figures=figures, notes=tuple(notes), local=folder.local)


def _find_recommended(folder: StudyFolder, verdict: Mapping[str, Any]) -> str:
    said = verdict.get("verdict") or {}
    if not said:
        raise ModelError(f"the study in '{folder.path}' is not finished. Run it again: it makes what is missing.")
    if said.get("arm") is None:
        guess = said.get("best_guess") or said.get("best_arm")
        raise ModelError(
            f"the study recommends no arm ({said.get('kind')}). Choose one yourself: --arm {shlex.quote(str(guess))}"
        )
    return str(said["arm"])


def find_arm_run(folder: StudyFolder, row: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]]) -> FinishedRun:
    """Return the run of the frozen arm in whose folder an arm of a study lies.

    Args:
        folder: The study's.
        row: What `study.json` says of the arm.
        rows: What it says of all arms, by name.

    Raises:
        ModelError: If its models are not there.
    """
    same = ("encoder", "depth", "weights", "head", "tiles")
    alike = (
        other for other in rows.values() if other["finetuned"] == "frozen" and all(other[n] == row[n] for n in same)
    )
    base = next(alike, None)
    arm = Arm(**{name: row[name] for name in same})
    return open_run(folder.models(arm, key=None if base is None else str(base["key"])))


def _gather(run: FinishedRun, kind: str, progress: Progress) -> ExportSource:
    """Bring models and bags of one arm together; name, figures and notes are left to whoever knows them."""
    encoder = read_run_encoder(run)
    refuse_own_name(encoder.name)  # before anything of it is built
    refuse_own_code(find_encoder(encoder.name))
    members = _list_members(run, kind, encoder)
    _refuse_other_weights(members)
    cohort = _read_cohort(run.folder)
    frozen = restore_extract_settings(run.settings, encoder).folder(run.folder.features)
    slides, embeddings = _read_slides(members, frozen, cohort)
    by_encoder: dict[EncoderSpec, Mapping[str, NDArray[np.float64]]] = {encoder: embeddings}
    bags = {encoder: frozen}
    if kind == "tuned":
        bags = encode_validation(run, members, progress)
        by_encoder = {spec: _read_embeddings(folder, cohort) for spec, folder in bags.items()}
    return ExportSource(
        arm="",
        finetuned=kind,
        classes=run.classes,
        positive=run.positive,
        settings=run.settings,
        threshold=run.threshold if kind == "frozen" else find_arm_threshold(run, members, bags, cohort),
        members=members,
        slides=slides,
        embeddings=by_encoder,
        figures={},
        notes=(),
        patients={slide_id: patient_id for slide_id, (patient_id, _) in cohort.items()},
        local=run.folder.local,
    )


def _list_members(run: FinishedRun, kind: str, encoder: EncoderSpec) -> tuple[Member, ...]:
    if kind == "frozen":
        return tuple(
            Member(model=model, fold=fold, encoder=encoder) for model, fold in zip(run.models, run.folds, strict=True)
        )
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


def _read_slides(
    members: Sequence[Member], bags: BagFolder, cohort: Mapping[str, tuple[str, str]]
) -> tuple[tuple[SourceSlide, ...], dict[str, NDArray[np.float64]]]:
    """Return the slides that the models have learned from, and their mean embeddings."""
    slides, embeddings = [], {}
    for slide_id in sorted({i for member in members for i in _list_learned(member.model)}):
        path = bags.features_path(slide_id)
        if not path.exists() or slide_id not in cohort:
            raise ModelError(
                f"the bag of slide '{slide_id}' is not in '{bags.out}', and what slides of training look like is "
                "learned from the bags. Export where the run was made, with its features folder."
            )
        bag = open_own_bag(path)
        embeddings[slide_id] = find_mean_embedding(bag.read_stored())
        patient_id, label = cohort[slide_id]
        slides.append(
            SourceSlide(
                slide_id=slide_id, patient_id=patient_id, label=label, provenance=bag.provenance, n_tiles=bag.shape[0]
            )
        )
    return tuple(slides), embeddings


def _read_embeddings(bags: BagFolder, cohort: Mapping[str, tuple[str, str]]) -> dict[str, NDArray[np.float64]]:
    """Return the mean embeddings of all slides of the cohort that have a bag."""
    paths = {path.stem: path for path in sorted(bags.features.glob("*.h5")) if path.stem in cohort}
    return {slide_id: find_mean_embedding(open_own_bag(path).read_stored()) for slide_id, path in paths.items()}


def _list_learned(model: SlideModel) -> tuple[str, ...]:
    return (*model.training.train, *model.training.val)


def _read_cohort(folder: RunFolder) -> dict[str, tuple[str, str]]:
    """Return patient and label of each slide."""
    try:
        with folder.cohort.open(encoding="utf-8", newline="") as stream:
            return {row["slide_id"]: (row["patient_id"], row["label"]) for row in csv.DictReader(stream)}
    except (OSError, KeyError) as error:
        refuse_passing(error, str(folder.cohort))
        raise ModelError(f"'{folder.cohort}' cannot be read. Run `lamella run` again.") from error


def _choose_figures(measured: Mapping[str, Any]) -> dict[str, Any]:
    """Return the headline figures of what `measure` gave, without what names batches or folds."""
    unit = str(measured.get("headline") or "patients")
    of_unit = measured.get(unit) or {}
    figures = {name: of_unit[name] for name in _FIGURES if of_unit.get(name) is not None}
    return {
        "unit": unit,
        "cross_validated": measured.get("cross_validated"),
        "n_patients": of_unit.get("n_patients"),
        "n_by_class": of_unit.get("n_by_class"),
        **figures,
    }


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return dict(parse_json_file(path))
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"'{path}' is damaged. Run the same command again that wrote it.") from error
