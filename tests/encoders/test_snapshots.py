"""Models of the hub as they lie on a disk: taken whole, refused in one line where they are not."""

import hashlib
import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from lamella.encoders import EncoderSpec, add_weights, find_encoder
from lamella.encoders.network import build_network
from lamella.encoders.snapshots import find_snapshot
from lamella.errors import WeightsError
from tests.fake_hub import FakeHub, serve_hub

CONFIG = {"architecture": "test_resnet", "num_classes": 0, "pretrained_cfg": {"mean": [0.1, 0.2, 0.3]}}
NAME, HUB_ID = "hf-hub:owner/tissue", "owner/tissue"
COMMIT, OTHER = "a1" * 20, "b2" * 20


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(4)
    return timm.create_model("test_resnet", num_classes=0).state_dict()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory, state: dict[str, torch.Tensor]) -> Path:
    folder = tmp_path_factory.mktemp("snapshot")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    save_file(state, folder / "model.safetensors")
    return folder


@pytest.fixture
def cache(tmp_path: Path, snapshot: Path) -> Path:
    """A folder of the hub's cache, as its package lays it out."""
    cache = tmp_path / "models--owner--tissue"
    for file in ("config.json", "model.safetensors"):
        content = (snapshot / file).read_bytes()
        git = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
        digest = git if file == "config.json" else hashlib.sha256(content)
        blob, link = cache / "blobs" / digest.hexdigest(), cache / "snapshots" / COMMIT / file
        for path in (blob, link):
            path.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        link.symlink_to(Path("../../blobs") / blob.name)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(COMMIT)
    return cache


def refuse(path: Path, name: str = NAME) -> str:
    with pytest.raises(WeightsError) as caught:
        add_weights(name, path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def assert_is_here(state: dict[str, torch.Tensor]) -> None:
    assert find_encoder(NAME).mean == (0.1, 0.2, 0.3)
    loaded = build_network(EncoderSpec(NAME)).blocks.named_state()
    assert all(torch.equal(tensor, state[key]) for key, tensor in loaded.items())


def test_a_cache_folder_its_snapshot_and_a_file_in_it_are_taken(cache: Path, state: dict[str, torch.Tensor]) -> None:
    for path in (cache, cache / "snapshots" / COMMIT, cache / "snapshots" / COMMIT / "model.safetensors"):
        added = add_weights(NAME, path)
        assert_is_here(state)
        assert not added.is_symlink()
        shutil.rmtree(added.parent)


def test_what_the_hubs_package_downloads_is_taken(
    tmp_path: Path, snapshot: Path, state: dict[str, torch.Tensor]
) -> None:
    files = {path.name: path.read_bytes() for path in snapshot.iterdir()}
    with serve_hub(FakeHub(files={HUB_ID: files}), tmp_path):
        for file in files:
            huggingface_hub.hf_hub_download(HUB_ID, file)
    add_weights(NAME, tmp_path / "hub" / "models--owner--tissue")
    assert_is_here(state)


@pytest.mark.parametrize("file", ["pytorch_model.bin", "tissue.pth", "epoch=3.ckpt", "tissue.safetensors"])
def test_every_usual_name_of_weights_is_taken(
    tmp_path: Path, snapshot: Path, state: dict[str, torch.Tensor], file: str
) -> None:
    shutil.copy(snapshot / "config.json", tmp_path)
    if file.endswith(".safetensors"):
        save_file(state, tmp_path / file)
    else:
        torch.save({"state_dict": state} if file.endswith(".ckpt") else state, tmp_path / file)
    torch.save({}, tmp_path / "training_args.bin")
    (tmp_path / "README.md").touch()
    assert add_weights(NAME, tmp_path).name == file
    assert_is_here(state)


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_weights_in_several_files_become_one(
    tmp_path: Path, snapshot: Path, state: dict[str, torch.Tensor], suffix: str
) -> None:
    stem = {"safetensors": "model", "bin": "pytorch_model"}[suffix]
    place = {key: f"{stem}-{1 + number % 3}-of-3.{suffix}" for number, key in enumerate(state)}
    for file in set(place.values()):
        part = {key: tensor for key, tensor in state.items() if place[key] == file}
        save_file(part, tmp_path / file) if suffix == "safetensors" else torch.save(part, tmp_path / file)
    index = tmp_path / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"weight_map": place}))
    shutil.copy(snapshot / "config.json", tmp_path)
    added = add_weights(NAME, tmp_path)
    assert_is_here(state)
    assert set(load_file(added)) == set(state)
    assert add_weights(NAME, index).read_bytes() == added.read_bytes()  # the same tensors, the same fingerprint

    (tmp_path / f"{stem}-2-of-3.{suffix}").unlink()
    assert f"'{stem}-2-of-3.{suffix}' is missing. Run: lamella weights fetch {NAME}" in refuse(tmp_path)
    index.write_text(json.dumps({"weight_map": {"conv1.weight": "../elsewhere.bin"}}))
    assert "names the file '../elsewhere.bin', which is not beside it" in refuse(tmp_path)
    index.write_text("[]")
    assert "is no index of weights" in refuse(tmp_path)


