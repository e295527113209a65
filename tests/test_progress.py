"""Progress: silent in the library, bars on a terminal, lines anywhere."""

import io
import logging
from concurrent.futures import ThreadPoolExecutor

import pytest
from rich.console import Console

from lamella.cli.progress import RichProgress, describe_rate
from lamella.progress import AlikeOnce, Progress, SilentProgress


def make_console(*, terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=100, color_system=None, _environ={})


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def count_to(progress: Progress, n: int) -> None:
    with progress.stage("Audit", n, "slides") as stage:
        for _ in range(n):
            stage.advance()


def test_the_library_is_silent_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    progress = SilentProgress()
    progress.say("unheard")
    with progress.stage("Audit", None, "slides") as stage:
        stage.advance(3)
        stage.expect(9)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_shows_name_count_and_rate() -> None:
    console = make_console(terminal=True)
    count_to(RichProgress(console=console), 7)
    assert "Audit" in written(console)
    assert "7/7 slides" in written(console)


def test_anything_but_a_terminal_shows_no_bars_but_says_lines() -> None:
    console = make_console(terminal=False)
    progress = RichProgress(console=console)
    count_to(progress, 7)
    progress.say("slide 'S-1' [red]is[/red] skipped, " + "a" * 200)
    assert written(console) == "slide 'S-1' [red]is[/red] skipped, " + "a" * 200 + "\n"


def test_a_log_is_told_every_half_minute_how_far_a_stage_is(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 10.0, 31.0, 40.0, 62.0])
    monkeypatch.setattr("lamella.cli.progress.time.monotonic", lambda: next(clock))
    console = make_console(terminal=False)
    with RichProgress(console=console).stage("encode", 400, "tiles") as stage:
        for _ in range(4):
            stage.advance(31)
    assert written(console).splitlines() == [
        "encode: 62/400 tiles, 2.0/s, 2.8 min left",
        "encode: 124/400 tiles, 2.0/s, 2.3 min left",
    ]


def test_quiet_says_nothing() -> None:
    console = make_console(terminal=True)
    progress = RichProgress(console=console, quiet=True)
    count_to(progress, 7)
    progress.say("unheard")
    assert written(console) == ""


def test_a_stage_may_learn_its_total_late() -> None:
    console = make_console(terminal=True)
    with RichProgress(console=console).stage("Extract", None, "tiles") as stage:
        stage.advance(5)
        stage.expect(1250)
        stage.advance(1245)
    assert "1,250/1,250 tiles" in written(console)


def test_stages_of_several_threads_share_one_display_and_end_with_the_last() -> None:
    console = make_console(terminal=True)
    progress = RichProgress(console=console)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: count_to(progress, n), [5, 6, 7, 8, 9]))
    count_to(progress, 11)
    assert "11/11 slides" in written(console)


def test_an_error_inside_a_stage_gives_the_terminal_back() -> None:
    console = make_console(terminal=True)
    progress = RichProgress(console=console)
    with pytest.raises(KeyboardInterrupt), progress.stage("Audit", 3, "slides"):
        raise KeyboardInterrupt
    assert written(console).endswith("\x1b[?25h"), "the cursor is shown again"


def test_verbose_prints_the_log_of_the_library_and_of_nobody_else() -> None:
    console = make_console(terminal=False)
    logger = logging.getLogger("lamella")
    before = logger.handlers, logger.level, logger.propagate
    try:
        RichProgress(console=console, verbose=True)
        logging.getLogger("lamella.slide").info("opened 'S-1'")
        logging.getLogger("PIL").info("unheard")
    finally:
        logger.handlers, logger.level, logger.propagate = before
    assert written(console).endswith("lamella.slide: opened 'S-1'\n")
    assert "unheard" not in written(console)


@pytest.mark.parametrize(("rate", "words"), [(0.0, ""), (0.4, "2 s each"), (0.5, "0.5/s"), (9.96, "10.0/s")])
def test_rates_read_well(rate: float, words: str) -> None:
    assert describe_rate(rate) == words


def test_what_is_alike_but_for_names_and_figures_is_said_once() -> None:
    console = make_console(terminal=False)
    progress = AlikeOnce(RichProgress(console=console), of="all folds")
    progress.say("encoder 'a-1' strays (0.991 of 64 tiles)")
    progress.say("encoder 'b-2' strays (0.987 of 64 tiles)")
    progress.say("slide 'a-1' is blank")
    count_to(progress, 3)
    assert written(console).splitlines() == [
        "encoder 'a-1' strays (0.991 of 64 tiles) (said once for all folds)",
        "slide 'a-1' is blank (said once for all folds)",
    ]
