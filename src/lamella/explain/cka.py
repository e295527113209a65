"""CKA between two encoders over a cohort's slides: how much each block sees what it saw before.

OUT/activations/<key>/<slide_id>.npy    mean activations of each block, a row a tile; kept, so a killed run goes on
OUT/cka.json                            alignments with intervals, weight changes, what was compared
OUT/cka.csv                             the same, a row a pair of blocks
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lamella.analysis.cka import MIN_SLIDES, BlockAligner, BlockAlignment
from lamella.cohort import CohortSlide
from lamella.defaults import CKA_TILES
from lamella.encoders import EncoderSpec, find_encoder, fingerprint_encoder
from lamella.encoders.network import TileNetwork, build_network, pool
from lamella.encoders.tuned import load_seen
from lamella.errors import EncoderError, LamellaError, LeakageError, OutputError, SettingsError
from lamella.explain.records import AlignmentRecord, ComparisonRecord
from lamella.features.failures import Failure, save_failures
from lamella.features.leaks import find_leak
from lamella.features.plan import CutSettings, plan_slide, refuse_empty
from lamella.features.settings import name_in_files
from lamella.files import refuse_links, replacing, write_json, write_table
from lamella.progress import Progress, SilentProgress
from lamella.runs.bags import hash_json
from lamella.slide import Slide, hash_quickly
from lamella.temporaries import sweep_temporaries

if TYPE_CHECKING:
    from torch import Tensor

    from lamella.encoders.blocks import Blocks, ChainBlocks

_TILES_AT_ONCE = 8
_COLUMNS = ("against", "first_block", "second_block", "cka", "low", "high")


@dataclass(frozen=True, slots=True, kw_only=True)
class CkaSettings:
    """What is compared, over which tiles.

    Attributes:
        first: The encoder that the other is held against: the frozen one.
        second: The other.
        controls: Further encoders held against the first, beside itself: one of another seed, random weights.
        cut: How slides are cut into tiles.
        n_tiles: Minibatches, each of one tile of each slide, drawn without repeating while a slide has enough.
        seed: Of the draw.
        allow_seen: Whether slides that a fine-tuned encoder was trained on may be compared over.
    """

    first: EncoderSpec
    second: EncoderSpec
    controls: tuple[EncoderSpec, ...] = ()
    cut: CutSettings = dataclasses.field(default_factory=CutSettings)
    n_tiles: int = CKA_TILES
    seed: int = 0
    allow_seen: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be compared."""
        if self.n_tiles < 1:
            raise SettingsError(
                f"{self.n_tiles} tiles a slide are asked for and at least 1 is needed. Pass --tiles 64."
            )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CkaResult:
    """What a comparison found.

    Attributes:
        alignments: By name of what is held against the first encoder; the second encoder first.
        one_block: `(blocks,)` CKA at each block's end when that block alone is taken from the second encoder; None
            where the two are not of one network.
        weight_change: `(blocks,)` length of the change of each block's weights, relative to the weights; None likewise.
        failures: Slides that could not be read.
    """

    alignments: dict[str, BlockAlignment]
    one_block: BlockAlignment | None
    weight_change: NDArray[np.float64] | None
    failures: tuple[Failure, ...]


def compare_encoders(
    slides: Sequence[CohortSlide], settings: CkaSettings, out: Path, *, progress: Progress | None = None
) -> CkaResult:
    """Compare encoders block by block over the tiles of held-out slides, with controls, into a folder.

    Args:
        slides: At least 8 that can be read; they should be none that either encoder was trained on.
        settings: What is compared.
        out: Where results go; activations already there are used again.
        progress: Where to report to.

    Raises:
        SettingsError: If fewer than 8 slides can be read.
        LeakageError: If a fine-tuned encoder was trained on one of them.
        EncoderError: If an encoder has no blocks to compare.
    """
    progress = progress or SilentProgress()
    _refuse_few(len(slides))
    refuse_links(out)
    sweep_temporaries(out)
    encoders = (settings.first, settings.second, *settings.controls)
    comparison = _Comparison.open(encoders, settings)
    folder = out / "activations" / comparison.key[:16]
    done, failures = [], []
    with progress.stage("compute activations", len(slides), "slides") as stage:
        for slide in slides:
            try:
                if not (folder / f"{slide.slide_id}.npy").exists():
                    comparison.save_activations(slide, folder)
                done.append(slide)
            except (LeakageError, OutputError):
                raise
            except LamellaError as error:
                failures.append(Failure(slide.slide_id, "cka", str(error)))
            stage.advance()
    save_failures(failures, out / "failures.csv")
    _refuse_few(len(done), failures)
    result = dataclasses.replace(
        comparison.align([folder / f"{s.slide_id}.npy" for s in done]), failures=tuple(failures)
    )
    _save(result, settings, [s.slide_id for s in done], out)
    return result


