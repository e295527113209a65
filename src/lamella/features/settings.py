"""What an extraction is asked for, and where its bags go."""

from dataclasses import dataclass, field
from pathlib import Path

from lamella.defaults import DTYPE
from lamella.encoders import EncoderSpec, RuntimeSettings, find_encoder
from lamella.encoders.names import drop_folders, is_tuned, join_name, split_name
from lamella.encoders.scale import find_seen
from lamella.errors import SettingsError
from lamella.features.bag import BagFolder
from lamella.features.plan import CutSettings
from lamella.tiles import TileSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractSettings:
    """How slides become bags.

    Attributes:
        cut: How slides are cut into tiles.
        encoders: Which encoders, each with which weights; a bag of each is written.
        runtime: Where and at which precision they run.
        dtype: How embeddings are stored: `float16` (half the disk; relative rounding 5e-4) or `float32`.
        n_threads: Decoding threads; None is one a core, at most 8.
        off_spec: Whether encoders may see another resolution than their cards declare; else that is refused.
    """

    cut: CutSettings = field(default_factory=CutSettings)
    encoders: tuple[EncoderSpec, ...]
    runtime: RuntimeSettings = field(default_factory=RuntimeSettings)
    dtype: str = DTYPE
    n_threads: int | None = None
    off_spec: bool = False

    def __post_init__(self) -> None:
        """Refuse a type that is not stored."""
        if self.dtype not in ("float16", "float32"):
            raise SettingsError(f"embeddings cannot be stored as '{self.dtype}'. Pass --dtype float16 or float32.")
        names = [name_in_files(encoder) for encoder in self.encoders]
        if not names or len(set(names)) < len(names):
            raise SettingsError(
                f"encoders are {', '.join(names) or 'none'} and each must be named once. Pass --encoder."
            )

    @property
    def encoder(self) -> EncoderSpec:
        """The first encoder, and the only one of a run."""
        return self.encoders[0]

    def folder(self, out: Path, encoder: EncoderSpec | None = None) -> BagFolder:
        """Return where the bags of an encoder (the first, if none is named) lie under `out`."""
        return BagFolder(out, self.cut.spec, name_in_files(encoder or self.encoder))


def name_in_files(encoder: EncoderSpec) -> str:
    """Return an encoder's name as bags state it: one spelling of its depth, no folders of one's own `FILE.py:build`.

    Example:
        >>> name_in_files(EncoderSpec("resnet18@minus1")), name_in_files(EncoderSpec("resnet18@4"))
        ('resnet18@3', 'resnet18')
    """
    name = drop_folders(join_name(*split_name(encoder.name)))
    return name.replace(".safetensors", "") if is_tuned(name) else name


@dataclass(frozen=True, slots=True)
class BagTarget:
    """Bags of one encoder: what makes them, and where they go.

    Attributes:
        encoder: Which encoder.
        fingerprint: Its fingerprint.
        folder: Where its bags lie.
    """

    encoder: EncoderSpec
    fingerprint: str
    folder: BagFolder


def state_encoder(target: BagTarget, spec: TileSpec) -> dict[str, str | int | float]:
    """Return what a bag states of its encoder, and of the scale that it saw, in pixels and um per pixel."""
    seen_px, mpp_seen = find_seen(find_encoder(target.encoder.name), spec.tile_px, spec.mpp)
    return {
        "encoder": name_in_files(target.encoder),
        "weights": target.encoder.weights if target.encoder.weights == "random" else "pretrained",
        "fingerprint": target.fingerprint,
        "seen_px": seen_px,
        "mpp_asked": spec.mpp,
        "mpp_seen": mpp_seen,
    }
