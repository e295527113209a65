"""The bags of a run: what each states of itself, and its embeddings, which stay in its file until they are read."""

import bisect
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamella.cohort.spelling import tidy
from lamella.encoders.names import drop_folders
from lamella.errors import BagError
from lamella.features.bag import BagFolder, FeatureBag
from lamella.features.encoder_choice import split_address
from lamella.features.finding import BAG_SUFFIXES, find_bags
from lamella.features.layouts import open_bag, open_own_bag
from lamella.features.rows import StoredRows, choose_stored
from lamella.features.stored_bags import store_bag
from lamella.runs.facts import BagFacts, read_facts, refuse_mixture
from lamella.tiles import choose_rows, choose_tiles


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class RunBags:
    """Bags by slide id.

    Attributes:
        features: `(N, D)` float16 or float32 each, as stored; read when asked for, a quarter of free memory at once.
        corners_l0: `(N, 2)` int64 each, level-0 pixels; read so too.
        facts: What each states of itself.
        places_um: `(N, 2)` int64 each, whole um from the slide's corner, of bags that say so and no more (STAMP).
        given: Where bags lie that were there before the run, `FOLDER#ENCODER` where files hold several; else None.
    """

    features: Mapping[str, StoredRows | NDArray[Any]]
    corners_l0: Mapping[str, StoredRows | NDArray[np.int64]]
    facts: Mapping[str, BagFacts]
    places_um: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    given: Path | None = None

    @property
    def width(self) -> int:
        """D of an embedding."""
        return int(next(iter(self.features.values())).shape[1])

    def without(self, slide_ids: Collection[str]) -> "RunBags":
        """Return them without those of some slides."""
        kept = [slide_id for slide_id in self.features if slide_id not in slide_ids]
        return RunBags(
            features={slide_id: self.features[slide_id] for slide_id in kept},
            corners_l0={slide_id: self.corners_l0[slide_id] for slide_id in kept},
            facts={slide_id: self.facts[slide_id] for slide_id in kept},
            places_um={slide_id: self.places_um[slide_id] for slide_id in kept if slide_id in self.places_um},
            given=self.given,
        )

    def keep_tiles(self, n: int) -> tuple["RunBags", tuple[str, ...]]:
        """Return them with at most n tiles a slide, spread over its tissue, and the slides whose bags tell no places.

        Of a bag that does not say where its tiles lie, rows are drawn by hashes of the slide's id.
        """
        chosen: dict[str, NDArray[np.int64]] = {}
        unplaced = []
        for slide_id, rows in self.features.items():
            places = self.places_um.get(slide_id, self.corners_l0[slide_id][:])
            if len(places) == len(rows):
                chosen[slide_id] = choose_tiles(places, n, slide_id=slide_id)
            else:
                chosen[slide_id] = choose_rows(len(rows), n, slide_id=slide_id)
                unplaced.append(slide_id)
        kept = RunBags(
            features={slide_id: choose_stored(self.features[slide_id], rows) for slide_id, rows in chosen.items()},
            corners_l0={
                slide_id: corners[chosen[slide_id]] if len(corners) else corners
                for slide_id, corners in self.corners_l0.items()
            },
            facts={slide_id: facts.model_copy(update={"tiles_per_slide": n}) for slide_id, facts in self.facts.items()},
            given=self.given,
        )
        return kept, tuple(unplaced)

    def key(self, slide_id: str) -> str:
        """Return what identifies a bag's content: the slide's bytes, the cut and the encoder."""
        return hash_json([*self.facts[slide_id].identity, len(self.features[slide_id])])


def load_bags(folder: BagFolder, slide_ids: Sequence[str]) -> RunBags:
    """Load the bags of a run, checked to be of one encoder and free of NaN.

    Raises:
        BagError: If a bag is absent, damaged, or of another encoder than the others.
    """
    features, corners, facts = {}, {}, {}
    for slide_id in slide_ids:
        path = folder.features_path(slide_id)
        bag = open_own_bag(path)
        facts[slide_id] = read_facts(bag)
        features[slide_id], corners[slide_id], _ = store_bag(path, bag)
    refuse_mixture(folder.features, facts.values())
    return RunBags(features=features, corners_l0=corners, facts=facts)


