"""What an encoder of one's own must keep to, as checks that anyone can run: `lamella encoders --check FILE.py:build`.

Each check says what it saw. What fails would give wrong embeddings, or end a command later; a remark costs only speed,
or leaves something out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from lamella.encoders.cards import EncoderCard, EncoderSpec
from lamella.encoders.names import N_BLOCKS, is_own
from lamella.encoders.network import TileNetwork, build_network
from lamella.encoders.own import build_own, hash_own_state, read_own_card, run_own
from lamella.encoders.own_declaration import OwnDeclaration, read_declaration
from lamella.encoders.runtime.checking import compare_embeddings, split_batches
from lamella.encoders.runtime.compiled import convert
from lamella.encoders.runtime.protocol import needed_cosines
from lamella.errors import EncoderError

_SIDE = 224
_OTHER_SIDES = (256, 320)
_N_TILES = 6
_MOST_DIFFERENCE = 1e-4  # of an embedding, as a share of its largest value


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What one check of an encoder found.

    Attributes:
        name: What was looked at.
        passed: Whether the encoder keeps to it; None for a remark.
        said: What was seen, and what to do where it fails.
    """

    name: str
    passed: bool | None
    said: str


class _Remark(Exception):
    """What a check saw is no fault."""


def check_encoder(name: str) -> tuple[Check, ...]:
    """Check that one's own encoder can be used, cut, fine-tuned and run by OpenVINO like the others.

    Args:
        name: `FILE.py:build`; the file must be trusted (`lamella.trusting`), since it is run.

    Raises:
        EncoderError: If it is no encoder of one's own, cannot be built, or declares what cannot be.

    Example:
        >>> from lamella.encoders.conformance import check_encoder
        >>> failed = [c for c in check_encoder("mine.py:build") if c.passed is False]  # doctest: +SKIP
    """
    if not is_own(name):
        raise EncoderError(f"encoder '{name}' is not your own, so there is nothing to check. Pass FILE.py:build.")
    module = build_own(name)
    declared = read_declaration(name, module)
    side = _choose_side(declared)
    done = [
        _do("output", lambda: _check_output(module, declared, name, side, 2)),
        _do("batch of one", lambda: _check_output(module, declared, name, side, 1)),
    ]
    rest: dict[str, Callable[[_Bench], str]] = {
        "batches": _check_batches,
        "determinism": _check_determinism,
        "numbers": _check_numbers,
        "sizes": _check_sizes,
        "half precision": _check_half,
        "blocks": _check_blocks,
        "fine-tuning": _check_gradients,
        "OpenVINO": _check_openvino,
    }
    if not all(check.passed for check in done):
        return (*done, *(Check(name=what, passed=None, said="not looked at: its output is wrong") for what in rest))
    bench = _Bench(name=name, card=read_own_card(name), declared=declared, side=side)
    return (*done, *(_do(what, lambda look=look: look(bench)) for what, look in rest.items()))  # type: ignore[misc]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bench:
    """What the checks look at.

    Attributes:
        name: The encoder.
        card: Its card.
        declared: What its network declares.
        side: Of the tiles, in pixels.
    """

    name: str
    card: EncoderCard
    declared: OwnDeclaration
    side: int

    def build(self, *depths: int) -> TileNetwork:
        return build_network(EncoderSpec(self.name), depths or (N_BLOCKS,))

    def embed(self, network: TileNetwork, tiles: Tensor) -> Tensor:
        with torch.inference_mode():
            return network(tiles)  # type: ignore[no-any-return]

    def embed_finite(self, network: TileNetwork, tiles: Tensor) -> Tensor:
        """Embed what others are held against; where that holds NaN, nothing can be."""
        embeddings = self.embed(network, tiles)
        if not bool(embeddings.isfinite().all()):
            raise _Remark("not looked at: in fp32 it gives NaN or infinity already")
        return embeddings


def _do(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name=name, passed=True, said=look())
    except _Remark as remark:
        return Check(name=name, passed=None, said=str(remark))
    except EncoderError as error:
        return Check(name=name, passed=False, said=str(error))
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything
        reason = str(error).splitlines()[0] if str(error) else "no reason given"
        return Check(name=name, passed=False, said=f"{type(error).__name__}: {reason}")


