"""How much of the processor may be used: hyperthreads count once for arithmetic, and a container's quota holds."""

import os

import pytest

from lamella import cores


def test_no_more_cores_than_threads_and_no_more_threads_than_processors() -> None:
    assert 1 <= cores.count_cores() <= cores.count_threads() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(("quota", "n_cores", "n_threads"), [(None, 4, 8), (2, 2, 2), (6, 4, 6), (64, 4, 8)], ids=str)
def test_siblings_count_once_and_the_quota_cuts_both(
    quota: int | None, n_cores: int, n_threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores, "_list_allowed", lambda: set(range(8)))
    monkeypatch.setattr(cores, "_siblings_of", lambda cpu: f"{cpu % 4},{cpu % 4 + 4}")
    monkeypatch.setattr(cores, "_read_quota", lambda: quota)
    assert (cores.count_cores(), cores.count_threads()) == (n_cores, n_threads)


@pytest.mark.parametrize(
    ("text", "quota"), [("max 100000", None), ("150000 100000", 2), ("50000 100000", 1), ("", None)], ids=str
)
def test_a_control_groups_quota_is_rounded_up(text: str, quota: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores.Path, "read_text", lambda _: text)
    assert cores._read_quota() == quota
