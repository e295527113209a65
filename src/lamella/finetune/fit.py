"""Stage 2: encoder and head trained together, each slide's loss through its most attended tiles (HistoTransfer 2021).

Stage 1 gives the head, the standardisation, the class weights and the tiles. Batch normalisation stays in eval mode,
so a tile's embedding does not depend on its neighbours. The state after each epoch is written down: a run that was
killed goes on there, and ends as it would have.
"""

import copy
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lamella.cores import count_cores, using_threads
from lamella.encoders.blocks import ChainBlocks
from lamella.encoders.network import TileNetwork, pool
from lamella.errors import EncoderError, ModelError
from lamella.files import replacing
from lamella.finetune.augment import augment_tiles
from lamella.finetune.gradients import backpropagate_bag, choose_chunk
from lamella.finetune.inputs import ChoosingSource, FitPlaces, LabelledSlides, TileSource
from lamella.finetune.settings import FinetuneSettings
from lamella.mil import SlideModel
from lamella.mil.heads import Head
from lamella.mil.model import EpochRecord
from lamella.progress import Progress, SilentProgress

_AHEAD = 2


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class FinetuneResult:
    """What fine-tuning left.

    Attributes:
        network: The encoder with its new weights, in eval mode; the one that was given, changed.
        head: The head with its new weights, in eval mode.
        best_epoch: The epoch whose weights these are; 0 is stage 1, which no epoch bettered on validation.
        history: Every epoch, in order, epoch 0 (stage 1 on these tiles) first.
    """

    network: TileNetwork
    head: Head
    best_epoch: int
    history: tuple[EpochRecord, ...]


def fit_encoder(
    network: TileNetwork,
    model: SlideModel,
    tiles: TileSource,
    *,
    slides: LabelledSlides,
    settings: FinetuneSettings,
    places: FitPlaces | None = None,
    progress: Progress | None = None,
) -> FinetuneResult:
    """Train an encoder and a stage-1 head together on the slides' most attended tiles.

    The epoch kept is the one of the lowest validation log-loss, stage 1 among them. The same inputs give the same
    result bit for bit on one machine and thread count, killed and resumed or not.

    Args:
        network: The encoder of the model's bags, read at one depth; its weights are changed.
        model: Stage 1, trained on bags of that encoder.
        tiles: The most attended tiles of each slide.
        slides: Which slides, and their classes.
        settings: How.
        places: Where the state after each epoch is kept, and gone on from; None keeps none.
        progress: Told of each slide.

    Raises:
        EncoderError: If `train_blocks` is asked for of a network whose blocks cannot be told apart.
        ModelError: If the loss does not stay finite.
    """
    with using_threads(settings.n_threads or _count_threads()):
        places = places or FitPlaces()
        fit = _Fit(network, model, tiles, slides.targets, settings, places)
        return fit.run(list(slides.train), list(slides.val), places.checkpoint, progress or SilentProgress())


