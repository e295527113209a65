"""Exporting a model: one folder that predicts new slides without the study, the cohort, the network or any weights.

MODEL/model.json                     the card: what it is, how to cut, thresholds, figures, limits, SHA-256 of each file
MODEL/README.md                      the card for people
MODEL/encoder.safetensors            weights and card; `.json` says what it is, `.xml` and `.bin` are OpenVINO's
MODEL/encoders/fold<k>-seed<s>.*     the same, of a tuned arm, which has an encoder a fold and seed
MODEL/heads/fold<k>-seed<s>/         a head each (lamella.mil.save_model)
MODEL/reference.npz                  what slides of training look like
MODEL/seen.json                      what the models have learned from, as hashes

No file names a slide, a patient or a path.
"""

import dataclasses
import logging
import os
import secrets
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import JsonValue

from lamella import __version__
from lamella.encoders import EncoderSpec, find_encoder, fingerprint_encoder
from lamella.encoders.packing import carry_encoder
from lamella.encoders.runtime.compiled import convert, save_network
from lamella.encoders.runtime.planning import choose_batch_size
from lamella.encoders.tuned import hash_id
from lamella.errors import LamellaError, OutputError
from lamella.exports.card import (
    CARD,
    FORMAT,
    FORMAT_VERSION,
    REFERENCE,
    SEEN,
    ExportCard,
    ExportedEncoder,
    ExportedHead,
    OpenVinoInput,
    SeenHashes,
    TrainedOn,
    is_ours,
)
from lamella.exports.onnx import save_onnx
from lamella.exports.readme import list_limits, write_readme
from lamella.exports.source import ExportSource, find_source
from lamella.files import find_sha256, read_json, remove, replacing, write_json, write_text
from lamella.mil import SlideModel, save_model
from lamella.progress import Progress, SilentProgress
from lamella.runs.given import GIVEN
from lamella.runs.predictor import list_seen
from lamella.runs.record import list_versions
from lamella.runs.reference import Reference, build_reference, save_reference
from lamella.temporaries import sweep_temporaries

_log = logging.getLogger(__name__)