def load_bag_folder(folder: Path, slide_ids: Sequence[str]) -> RunBags:
    """Load bags of any layout that `load_bag` reads, found by slide id.

    Args:
        folder: Of the bags; `FOLDER#ENCODER` where files hold embeddings of several encoders.
        slide_ids: Which.

    Raises:
        BagError: If a bag is absent, damaged, or of another encoder or width than the others.
    """
    features, corners, facts = {}, {}, {}
    places: dict[str, NDArray[np.int64]] = {}
    used: dict[Path, str] = {}
    index = _BagIndex(folder)
    for slide_id in slide_ids:
        path = index.find(slide_id)
        if path is None:
            there = split_address(folder)[0]
            below = sorted(p.parent for p in there.rglob(f"{slide_id}.*") if p.suffix in BAG_SUFFIXES)
            named = f": '{below[0]}'" if below else ", or make them: lamella extract"
            raise BagError(
                f"'{there}' holds no bag of slide '{slide_id}' ({slide_id}.h5 or .pt). Name the folder of the bags"
                f"{named}."
            )
        _refuse_shared(folder, slide_id, path, used)
        features[slide_id], corners[slide_id], facts[slide_id], in_um = _load_one(path, slide_id)
        places |= {} if in_um is None else {slide_id: in_um}
    refuse_mixture(folder, facts.values())
    return RunBags(features=features, corners_l0=corners, facts=facts, places_um=places, given=folder)


def load_good_bags(folder: Path, slide_ids: Sequence[str]) -> tuple[RunBags, dict[str, str]]:
    """Load the bags of a folder as `load_bag_folder` does, and go on past those of which no head can learn.

    Args:
        folder: As `load_bag_folder` takes it.
        slide_ids: Which.

    Returns:
        The bags, and by slide id why there is none: it is not there, damaged, empty or not finite.

    Raises:
        BagError: If it is no folder of bags, none of them is good, or they are not of one encoder and width.
    """
    features, corners, facts, bad = {}, {}, {}, {}
    places: dict[str, NDArray[np.int64]] = {}
    used: dict[Path, str] = {}
    index, where = _BagIndex(folder), f"'{split_address(folder)[0].name}'"
    for slide_id in slide_ids:
        try:
            path = index.find(slide_id)
            if path is None:
                bad[slide_id] = f"{where} holds no bag of it."
                continue
            _refuse_shared(folder, slide_id, path, used)
            rows, corners_l0, known, in_um = _load_one(path, slide_id)
        except BagError as error:
            bad[slide_id] = f"{where}: {error}"
            continue
        if not len(rows):
            bad[slide_id] = f"its bag in {where} holds no tiles."
            continue
        features[slide_id], corners[slide_id], facts[slide_id] = rows, corners_l0, known
        places |= {} if in_um is None else {slide_id: in_um}
    if not features:
        slide_id, reason = next(iter(bad.items()))
        raise BagError(f"no slide has a bag to learn from; of '{slide_id}' {reason}")
    refuse_mixture(folder, facts.values())
    return RunBags(features=features, corners_l0=corners, facts=facts, places_um=places, given=folder), bad


def _load_one(path: Path, slide_id: str) -> tuple[StoredRows, StoredRows, BagFacts, NDArray[np.int64] | None]:
    """Return the rows, corners and facts of one bag of any tool, and its places in um where it tells no others."""
    bag = open_bag(path)
    rows, corners_l0, sha256 = store_bag(path, bag)
    facts = read_facts(bag) if bag.layout == "lamella" else _list_foreign_facts(slide_id, bag, sha256)
    in_um = None if bag.coords_l0 is not None or bag.coords_um is None else np.rint(bag.coords_um).astype(np.int64)
    return rows, corners_l0, facts, in_um


