"""What a study says of each of its arms, before and after it ran."""

from collections.abc import Mapping
from pathlib import Path

from lamella.encoders import find_encoder
from lamella.encoders.names import N_BLOCKS
from lamella.encoders.profile import profile_encoder
from lamella.encoders.scale import find_seen
from lamella.encoders.weights import find_weights
from lamella.errors import LamellaError, WeightsError
from lamella.features.encoder_choice import split_address
from lamella.studies.arms import Arm
from lamella.studies.design_parts import TileDesign
from lamella.studies.record import ArmRecord


def describe_arm(arm: Arm, tiles: Mapping[str, TileDesign], *, declared: bool) -> ArmRecord:
    """Return an arm's row in `study.json`; an arm whose weights are not here says what gets them.

    Args:
        arm: Which arm.
        tiles: The tile specs of the design, by name.
        declared: Whether it stood in the design before results were seen.

    Raises:
        EncoderError: If no encoder has that name, or it cannot be cut there.
    """
    if arm.features:
        return _describe_features(arm, declared=declared)
    card = find_encoder(arm.trunk)
    spec = tiles[arm.tiles]
    (profile,) = profile_encoder(arm.encoder, tile_px=spec.tile_px, depths=(arm.depth,), seconds=0)
    command = find_command(arm)
    return ArmRecord(
        arm=arm.name,
        key=arm.key,
        encoder=arm.encoder,
        depth=arm.depth,
        weights=arm.weights if arm.weights in ("auto", "random") else Path(arm.weights).name,
        finetuned=arm.finetuned,
        head=arm.head,
        tiles=arm.tiles,
        tile_px=spec.tile_px,
        mpp_asked=spec.mpp,
        mpp_seen=find_seen(card, spec.tile_px, spec.mpp)[1],
        tiles_per_slide=arm.tiles_per_slide or None,
        width=arm.width or None,
        state="waiting for weights" if command else "not run",
        reason="its weights are not here" if command else None,
        command=command,
        estimated_seconds=None,
        declared=declared,
        pretraining="random" if arm.weights == "random" else find_pretraining(card.trained_on),
        imagenet_top1=None if arm.weights == "random" else card.imagenet_top1,
        parameters=profile.n_parameters,
        gflops=profile.gflops,
        dim=profile.width,
        licence=card.licence,
    )


def _describe_features(arm: Arm, *, declared: bool) -> ArmRecord:
    """Return the row of an arm whose bags are there already."""
    command = find_command(arm)
    return ArmRecord(
        arm=arm.name,
        key=arm.key,
        encoder=arm.encoder,
        depth=None,
        weights="",
        finetuned=arm.finetuned,
        head=arm.head,
        tiles="",
        features=Path(arm.features).name,
        tiles_per_slide=arm.tiles_per_slide or None,
        width=arm.width or None,
        state="not run",
        reason=command,
        command=command,
        declared=declared,
        gflops=find_gflops(arm),
    )


def find_gflops(arm: Arm) -> float | None:
    """Return the arithmetic of a tile where bags are called as an encoder that has a card; None where none is."""
    try:
        (profile,) = profile_encoder(find_encoder(arm.encoder).name, depths=(N_BLOCKS,), seconds=0)
    except LamellaError:
        return None
    return profile.gflops


def find_command(arm: Arm) -> str | None:
    """Return why an arm's weights are not here and the command that gets them; None where they are."""
    if arm.features:
        there = split_address(arm.features)[0]
        return None if there.is_dir() else f"there is no folder '{there.name}' of bags. Correct its path."
    try:
        find_weights(find_encoder(arm.trunk), arm.weights)
    except WeightsError as error:
        return str(error)
    return None


def find_pretraining(trained_on: tuple[str, ...]) -> str:
    """Return what kind of images weights were trained on.

    Example:
        >>> find_pretraining(("ImageNet-1k",)), find_pretraining(("TCGA", "CAMELYON16")), find_pretraining(())
        ('imagenet', 'histology', 'other')
        >>> find_pretraining(("LVD-142M",))
        'other'
    """
    names = [name.lower() for name in trained_on]
    if not names or all(name.startswith(("lvd-", "wit-")) for name in names):  # pictures of all kinds
        return "other"
    return "imagenet" if all("imagenet" in name for name in names) else "histology"
