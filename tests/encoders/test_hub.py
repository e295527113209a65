"""The model hub, on loopback: who may have a model, what is missing there, and transfers that break."""

import json
from pathlib import Path
from unittest import mock

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save

from lamella.encoders import EncoderSpec, fetch_weights, find_encoder, find_weights
from lamella.encoders.hub import check_access, download_from_hub
from lamella.encoders.network import build_network
from lamella.errors import WeightsError
from tests.fake_hub import FakeHub, serve_hub

CONFIG = {"architecture": "test_resnet", "num_classes": 0, "pretrained_cfg": {"mean": [0.1, 0.2, 0.3]}}
NAME, HUB_ID = "hf-hub:owner/tissue", "owner/tissue"


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(4)
    return timm.create_model("test_resnet", num_classes=0).state_dict()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def files(state: dict[str, torch.Tensor]) -> dict[str, bytes]:
    return {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": save(state)}


def fetch(hub: FakeHub, folder: Path, token: str | None = None) -> str:
    """Return the one line that says why weights cannot be had of this hub."""
    with serve_hub(hub, folder, token):
        return refuse()


def refuse() -> str:
    with pytest.raises(WeightsError) as caught:
        fetch_weights(NAME)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_open_model_is_fetched_with_its_card(tmp_path: Path, files: dict[str, bytes]) -> None:
    with serve_hub(FakeHub(files={HUB_ID: files}), tmp_path):
        path = fetch_weights(NAME)
    card = find_encoder(NAME)
    assert (card.network, card.mean, find_weights(card)) == ("test_resnet", (0.1, 0.2, 0.3), path)
    assert path.read_bytes() == files["model.safetensors"]


def test_a_gated_model_says_where_its_terms_are(tmp_path: Path, files: dict[str, bytes]) -> None:
    hub = FakeHub(files={HUB_ID: files}, gated={HUB_ID}, tokens={"mine", "granted"}, granted={"granted"})
    said = fetch(hub, tmp_path)
    assert "gated and this machine is not logged in" in said
    assert "/owner/tissue, then run: hf auth login" in said
    said = fetch(hub, tmp_path, "mine")
    assert "this account has no access yet. Ask for it at http" in said
    assert "hf auth login" not in said
    assert "does not accept the login" in fetch(hub, tmp_path, "of last year")
    with serve_hub(hub, tmp_path, "granted"):
        assert fetch_weights(NAME).is_file()


def test_a_gated_encoder_by_name_says_where_its_terms_are(tmp_path: Path) -> None:
    hub_id = "MahmoodLab/UNI"
    with serve_hub(FakeHub(files={hub_id: {}}, gated={hub_id}), tmp_path):
        with pytest.raises(WeightsError, match=r"'uni' is gated and .* terms at http.*/MahmoodLab/UNI, then run"):
            fetch_weights("uni")
        with pytest.raises(WeightsError, match="'hf-hub:MahmoodLab/UNI' is gated"):
            fetch_weights(f"hf-hub:{hub_id}")


def test_what_is_not_on_the_hub_is_said(tmp_path: Path, files: dict[str, bytes]) -> None:
    said = fetch(FakeHub(), tmp_path)
    assert "the hub shows no model 'owner/tissue' (401)" in said
    assert "If it is private, run: hf auth login" in said
    assert "the hub shows no model 'owner/tissue' (404)" in fetch(FakeHub(tokens={"mine"}), tmp_path, "mine")
    said = fetch(FakeHub(files={HUB_ID: {"model.safetensors": files["model.safetensors"]}}), tmp_path)
    assert "has no file 'config.json'" in said
    said = fetch(FakeHub(files={HUB_ID: {"config.json": files["config.json"]}}), tmp_path)
    assert "has none of model.safetensors, model.safetensors.index.json, pytorch_model.bin" in said
    with serve_hub(FakeHub(files={HUB_ID: files}), tmp_path), pytest.raises(WeightsError) as caught:
        download_from_hub(NAME, HUB_ID, "config.json", "v2")
    assert "has no revision 'v2'" in str(caught.value)


def test_a_hub_that_asks_to_wait_says_how_long(tmp_path: Path, files: dict[str, bytes]) -> None:
    hub = FakeHub(files={HUB_ID: files}, status=[429] * 9, headers={"Retry-After": "55"})
    said = fetch(hub, tmp_path)
    assert "no more requests for now (429). Wait 55 s and run the same command again. A login" in said
    hub = FakeHub(files={HUB_ID: files}, status=[429] * 9, headers={"RateLimit": '"resolvers";r=0;t=41'})
    assert "Wait 41 s" in fetch(hub, tmp_path)
    hub = FakeHub(files={HUB_ID: files}, status=[429] * 2)  # it asks again by itself
    with serve_hub(hub, tmp_path):
        assert fetch_weights(NAME).is_file()
    assert "the hub answers 503" in fetch(FakeHub(files={HUB_ID: files}, status=[503] * 20), tmp_path / "other")
    assert "the hub forbids 'owner/tissue'" in fetch(FakeHub(status=[403] * 20), tmp_path / "other")


def test_a_broken_transfer_is_taken_up_where_it_stopped(tmp_path: Path, files: dict[str, bytes]) -> None:
    hub = FakeHub(files={HUB_ID: files}, cut=[len(files["config.json"]), 300_000, 500_000])
    with serve_hub(hub, tmp_path):
        assert fetch_weights(NAME).read_bytes() == files["model.safetensors"]
    assert hub.asked["ranges"] == 2


def test_a_transfer_that_never_ends_is_said_and_leaves_nothing(tmp_path: Path, files: dict[str, bytes]) -> None:
    hub = FakeHub(files={HUB_ID: files}, cut=[len(files["config.json"]), 1000, *[0] * 30])
    said = fetch(hub, tmp_path)
    assert "the transfer of 'model.safetensors' of 'hf-hub:owner/tissue' broke off" in said
    with pytest.raises(WeightsError, match="not on this machine"):
        find_encoder(NAME)
    with serve_hub(FakeHub(files={HUB_ID: files}), tmp_path):
        assert fetch_weights(NAME).read_bytes() == files["model.safetensors"]


def test_without_a_network_the_cache_serves_and_else_it_is_said(tmp_path: Path, files: dict[str, bytes]) -> None:
    with serve_hub(FakeHub(files={HUB_ID: files}), tmp_path) as hub:
        fetch_weights(NAME)
    hub.status = [503] * 99
    with serve_hub(hub, tmp_path):
        assert fetch_weights(NAME).is_file()
    with serve_hub(FakeHub(), tmp_path / "new"), mock.patch.object(constants, "is_offline_mode", return_value=True):
        assert "HF_HUB_OFFLINE is set" in refuse()
    closed = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    with serve_hub(FakeHub(), tmp_path / "new"), mock.patch.object(constants, "HUGGINGFACE_CO_URL_TEMPLATE", closed):
        assert "the hub cannot be reached for 'hf-hub:owner/tissue' (" in refuse()


def test_a_damaged_file_of_the_cache_is_told_by_the_name_it_lies_under(tmp_path: Path, files: dict[str, bytes]) -> None:
    hub = FakeHub(files={HUB_ID: files})
    with serve_hub(hub, tmp_path):
        fetch_weights(NAME)
    blob = next(path for path in (tmp_path / "hub").rglob("blobs/*") if len(path.name) == 64)
    blob.write_bytes(blob.read_bytes()[:-1] + b"x")
    said = fetch(hub, tmp_path)
    assert f"'model.safetensors' of '{NAME}' is damaged" in said
    assert f"Remove '{blob}'" in said
    blob.unlink()
    with serve_hub(hub, tmp_path):
        assert fetch_weights(NAME).read_bytes() == files["model.safetensors"]


def test_weights_in_several_files_become_one(
    tmp_path: Path, files: dict[str, bytes], state: dict[str, torch.Tensor]
) -> None:
    shards: dict[str, dict[str, torch.Tensor]] = {"model-1.safetensors": {}, "model-2.safetensors": {}}
    place = {key: f"model-{1 + number % 2}.safetensors" for number, key in enumerate(state)}
    for key, tensor in state.items():
        shards[place[key]][key] = tensor
    index = json.dumps({"metadata": {}, "weight_map": place}).encode()
    sharded = {"config.json": files["config.json"], "model.safetensors.index.json": index}
    with serve_hub(FakeHub(files={HUB_ID: sharded | {k: save(v) for k, v in shards.items()}}), tmp_path):
        fetch_weights(NAME)
    loaded = build_network(EncoderSpec(NAME)).blocks.named_state()
    assert all(torch.equal(tensor, state[key]) for key, tensor in loaded.items())
    assert "has no file 'model-1.safetensors'" in fetch(FakeHub(files={HUB_ID: sharded}), tmp_path / "other")


def test_access_is_told_model_by_model(tmp_path: Path) -> None:
    models = {"open/a": {}, "gated/b": {}, "gated/c": {}}
    hub = FakeHub(files=dict(models), gated={"gated/b", "gated/c"}, tokens={"mine"})
    with serve_hub(hub, tmp_path):
        assert check_access("open/a").granted is True
        stranger = check_access("gated/b")
        assert (stranger.granted, stranger.detail) == (False, "not logged in")
        assert stranger.remedy.endswith("/gated/b, then run: hf auth login")
    with serve_hub(hub, tmp_path, "mine"):
        assert check_access("gated/b").detail == "gated; this account has no access yet"
        assert check_access("none/d").detail == "not on the hub, or private"
        hub.granted = {"mine"}
        assert check_access("gated/c").granted is True
        hub.status = [503] * 9
        assert (check_access("gated/c").granted, check_access("gated/c").detail) == (
            None,
            "not known: the hub answers 503",
        )
    with serve_hub(hub, tmp_path, "of last year"):
        hub.status = []
        assert check_access("gated/b").detail == "the hub does not accept this machine's login"
