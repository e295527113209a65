"""Opening an exported model: every byte of it is the one that was written, or it is refused."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lamella.encoders import EncoderSpec, find_encoder
from lamella.errors import LamellaError, ModelError
from lamella.exports.write import CARD, FORMAT, FORMAT_VERSION, REFERENCE, SEEN, hash_card, is_ours
from lamella.files import find_inside, find_sha256, read_json
from lamella.machine import refuse_passing
from lamella.mil import SlideModel, load_model
from lamella.runs.predict import open_run
from lamella.runs.predictor import Member, Predictor, SeenBefore
from lamella.runs.reference import load_reference


def open_predictor(path: Path | str) -> Predictor:
    """Open what predicts new slides: an exported model, or a finished run.

    Raises:
        ModelError: If the folder is neither, or a file of it is not the one that was written.
    """
    path = Path(path)
    return open_export(path) if (path / CARD).exists() else open_run(path).predictor()


def open_export(path: Path | str) -> Predictor:
    """Open an exported model.

    Raises:
        ModelError: If the folder is none, is of a newer version, or a file of it is not the one that was written.
    """
    path = Path(path)
    card = load_card(path)
    check_files(path, card)
    try:
        encoders = {
            name: EncoderSpec(str(_find_checked(path, card, f"{name}.safetensors"))) for name in card["encoders"]
        }
        members = tuple(
            Member(
                model=_load_head(path, card, member["head"]),
                fold=int(member["fold"]),
                encoder=encoders[member["encoder"]],
            )
            for member in card["members"]
        )
        seen = read_json(_find_checked(path, card, SEEN), made_by="lamella export")
        predictor = Predictor(
            called="model",
            folder=path,
            classes=tuple(card["classes"]),
            positive=card["positive"],
            settings=card["settings"],
            members=members,
            threshold=card["threshold"],
            seen=SeenBefore(
                patients=frozenset(seen["patients"]),
                images=frozenset(seen["images"]),
                salt=seen["salt"] or "",
                knows_patients=seen["salt"] is not None,
            ),
            reference=load_reference(_find_checked(path, card, REFERENCE)),
        )
    except LamellaError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"'{path / CARD}' lacks {error}. Get the folder again from where it came.") from error
    _refuse_code(predictor)
    return predictor


def load_card(path: Path | str) -> dict[str, Any]:
    """Load the card of an exported model, checked to be as it was written.

    Raises:
        ModelError: If there is none, or of another version, or it was changed.
    """
    card = Path(path) / CARD
    try:
        content = read_json(card, made_by="lamella export")
    except LamellaError as error:
        raise ModelError(
            f"'{path}' holds no exported model ({CARD} cannot be read). Name the --out folder of `lamella export`."
        ) from error
    if content.get("format") != FORMAT:
        raise ModelError(f"'{card}' is no card of an exported model. Name the --out folder of `lamella export`.")
    if content.get("format_version") != FORMAT_VERSION:
        raise ModelError(
            f"'{card}' has format version {content.get('format_version')} and this version of lamella reads "
            f"{FORMAT_VERSION}. Install lamella {content.get('lamella_version')}."
        )
    if content.get("card_sha256") != hash_card(content):
        raise ModelError(
            f"'{card}' is not as it was written (its own SHA-256 differs). Get the folder again from where it came."
        )
    return dict(content)


def check_files(path: Path, card: Mapping[str, Any]) -> None:
    """Refuse an export of which a file is absent or differs, or that lists what an export does not write.

    Raises:
        ModelError: Naming the file.
    """
    again = "Get the folder again from where it came."
    files = card.get("files")
    if not isinstance(files, Mapping):
        raise ModelError(f"'{path / CARD}' lists no files. {again}")
    strange = next((str(name) for name in files if not is_ours(str(name))), None)
    if strange is not None:
        raise ModelError(f"'{path / CARD}' lists '{strange}', which is no file of an export. {again}")
    for name, sha256 in files.items():
        file = find_inside(path, name)
        if file is None:
            raise ModelError(f"'{path}' lacks '{name}' (no such file, or a link). {again}")
        try:
            actual = find_sha256(file)
        except OSError as error:
            refuse_passing(error, str(file))
            raise ModelError(f"'{path}' lacks '{name}' ({error.strerror}). {again}") from error
        if actual != sha256:
            raise ModelError(
                f"'{name}' of '{path}' is not the file that was exported: its SHA-256 begins {actual[:12]} and must "
                f"begin {str(sha256)[:12]}. {again}"
            )


def _find_checked(path: Path, card: Mapping[str, Any], name: str) -> Path:
    """Return a file of an export, which the card must list: only what was checked is opened.

    Raises:
        ModelError: If it is not listed.
    """
    if name not in card["files"]:
        raise ModelError(f"'{path / CARD}' does not list '{name}'. Get the folder again from where it came.")
    return path / name


def _load_head(path: Path, card: Mapping[str, Any], head: str) -> SlideModel:
    for name in ("model.json", "model.safetensors"):
        _find_checked(path, card, f"heads/{head}/{name}")
    return load_model(path / "heads" / head)


def _refuse_code(predictor: Predictor) -> None:
    """Refuse an encoder that is more than a network of timm with its weights: nothing in a folder of others is run."""
    for encoder in predictor.encoders:
        network = find_encoder(encoder.name).network
        if not re.fullmatch(r"[\w.]+", network):
            raise ModelError(
                f"an encoder of '{predictor.folder}' asks for the network '{network}', which is none of timm's. Get "
                "the folder again from where it came."
            )