UNFINISHED = "unfinished.json"
"""Stands in the folder from the first moment until the card is written: the same command goes on from there."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ExportSettings:
    """What an export holds besides what it must.

    Attributes:
        arm: Of a study, an arm's name; None is the recommended one. Of a run `frozen`, `head` or `tuned`.
        onnx: Whether encoder and heads are written as ONNX too.
        pseudonyms: Whether the salt of the ids' hashes stays behind. Nobody can then try ids against the export, and
            patients of training are known again by their slides' files alone.
    """

    arm: str | None = None
    onnx: bool = False
    pseudonyms: bool = False


def export_model(
    source: Path | str, out: Path | str, settings: ExportSettings | None = None, *, progress: Progress | None = None
) -> Path:
    """Export a finished run, or an arm of a study, as one folder that predicts new slides by itself.

    Of a run on bags that were there, it predicts bags that were made alike.

    Args:
        source: Folder of a finished run or study.
        out: The folder to write; an earlier export in it is replaced.
        settings: Which arm, and what else.
        progress: Where to report to.

    Returns:
        The folder.

    Raises:
        ModelError: If there is no such arm, or its bags are gone.
        WeightsError: If the encoder's weights are not on this machine.
        OutputError: If the folder cannot be written, or holds something else.
    """
    settings, progress, out = settings or ExportSettings(), progress or SilentProgress(), Path(out)
    _refuse_other_folder(out)
    gathered = find_source(Path(source), settings.arm, progress=progress)
    _clear(out)
    try:
        _write_all(gathered, out, settings, progress)
    except (LamellaError, OSError) as error:
        if (out / UNFINISHED).is_file():
            raise
        _remove_ours(out)  # what was written after the folder was taken away stands in a new one
        raise OutputError(
            f"'{out}' was removed or emptied while the model was written to it. Run the same command again."
        ) from error
    return out


def _write_all(source: ExportSource, out: Path, settings: ExportSettings, progress: Progress) -> None:
    """Write an export whose folder is clear; its card comes last."""
    names = _name_encoders(source)
    described: dict[str, ExportedEncoder] = {}
    carried = {} if source.settings.bags is not None else names
    with progress.stage("export encoders", len(carried), "encoders") as stage:
        for encoder, name in carried.items():
            described[name] = _save_encoder(source, encoder, out / name, with_ids=not settings.pseudonyms)
            stage.advance()
    salt = _find_salt(source, pseudonyms=settings.pseudonyms)
    heads = []
    for member in source.members:
        fold, seed, name = member.fold, member.model.settings.seed, names[member.encoder]
        head = ExportedHead(fold=fold, seed=seed, head=f"fold{fold}-seed{seed}", encoder=name)
        told: dict[str, JsonValue] = {}
        if name in described:
            told = {
                "encoder": PurePosixPath(name).name,
                "fingerprint": described[name].fingerprint,  # of the file that came along
                "trained_fingerprint": member.model.provenance.get("fingerprint"),  # of the same weights, in the run's
            }
        stripped = _strip_model(member.model, told, salt)
        save_model(stripped, out / "heads" / head.head)
        heads.append(head)
    _save_seen(source, out, salt=None if settings.pseudonyms else salt)
    reference = build_reference(
        {slide.facts.slide_id: slide.facts for slide in source.slides},
        {PurePosixPath(names[encoder]).name: vectors for encoder, vectors in source.embeddings.items()},
        source.patients,
    )
    save_reference(reference, out / REFERENCE)
    card = _describe(source, described, heads, reference, settings)
    if settings.onnx:
        card = card.model_copy(update={"onnx": save_onnx(source, carried, out, progress=progress)})
    write_text(out / "README.md", write_readme(card))
    card = card.model_copy(update={"files": {name: find_sha256(out / name) for name in _list_files(out)}})
    if not (out / UNFINISHED).is_file():
        raise OutputError(f"'{out}' is not the folder that was begun.")
    card.save(out / CARD)
    remove(out / UNFINISHED)


def _refuse_other_folder(out: Path) -> None:
    """Refuse a folder that holds more than an export, whole or begun.

    Raises:
        OutputError: If it holds something else, or a link.
    """
    if not out.exists():
        return
    if out.is_dir() and not any((out / name).is_file() for name in (CARD, UNFINISHED)):
        sweep_temporaries(out)
    if not out.is_dir() or (any(out.iterdir()) and not _is_export(out)):
        raise OutputError(f"'{out}' is not empty and holds no earlier export. Choose another --out.")
    link = next((path for path in _walk(out) if path.is_symlink()), None)
    if link is not None:
        inner = link.relative_to(out).as_posix()
        raise OutputError(f"'{out}' holds a link, '{inner}', and an export holds none. Remove it, or choose another.")


def _is_export(out: Path) -> bool:
    try:
        return any(
            path.is_file() and not path.is_symlink() and read_json(path, made_by="lamella export")["format"] == FORMAT
            for path in (out / CARD, out / UNFINISHED)
            if path.exists()
        )
    except (LamellaError, KeyError):
        return False


def _clear(out: Path) -> None:
    """Begin an export: say so in the folder, and remove what an earlier one wrote there; other files are left alone.

    What is removed is told by names that an export writes. The earlier card is not asked: it may be anyone's.
    """
    write_json(out / UNFINISHED, {"format": FORMAT, "format_version": FORMAT_VERSION})
    remove(out / CARD)  # what is left is no export any more
    sweep_temporaries(out)
    _remove_ours(out)


def _remove_ours(out: Path) -> None:
    for path in _walk(out):
        if path.is_file() and not path.is_symlink() and is_ours(path.relative_to(out).as_posix()):
            remove(path)


def _walk(out: Path) -> list[Path]:
    """List all below a folder; links are listed and not followed."""
    return [Path(at) / name for at, folders, files in os.walk(out, followlinks=False) for name in (*folders, *files)]


def _name_encoders(source: ExportSource) -> dict[EncoderSpec, str]:
    """Return where each encoder goes, relative to the export, without a suffix; bags that were there bring none."""
    if source.settings.bags is not None:
        return {source.encoders[0]: GIVEN}
    if len(source.encoders) == 1:
        return {source.encoders[0]: "encoder"}
    return {member.encoder: f"encoders/fold{member.fold}-seed{member.model.settings.seed}" for member in source.members}


def _save_encoder(source: ExportSource, encoder: EncoderSpec, stem: Path, *, with_ids: bool) -> ExportedEncoder:
    """Write an encoder in all its forms; return what `<stem>.json` holds."""
    weights = stem.with_name(f"{stem.name}.safetensors")
    network = carry_encoder(encoder, weights, with_ids=with_ids)
    spec = EncoderSpec(str(weights))
    card = find_encoder(spec.name)
    described = ExportedEncoder(
        name=source.settings.encoder_name,
        network=card.network,
        depth=card.depth,
        width=card.embedding_dim,
        mean=card.mean,
        std=card.std,
        pixels="RGB, 0 to 255, divided by 255, less mean, divided by std",
        resized_to_px=card.input_px if card.fixed_input else None,
        source=card.source,
        weights=card.weights_tag,
        trained_on=card.trained_on,
        licence=card.licence,
        fingerprint=fingerprint_encoder(spec),
        openvino=_save_openvino(network, stem, source.tile_px),
    )
    write_json(stem.with_name(f"{stem.name}.json"), described.as_json())
    return described


def _save_openvino(network: Any, stem: Path, tile_px: int) -> OpenVinoInput | None:
    """Write a network as OpenVINO's, and return how it is fed; None where OpenVINO is not here or cannot convert it."""
    if find_spec("openvino") is None:
        return None
    batch_size = choose_batch_size("cpu", tile_px)
    try:
        model = convert(network, tile_px=tile_px, batch_size=batch_size)
    except RuntimeError as error:
        _log.warning("OpenVINO cannot convert the encoder, which torch will compute: %s", error)
        return None
    with replacing(stem.with_name(f"{stem.name}.xml")) as temporary:
        save_network(model, temporary)
        temporary.with_suffix(".bin").replace(stem.with_name(f"{stem.name}.bin"))
    return OpenVinoInput(
        version=version("openvino"),
        tile_px=tile_px,
        batch_size=batch_size,
        input="uint8 (batch, tile_px, tile_px, 3), RGB",
        output="float32 (batch, width)",
    )