def _choose_side(declared: OwnDeclaration) -> int:
    step = declared.size_step or 1
    return declared.input_px or max(step, round(_SIDE / step) * step)


def make_tiles(n_tiles: int, side: int) -> Tensor:
    """Return `(n, 3, side, side)` float32, values 0 to 255: the first black, the second white, others of blots."""
    rng = np.random.default_rng(3)
    coarse = torch.from_numpy(rng.uniform(0, 255, (n_tiles, 3, 9, 7)).astype(np.float32))
    tiles = torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear").round()
    tiles[:1], tiles[1:2] = 0, 255
    return tiles


def _check_output(module: torch.nn.Module, declared: OwnDeclaration, name: str, side: int, n_tiles: int) -> str:
    outputs = run_own(module, declared, name, torch.zeros(n_tiles, 3, side, side))
    return f"{(n_tiles, 3, side, side)} gives {', '.join(str(tuple(output.shape)) for output in outputs)}"


def _check_batches(bench: _Bench) -> str:
    network, tiles = bench.build(), make_tiles(_N_TILES, bench.side)
    together = bench.embed(network, tiles)
    alone = torch.cat([bench.embed(network, tile[None]) for tile in tiles])
    whole = together.isfinite().all(dim=1) & alone.isfinite().all(dim=1)  # another check looks at the others
    together, alone = together[whole], alone[whole]
    scale = float(together.abs().amax()) if len(together) else 0.0
    difference = float((together - alone).abs().amax()) / scale if scale else 0.0
    if difference > _MOST_DIFFERENCE:
        raise EncoderError(
            f"a tile's embedding depends on the other tiles of its batch (by {difference:.2g} of its largest value). "
            "Normalise each tile by itself."
        )
    return f"a tile alone and among {_N_TILES} differ by {difference:.1g} of the largest value"


def _check_determinism(bench: _Bench) -> str:
    tiles, network = make_tiles(_N_TILES, bench.side), bench.build()
    if hash_own_state(bench.name) != hash_own_state(bench.name):
        raise EncoderError("built twice, its weights differ. Load them from a file, or draw them by torch.")
    first, again, anew = bench.embed(network, tiles), bench.embed(network, tiles), bench.embed(bench.build(), tiles)
    if not (torch.equal(first, again) and torch.equal(first, anew)):
        raise EncoderError("run twice on the same tiles, its embeddings differ. Take what is drawn by chance out.")
    return "built and run twice: the same to the bit"


def _check_numbers(bench: _Bench) -> str:
    embeddings = bench.embed(bench.build(), make_tiles(_N_TILES, bench.side))
    for number, what in enumerate(("a black tile", "a white tile", "a tile of blots")):
        if not bool(embeddings[number].isfinite().all()):
            raise EncoderError(f"{what} gives NaN or infinity. Look for a division by 0 or the logarithm of 0.")
    if float((embeddings[2:] - embeddings[2]).abs().max()) == 0:
        raise EncoderError("all tiles get the same embedding. Look whether the network reads its input.")
    return "black, white and blots give finite numbers, and different tiles different ones"


