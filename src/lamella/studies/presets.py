"""Designs that come with Lamella: the paper's tables, a quick look, and two public data sets' own protocols."""

import difflib

from lamella.errors import SettingsError
from lamella.studies.arms import FINETUNED
from lamella.studies.design import StudyDesign
from lamella.studies.design_parts import (
    ArmBlock,
    Comparison,
    Depth,
    FinetuneDesign,
    TileDesign,
    TrainDesign,
)

_TABLE_1 = (
    "resnet18",
    "resnet34",
    "resnet50",
    "densenet121",
    "densenet169",
    "efficientnet-b0-pytorch",
    "efficientnet-b1-pytorch",
    "efficientnet-b2-pytorch",
    "efficientnet-b3-pytorch",
)
_HISTOLOGY = ("resnet18-ciga", "resnet50-mormont", "densenet121-mormont")
# What a machine without a model hub can have by pip; the paper did not look at them.
_PACKAGED = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2", "densenet121-capricorn")
_DEPTHS: tuple[Depth, ...] = (4, 3, 2, 1)
_TABLES = (
    Comparison(
        name="I",
        title="ImageNet encoders, each against the first",
        rule="each against the first",
        encoders=(*_TABLE_1, *_PACKAGED),
    ),
    Comparison(
        name="II", title="Histology weights against ImageNet's, same network", rule="histology against ImageNet"
    ),
    Comparison(name="III", title="Head only and fine-tuned against frozen", rule="tuned against frozen"),
    Comparison(name="IV", title="Cut after a block, against whole", rule="depth against 4"),
)
_PAPER_TRAINING = TrainDesign(epochs=20, patience=20, lr=1e-3, weight_decay=0.0)

# Where the presets after the paper differ from it and from its repository.
_DIFFERENCES = (
    "stage 1 and stage 2 keep the epoch of the lowest validation log-loss; the paper's code keeps the highest "
    "validation accuracy",
    "three heads are trained in each round and their logits averaged; the paper reports one run",
    "the head-only control of stage 2 and the EfficientNet-Lite and Capricorn arms are not in the paper",
)
_OWN_DIFFERENCES = {
    "paper": ("folds by patient, unless the table brings splits or folds; the paper has one split a cohort",),
    "camelyon16": ("validation slides are drawn from the training set, which the official split does not divide",),
    "gastro": (),
}


def list_differences(preset: str) -> tuple[str, ...]:
    """Return where a preset differs from the paper, a sentence each; empty for presets that are not the paper's.

    Example:
        >>> list_differences("quick")
        ()
    """
    return (*_DIFFERENCES, *_OWN_DIFFERENCES[preset]) if preset in _OWN_DIFFERENCES else ()


def find_preset(name: str) -> StudyDesign:
    """Return the design of a preset.

    Raises:
        SettingsError: If no preset has that name.

    Example:
        >>> [arm.name for arm in find_preset("quick").list_arms()][:2]
        ['efficientnet-lite0@4', 'efficientnet-lite0@3']
    """
    made = {"paper": _make_paper, "quick": _make_quick, "camelyon16": _make_camelyon16, "gastro": _make_gastro}
    if name not in made:
        nearest = difflib.get_close_matches(name, made, n=1, cutoff=0.0)[0]
        raise SettingsError(f"no preset is called '{name}'. The nearest is '{nearest}'; there are {', '.join(made)}.")
    return made[name]()


def _make_quick() -> StudyDesign:
    return StudyDesign(
        preset="quick",
        tiles={"default": TileDesign(tile_px=224, mpp=0.5)},
        # Which depth is fine-tuned is declared: the best on validation of all folds has seen every test label.
        arms=(
            ArmBlock(encoders=("efficientnet-lite0",), depths=_DEPTHS),
            ArmBlock(encoders=("efficientnet-lite0",), finetuned=("head", "tuned")),
        ),
        seeds=2,  # of the fine-tuned arms too: comparisons are over the seeds that all arms have
        finetune=FinetuneDesign(k=16, epochs=5, train_blocks=1, n_seeds=2, evaluate="all"),
        comparisons=(_TABLES[2], _TABLES[3]),
        cka=True,
        cam=True,
    )


def _list_paper_arms() -> tuple[ArmBlock, ...]:
    return (
        ArmBlock(encoders=_TABLE_1),
        ArmBlock(encoders=_HISTOLOGY),
        ArmBlock(encoders=("resnet18", "densenet121"), finetuned=FINETUNED),
        ArmBlock(encoders=("resnet18", "densenet121"), depths=_DEPTHS),
        ArmBlock(encoders=_PACKAGED, depths=_DEPTHS),
        ArmBlock(encoders=("efficientnet-lite0",), finetuned=FINETUNED),
    )


def _make_paper() -> StudyDesign:
    return StudyDesign(
        preset="paper",
        tiles={"default": TileDesign(tile_px=512, mpp=0.5, tissue="otsu")},
        arms=_list_paper_arms(),
        seeds=3,
        train=_PAPER_TRAINING,
        finetune=FinetuneDesign(k=64, epochs=20, patience=20, encoder_lr=1e-5, head_lr=1e-5, n_seeds=1),
        comparisons=_TABLES,
        cka=True,
        cam=True,
    )


def _make_camelyon16() -> StudyDesign:
    """CAMELYON16's official split; localisation by its rules."""
    return _make_paper().model_copy(update={"preset": "camelyon16", "split": "given"})


def _make_gastro() -> StudyDesign:
    """Several slides a patient, 40x, 65/15/20 by patient, as the paper's duodenal biopsies."""
    return _make_paper().model_copy(
        update={
            "preset": "gastro",
            "tiles": {"default": TileDesign(tile_px=512, mpp=0.25, tissue="otsu")},
            "split": "holdout",
        }
    )