def _strip_model(model: SlideModel, told: Mapping[str, JsonValue], salt: str) -> SlideModel:
    """Return a model that names nobody and is told of the exported encoder, whose bags it reads."""
    kept = (
        "encoder",
        "fingerprint",
        "weights",
        "tile_px",
        "mpp",
        "stride_px",
        "min_tissue",
        "tissue",
        "precision",
        "stage_2",
        "tiles_per_slide",
    )
    training = dataclasses.replace(
        model.training,
        train=tuple(hash_id(i, salt) for i in model.training.train),
        val=tuple(hash_id(i, salt) for i in model.training.val),
    )
    return dataclasses.replace(
        model,
        training=training,
        provenance={name: model.provenance[name] for name in kept if name in model.provenance} | dict(told),
    )


def _find_salt(source: ExportSource, *, pseudonyms: bool) -> str:
    """Return a new salt; under pseudonyms the one that the run keeps under `local/`."""
    if not pseudonyms:
        return secrets.token_hex(16)
    path = source.local / "salt.txt"
    if not path.exists():
        write_text(path, secrets.token_hex(16) + "\n")
    return path.read_text(encoding="utf-8").strip()


def _save_seen(source: ExportSource, out: Path, *, salt: str | None) -> None:
    """Write what was learned from; without a salt the files' hashes alone."""
    seen = list_seen(member.model for member in source.members)
    patients = () if salt is None else tuple(sorted(hash_id(name, salt) for name in seen.patients))
    hashes = SeenHashes(salt=salt, patients=patients, images=tuple(sorted(seen.images)))
    write_json(out / SEEN, hashes.as_json())


def _describe(
    source: ExportSource,
    encoders: Mapping[str, ExportedEncoder],
    heads: Sequence[ExportedHead],
    reference: Reference,
    settings: ExportSettings,
) -> ExportCard:
    """Return the card, but for the files' hashes."""
    slides = source.slides
    trained_on = TrainedOn(
        n_slides=len(slides),
        n_patients=len({slide.slide.patient_id for slide in slides}),
        n_tiles=sum(slide.n_tiles for slide in slides),
        n_slides_by_class={name: sum(slide.slide.label == name for slide in slides) for name in source.classes},
        slide_mpp=reference.mpp,
        formats=dict(sorted(Counter(slide.facts.slide_format or "not stated" for slide in slides).items())),
        in_regions=any(slide.facts.regions for slide in slides),
    )
    card = ExportCard(
        format=FORMAT,
        format_version=FORMAT_VERSION,
        lamella_version=__version__,
        made=time.strftime("%Y-%m-%d"),
        arm=source.arm,
        finetuned=source.finetuned,
        classes=source.classes,
        positive=source.positive,
        threshold=source.threshold,
        settings=source.settings,
        encoders=dict(encoders),
        members=tuple(heads),
        trained_on=trained_on,
        figures=source.figures,
        notes=source.notes,
        pseudonyms=settings.pseudonyms,
        versions=list_versions(),
    )
    return card.model_copy(update={"limits": list_limits(card)})


def _list_files(out: Path) -> list[str]:
    names = (path.relative_to(out).as_posix() for path in _walk(out) if path.is_file() and not path.is_symlink())
    return sorted(name for name in names if is_ours(name))
