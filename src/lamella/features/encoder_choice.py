"""Which encoder is meant where one file holds embeddings of several (AtlasPatch, LazySlide): `FILE#ENCODER`."""

from collections.abc import Sequence
from pathlib import Path

from lamella.errors import BagError

OF_SEVERAL = ("atlaspatch", "lazyslide")  # layouts that hold embeddings of several encoders


def split_address(path: Path | str) -> tuple[Path, str | None]:
    """Return a path without `#ENCODER` at its end, and the encoder; None where none is named.

    A file whose own name has a `#` is itself.

    Example:
        >>> path, encoder = split_address("patches/S-1.h5#uni_v1")
        >>> path.name, encoder
        ('S-1.h5', 'uni_v1')
    """
    path = Path(path)
    whole, mark, encoder = str(path).rpartition("#")
    if not mark or not whole or not encoder or "/" in encoder or path.exists() or _names_a_file(encoder):
        return path, None
    return Path(whole), encoder


def _names_a_file(encoder: str) -> bool:
    """Say whether what follows a # is the rest of a file's own name."""
    return Path(encoder).suffix in (".h5", ".hdf5", ".pt", ".pth", ".npz", ".zarr")


def choose_encoder(name: str, encoders: Sequence[str], encoder: str | None) -> str:
    """Return the encoder that is meant among those whose embeddings a file holds.

    Args:
        name: The file, for messages.
        encoders: Those it holds.
        encoder: The one that is asked for; None takes the only one.

    Raises:
        BagError: If there is none, if the one asked for is not there, or if none is and there are several.
    """
    if encoder is not None and encoder in encoders:
        return encoder
    if not encoders:
        raise BagError(f"'{name}' holds tiles and no embeddings of them. Run the tool's feature step, then open it.")
    listed = ", ".join(encoders[:12]) + (f" and {len(encoders) - 12} more" if len(encoders) > 12 else "")
    if encoder is not None:
        raise BagError(f"'{name}' holds no embeddings of encoder '{encoder}'; it has {listed}. Name one of these.")
    if len(encoders) > 1:
        raise BagError(
            f"'{name}' holds embeddings of {len(encoders)} encoders: {listed}. Name one after a #: "
            f"'{name}#{encoders[0]}', or of a folder of such files 'FOLDER#{encoders[0]}'."
        )
    return encoders[0]


def refuse_other_encoder(name: str, stated: str | None, encoder: str | None) -> None:
    """Refuse a bag of one encoder where another is asked for.

    Args:
        name: The file, for the message.
        stated: Encoder that the file states; None where it states none.
        encoder: The one that is asked for; None takes any.

    Raises:
        BagError: If the file is of another, or does not say.
    """
    if encoder is None or encoder == stated:
        return
    if stated is None:
        raise BagError(f"'{name}' does not state its encoder, so '{encoder}' cannot be chosen. Leave '#{encoder}' out.")
    raise BagError(f"'{name}' is of encoder '{stated}' and '{encoder}' is asked for. Name a bag of '{encoder}'.")
