"""Several graphics cards as one, tried with devices that are none: order, bounds, errors, and whose turn it is."""

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np
import pytest

from lamella.encoders import EncoderSpec, RuntimeSettings, open_runtime
from lamella.encoders.runtime import machine
from lamella.encoders.runtime.protocol import IN_FLIGHT, Embeddings, PrecisionCheck, Tiles
from lamella.encoders.runtime.several import SeveralRuntimes
from lamella.errors import EncoderError, SettingsError


class FakeCard:
    """A device that holds three batches before it gives the first back, as CUDA's does, and takes its time."""

    name, encoder, precision, widths, batch_size = "fake", "x", "bf16", (2,), 1
    checks: tuple[PrecisionCheck, ...] = ()
    notes: tuple[str, ...] = ()
    is_settled = False

    def __init__(self, device: str, seconds: float = 0.0, fails_at: int = -1) -> None:
        self.device, self.seconds, self.fails_at = device, seconds, fails_at
        self.seen: list[int] = []
        self.closed = False

    def encode(self, batches: Iterable[Tiles]) -> Iterator[Embeddings]:
        held: deque[int] = deque()
        for batch in batches:
            number = int(batch[0, 0, 0, 0])
            if number == self.fails_at:
                raise EncoderError(f"'{self.device}' fell off the bus")
            self.seen.append(number)
            time.sleep(self.seconds)
            held.append(number)
            if len(held) == IN_FLIGHT:
                yield self._give(held.popleft())
        while held:
            yield self._give(held.popleft())

    def _give(self, number: int) -> Embeddings:
        return np.full((1, 2), number, dtype=np.float32)

    def close(self) -> None:
        self.closed = True


def make(n: int) -> list[Tiles]:
    return [np.full((1, 1, 1, 3), number, dtype=np.uint8) for number in range(n)]


@pytest.mark.parametrize("n", [0, 1, 2, 5, 50])
@pytest.mark.parametrize("seconds", [(0.0, 0.0), (0.004, 0.0), (0.0, 0.002, 0.001)])
def test_batches_come_back_in_order_and_each_device_takes_its_turn(n: int, seconds: tuple[float, ...]) -> None:
    cards = [FakeCard(f"cuda:{i}", pause) for i, pause in enumerate(seconds)]
    several = SeveralRuntimes(cards)
    assert [int(part[0, 0]) for part in several.encode(iter(make(n)))] == list(range(n))
    assert [card.seen for card in cards] == [list(range(i, n, len(cards))) for i in range(len(cards))]
    assert several.device == ",".join(card.device for card in cards)
    assert [int(part[0, 0]) for part in several.encode(iter(make(n)))] == list(range(n)), "it can be used again"
    several.close()
    assert all(card.closed for card in cards)


def test_a_bounded_number_of_batches_is_read_ahead() -> None:
    taken = 0

    def batches() -> Iterator[Tiles]:
        nonlocal taken
        for batch in make(60):
            taken += 1
            yield batch

    cards = [FakeCard("cuda:0"), FakeCard("cuda:1")]
    for n_back, _ in enumerate(SeveralRuntimes(cards).encode(batches()), start=1):
        assert taken - n_back <= (IN_FLIGHT + 1) * len(cards)


@pytest.mark.parametrize("fails_at", [0, 7, 19])
def test_an_error_of_one_device_reaches_the_reader_and_no_thread_stays(fails_at: int) -> None:
    cards = [FakeCard("cuda:0", fails_at=fails_at), FakeCard("cuda:1", 0.001, fails_at=fails_at)]
    with pytest.raises(EncoderError, match="fell off the bus"):
        list(SeveralRuntimes(cards).encode(iter(make(20))))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lamella-cuda")]


def test_a_reader_that_stops_early_leaves_no_thread_and_the_runtime_usable() -> None:
    several = SeveralRuntimes([FakeCard("cuda:0", 0.001), FakeCard("cuda:1")])
    stream = several.encode(iter(make(40)))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lamella-cuda")]
    assert len(list(several.encode(iter(make(9))))) == 9


@pytest.mark.parametrize("device", ["cuda:0,cuda:0", "cuda:a", "cuda:0,cpu", "cpu,cpu", ""])
def test_cards_are_named_by_number_each_once(device: str) -> None:
    with pytest.raises(SettingsError, match="cuda:0,cuda:1 for several cards"):
        RuntimeSettings(device=device)


def test_a_card_that_is_not_here_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_driver_sees_cuda", lambda: False)
    with pytest.raises(EncoderError, match="device 'cuda:0' is asked for and this machine has none"):
        open_runtime(
            EncoderSpec("resnet18", "random"),
            RuntimeSettings(device="cuda:0,cuda:1"),
            tile_px=64,
            check_tiles=lambda: np.zeros(0, np.uint8),
        )
