"""Opening an exported model: every byte of it is the one that was written, or it is refused."""

import re
from pathlib import Path

from lamella.encoders import EncoderSpec, find_encoder
from lamella.errors import ModelError
from lamella.exports.card import CARD, REFERENCE, SEEN, ExportCard, SeenHashes, load_card
from lamella.files import find_inside, find_sha256
from lamella.machine import refuse_passing
from lamella.mil import SlideModel, load_model
from lamella.runs.given import GIVEN
from lamella.runs.predict import open_run
from lamella.runs.predictor import Member, Predictor, SeenBefore
from lamella.runs.reference import load_reference

_AGAIN = "Get the folder again from where it came."


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
    encoders = {name: EncoderSpec(str(_find_checked(path, card, f"{name}.safetensors"))) for name in card.encoders}
    if card.settings.bags is not None:  # no encoder came along
        encoders = {GIVEN: EncoderSpec(GIVEN)}
    strange = next((head.encoder for head in card.members if head.encoder not in encoders), None)
    if strange is not None:
        raise ModelError(f"'{path / CARD}' lacks the encoder '{strange}' that one of its models reads. {_AGAIN}")
    members = tuple(
        Member(model=_load_head(path, card, head.head), fold=head.fold, encoder=encoders[head.encoder])
        for head in card.members
    )
    seen = SeenHashes.load(_find_checked(path, card, SEEN), made_by="lamella export")
    predictor = Predictor(
        called="model",
        folder=path,
        classes=card.classes,
        positive=card.positive,
        settings=card.settings,
        members=members,
        threshold=card.threshold,
        seen=SeenBefore(
            patients=frozenset(seen.patients),
            images=frozenset(seen.images),
            salt=seen.salt or "",
            knows_patients=seen.salt is not None,
        ),
        reference=load_reference(_find_checked(path, card, REFERENCE)),
    )
    _refuse_code(predictor)
    return predictor


def check_files(path: Path, card: ExportCard) -> None:
    """Refuse an export of which a file is absent or differs.

    Raises:
        ModelError: Naming the file.
    """
    for name, sha256 in card.files.items():
        file = find_inside(path, name)
        if file is None:
            raise ModelError(f"'{path}' lacks '{name}' (no such file, or a link). {_AGAIN}")
        try:
            actual = find_sha256(file)
        except OSError as error:
            refuse_passing(error, str(file))
            raise ModelError(f"'{path}' lacks '{name}' ({error.strerror}). {_AGAIN}") from error
        if actual != sha256:
            raise ModelError(
                f"'{name}' of '{path}' is not the file that was exported: its SHA-256 begins {actual[:12]} and must "
                f"begin {sha256[:12]}. {_AGAIN}"
            )


def _find_checked(path: Path, card: ExportCard, name: str) -> Path:
    """Return a file of an export, which the card must list: only what was checked is opened.

    Raises:
        ModelError: If it is not listed.
    """
    if name not in card.files:
        raise ModelError(f"'{path / CARD}' does not list '{name}'. {_AGAIN}")
    return path / name


def _load_head(path: Path, card: ExportCard, head: str) -> SlideModel:
    for name in ("model.json", "model.safetensors"):
        _find_checked(path, card, f"heads/{head}/{name}")
    return load_model(path / "heads" / head)


def _refuse_code(predictor: Predictor) -> None:
    """Refuse an encoder that is more than a network of timm with its weights: nothing in a folder of others is run."""
    if predictor.settings.bags is not None:
        return
    for encoder in predictor.encoders:
        network = find_encoder(encoder.name).network
        if not re.fullmatch(r"[\w.]+", network):
            raise ModelError(
                f"an encoder of '{predictor.folder}' asks for the network '{network}', which is none of timm's. Get "
                "the folder again from where it came."
            )
