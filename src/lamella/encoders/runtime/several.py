"""Several devices as one runtime: each has a thread and takes its turn, so that a batch's device is always the same.

Batches come back in the order in which they went in; a bounded number is on its way.
"""

import threading
from collections.abc import Iterable, Iterator, Sequence
from queue import SimpleQueue

from lamella.encoders.runtime.protocol import IN_FLIGHT, Embeddings, PrecisionCheck, Runtime, Tiles


class SeveralRuntimes:
    """Runtimes of the same network on several devices, as one; put like devices together, the slowest sets the pace."""

    is_settled = False

    def __init__(self, runtimes: Sequence[Runtime]) -> None:
        """Join runtimes.

        Args:
            runtimes: At least one, alike in all but the device; each gives back its first batch by the time that it
                has read `IN_FLIGHT` more.
        """
        first = runtimes[0]
        self._runtimes = list(runtimes)
        self.name, self.encoder, self.precision = first.name, first.encoder, first.precision
        self.widths, self.batch_size = first.widths, first.batch_size
        self.device = ",".join(runtime.device for runtime in runtimes)
        self.checks: tuple[PrecisionCheck, ...] = first.checks
        self.notes: tuple[str, ...] = first.notes

    def encode(self, batches: Iterable[Tiles]) -> Iterator[Embeddings]:
        """Encode batches in order; see `Runtime.encode`."""
        workers = [_Worker(runtime) for runtime in self._runtimes]
        n_given = n_back = 0
        try:
            for batch in batches:
                if n_given - n_back > IN_FLIGHT * len(workers):
                    yield workers[n_back % len(workers)].collect()
                    n_back += 1
                workers[n_given % len(workers)].todo.put(batch)
                n_given += 1
            for worker in workers:  # a device gives back what it holds when it hears that no more comes
                worker.todo.put(None)
            for number in range(n_back, n_given):
                yield workers[number % len(workers)].collect()
        finally:
            for worker in workers:
                worker.stop()

    def close(self) -> None:
        """Let go of all devices."""
        for runtime in self._runtimes:
            runtime.close()


class _Worker:
    """A thread that encodes what it is given on one device."""

    def __init__(self, runtime: Runtime) -> None:
        self.todo: SimpleQueue[Tiles | None] = SimpleQueue()
        self._done: SimpleQueue[Embeddings | BaseException] = SimpleQueue()
        self._stopped = False
        self._thread = threading.Thread(
            target=self._run, args=(runtime,), name=f"lamella-{runtime.device}", daemon=True
        )
        self._thread.start()

    def collect(self) -> Embeddings:
        """Return the next batch's embeddings; an error of the device is raised here."""
        embeddings = self._done.get()
        if isinstance(embeddings, BaseException):
            raise embeddings
        return embeddings

    def stop(self) -> None:
        """Let it end after what its device has begun."""
        self._stopped = True
        self.todo.put(None)
        self._thread.join()

    def _run(self, runtime: Runtime) -> None:
        try:
            for embeddings in runtime.encode(self._take()):
                self._done.put(embeddings)
        except BaseException as error:  # noqa: BLE001 - it is raised again where the batches are read
            self._done.put(error)

    def _take(self) -> Iterator[Tiles]:
        while (batch := self.todo.get()) is not None and not self._stopped:
            yield batch