class _BagIndex:
    """The bags of a folder by name, sorted once: 2,000 ids against 2,000 names, each with each, would take a minute.

    Raises:
        BagError: If it is no folder, or holds no bag.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sorted = sorted((tidy(slide_id), path) for slide_id, path in find_bags(folder))
        self._by_name = dict(self._sorted)

    def find(self, slide_id: str) -> Path | None:
        """Return the bag of a slide: by its id, else the only one that goes by the id and more.

        A bag made from `ID.UUID.svs` or under `ID.svs.h5` is called so, while tables often say ID alone (TCGA's
        barcode), or the other way round; accents may be composed in one and not in the other.

        Raises:
            BagError: If several bags could be the slide's.
        """
        if tidy(slide_id) in self._by_name:
            return self._by_name[tidy(slide_id)]
        likely = self.list_likely(slide_id)
        if len(likely) > 1:
            raise BagError(
                f"'{self._folder.name}' holds {len(likely)} bags that could be of slide '{slide_id}': "
                f"'{likely[0].name}' and '{likely[1].name}'. Write the whole name of the bag, without its ending, as "
                "slide_id."
            )
        return likely[0] if likely else None

    def list_likely(self, slide_id: str) -> list[Path]:
        """List the bags that go by a slide's id and more; else those whose name the id begins with."""
        parts = slide_id.split(".")
        shorter = [path for n in range(1, len(parts)) for path in self._begin(".".join(parts[:n]), exactly=True)]
        barcode = self._begin(f"{slide_id}-") if slide_id.startswith("TCGA-") else []
        return self._begin(f"{slide_id}.") or sorted(shorter) or barcode

    def _begin(self, text: str, *, exactly: bool = False) -> list[Path]:
        """List the bags whose name begins with a text, or is it."""
        paths = []
        for name, path in self._sorted[bisect.bisect_left(self._sorted, (text, Path())) :]:
            if not (name == text if exactly else name.startswith(text)):
                break
            paths.append(path)
        return sorted(paths)


def _refuse_shared(folder: Path, slide_id: str, path: Path, used: dict[Path, str]) -> None:
    """Refuse one bag for two slides."""
    other = used.setdefault(path, slide_id)
    if other != slide_id:
        raise BagError(
            f"slides '{other}' and '{slide_id}' both go by the bag '{path.name}' of '{folder.name}'. Write the whole "
            "name of each bag, without its ending, as slide_id."
        )


def _list_foreign_facts(slide_id: str, bag: FeatureBag, sha256: str) -> BagFacts:
    """Return what another tool's file states, and the hash of its embeddings."""
    # Where tiles lie on the slide, for attention: of use where both their places and their size are known.
    is_placed = bag.coords_l0 is not None
    width, height = (is_placed and bag.tile_l0) or (None, None)
    slide_width, slide_height = (is_placed and bag.tile_l0 and bag.slide_size) or (None, None)
    return BagFacts(
        slide_id=slide_id,
        slide_sha256=sha256,
        slide_quickhash="",
        encoder=None if bag.encoder is None else drop_folders(bag.encoder),
        tool=bag.layout,
        tile_px=bag.tile_px,
        mpp=bag.mpp,
        tile_magnification=_find_magnification(bag),
        embedding_dim=bag.shape[1],
        tile_width_l0=width,
        tile_height_l0=height,
        slide_width=slide_width,
        slide_height=slide_height,
    )


def _find_magnification(bag: FeatureBag) -> float | None:
    """Return the nominal magnification of the tiles, as TRIDENT and AtlasPatch state it."""
    stated = bag.provenance.get("target_magnification")
    return float(stated) if isinstance(stated, int | float) and 0 < stated < float("inf") else None


def hash_json(content: Any) -> str:
    """Return the SHA-256 of plain data, 64 hex digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