def test_what_was_not_downloaded_to_the_end_is_said(cache: Path, tmp_path: Path) -> None:
    commit = cache / "snapshots" / COMMIT
    blob = (commit / "model.safetensors").resolve()
    (cache / "blobs" / f"{blob.name}.1234.incomplete").write_bytes(blob.read_bytes()[:99])
    said = refuse(cache / "blobs" / f"{blob.name}.1234.incomplete")
    assert "is a part of a file. Run: lamella weights fetch" in said
    blob.unlink()
    assert "'model.safetensors' is a link to a file that did not come. Run: lamella weights fetch" in refuse(cache)
    (commit / "model.safetensors").unlink()
    assert "was not downloaded to the end: no file of weights came" in refuse(cache)
    (cache / "refs" / "main").write_text(OTHER)
    assert f"its revision {OTHER[:12]} is not there" in refuse(cache)
    (tmp_path / "empty").mkdir()
    assert "holds no weights (.safetensors, .bin, .pth" in refuse(tmp_path / "empty")
    assert "are not there. Check the path." in refuse(tmp_path / "none")


def test_a_damaged_file_of_a_cache_is_said(cache: Path) -> None:
    for file in ("model.safetensors", "config.json"):
        blob = (cache / "snapshots" / COMMIT / file).resolve()
        whole = blob.read_bytes()
        blob.write_bytes(whole[:-2] + b"  ")
        said = refuse(cache)
        assert f"'{file}' of '{NAME}' is damaged: its checksum begins" in said
        assert f"Remove '{blob}', and get it again: lamella weights fetch {NAME}" in said
        blob.write_bytes(whole)


def test_another_models_and_another_revisions_folder_are_refused(cache: Path) -> None:
    assert "holds the hub's 'owner/tissue' and 'hf-hub:owner/other' is 'owner/other'" in refuse(
        cache, "hf-hub:owner/other"
    )
    with pytest.raises(WeightsError, match=rf"is revision {COMMIT[:12]} of .* card of .* is written for {OTHER[:12]}"):
        find_snapshot(NAME, cache, hub_id=HUB_ID, revision=OTHER)
    shutil.copytree(cache / "snapshots" / COMMIT, cache / "snapshots" / OTHER, symlinks=True)
    found = find_snapshot(NAME, cache, hub_id=HUB_ID, revision=OTHER)
    assert found.folder.name == OTHER
    assert find_snapshot(NAME, cache, hub_id=HUB_ID).folder.name == COMMIT
    (cache / "refs" / "main").unlink()
    assert f"holds 2 revisions and none is its main one. Name one: '{cache}/snapshots/{COMMIT}'" in refuse(cache)
    assert find_snapshot(NAME, cache / "snapshots" / OTHER, hub_id=HUB_ID).folder.name == OTHER


def test_links_lead_to_the_caches_own_blobs_only(cache: Path, tmp_path: Path, snapshot: Path) -> None:
    link = cache / "snapshots" / COMMIT / "model.safetensors"
    link.unlink()
    link.symlink_to(snapshot / "model.safetensors")
    assert "is a link to somewhere else than the hub's cache" in refuse(cache)
    plain = tmp_path / "plain"
    plain.mkdir()
    shutil.copy(snapshot / "config.json", plain)
    (plain / "model.safetensors").symlink_to(snapshot / "model.safetensors")
    assert "is a link to somewhere else" in refuse(plain)
    secret = tmp_path / "secret"
    secret.mkdir()
    shutil.move(cache / "blobs", secret / "blobs")
    (cache / "blobs").symlink_to(secret / "blobs")
    link.unlink()
    link.symlink_to(f"../../blobs/{hashlib.sha256((snapshot / 'model.safetensors').read_bytes()).hexdigest()}")
    assert "is a link to somewhere else" in refuse(cache)


def test_several_files_that_may_be_the_weights_are_named(
    tmp_path: Path, snapshot: Path, state: dict[str, torch.Tensor]
) -> None:
    shutil.copy(snapshot / "config.json", tmp_path)
    for file in ("teacher.pth", "student.pth"):
        torch.save(state, tmp_path / file)
    said = refuse(tmp_path)
    assert "holds 2 files that may be the weights" in said
    assert "(student.pth, teacher.pth)" in said
    add_weights(NAME, tmp_path / "teacher.pth")
    assert_is_here(state)


def test_a_model_of_the_hub_that_has_a_card_needs_no_config(tmp_path: Path) -> None:
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "pytorch_model.bin")
    for name in ("resnet18", "hf-hub:timm/resnet18.tv_in1k"):
        assert add_weights(name, tmp_path).name == "pytorch_model.bin"
        assert find_encoder(name).mean == (0.485, 0.456, 0.406)
    other = tmp_path / "models--timm--resnet34.tv_in1k" / "snapshots"
    other.mkdir(parents=True)
    assert "holds the hub's 'timm/resnet34.tv_in1k' and 'resnet18' is 'timm/resnet18.tv_in1k'" in refuse(
        other.parent, "resnet18"
    )


def test_a_pointer_of_git_lfs_is_told_from_weights(tmp_path: Path, snapshot: Path) -> None:
    shutil.copy(snapshot / "config.json", tmp_path)
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
    (tmp_path / "model.safetensors").write_text(pointer)
    assert "only points to the weights, for Git LFS. Run there: git lfs pull" in refuse(tmp_path)
