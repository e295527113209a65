"""Names of encoders: `NAME@DEPTH`, and how they are taken apart.

An encoder is four numbered blocks; `NAME@DEPTH` keeps the first DEPTH of them, and `NAME` alone all four. The paper's
"ResNet18-Minus1" is `resnet18@3`, and so is written `resnet18@minus1` or `resnet18@layer3`.

A transformer has more blocks than four, of which the numbered ones are quarters. `NAME@block18` is its first 18: an
encoder of its own, which has quarters too (`NAME@block18@2`). Its blocks 1 to 4 are written with two digits,
`NAME@block03`, since `@block3` is the third numbered block of any network.
"""

import difflib
import re

from lamella.errors import EncoderError

N_BLOCKS = 4

_DEPTHS = re.compile(r"^(?P<whole>.+)@(?P<depths>[\w,]*)$")
_LAYERS = re.compile(r"^(?P<base>.+)@block(?P<layers>\d{2,3}|[5-9])$")
_SPELLING = re.compile(r"^(?:(?P<removed>minus)|layer|denseblock|block)?(?P<number>\d)$")


def split_name(name: str) -> tuple[str, int]:
    """Return the name of the whole encoder, and how many of its blocks are kept.

    Raises:
        EncoderError: If the depth is none of 1 to 4, or there are several.

    Example:
        >>> split_name("resnet18@3"), split_name("resnet18@minus1"), split_name("densenet121@denseblock2")
        (('resnet18', 3), ('resnet18', 3), ('densenet121', 2))
        >>> split_name("resnet18")
        ('resnet18', 4)
    """
    match = _DEPTHS.match(name)
    if match is None or _LAYERS.match(name) is not None:
        return _spell_layers(name), N_BLOCKS
    if "," in match["depths"]:
        raise EncoderError(
            f"encoder '{name}' asks for several depths and one is needed here. Pass '{match['whole']}@"
            f"{match['depths'].partition(',')[0]}'; `lamella extract` takes several."
        )
    return _spell_layers(match["whole"]), _read_depth(name, match["depths"])


def split_layers(name: str) -> tuple[str, int | None]:
    """Return the name of a whole encoder without its transformer blocks, and how many of those are kept.

    Args:
        name: As `split_name` returns it.

    Example:
        >>> split_layers("uni@block18"), split_layers("uni"), split_name("uni@block18@2")
        (('uni', 18), ('uni', None), ('uni@block18', 2))
    """
    match = _LAYERS.match(name)
    return (name, None) if match is None else (match["base"], int(match["layers"]))


def _spell_layers(name: str) -> str:
    """Write the number of transformer blocks as it is written everywhere: with two digits at least."""
    base, layers = split_layers(name)
    return name if layers is None else f"{base}@block{layers:02d}"


def join_name(whole: str, depth: int) -> str:
    """Return the name of an encoder's first blocks, as it is written everywhere.

    Example:
        >>> join_name("resnet18", 3), join_name("resnet18", 4)
        ('resnet18@3', 'resnet18')
    """
    return whole if depth == N_BLOCKS else f"{whole}@{depth}"


def expand_names(names: list[str]) -> tuple[str, ...]:
    """Return one name for each depth asked for, each once, in the order of asking.

    Raises:
        EncoderError: If a depth is none of 1 to 4.

    Example:
        >>> expand_names(["resnet18@2,4", "densenet121@minus0"])
        ('resnet18@2', 'resnet18', 'densenet121')
        >>> expand_names(["uni@2,block18,block7"])
        ('uni@2', 'uni@block18', 'uni@block07')
    """
    expanded = []
    for name in names:
        match = _DEPTHS.match(name)
        if match is None:
            expanded.append(name)
            continue
        for depth in match["depths"].split(","):
            one = f"{match['whole']}@{depth}"
            expanded.append(_spell_layers(one) if _LAYERS.match(one) else join_name(*_split_one(name, one)))
    return tuple(dict.fromkeys(expanded))


def is_own(name: str) -> bool:
    """True for names of the form `FILE.py:build`."""
    return re.search(r"\.py:\w+$", name) is not None


def is_tuned(name: str) -> bool:
    """True for the file of a fine-tuned encoder, whole or cut: `tuned.safetensors`, `tuned.safetensors@2`."""
    return split_layers(split_name(name)[0])[0].endswith(".safetensors")


def drop_folders(name: str) -> str:
    """Return an encoder's name without the folders of the file that it names, for what is written down and passed on.

    Example:
        >>> drop_folders("/home/ann/model/encoder.safetensors@2,4"), drop_folders("/home/ann/mine.py:build")
        ('encoder.safetensors@2,4', 'mine.py:build')
        >>> drop_folders("hf-hub:OWNER/NAME")
        'hf-hub:OWNER/NAME'
    """
    is_file = re.search(r"\.(?:safetensors|py:\w+)(?:@[\w,]*)?$", name)
    return re.split(r"[/\\]", name)[-1] if is_file else name


def no_encoder_called(name: str, names: list[str], where: str) -> str:
    """Compose the error for a name that nothing has, with the nearest that something has."""
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    nearest = f"The nearest is '{near[0]}'; {where}." if near else f"{where[0].upper()}{where[1:]}."
    return f"no encoder is called '{name}'. {nearest}"


def _split_one(name: str, one: str) -> tuple[str, int]:
    """Split `one`, a name of a single depth; errors speak of `name`, as it was asked for."""
    whole, _, depth = one.rpartition("@")
    return _spell_layers(whole), _read_depth(name, depth)


def _read_depth(name: str, depth: str) -> int:
    """Read one spelling of a depth."""
    spelt = _SPELLING.match(depth)
    number = -1 if spelt is None else int(spelt["number"])
    if spelt is not None and spelt["removed"]:
        number = N_BLOCKS - number
    if not 1 <= number <= N_BLOCKS:
        raise EncoderError(
            f"encoder '{name}' asks for depth '{depth}' and depths are 1 to {N_BLOCKS}, the number of blocks kept. "
            f"Pass '{name.rpartition('@')[0]}@{N_BLOCKS - 1}' to leave the last block out."
        )
    return number
