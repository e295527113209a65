"""A network of one's own, whole or cut where its author says that blocks end.

How such a network runs is not known, so it is never taken apart: it runs as it is, is read where a named module ends,
and stops there. What would come behind is not run, and not exported.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from lamella.encoders.blocks import Blocks
from lamella.encoders.names import N_BLOCKS, drop_folders
from lamella.encoders.own_declaration import OwnDeclaration
from lamella.errors import EncoderError

_PROBE_PX = 224


class _ReachedError(Exception):
    """The last module that is needed has run."""


def _is_exporting() -> bool:
    """Say whether torch writes the network down, which follows every module to its end; what is not used goes later."""
    is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
    return bool(is_exporting())


class OwnBlocks(Blocks):
    """The first blocks of a network of one's own.

    Args:
        trunk: The network.
        declared: What it says of itself.
        name: The encoder, for the errors.
        depth: How many of its four blocks are kept.
    """

    def __init__(self, trunk: nn.Module, declared: OwnDeclaration, name: str, depth: int = N_BLOCKS) -> None:
        super().__init__()
        self.trunk, self.declared, self.name, self.depth = trunk, declared, drop_folders(name), depth
        if depth < N_BLOCKS and not declared.blocks:
            self._refuse_cutting()

    @property
    def is_numbered(self) -> bool:  # type: ignore[override]
        """See `Blocks.is_numbered`: where its author says where blocks end."""
        return bool(self.declared.blocks)

    def forward(self, images: Tensor, depths: Sequence[int]) -> list[Tensor]:
        """See `Blocks.forward`."""
        outputs: dict[int, Any] = {}

        def hold(number: int) -> Callable[..., None]:
            def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
                outputs.setdefault(number, output)
                if number == max(depths) and not _is_exporting():
                    raise _ReachedError

            return keep

        with ExitStack() as hooks:
            for number in depths:
                if number < N_BLOCKS:
                    hooks.callback(self._end_of(number).register_forward_hook(hold(number)).remove)
            with suppress(_ReachedError):
                outputs[N_BLOCKS] = self.trunk(images)
        missing = next((number for number in depths if number not in outputs), None)
        if missing is not None:
            raise EncoderError(
                f"encoder '{self.name}' never runs the module '{self.declared.blocks[missing - 1]}' that its block "
                f"{missing} is to end with. Correct its attribute 'blocks'."
            )
        return [self._read(outputs[number], is_inner=number < N_BLOCKS) for number in depths]

    def read_last_map(self, images: Tensor, depth: int) -> tuple[Tensor, Tensor]:
        """See `Blocks.read_last_map`; the map is what leaves the last block, as its module gives it."""
        if not self.declared.blocks:
            self._refuse_cutting()
        held: list[Tensor] = []

        def hold(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            maps, rest = (output, None) if isinstance(output, Tensor) else (output[0], output[1:])
            held.append(maps.detach().requires_grad_())
            return held[0] if rest is None else (held[0], *rest)

        with ExitStack() as hooks:
            hooks.callback(self._end_of(depth).register_forward_hook(hold).remove)
            (embedding,) = self(images, (depth,))
        return held[0], embedding.mean(dim=(2, 3)) if embedding.ndim == 4 else embedding

    def lay_out(self, maps: Tensor) -> Tensor:
        """See `Blocks.lay_out`; of tokens, those of patches as a square.

        Raises:
            EncoderError: If they make no square.
        """
        if maps.ndim == 4:
            return maps.movedim(-1, 1) if self.declared.channels_last else maps
        patches = maps[:, self.declared.n_prefix_tokens :]
        side = round(patches.shape[1] ** 0.5)
        if side * side != patches.shape[1]:
            raise EncoderError(f"{patches.shape[1]} tokens make no square map. Use square tiles.")
        return patches.transpose(1, 2).reshape(len(patches), -1, side, side)

    def named_state(self) -> dict[str, Tensor]:
        """See `Blocks.named_state`; all of the network's, since what lies behind a cut cannot be told."""
        return dict(self.trunk.state_dict())

    def named_block(self, number: int) -> dict[str, Tensor]:
        """See `Blocks.named_block`: the parameters of what first runs in the block, found by running a blank tile.

        Raises:
            EncoderError: If its author does not say where blocks end.
        """
        if not self.declared.blocks:
            self._refuse_cutting()
        block_of, running = {"": 1}, [1]

        def enter(path: str) -> Callable[..., None]:
            def note(*_: Any) -> None:
                block_of.setdefault(path, running[0])

            return note

        def leave(*_: Any) -> None:
            running[0] = min(N_BLOCKS, running[0] + 1)

        parameter = next(self.trunk.parameters())
        side = self.declared.input_px or _PROBE_PX
        with ExitStack() as hooks, torch.no_grad():
            for path, module in self.trunk.named_modules():
                hooks.callback(module.register_forward_pre_hook(enter(path)).remove)
            for end in range(1, N_BLOCKS):
                hooks.callback(self._end_of(end).register_forward_hook(leave).remove)
            self.trunk(torch.zeros(1, 3, side, side, device=parameter.device, dtype=parameter.dtype))
        return {
            key: parameter
            for key, parameter in self.trunk.named_parameters()
            if block_of.get(key.rpartition(".")[0], N_BLOCKS) == number
        }

    def _end_of(self, number: int) -> nn.Module:
        return self.trunk.get_submodule(self.declared.blocks[number - 1])

    def _read(self, output: Any, *, is_inner: bool) -> Tensor:
        """Return a map `(B, D, h, w)` or an embedding `(B, D)` from what a module gives."""
        values: Tensor = output if isinstance(output, Tensor) else output[0]
        declared = self.declared
        if values.ndim == 4 and declared.channels_last:
            return values.movedim(-1, 1)
        if values.ndim != 3 or not declared.pooling:
            return values
        if is_inner and declared.norm:
            values = self.trunk.get_submodule(declared.norm)(values)
        token, mean = values[:, 0], values[:, declared.n_prefix_tokens :].mean(dim=1)
        return {"token": token, "mean": mean}.get(declared.pooling, torch.cat([token, mean], dim=1))

    def _refuse_cutting(self) -> NoReturn:
        raise EncoderError(
            f"encoder '{self.name}' is your own, and where its blocks end is not known. Give its network an attribute "
            f"'blocks', the names of {N_BLOCKS} modules, or ask for it whole."
        )
