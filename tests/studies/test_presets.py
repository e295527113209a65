"""Presets: the paper's tables as it has them, and what a machine without a model hub can run."""

import itertools

import pytest

from lamella.encoders import find_encoder
from lamella.studies.arms import Arm
from lamella.studies.presets import find_preset, list_differences

TABLE_1 = {  # HistoTransfer 2021, Table I: ImageNet top-1, per cent
    "resnet18": 69.8,
    "resnet34": 73.3,
    "resnet50": 76.1,
    "densenet121": 74.4,
    "densenet169": 75.6,
    "efficientnet-b0-pytorch": 76.3,
    "efficientnet-b1-pytorch": 78.8,
    "efficientnet-b2-pytorch": 79.8,
    "efficientnet-b3-pytorch": 81.1,
}
PACKAGED = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2", "densenet121-capricorn")


@pytest.fixture(scope="module")
def arms() -> tuple[Arm, ...]:
    return find_preset("paper").list_arms()


def test_table_i_has_the_nine_encoders_with_their_top_1_as_the_paper_states_it(arms: tuple[Arm, ...]) -> None:
    frozen = {arm.encoder for arm in arms if arm.finetuned == "frozen" and arm.depth == 4}
    assert set(TABLE_1) <= frozen
    assert {name: find_encoder(name).imagenet_top1 for name in TABLE_1} == TABLE_1


def test_table_ii_has_each_histology_encoder_beside_imagenets_same_network(arms: tuple[Arm, ...]) -> None:
    tables = {table["name"]: table["rows"] for table in find_preset("paper").list_tables(arms)}
    assert set(tables["II"]) == {
        ("resnet18-ciga@4", "resnet18@4"),
        ("resnet50-mormont@4", "resnet50@4"),
        ("densenet121-mormont@4", "densenet121@4"),
    }


def test_table_iii_has_head_only_and_tuned_beside_frozen(arms: tuple[Arm, ...]) -> None:
    tables = {table["name"]: table["rows"] for table in find_preset("paper").list_tables(arms)}
    assert set(tables["III"]) == {
        (f"{name}@4, {said}", f"{name}@4")
        for name, said in itertools.product(("resnet18", "densenet121", "efficientnet-lite0"), ("head only", "tuned"))
    }


def test_table_iv_cuts_the_papers_two_networks_and_those_that_packages_bring(arms: tuple[Arm, ...]) -> None:
    tables = {table["name"]: table["rows"] for table in find_preset("paper").list_tables(arms)}
    assert set(tables["IV"]) == {
        (f"{name}@{depth}", f"{name}@4")
        for name, depth in itertools.product(("resnet18", "densenet121", *PACKAGED), (3, 2, 1))
    }


def test_packages_bring_enough_to_run_without_a_hub(arms: tuple[Arm, ...]) -> None:
    here = [arm for arm in arms if find_encoder(arm.encoder).package is not None]
    assert {arm.encoder for arm in here} == set(PACKAGED)
    assert {(arm.depth, arm.finetuned) for arm in here if arm.encoder == "efficientnet-lite0"} == {
        (4, "frozen"),
        (3, "frozen"),
        (2, "frozen"),
        (1, "frozen"),
        (4, "head"),
        (4, "tuned"),
    }


@pytest.mark.parametrize(
    ("name", "tile_px", "mpp", "split"),
    [
        ("quick", 224, 0.5, "folds"),
        ("paper", 512, 0.5, "folds"),
        ("camelyon16", 512, 0.5, "given"),
        ("gastro", 512, 0.25, "holdout"),
    ],
)
def test_each_preset_cuts_and_divides_as_it_is_said_to(name: str, tile_px: int, mpp: float, split: str) -> None:
    design = find_preset(name)
    cut = design.tiles["default"].cut()
    assert (cut.spec.tile_px, cut.spec.mpp, design.split, design.preset) == (tile_px, mpp, split, name)
    assert design.cka
    assert design.margin == 0.05


def test_quick_fine_tunes_the_last_block_of_the_whole_network_from_cached_maps() -> None:
    design = find_preset("quick")
    assert [(arm.encoder, arm.depth, arm.finetuned) for arm in design.list_arms()] == [
        *(("efficientnet-lite0", depth, "frozen") for depth in (4, 3, 2, 1)),
        ("efficientnet-lite0", 4, "head"),
        ("efficientnet-lite0", 4, "tuned"),
    ]
    stage = design.finetune.stage("tuned")
    assert not design.finetune_best  # what is fine-tuned is declared
    assert (stage.finetune.k, stage.finetune.train_blocks, stage.finetune.augments) == (16, 1, False)
    assert stage.finetune.epochs <= 5


def test_the_papers_training_is_as_its_repository_has_it() -> None:
    design = find_preset("paper")
    train, finetune = design.train.settings("attention", 3), design.finetune.stage("tuned").finetune
    assert (train.epochs, train.lr, train.weight_decay, train.seed) == (20, 1e-3, 0.0, 3)
    assert (finetune.k, finetune.epochs, finetune.encoder_lr, finetune.train_blocks) == (64, 20, 1e-5, None)


@pytest.mark.parametrize("name", ["paper", "camelyon16", "gastro"])
def test_the_papers_presets_find_tissue_and_fine_tune_as_it_does(name: str) -> None:
    design = find_preset(name)
    assert design.tiles["default"].tissue == "otsu"
    assert (design.finetune.k, design.finetune.encoder_lr, design.finetune.head_lr) == (64, 1e-5, 1e-5)
    assert (design.train.epochs, design.train.lr, design.finetune.epochs) == (20, 1e-3, 20)
    assert design.finetune.patience == design.finetune.epochs
    assert any("validation accuracy" in said for said in list_differences(name))


def test_tissue_can_be_found_another_way_than_the_presets() -> None:
    assert find_preset("paper").with_changes(tissue="glass").tiles["default"].tissue == "glass"
