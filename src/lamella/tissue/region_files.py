"""Which file of a folder belongs to which slide, and which classes of it count."""

import functools
import hashlib
import time
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shapely.geometry.base import BaseGeometry

from lamella.errors import SettingsError, TissueError
from lamella.slide.frame import Bounds, move_to_canvas
from lamella.tissue.areas import count_kinds, say_option
from lamella.tissue.mask import TissueMask
from lamella.tissue.regions import load_regions, read_drawing, restrict_tissue

AREA_SUFFIXES = (".geojson", ".json", ".xml")
_SLIDE_SUFFIXES = (
    ".svs", ".tif", ".tiff", ".ome", ".btf", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide", ".dcm",
    ".czi", ".isyntax", ".qptiff", ".vsi", ".zarr", ".jp2", ".jpg", ".jpeg", ".png", ".bmp",
)  # fmt: skip
# What is hashed for a slide's regions changes with what is made of a file, so that older bags are not taken for newer.
_READING = b"areas by class 2"
_SETTLED_NS = 2_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionChoice:
    """Regions to include or to exclude: where they lie, and which of them count.

    Attributes:
        kind: `include` or `exclude`; the options are called after it.
        path: A file, or a folder of files called after the slides; None is no region.
        classes: The classes that count; empty takes the only one there is.
    """

    kind: str
    path: Path | None = None
    classes: tuple[str, ...] = ()

    @property
    def class_option(self) -> str:
        """The option that chooses classes."""
        return f"--{self.kind}-class"

    def find_file(self, slide_id: str) -> Path | None:
        """Return the file of a slide; None where the folder has none.

        Raises:
            TissueError: If the folder has several.
        """
        if self.path is None or not self.path.is_dir():
            return self.path
        return find_slide_file(self.path, slide_id, AREA_SUFFIXES)

    def load(self, slide_id: str, bounds_l0: Bounds) -> BaseGeometry | None:
        """Return the regions of a slide, level-0 pixels of the canvas; None where it has none.

        GeoJSON counts from the corner of the scan, as QuPath does, XML from that of the canvas.

        Raises:
            TissueError: If they cannot be read, or, of those to include, none is of the classes.
        """
        file = self.find_file(slide_id)
        if file is None or (self.kind == "exclude" and self.classes and not read_drawing(file).has_class(self.classes)):
            return None
        region = load_regions(file, self.classes, option=self.class_option)
        return region if file.suffix.lower() == ".xml" else move_to_canvas(region, bounds_l0)

    def identify(self, slide_id: str) -> bytes:
        """Return what tells the regions of a slide from others; empty where it has none."""
        file = self.find_file(slide_id)
        if file is None or not file.is_file():
            return b""
        chosen = "\0".join(sorted(name.casefold() for name in self.classes))
        return b"\0".join([_READING, self.kind.encode(), chosen.encode(), file.read_bytes()])

    def survey(self, slide_ids: Sequence[str]) -> str | None:
        """Look through the files of all slides before anything is done with them.

        Returns:
            How many slides have no file, in words; None where all have one.

        Raises:
            SettingsError: If there is no file for any slide, several for one, one for several slides, or classes of
                which none is chosen.
        """
        if self.path is None:
            if self.classes:
                raise SettingsError(
                    f"{self.class_option} chooses among regions and there are none. Pass --{self.kind} FOLDER too."
                )
            return None
        if not self.path.exists():
            raise SettingsError(
                f"--{self.kind} names '{self.path}', which is not there. Name a GeoJSON file or a folder of them."
            )
        if self.path.is_file() and len(slide_ids) > 1:
            raise SettingsError(
                f"--{self.kind} names one file but there are {len(slide_ids)} slides. Name a folder that holds one "
                "<slide_id>.geojson a slide."
            )
        try:
            files = [file for slide_id in slide_ids if (file := self.find_file(slide_id)) is not None]
        except TissueError as error:
            raise SettingsError(f"--{self.kind}: {error}") from error
        if not files:
            raise SettingsError(f"--{self.kind}: {say_no_match(self.path, slide_ids, AREA_SUFFIXES)}")
        refuse_unclear_classes(files, self.classes, f"--{self.kind}", self.class_option)
        n_without = len(slide_ids) - len(files)
        if not n_without:
            return None
        used = "used whole" if self.kind == "include" else "nothing excluded there"
        return f"{n_without} of {len(slide_ids)} slides have no regions file in '{self.path.name}': {used}"


def restrict_to_choices(
    tissue: TissueMask, choices: Sequence[RegionChoice], slide_id: str, bounds_l0: Bounds
) -> TissueMask:
    """Return the tissue of a slide inside the regions to include and outside those to exclude.

    Args:
        tissue: What was found on the slide.
        choices: Of both kinds.
        slide_id: The slide's id.
        bounds_l0: `Slide.bounds_l0`.

    Raises:
        TissueError: If regions cannot be read or lie beside the slide.
    """
    regions = {choice.kind: choice.load(slide_id, bounds_l0) for choice in choices}
    include, exclude = regions.get("include"), regions.get("exclude")
    if include is None and exclude is None:
        return tissue
    return restrict_tissue(tissue, include=include, exclude=exclude)


