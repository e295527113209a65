"""No verb but `lamella weights fetch` opens a connection: sockets and names are watched while all of them run.

The verbs run in a process of their own, so that the imports are theirs: OpenVINO reports its import and each
conversion to its makers unless its telemetry is left out.
"""

import os
import subprocess
import sys
from pathlib import Path

import torch

from lamella.cli import list_commands
from lamella.encoders.network import create_trunk
from tests.tiny import draw_cohort, draw_tissue, save_slide

WATCHER = """\
import socket, sys, pathlib

CALLS = []
LOOPBACK = ("127.0.0.1", "::1", "localhost", None, "")


def watch(name, home, pick):
    real = getattr(home, name)

    def watched(*args, **named):
        host = pick(args)
        if host not in LOOPBACK:
            CALLS.append(f"{name} {host}")
            raise OSError(f"the network is off: {name} {host}")
        return real(*args, **named)

    setattr(home, name, watched)


def host_of(args):
    return args[1][0] if isinstance(args[1], tuple) else None


real_socket = socket.socket


class Watched(real_socket):
    def connect(self, address):
        if isinstance(address, tuple) and address[0] not in LOOPBACK:
            CALLS.append(f"connect {address[0]}")
            raise OSError("the network is off")
        return super().connect(address)

    connect_ex = connect

    def sendto(self, *args):
        CALLS.append(f"sendto {args[-1]}")
        raise OSError("the network is off")


socket.socket = Watched
for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex", "create_connection"):
    watch(name, socket, lambda args: args[0][0] if isinstance(args[0], tuple) else args[0])

from typer.testing import CliRunner

from lamella.cli import build_app

for command in sys.stdin.read().splitlines():
    done = CliRunner().invoke(build_app(), command.split("\\t"))
    if done.exit_code:
        print("FAILED", command.split("\\t")[0], done.exit_code, " ".join(done.output.split()), done.exception)
telemetry = sys.modules.get("openvino_telemetry")
print("OPENVINO", "openvino" in sys.modules, "TELEMETRY", telemetry is not None)
print("CALLS", CALLS)
"""
CUT = "--tile-px\t64\t--mpp\t0.5\t--quiet"
VERBS = f"""\
doctor
encoders
weights\tlist
audit\tslides/cohort.csv\t--tile-px\t64
tissue\tslides/S-00.tif\t--out\ttissue
tiles\tslides/S-00.tif\t{CUT}\t--out\ttiles
extract\tslides/cohort.csv\t{CUT}\t--encoder\tresnet18@1\t--weights\trandom\t--out\tbags
run\tslides/cohort.csv\t{CUT}\t--encoder\tresnet18@1\t--weights\trandom\t--folds\t3\t--seeds\t1\t--epochs\t1\t--heatmaps\t1\t--out\trun
train\tslides/cohort.csv\t--features\trun/features/64px_0.5mpp_64px/features_resnet18_1\t--folds\t3\t--seeds\t1\t--epochs\t1\t--out\ttrained\t--quiet
predict\trun\tnew.tif\t--out\tnew\t--quiet
cam\trun\t--slide-id\tS-00\t--quiet
export\trun\t--out\tmodel\t--quiet
predict\tmodel\tnew.tif\t--out\tnew2\t--quiet
split\tslides/cohort.csv\t--folds\t3\t--out\tfolds.csv
weights\tadd\tresnet18\tresnet18.pth
inspect\trun/features/64px_0.5mpp_64px/features_resnet18_1/S-00.h5
measure\trun/predictions.csv
cka\tresnet18@1\tresnet18@1\tslides/cohort.csv\t{CUT}\t--tiles\t2\t--first-weights\trandom\t--second-weights\trandom\t--out\tcka
heatmap\tslides/S-00.tif\trun/attention/S-00.h5\t--out\tmaps
localise\trun\t--lesions\tlesions\t--quiet
report\trun
compare\ta=run/predictions.csv\tb=run/predictions.csv\t--out\tcompared
sample\t--slides\t2\t--out\tdrawn\t--quiet
study\tstudy.yaml\t--cohort\tslides/cohort.csv\t--out\tstudy\t--quiet
"""
EXCEPT = {
    "weights": "it only has verbs of its own",
    "bag": "it only has verbs of its own",
    "bag export": "it needs anndata, which is optional",
    "weights fetch": "it downloads; nothing else does",
    "demo": "it is `sample` and then `study`, which run here, over more and larger slides",
}
STUDY = """\
tiles: {default: {tile_px: 64, mpp: 0.5}}
arms: [{encoders: [resnet18], depths: [1], weights: [random]}]
folds: 3
seeds: 1
train: {epochs: 1}
permutations: 0
cka: false
cam: false
"""
SQUARE = '{"type": "Polygon", "coordinates": [[[180, 200], [320, 200], [320, 330], [180, 330], [180, 200]]]}'


def test_every_verb_is_watched_but_those_named() -> None:
    watched = {" ".join(line.split("\t")[: 2 if line.startswith("weights") else 1]) for line in VERBS.splitlines()}
    assert watched | EXCEPT.keys() == set(list_commands())
    assert not watched & EXCEPT.keys()


def test_no_verb_calls_anywhere_and_openvino_reports_nothing(tmp_path: Path) -> None:
    draw_cohort(tmp_path / "slides", 8)
    save_slide(tmp_path / "new.tif", draw_tissue(55))
    (tmp_path / "lesions").mkdir()
    for i in range(1, 8, 2):
        (tmp_path / "lesions" / f"S-{i:02d}.geojson").write_text(SQUARE)
    (tmp_path / "study.yaml").write_text(STUDY)
    torch.save(create_trunk("resnet18", {}).state_dict(), tmp_path / "resnet18.pth")
    home = tmp_path / "home"
    home.mkdir()
    source = Path(__file__).resolve().parents[1] / "src"
    unset = ("CI", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK")
    env = {name: value for name, value in os.environ.items() if name not in unset}
    env |= {"HOME": str(home), "LAMELLA_HOME": str(tmp_path / "store"), "PYTHONPATH": str(source)}
    done = subprocess.run(
        [sys.executable, "-c", WATCHER], input=VERBS, text=True, capture_output=True, cwd=tmp_path, env=env, check=True
    )
    said = done.stdout.splitlines()
    assert not [line for line in said if line.startswith("FAILED")], done.stdout
    assert said[-1] == "CALLS []"
    assert said[-2] in ("OPENVINO True TELEMETRY False", "OPENVINO False TELEMETRY False")
    written = {path.relative_to(home).parts[0] for path in home.rglob("*")}
    assert not written - {".cache", ".config"}, written  # matplotlib and the like keep caches
    assert not [path for path in home.rglob("*") if "intel" in path.name.lower() or "openvino" in path.name.lower()]
