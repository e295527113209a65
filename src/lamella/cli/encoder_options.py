"""Options of encoders: which, with which weights, and where they run."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from lamella.defaults import DEVICE, PRECISION, WEIGHTS, DeviceName, PrecisionName
from lamella.encoders.catalogue import DEFAULT_ENCODER

if TYPE_CHECKING:
    from lamella.encoders import EncoderSpec, RuntimeSettings

_option = partial(typer.Option, rich_help_panel="Encoder")


WeightsOption = Annotated[
    str,
    _option(
        "--weights",
        metavar="PATH",
        help="Weights: auto (those of the encoder's card), a file, or random (seeded by the encoder's name).",
    ),
]
DeviceOption = Annotated[
    str,
    _option(
        "--device",
        metavar=f"<{'|'.join(get_args(DeviceName))}>",
        help="Where the encoder runs; several graphics cards are cuda:0,cuda:1.",
    ),
]
PrecisionOption = Annotated[
    PrecisionName,
    _option(
        "--precision",
        help="What the encoder computes in; auto takes the fastest that agrees with fp32 on the slides' own tiles.",
    ),
]

OffSpecOption = Annotated[
    bool,
    _option("--off-spec", help="Let the encoder see another resolution than it was trained at; else that is refused."),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustOptions:
    """Whose code may run."""

    trust: Annotated[
        list[Path] | None,
        _option(
            "--trust",
            metavar="FILE.py",
            help="Your own file that builds the encoder, where a folder or study names one: code is run from this "
            "file only. May be given again.",
            show_default=False,
        ),
    ] = None

    def apply(self) -> None:
        """Trust these files until the command ends."""
        from lamella.encoders.trust import trust

        trust(*self.trust or ())


class _Runs:
    """Where an encoder runs."""

    device: str
    precision: PrecisionName

    def settings(self) -> "RuntimeSettings":
        """Return where and in what precision it runs."""
        from lamella.encoders import RuntimeSettings

        return RuntimeSettings(device=self.device, precision=self.precision)


@dataclass(frozen=True, kw_only=True)
class EncoderOptions(_Runs):
    """What turns tiles into embeddings, and where it runs."""

    encoder: Annotated[
        str,
        _option(
            "--encoder",
            metavar="NAME",
            help="Encoder: a name of `lamella encoders`, timm:NAME, hf-hub:OWNER/NAME or FILE.py:build; NAME@3 keeps "
            "its first 3 blocks of 4.",
        ),
    ] = DEFAULT_ENCODER
    weights: WeightsOption = WEIGHTS
    device: DeviceOption = DEVICE
    precision: PrecisionOption = PRECISION
    off_spec: OffSpecOption = False

    def spec(self) -> "EncoderSpec":
        """Return which encoder with which weights."""
        from lamella.encoders import EncoderSpec
        from lamella.encoders.trust import trust

        trust(self.encoder)  # it was typed
        return EncoderSpec(name=self.encoder, weights=self.weights)


@dataclass(frozen=True, kw_only=True)
class EncodersOptions(_Runs):
    """What turns tiles into embeddings, several encoders at once, and where they run."""

    encoder: Annotated[
        list[str] | None,
        _option(
            "--encoder",
            metavar="NAME",
            help="Encoder: a name of `lamella encoders`, timm:NAME, hf-hub:OWNER/NAME or FILE.py:build; NAME@3 keeps "
            "its first 3 blocks of 4, NAME@1,2,3,4 writes a bag for each. May be given again.",
            show_default=DEFAULT_ENCODER,
        ),
    ] = None
    weights: WeightsOption = WEIGHTS
    device: DeviceOption = DEVICE
    precision: PrecisionOption = PRECISION
    off_spec: OffSpecOption = False

    def specs(self) -> "tuple[EncoderSpec, ...]":
        """Return which encoders with which weights."""
        from lamella.encoders import EncoderSpec
        from lamella.encoders.names import expand_names, split_name
        from lamella.encoders.trust import trust
        from lamella.errors import SettingsError

        names = expand_names(self.encoder or [DEFAULT_ENCODER])
        if self.weights not in ("auto", "random") and len({split_name(name)[0] for name in names}) > 1:
            raise SettingsError(
                f"--weights names one file but there are several encoders ({', '.join(names)}). Extract each with its "
                "own, in runs of its own."
            )
        trust(*names)  # they were typed
        return tuple(EncoderSpec(name=name, weights=self.weights) for name in names)