def hash_choices(choices: Sequence[RegionChoice], slide_id: str) -> str:
    """Return the SHA-256 of all that bears on a slide's regions; empty where it has none."""
    parts = [choice.identify(slide_id) for choice in choices]
    return hashlib.sha256(b"\0\0".join(parts)).hexdigest() if any(parts) else ""


def refuse_unclear_classes(files: Sequence[Path], classes: Sequence[str], what: str, option: str) -> None:
    """Raise where files hold several classes of which none is chosen, or none of those that are.

    Files that cannot be read are passed over: each is told of with its slide.

    Args:
        files: GeoJSON or XML.
        classes: What was chosen.
        what: The option that names the files, for messages.
        option: The option that chooses classes, for messages.

    Raises:
        SettingsError: Naming the classes.
    """
    n_files: Counter[str] = Counter()
    has_chosen = False
    for file in files:
        try:
            drawing = read_drawing(file)
        except TissueError:
            continue
        has_chosen = has_chosen or drawing.has_class(classes)
        n_files.update(list(drawing.classes) or dict.fromkeys(area.class_name for area in drawing.areas if classes))
    if not n_files:
        return
    if classes and not has_chosen:
        raise SettingsError(
            f"{what}: no area is of class {' or '.join(classes)}; the classes are {', '.join(sorted(n_files))}. "
            f"Pass {say_option(option, sorted(n_files))}."
        )
    if not classes and len(n_files) > 1:
        held = count_kinds(Counter({f"with {name}": n for name, n in n_files.most_common()}))
        raise SettingsError(
            f"{what}: the files hold {len(n_files)} classes ({held}). Choose what counts: "
            f"{say_option(option, [name for name, _ in n_files.most_common()])}."
        )


def find_slide_file(
    folder: Path, slide_id: str, suffixes: Sequence[str], *, besides: Path | None = None
) -> Path | None:
    """Return the file of a slide in a folder; None where there is none.

    `S1.geojson`, `S1.svs.geojson` and `S1_mask.json` are all of slide `S1`, in upper or lower case and however accents
    are composed.

    Args:
        folder: Where files lie.
        slide_id: The slide's id.
        suffixes: The suffixes that count, in lower case.
        besides: A file that does not count: the slide itself, where it lies in the folder.

    Raises:
        TissueError: If several files are of the slide.
    """
    files = [
        path
        for path in _index_folder(folder).get(_strip_slide_suffix(slide_id), ())
        if path.suffix.lower() in suffixes
        and path.is_file()
        and not (besides is not None and besides.exists() and path.samefile(besides))
    ]
    if len(files) > 1:
        named = " and ".join(f"'{path.name}'" for path in files[:3])
        raise TissueError(
            f"slide '{slide_id}' has {len(files)} files in '{folder.name}': {named}. Keep one of them there."
        )
    return files[0] if files else None


def say_no_match(folder: Path, slide_ids: Sequence[str], suffixes: Sequence[str]) -> str:
    """Say that no file of a folder is called after a slide, with an example of both."""
    others = sorted(path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    likely = [name for name in others if Path(name).suffix.lower() in suffixes]
    held = f"it holds '{(likely or others)[0]}'" if others else "it is empty"
    return (
        f"no file in '{folder.name}' is called after a slide (0 of {len(slide_ids)}): '{slide_ids[0]}{suffixes[0]}' "
        f"and the like were looked for, and {held}. Call the files <slide_id>{suffixes[0]}."
    )


def _index_folder(folder: Path) -> Mapping[str, Sequence[Path]]:
    """Return the files of a folder by the slides they may be of; listed again once the folder has changed.

    A folder that changed a moment ago may change again within a tick of its clock, so it is not kept.
    """
    changed_ns = folder.stat().st_mtime_ns
    is_settled = time.time_ns() - changed_ns > _SETTLED_NS
    return (_list_files if is_settled else _list_files.__wrapped__)(folder, changed_ns)


@functools.lru_cache(maxsize=8)
def _list_files(folder: Path, changed_ns: int) -> Mapping[str, Sequence[Path]]:
    """Return the files of a folder by the slides they may be of: by name without suffixes, and without `_mask`."""
    del changed_ns  # tells the folder's states apart
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        name = _strip_slide_suffix(path.name.removesuffix(path.suffix))
        names = {name, _strip_slide_suffix(name.removesuffix("_mask"))}
        for entry in names:
            files.setdefault(entry, []).append(path)
    return files


def _strip_slide_suffix(name: str) -> str:
    """Return a name without the suffixes of slide files, folded.

    Example:
        >>> _strip_slide_suffix("S1.OME.tiff"), _strip_slide_suffix("S1.2")
        ('s1', 's1.2')
    """
    name = _fold(name)
    while suffix := next((ending for ending in _SLIDE_SUFFIXES if name.endswith(ending) and name != ending), None):
        name = name.removesuffix(suffix)
    return name


def _fold(name: str) -> str:
    """Return a name in one spelling: accents composed, in lower case."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