class _Fit:
    """One fine-tuning: the parts that every step needs."""

    def __init__(
        self,
        network: TileNetwork,
        model: SlideModel,
        tiles: TileSource,
        targets: dict[str, int],
        settings: FinetuneSettings,
        places: FitPlaces,
    ) -> None:
        self._network, self._settings, self._targets = network, settings, targets
        self._tiles = self._first_tiles = tiles
        refuse_unknown_blocks(network, settings)
        self._head = copy.deepcopy(model.head).train().requires_grad_(True)  # noqa: FBT003 - torch's own signature
        self._mean = torch.from_numpy(model.standardisation.mean)
        self._sd = torch.from_numpy(model.standardisation.sd)
        self._class_weights = torch.tensor(model.training.class_weights, dtype=torch.float32)
        self._start = self._choose_blocks()
        network.to(memory_format=torch.channels_last)  # depthwise convolutions go back 1.5 times as fast on a CPU
        self._encoder_parameters = [p for p in network.parameters() if p.requires_grad]
        # Tiles or maps that never change need be encoded to the first trained block only once.
        keeps = self._start > 0 and not settings.augments and settings.choose_again is None
        self._maps_folder = places.maps if keeps else None
        self._name = places.name
        self._chunk = 0
        groups = [{"params": list(self._head.parameters()), "lr": settings.head_lr}]
        if self._encoder_parameters:
            groups.append({"params": self._encoder_parameters, "lr": settings.encoder_lr})
        self._optimiser = torch.optim.Adam(groups)

    def _choose_blocks(self) -> int:
        """Mark the weights that are trained; return how many blocks before them are not."""
        network, settings = self._network, self._settings
        network.eval().requires_grad_(False)  # noqa: FBT003
        depth = network.blocks.depth
        if settings.finetuned == "head":
            return depth
        if settings.train_blocks is None or settings.train_blocks >= depth:
            network.requires_grad_(True)  # noqa: FBT003
            return 0
        start = depth - settings.train_blocks
        for number in range(start + 1, depth + 1):
            for parameter in network.blocks.named_block(number).values():
                parameter.requires_grad_(True)  # noqa: FBT003
        return start if isinstance(network.blocks, ChainBlocks) else 0

    # Encoding ---------------------------------------------------------------------------------------------------

    def _encode(self, inputs: Tensor) -> Tensor:
        """Encode uint8 tiles `(c, H, W, 3)`, float tiles `(c, 3, H, W)`, or the maps that enter the trained blocks."""
        network = self._network
        with torch.autocast("cpu", torch.bfloat16) if self._settings.precision == "bf16" else nullcontext():
            if self._maps_folder is not None:
                return self._finish(inputs)
            return pool(network.read_maps(_to_float(inputs))[0]).float()

    def _finish(self, maps: Tensor) -> Tensor:
        blocks = self._network.blocks
        if self._start == blocks.depth:
            return pool(maps).float()
        assert isinstance(blocks, ChainBlocks)
        maps = maps.contiguous(memory_format=torch.channels_last)
        return pool(blocks.forward_from(self._start, maps, self._network.depths)[0]).float()

    @torch.no_grad()
    def _prepare(self, slide_id: str, epoch: int) -> Tensor:
        """Return what `_encode` takes for a slide: tiles, augmented while training, or its maps."""
        if self._maps_folder is not None:
            return self._load_maps(slide_id)
        tiles = torch.from_numpy(self._tiles.read(slide_id))
        settings = self._settings
        if epoch and settings.augments:
            # A stream of its own for each slide and epoch, so that a resumed run draws the same.
            rng = np.random.default_rng([settings.seed, epoch, *slide_id.encode()])
            return augment_tiles(_to_float(tiles), rng, flips=settings.flips, stain_jitter=settings.stain_jitter)
        return tiles

    def _load_maps(self, slide_id: str) -> Tensor:
        """Load the maps that enter the trained blocks `(k, C, h, w)`; compute and keep them the first time."""
        assert self._maps_folder is not None
        path = self._maps_folder / f"{slide_id}.npy"
        if not path.exists():
            tiles = torch.from_numpy(self._tiles.read(slide_id))
            maps = torch.cat([self._enter(_to_float(part)) for part in torch.split(tiles, 8)])
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.save(file, maps.numpy())
        return torch.from_numpy(np.load(path, allow_pickle=False))

    def _enter(self, tiles: Tensor) -> Tensor:
        """Return what enters the trained blocks; where only the head is trained, the embedding is all that it reads."""
        blocks = self._network.blocks
        if self._start == blocks.depth:
            return pool(self._network.read_maps(tiles)[0])
        assert isinstance(blocks, ChainBlocks)
        return blocks.forward_from(0, self._network.normalise(tiles), (self._start,))[0]

    def _read_ahead(self, order: Sequence[str], epoch: int) -> Iterator[tuple[str, Tensor]]:
        """Yield slides with what `_encode` takes, the next ones read while the network works."""
        # Maps are computed by the network itself, in this thread; tiles are decoded beside it.
        n_threads = 1 if self._maps_folder is not None else 2
        with ThreadPoolExecutor(n_threads, "lamella-tiles") as pool_:
            waiting: list[tuple[str, Future[Tensor]]] = []
            rest = iter(order)
            try:
                while True:
                    while len(waiting) <= _AHEAD and (slide_id := next(rest, None)) is not None:
                        waiting.append((slide_id, pool_.submit(self._prepare, slide_id, epoch)))
                    if not waiting:
                        return
                    slide_id, future = waiting.pop(0)
                    yield slide_id, future.result()
            finally:
                pool_.shutdown(cancel_futures=True)

    # Training ---------------------------------------------------------------------------------------------------

    def run(self, train: list[str], val: list[str], checkpoint: Path | None, progress: Progress) -> FinetuneResult:
        """Train until validation no longer improves; leave the best weights in network and head."""
        settings = self._settings
        state = self._load(checkpoint)
        with progress.stage(self._name, settings.epochs * len(train), "slides") as stage:
            if state is None:
                loss = self._find_log_loss(val) if val else None
                state = _State([EpochRecord(epoch=0, train_loss=math.nan, val_log_loss=loss)], 0, self._weights())
                self._save(checkpoint, state)
            stage.advance(len(train) * (len(state.history) - 1))
            self._choose(len(state.history) - 1)
            for epoch in range(len(state.history), settings.epochs + 1):
                if epoch - 1 - state.best_epoch >= settings.patience:
                    break
                rng = np.random.default_rng([settings.seed, epoch])
                loss = self._train_epoch([train[i] for i in rng.permutation(len(train))], epoch, stage.advance)
                val_loss = self._find_log_loss(val) if val else None
                if not (math.isfinite(loss) and (val_loss is None or math.isfinite(val_loss))):
                    raise ModelError(
                        f"fine-tuning left the finite numbers in epoch {epoch} (loss {loss}, validation {val_loss}). "
                        "Pass a smaller --encoder-lr."
                    )
                state.history.append(EpochRecord(epoch=epoch, train_loss=loss, val_log_loss=val_loss))
                best = state.history[state.best_epoch].val_log_loss
                if val_loss is None or best is None or val_loss < best:
                    state.best_epoch, state.best = epoch, self._weights()
                self._save(checkpoint, state)
                self._choose(epoch)
        self._restore(state.best)
        self._network.eval().requires_grad_(False).to(memory_format=torch.contiguous_format)  # noqa: FBT003
        return FinetuneResult(
            network=self._network,
            head=self._head.eval().requires_grad_(False),  # noqa: FBT003
            best_epoch=state.best_epoch,
            history=tuple(state.history),
        )

    def _choose(self, epoch: int) -> None:
        """Choose the tiles again where the last finished epoch calls for it, or take what was chosen before it."""
        every, source = self._settings.choose_again, self._first_tiles
        if every is None or epoch < every or not isinstance(source, ChoosingSource):
            return
        if epoch % every == 0 or self._tiles is source:
            self._tiles = source.choose_again(self._network, self._head.eval(), epoch - epoch % every)
            self._head.train()

    def _train_epoch(self, order: Sequence[str], epoch: int, advance: Callable[[int], None]) -> float:
        total = 0.0
        for slide_id, inputs in self._read_ahead(order, epoch):
            self._optimiser.zero_grad(set_to_none=True)
            if not self._chunk:
                weights = list(self._network.parameters())
                self._chunk = choose_chunk(
                    self._encode, inputs, weights, memory_bytes=self._settings.memory_mib * 2**20
                )
            target = torch.tensor([self._targets[slide_id]])
            loss, _ = backpropagate_bag(
                self._encode,
                inputs,
                lambda embeddings, target=target: self._find_loss(embeddings, target),  # type: ignore[misc]
                chunk=self._chunk,
            )
            self._optimiser.step()
            total += loss
            advance(1)
        return total / len(order)

    def _find_loss(self, embeddings: Tensor, target: Tensor) -> Tensor:
        """Return the loss of one slide, weighted by its class, as stage 1 has it."""
        logits = self._predict(embeddings)
        return nn.functional.cross_entropy(logits, target, self._class_weights, reduction="sum")

    def _predict(self, embeddings: Tensor) -> Tensor:
        bag = ((embeddings - self._mean) / self._sd).unsqueeze(0)  # (1, k, D)
        logits: Tensor = self._head(bag, torch.ones(bag.shape[:2], dtype=torch.bool)).logits
        return logits

    @torch.no_grad()
    def _find_log_loss(self, order: Sequence[str]) -> float:
        """Return the mean log-loss of the corrected probabilities on the slides' tiles."""
        self._head.eval()
        total = 0.0
        for slide_id, inputs in self._read_ahead(order, 0):
            embeddings = torch.cat([self._encode(part) for part in torch.split(inputs, 8)])
            logits = self._predict(embeddings).double() - self._class_weights.double().log()
            total += float(nn.functional.cross_entropy(logits, torch.tensor([self._targets[slide_id]])))
        self._head.train()
        return total / len(order)

    # State ------------------------------------------------------------------------------------------------------

    def _weights(self) -> dict[str, dict[str, Tensor]]:
        """Copy the weights that are trained."""
        trained = {n: p.detach().clone() for n, p in self._network.named_parameters() if p.requires_grad}
        return {"network": trained, "head": copy.deepcopy(self._head.state_dict())}

    def _restore(self, weights: dict[str, dict[str, Tensor]]) -> None:
        self._network.load_state_dict(weights["network"], strict=False)
        self._head.load_state_dict(weights["head"])

    def _save(self, path: Path | None, state: "_State") -> None:
        if path is None:
            return
        content = {
            "history": [[r.epoch, r.train_loss, r.val_log_loss] for r in state.history],
            "best_epoch": state.best_epoch,
            "best": state.best,
            "now": self._weights(),
            "optimiser": self._optimiser.state_dict(),
        }
        with replacing(path) as temporary:
            torch.save(content, temporary)

    def _load(self, path: Path | None) -> "_State | None":
        """Go back to the last finished epoch; None where there is none, or it cannot be read."""
        if path is None or not path.exists():
            return None
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            history = [EpochRecord(epoch=e, train_loss=loss, val_log_loss=val) for e, loss, val in content["history"]]
            self._restore(content["now"])
            self._optimiser.load_state_dict(content["optimiser"])
            return _State(history, int(content["best_epoch"]), content["best"])
        except Exception:  # noqa: BLE001 - an unpickler raises whatever the damage makes of its code
            return None  # damaged: trained again from stage 1, which loses time and nothing else


def _count_threads() -> int:
    """Return how many threads to use where none are asked for: not torch's, which other steps may have changed."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(int(asked), count_cores()) if asked.isdecimal() and int(asked) else count_cores()


@dataclass(slots=True)
class _State:
    """Where a training stands after an epoch."""

    history: list[EpochRecord]
    best_epoch: int
    best: dict[str, dict[str, Tensor]]


def _to_float(tiles: Tensor) -> Tensor:
    """Return `(c, 3, H, W)` float32, channels last in memory, from tiles `(c, H, W, 3)` uint8 or such floats."""
    tiles = tiles.permute(0, 3, 1, 2).float() if tiles.dtype == torch.uint8 else tiles
    return tiles.contiguous(memory_format=torch.channels_last)


def refuse_unknown_blocks(network: TileNetwork, settings: FinetuneSettings) -> None:
    """Raise where some blocks only are to be trained of a network whose blocks cannot be told apart.

    Raises:
        EncoderError: Naming a remedy.
    """
    if settings.finetuned == "tuned" and settings.train_blocks is not None:
        try:
            network.blocks.named_block(network.blocks.depth)
        except EncoderError as error:
            raise EncoderError(f"--train-blocks {settings.train_blocks} cannot be done: {error}") from error
