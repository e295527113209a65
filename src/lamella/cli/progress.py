"""Progress: bars with rate and time left on a terminal, a line now and then in a log."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from lamella.errors import show_controls
from lamella.progress import Stage
from lamella.words import say_time

LINE_EVERY_S = 30.0


class RichProgress:
    """A `lamella.progress.Progress` for people.

    Bars are drawn where standard error is a terminal. In a log, a stage that takes longer says every half minute how
    far it is. Said lines are printed always, except when quiet.

    Args:
        verbose: Whether log lines of the library are printed too.
        quiet: Whether bars and said lines are left out.
        console: Where to draw; standard error by default.
    """

    def __init__(self, *, verbose: bool = False, quiet: bool = False, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._quiet = quiet
        self._lock = threading.Lock()
        self._bars: Bars | None = None
        self._n_open = 0
        if verbose:
            _log_to(self._console)

    @contextmanager
    def stage(self, name: str, total: int | None, unit: str) -> Iterator[Stage]:
        """Draw one more bar for as long as the context is open."""
        if not self._console.is_terminal:
            yield _LineStage(self.say, name, total, unit)
            return
        bars = self._open_bars()
        task = bars.add_task(name, total=total, unit=unit)
        try:
            yield _BarStage(bars, task)
        finally:
            bars.stop_task(task)
            self._close_bars()

    def say(self, message: str) -> None:
        """Print one line, above the bars."""
        if not self._quiet:
            self._console.print(show_controls(message), markup=False, highlight=False, soft_wrap=True)

    def _open_bars(self) -> Bars:
        """Start drawing with the first bar."""
        with self._lock:
            if self._bars is None:
                self._bars = Bars(
                    TextColumn("{task.description}"),
                    BarColumn(bar_width=30),
                    _CountColumn(),
                    _RateColumn(),
                    TimeRemainingColumn(compact=True, elapsed_when_finished=True),
                    console=self._console,
                    disable=self._quiet,
                )
                self._bars.start()
            self._n_open += 1
            return self._bars

    def _close_bars(self) -> None:
        """Stop drawing with the last bar, so that the terminal is whole again whatever happened."""
        with self._lock:
            self._n_open -= 1
            if self._n_open == 0 and self._bars is not None:
                self._bars.stop()
                self._bars = None


class _BarStage:
    """A stage that moves its bar."""

    def __init__(self, bars: Bars, task: TaskID) -> None:
        self._bars, self._task = bars, task

    def advance(self, n: int = 1) -> None:
        """Count `n` more units as done."""
        self._bars.advance(self._task, n)

    def expect(self, total: int) -> None:
        """Correct the number of units that there will be."""
        self._bars.update(self._task, total=total)


class _LineStage:
    """A stage that prints a line now and then."""

    def __init__(self, say: Callable[[str], None], name: str, total: int | None, unit: str) -> None:
        self._say, self._name, self._total, self._unit = say, name, total, unit
        self._lock = threading.Lock()
        self._n_done = 0
        self._began = self._said = time.monotonic()

    def advance(self, n: int = 1) -> None:
        """Count `n` more units as done."""
        with self._lock:
            self._n_done += n
            now = time.monotonic()
            if now - self._said >= LINE_EVERY_S:
                self._said = now
                self._say(self._describe(now - self._began))

    def expect(self, total: int) -> None:
        """Correct the number of units that there will be."""
        self._total = total

    def _describe(self, seconds: float) -> str:
        total = "" if self._total is None else f"/{self._total:,}"
        rate = self._n_done / seconds
        left = ""
        if self._total is not None and rate > 0:
            left = f", {say_time(max(self._total - self._n_done, 0) / rate)} left"
        return f"{self._name}: {self._n_done:,}{total} {self._unit}, {describe_rate(rate)}{left}"


class _CountColumn(ProgressColumn):
    """How many of how many."""

    def render(self, task: Task) -> Text:
        total = "" if task.total is None else f"/{task.total:,.0f}"
        return Text(f"{task.completed:,.0f}{total} {task.fields.get('unit', '')}".strip())


class _RateColumn(ProgressColumn):
    """How many a second, or seconds each where that reads better."""

    def render(self, task: Task) -> Text:
        return Text(describe_rate(task.finished_speed or task.speed))


def describe_rate(per_second: float | None) -> str:
    """Return a rate in words.

    Example:
        >>> describe_rate(1234.5), describe_rate(2.34), describe_rate(0.05), describe_rate(None)
        ('1,234/s', '2.3/s', '20 s each', '')
    """
    if not per_second:
        return ""
    if per_second < 0.5:
        return f"{1 / per_second:.0f} s each"
    return f"{per_second:,.0f}/s" if per_second >= 10 else f"{per_second:.1f}/s"


class _ConsoleHandler(logging.Handler):
    """Prints log lines above the bars."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        self._console.print(show_controls(self.format(record)), markup=False, highlight=False, soft_wrap=True)


def _log_to(console: Console) -> None:
    """Print the library's log lines on `console`, and nobody else's."""
    handler = _ConsoleHandler(console)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S"))
    logger = logging.getLogger("lamella")
    logger.handlers = [handler]
    logger.setLevel(logging.DEBUG)