def _refuse_few(n_slides: int, failures: Sequence[Failure] = ()) -> None:
    if n_slides < MIN_SLIDES:
        why = f" The first that cannot be read: {failures[0].reason}" if failures else ""
        n = f"{n_slides} slides that can be read"
        raise SettingsError(f"CKA is asked for over {n} and needs at least {MIN_SLIDES}. Add slides.{why}")


@dataclass(frozen=True, slots=True, eq=False)
class _Comparison:
    """The networks of a comparison, and which columns of an activation row are whose."""

    settings: CkaSettings
    names: list[str]
    networks: "list[TileNetwork]"
    depths: list[int]
    key: str
    swaps: bool  # whether the second encoder is the first's network with other weights, piece for piece

    @classmethod
    def open(cls, encoders: Sequence[EncoderSpec], settings: CkaSettings) -> "_Comparison":
        networks, depths = [], []
        for spec in encoders:
            depth = find_encoder(spec.name).depth
            network = build_network(spec, tuple(range(1, depth + 1)))
            if not network.blocks.is_numbered:
                raise EncoderError(
                    f"encoder '{spec.name}' has no numbered blocks to compare. Name a ResNet, DenseNet, EfficientNet, "
                    "vision transformer, or another network of timm with features of stride 4 to 32."
                )
            networks.append(network)
            depths.append(depth)
        key = hash_json(
            [
                [fingerprint_encoder(spec) for spec in encoders],
                dataclasses.asdict(settings.cut),
                settings.n_tiles,
                settings.seed,
            ]
        )
        names = [_name(spec) for spec in encoders]
        return cls(settings, names, networks, depths, key, _are_of_one_kind(networks[0].blocks, networks[1].blocks))

    def save_activations(self, item: CohortSlide, folder: Path) -> None:
        """Compute a slide's activations `(n_tiles, D)` float32, all networks and blocks side by side."""
        settings = self.settings
        plan = plan_slide(item, settings.cut)
        try:
            refuse_empty(item, plan)
            self._refuse_seen(item, plan.slide)
            rng = np.random.default_rng([settings.seed, *hash_quickly(item.path).encode()])
            n = len(plan.corners_l0)
            drawn = np.concatenate([rng.permutation(n) for _ in range(-(-settings.n_tiles // n))])[: settings.n_tiles]
            side, rows = settings.cut.spec.tile_px, []
            for start in range(0, len(drawn), _TILES_AT_ONCE):
                tiles = np.stack(
                    [
                        plan.slide.read_box(
                            (float(x), float(y)),
                            (side, side),
                            settings.cut.spec.mpp,
                            max_upsample=settings.cut.max_upsample,
                        )
                        for x, y in plan.corners_l0[drawn[start : start + _TILES_AT_ONCE]]
                    ]
                )
                rows.append(self._activate(tiles))
        finally:
            plan.slide.close()
        with replacing(folder / f"{item.slide_id}.npy") as temporary, temporary.open("wb") as file:
            np.save(file, np.concatenate(rows))

    def _refuse_seen(self, item: CohortSlide, slide: Slide) -> None:
        if self.settings.allow_seen:
            return
        for spec in (self.settings.first, self.settings.second, *self.settings.controls):
            reason = find_leak(load_seen(spec.name), item, slide)
            if reason:
                raise LeakageError(
                    f"slide '{item.slide_id}' is to be compared over, but {reason} ('{_name(spec)}'). Leave it out, or "
                    "pass --allow-seen to compare over training slides."
                )

    def _activate(self, tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            pixels = torch.from_numpy(tiles).permute(0, 3, 1, 2).float()
            maps = [network.read_maps(pixels) for network in self.networks]
            columns = [pool(output) for outputs in maps for output in outputs]
            if self.swaps:
                columns += self._swap(pixels, maps[0])
            return torch.cat(columns, dim=1).numpy()

    def _swap(self, pixels: "Tensor", maps: "list[Tensor]") -> "list[Tensor]":
        """Return each block's activation when it alone is the second encoder's."""
        first, second = self.networks[:2]
        blocks: ChainBlocks = second.blocks  # type: ignore[assignment]
        entering = [first.normalise(pixels), *maps[:-1]]
        return [
            pool(blocks.forward_from(number, maps_before, (number + 1,))[0])
            for number, maps_before in enumerate(entering)
        ]

    def align(self, paths: Sequence[Path]) -> CkaResult:
        """Stream minibatches out of the activations, a tile of each slide at a time."""
        rows = [np.load(path, mmap_mode="r", allow_pickle=False) for path in paths]
        widths = self._widths()
        aligners = [BlockAligner(self.depths[0], depth) for depth in self.depths]
        alone = [BlockAligner(1, 1) for _ in range(self.depths[0])] if self.swaps else []
        for tile in range(self.settings.n_tiles):
            batch = np.stack([row[tile] for row in rows]).astype(np.float64)  # (slides, D)
            parts = np.split(batch, np.cumsum(widths)[:-1], axis=1)
            networks, start = [], 0
            for depth in self.depths:
                networks.append(parts[start : start + depth])
                start += depth
            for aligner, other in zip(aligners, networks, strict=True):
                aligner.add(networks[0], other)
            for block, aligner in enumerate(alone):
                aligner.add([networks[0][block]], [parts[start + block]])
        itself, second, *controls = (aligner.align() for aligner in aligners)
        alignments = {self.names[1]: second, f"{self.names[0]} (itself)": itself}
        return CkaResult(
            alignments=alignments | dict(zip(self.names[2:], controls, strict=True)),
            one_block=_join_diagonal([aligner.align() for aligner in alone]) if alone else None,
            weight_change=self._find_weight_change() if self.swaps else None,
            failures=(),
        )

    def _widths(self) -> list[int]:
        """Return the width of every column of an activation row, in order."""
        widths = [
            find_encoder(f"{find_encoder(spec.name).whole_name}@{number}").embedding_dim
            for spec, depth in zip(
                (self.settings.first, self.settings.second, *self.settings.controls), self.depths, strict=True
            )
            for number in range(1, depth + 1)
        ]
        return widths + (widths[: self.depths[0]] if self.swaps else [])

    def _find_weight_change(self) -> NDArray[np.float64]:
        """Return the length of each block's change of weights, relative to the first encoder's weights."""
        changes = []
        for number in range(1, self.depths[0] + 1):
            before, after = (network.blocks.named_block(number) for network in self.networks[:2])
            moved = sum(float((after[key] - before[key]).double().square().sum()) for key in before)
            length = sum(float(weight.double().square().sum()) for weight in before.values())
            changes.append(np.sqrt(moved / length))
        return np.array(changes)


def _join_diagonal(parts: Sequence[BlockAlignment]) -> BlockAlignment:
    """Return alignments of single blocks as one row."""
    return BlockAlignment(
        values=np.hstack([part.values for part in parts]),
        low=np.hstack([part.low for part in parts]),
        high=np.hstack([part.high for part in parts]),
        n_slides=parts[0].n_slides,
        n_batches=parts[0].n_batches,
        undefined=np.hstack([part.undefined for part in parts]),
    )


def _are_of_one_kind(first: "Blocks", second: "Blocks") -> bool:
    """Say whether two encoders are of one network, piece for piece, so that a block of one fits into the other."""
    if getattr(first, "paths", 1) != getattr(second, "paths", 2):
        return False
    shapes = [{key: weight.shape for key, weight in blocks.named_state().items()} for blocks in (first, second)]
    return shapes[0] == shapes[1]


def _name(spec: EncoderSpec) -> str:
    """Return an encoder's name, and its weights where they are not its own."""
    name = name_in_files(spec)
    return name if spec.weights == "auto" else f"{name} ({Path(spec.weights).name})"


def _save(result: CkaResult, settings: CkaSettings, slide_ids: Sequence[str], out: Path) -> None:
    content = ComparisonRecord(
        first=_name(settings.first),
        second=_name(settings.second),
        slides=tuple(slide_ids),
        n_tiles_a_slide=settings.n_tiles,
        alignments={name: _describe(alignment) for name, alignment in result.alignments.items()},
        one_block=None if result.one_block is None else _describe(result.one_block),
        weight_change=None if result.weight_change is None else tuple(result.weight_change.tolist()),
    )
    write_json(out / "cka.json", content.as_json())
    rows = [
        dict(zip(_COLUMNS, (name, a + 1, b + 1, cka, alignment.low[a, b], alignment.high[a, b]), strict=True))
        for name, alignment in result.alignments.items()
        for (a, b), cka in np.ndenumerate(alignment.values)
    ]
    write_table(out / "cka.csv", _COLUMNS, rows)


def _describe(alignment: BlockAlignment) -> AlignmentRecord:
    return AlignmentRecord(
        cka=alignment.values.tolist(),
        low=alignment.low.tolist(),
        high=alignment.high.tolist(),
        undefined=alignment.undefined.tolist(),
        n_slides=alignment.n_slides,
        n_batches=alignment.n_batches,
    )
