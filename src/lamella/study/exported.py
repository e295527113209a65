"""Opening an exported model: every byte of it is the one that was written, or it is refused."""

import importlib.metadata
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lamella.encoders import EncoderSpec, find_encoder
from lamella.errors import ModelError, OutputError
from lamella.files import find_sha256
from lamella.mil import load_model
from lamella.study.export import CARD, FORMAT, FORMAT_VERSION, REFERENCE, SEEN, hash_card
from lamella.study.predict import open_run
from lamella.study.predictor import Member, Predictor, SeenBefore
from lamella.study.reference import load_reference

_log = logging.getLogger(__name__)


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
        encoders = {name: EncoderSpec(str(path / f"{name}.safetensors")) for name in card["encoders"]}
        members = tuple(
            Member(
                model=load_model(path / "heads" / one["head"]), fold=int(one["fold"]), encoder=encoders[one["encoder"]]
            )
            for one in card["members"]
        )
        seen = json.loads((path / SEEN).read_text(encoding="utf-8"))
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
            reference=load_reference(path / REFERENCE),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"'{path / CARD}' lacks {error}. Get the folder again from where it came.") from error
    _refuse_code(predictor)
    for name, described in card["encoders"].items():
        _adopt_network(path / f"{name}.xml", described)
    return predictor


def load_card(path: Path | str) -> dict[str, Any]:
    """Load the card of an exported model, checked to be as it was written.

    Raises:
        ModelError: If there is none, or of another version, or it was changed.
    """
    card = Path(path) / CARD
    try:
        content = json.loads(card.read_text(encoding="utf-8"))
        is_ours = content.get("format") == FORMAT
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(
            f"'{path}' holds no exported model ({CARD} cannot be read). Name the --out folder of `lamella export`."
        ) from error
    if not is_ours:
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
    """Refuse an export of which a file is absent or differs.

    Raises:
        ModelError: Naming the file.
    """
    for name, sha256 in card["files"].items():
        try:
            found = find_sha256(path / name)
        except OSError as error:
            raise ModelError(
                f"'{path}' lacks '{name}' ({error.strerror}). Get the folder again from where it came."
            ) from error
        if found != sha256:
            raise ModelError(
                f"'{name}' of '{path}' is not the file that was exported: its SHA-256 begins {found[:12]} and must "
                f"begin {str(sha256)[:12]}. Get the folder again from where it came."
            )


def _refuse_code(predictor: Predictor) -> None:
    """Refuse an encoder that is more than a network of timm with its weights: nothing in a folder of others is run."""
    for encoder in predictor.encoders:
        network = find_encoder(encoder.name).network
        if not re.fullmatch(r"[\w.]+", network):
            raise ModelError(
                f"an encoder of '{predictor.folder}' asks for the network '{network}', which is none of timm's. Get "
                "the folder again from where it came."
            )


def _adopt_network(network: Path, described: Mapping[str, Any]) -> None:
    """Put OpenVINO's network where the runtime looks for it, which spares the conversion; it is checked all the same.

    Only one of the same OpenVINO is taken; otherwise the runtime converts the weights anew.
    """
    made = described["openvino"]
    try:
        here = importlib.metadata.version("openvino")
    except importlib.metadata.PackageNotFoundError:
        return
    if made is None or made["version"] != here:
        return
    from lamella.encoders.runtime.compiled import CompiledEntry

    entry = CompiledEntry(
        fingerprint=str(described["fingerprint"]),
        tile_px=int(made["tile_px"]),
        batch_size=int(made["batch_size"]),
        processor="",
    )
    if entry.is_whole():
        return
    try:
        entry.adopt(network)
    except OutputError as error:
        _log.warning("the compiled network is not kept: %s", error)
