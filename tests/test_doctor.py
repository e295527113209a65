"""What a machine can do, told even where something is missing."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
from safetensors.torch import save_file
from typer.testing import CliRunner

from lamella.cli import build_app
from lamella.doctor import Finding, check_access, examine_machine
from lamella.encoders import add_weights
from tests.fake_hub import FakeHub, serve_hub


def topics(findings: tuple[Finding, ...]) -> dict[str, list[Finding]]:
    grouped: dict[str, list[Finding]] = {}
    for finding in findings:
        grouped.setdefault(finding.topic, []).append(finding)
    return grouped


def test_each_topic_is_told_and_what_is_missing_has_a_remedy() -> None:
    findings = examine_machine()
    assert list(topics(findings)) == ["machine", "folder", "package", "reader", "runtime", "weights"]
    assert all(finding.remedy for finding in findings if not finding.here)
    assert all(not finding.remedy for finding in findings if finding.here)
    assert any(finding.here for finding in topics(findings)["reader"])


@pytest.fixture
def without(tmp_path: Path) -> Callable[[str, str], str]:
    """Run code in a process where a package is not installed."""

    def run(package: str, code: str) -> str:
        block = (
            "import sys, importlib.abc\n"
            "class Gone(importlib.abc.MetaPathFinder):\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            f"        if name.split('.')[0] == {package!r}:\n"
            f"            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)\n"
            "sys.meta_path.insert(0, Gone())\n"
            "import importlib.util; _find = importlib.util.find_spec\n"
            f"importlib.util.find_spec = lambda name, *a: None if name == {package!r} else _find(name, *a)\n"
        )
        done = subprocess.run([sys.executable, "-c", block + code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_a_base_install_without_torch_is_examined_and_told_what_to_install(
    without: Callable[[str, str], str],
) -> None:
    code = "sys.argv = ['lamella', 'doctor']; from lamella.cli import main; main()"
    told = without("torch", code)
    assert "torch is not installed: pip install 'lamella[torch]'" in told
    assert "reader" in told


def test_a_store_that_cannot_be_written_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LAMELLA_HOME", str(tmp_path / "file" / "store"))
    found = next(finding for finding in examine_machine() if finding.name == "store of weights")
    assert not found.here
    assert "Set LAMELLA_HOME" in found.remedy


def test_access_to_gated_encoders_is_asked_for_only_on_demand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMELLA_HOME", str(tmp_path / "store"))
    (snapshot := tmp_path / "snapshot").mkdir()
    (snapshot / "config.json").write_text('{"architecture": "test_resnet", "num_classes": 0}')
    save_file(timm.create_model("test_resnet", num_classes=0).state_dict(), snapshot / "model.safetensors")
    add_weights("hf-hub:owner/tissue", snapshot)
    hub = FakeHub(files={"owner/tissue": {}}, gated={"owner/tissue"}, tokens={"mine"}, granted={"mine"})
    with serve_hub(hub, tmp_path):
        examine_machine()
        assert not hub.asked
        found = {finding.name: finding for finding in check_access()}["hf-hub:owner/tissue"]
    assert (found.here, found.detail) == (False, "not logged in")
    assert found.remedy.endswith("/owner/tissue, then run: hf auth login")
    with serve_hub(hub, tmp_path, "mine"):
        shown = CliRunner().invoke(build_app(), ["doctor", "--check-access", "--json"])
    (row,) = (row for row in json.loads(shown.stdout) if row["name"] == "hf-hub:owner/tissue")
    assert (row["here"], row["detail"]) == (True, "this account may download it")