def _check_sizes(bench: _Bench) -> str:
    declared, network = bench.declared, bench.build()
    if declared.fixed_input:
        tiles = make_tiles(2, bench.side * 3 // 2)
        bench.embed(network, tiles)
        return f"tiles are resized to {bench.side} px inside"
    step = declared.size_step
    sides = _OTHER_SIDES if step is None else (bench.side + step, max(step, bench.side - step))
    for side in sides:
        try:
            bench.embed(network, make_tiles(2, side))
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            hint = f"'input_px = {bench.side}'" if step is None else "another 'size_step'"
            raise EncoderError(
                f"takes tiles of {bench.side} px and none of {side} ({reason}). Give it {hint}."
            ) from error
    return f"takes tiles of {', '.join(str(side) for side in sorted((bench.side, *sides)))} px"


def _check_half(bench: _Bench) -> str:
    tiles, network = make_tiles(_N_TILES * 4, bench.side), bench.build()
    exact = bench.embed_finite(network, tiles)
    with torch.autocast("cpu", torch.bfloat16):
        half = bench.embed(network, tiles).float()
    if not bool(half.isfinite().all()):
        raise EncoderError("in bf16 it gives NaN or infinity. Compute what overflows in fp32.")
    check = compare_embeddings(half.numpy(), exact.numpy(), precision="bf16")
    said = f"bf16 agrees with fp32 to a mean cosine of {check.cosine_mean:.4f} (needed {needed_cosines('bf16')[0]})"
    if not check.passed:
        raise _Remark(f"{said}: fp32 is used, slower")
    return said


def _check_blocks(bench: _Bench) -> str:
    if not bench.declared.blocks:
        raise _Remark("it names no 'blocks', so it can be used whole only")
    tiles, every = make_tiles(2, bench.side), tuple(range(1, N_BLOCKS + 1))
    together = bench.embed(bench.build(*every), tiles)
    for depth, rows in zip(every, torch.split(together, list(bench.card.block_dims or ()), dim=1), strict=True):
        cut = bench.embed(bench.build(depth), tiles)
        if not torch.allclose(cut, rows, rtol=1e-4, atol=1e-6):
            raise EncoderError(f"cut after block {depth} it computes something else than the whole does there.")
    network = bench.build(*every)
    empty = [number for number in every[:-1] if not network.blocks.named_block(number)]
    if empty:
        raise EncoderError(f"block {empty[0]} has no weights of its own. Name other modules in 'blocks'.")
    return f"four blocks of width {', '.join(map(str, bench.card.block_dims or ()))}"


def _check_gradients(bench: _Bench) -> str:
    network = bench.build().requires_grad_(requires_grad=True)
    parameters = list(network.parameters())
    if not parameters:
        raise _Remark("it has no weights, so there is nothing to fine-tune")
    loss = network(make_tiles(3, bench.side)[2:]).square().sum()
    if loss.requires_grad:
        loss.backward()
    moved = [parameter for parameter in parameters if parameter.grad is not None and bool(parameter.grad.any())]
    if not moved:
        raise EncoderError("no weight has a gradient, so it cannot be fine-tuned. Leave no_grad() and detach() out.")
    if not all(bool(parameter.grad.isfinite().all()) for parameter in moved if parameter.grad is not None):
        raise EncoderError("gradients are NaN or infinite, so it cannot be fine-tuned. Look for a division by 0.")
    return f"{len(moved)} of {len(parameters)} tensors of weights have a gradient"


def _check_openvino(bench: _Bench) -> str:
    if find_spec("openvino") is None:
        raise _Remark("not installed here, so not looked at")
    from lamella.encoders.runtime.openvino_runtime import OpenVINORuntime

    depths = tuple(range(1, N_BLOCKS + 1)) if bench.declared.blocks else (N_BLOCKS,)
    network, tiles = bench.build(*depths), make_tiles(_N_TILES * 4, bench.side)
    exact = bench.embed_finite(network, tiles)
    try:
        model = convert(network, tile_px=bench.side, batch_size=_N_TILES)
        widths = bench.card.block_dims or (bench.card.embedding_dim,)
        runtime = OpenVINORuntime(model, encoder=bench.name, widths=widths, precision="fp32", n_threads=1)
    except RuntimeError as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[-1]
        raise _Remark(f"cannot run it ({reason[:120]}): torch computes it, slower") from error
    pixels = tiles.permute(0, 2, 3, 1).to(torch.uint8).numpy()
    rows = np.concatenate(list(runtime.encode(split_batches(pixels, _N_TILES))))
    check = compare_embeddings(rows, exact.numpy(), precision="fp32")
    said = f"agrees with torch to a mean cosine of {check.cosine_mean:.4f} (needed {needed_cosines('fp32')[0]})"
    if not check.passed:
        raise _Remark(f"{said}: torch computes it, slower")
    return said
