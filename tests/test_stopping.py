"""Signals end a command at once: one line, its exit code, no temporary file, no child."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamella.stopping import STOPPED

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends signals that Windows has not")

BUSY = """\
import os, signal, sys, threading, time
from pathlib import Path
from lamella.stopping import stop_on_signals
stop_on_signals()
from lamella.files import replacing, write_text
def write(number):
    while True:
        with replacing(Path(f"bag-{number}.txt")) as temporary:
            temporary.write_text("half")
            time.sleep(0.001)
for number in range(4):
    threading.Thread(target=write, args=(number,)).start()
"""
SWALLOW = """\
while True:
    try:
        try:
            time.sleep(0.01)
        except BaseException:
            pass
    except BaseException:
        pass
"""
SLEEPER = """\
import time
from lamella.children import serve
serve(lambda **question: time.sleep(60))
"""


STARTED: "list[subprocess.Popen[str]]" = []


@pytest.fixture(autouse=True)
def _nothing_runs_on() -> Iterator[None]:
    """Kill what a failed test leaves running: some of it never ends by itself."""
    yield
    while STARTED:
        process = STARTED.pop()
        process.kill()
        process.wait()


def start(code: str, folder: Path, **more: object) -> "subprocess.Popen[str]":
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", code], cwd=folder, **pipes, **more)  # type: ignore[call-overload]
    STARTED.append(process)
    return process  # type: ignore[no-any-return]


def wait_until(ready: object, seconds: float = 30.0) -> None:
    limit = time.monotonic() + seconds
    while not ready():  # type: ignore[operator]
        assert time.monotonic() < limit
        time.sleep(0.01)


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_threads_that_write_and_code_that_swallows_errors_do_not_keep_a_command(
    tmp_path: Path, by: signal.Signals
) -> None:
    process = start(BUSY + SWALLOW, tmp_path)
    wait_until(lambda: len(list(tmp_path.glob("bag-*"))) == 4)
    process.send_signal(by)
    said = process.communicate(timeout=30)
    assert (process.returncode, *said) == (128 + by, "", f"{STOPPED}\n")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_second_signal_changes_nothing(tmp_path: Path) -> None:
    process = start(BUSY + SWALLOW, tmp_path)
    wait_until(lambda: len(list(tmp_path.glob("bag-*"))) == 4)
    for by in (signal.SIGTERM, signal.SIGINT, signal.SIGINT, signal.SIGTERM):
        process.send_signal(by)
    assert process.communicate(timeout=30)[1] == f"{STOPPED}\n"
    assert process.returncode in (130, 143)


def test_an_ignored_signal_stays_ignored(tmp_path: Path) -> None:
    code = "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + BUSY + "time.sleep(0.5); os._exit(5)"
    process = start(code, tmp_path)
    wait_until(lambda: list(tmp_path.glob("bag-*")))
    process.send_signal(signal.SIGHUP)
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 5


def test_a_forked_worker_ends_without_a_word_and_leaves_its_parents_files(tmp_path: Path) -> None:
    code = BUSY.partition("for number")[0] + (
        "ready, tell = os.pipe()\n"
        "with replacing(Path('bag.txt')) as temporary:\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n        os.write(tell, b'.')\n        time.sleep(30)\n        os._exit(0)\n"
        "    os.read(ready, 1)\n"
        "    os.kill(pid, signal.SIGINT)\n"
        "    status = os.waitpid(pid, 0)[1]\n"
        "    temporary.write_text('whole')\n"
        "sys.exit(7 if os.waitstatus_to_exitcode(status) == -signal.SIGINT else 8)\n"
    )
    process = start(code, tmp_path)
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 7
    assert (tmp_path / "bag.txt").read_text() == "whole"


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_in_the_middle_of_a_file_ends_with_its_parent(tmp_path: Path, by: signal.Signals) -> None:
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    code = (
        "from lamella.stopping import stop_on_signals\nstop_on_signals()\n"
        "import threading, time\nfrom lamella.children import Child\n"
        "child = Child('sleeper')\n"
        "threading.Thread(target=child.ask, daemon=True).start()\n"
        "while child._process is None: time.sleep(0.01)\n"
        "print(child._process.pid, flush=True)\ntime.sleep(60)\n"
    )
    paths = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = start(code, tmp_path, env=os.environ | {"PYTHONPATH": paths})
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    time.sleep(1.0)  # it is asleep over its question by now
    process.send_signal(by)
    process.communicate(timeout=30)
    wait_until(lambda: not Path(f"/proc/{pid}").exists() if Path("/proc").exists() else not _runs(pid), 2.0)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_child_answers_ctrl_c_with_nothing_and_has_the_systems_other_signals(tmp_path: Path) -> None:
    from lamella.features.h5_child import CHILD

    assert CHILD.ask(path=str(tmp_path / "absent.h5")) == "FileNotFoundError"
    assert CHILD._process is not None
    if Path("/proc/self/status").exists():
        status = Path(f"/proc/{CHILD._process.pid}/status").read_text()
        masks = {line.split(":")[0]: int(line.split()[1], 16) for line in status.splitlines() if line[:4] == "SigC"}
        assert not masks["SigCgt"] >> (signal.SIGTERM - 1) & 1
        assert not masks["SigCgt"] >> (signal.SIGINT - 1) & 1
    os.kill(CHILD._process.pid, signal.SIGINT)
    time.sleep(0.1)
    assert CHILD.ask(path=str(tmp_path / "absent.h5")) == "FileNotFoundError"


COMPILED = """\
import ctypes, time
from lamella.stopping import stop_on_signals
stop_on_signals()
import numpy as np
from lamella.encoders.runtime.openvino_runtime import compile_on_cpu, openvino
x = openvino.opset13.parameter([1, 64, 64, 3], np.float32)
kernel = np.ones((8, 64, 3, 3), np.float32)
model = openvino.Model([openvino.opset13.convolution(x, kernel, [1, 1], [0, 0], [0, 0], [1, 1])], [x])
class Stack(ctypes.Structure):
    _fields_ = (("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))
def find_stack():
    found = Stack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found))
    return found.sp, found.flags, found.size
before = find_stack()
compiled = compile_on_cpu(model, precision="fp32", n_threads=2, n_streams=2)
print("ready" if find_stack() == before else "OpenVINO's stack for signals is still named", flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the stack that signals are taken on")
def test_a_signal_after_openvino_has_compiled_a_network_is_no_segmentation_fault(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    process = start(COMPILED, tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30) == ("", f"{STOPPED}\n")
    assert process.returncode == 130


def test_a_signal_while_python_ends_is_as_if_it_had_ended(tmp_path: Path) -> None:
    code = (
        "from lamella.stopping import stop_on_signals\nstop_on_signals()\nimport atexit, os, signal\n"
        "class Last:\n    def __del__(self):\n        os.kill(os.getpid(), signal.SIGINT)\n"
        "import sys\nsys.modules['last'] = Last()\n"
    )
    process = start(code, tmp_path)
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 0
