"""The plain way: OpenSlide, Pillow and a torch DataLoader, as most scripts of the field are written.

Run by benchmarks/extract.py as a process of its own; it imports nothing of Lamella's encoders or readers.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import openslide
import timm
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset


class TileDataset(Dataset[Tensor]):
    """Tiles of one slide at level 0, normalised; each worker opens the slide for itself."""

    def __init__(self, slide: Path, coords: np.ndarray, tile_px: int, mean: list[float], std: list[float]) -> None:
        self.path, self.coords, self.tile_px = slide, coords, tile_px
        self.mean, self.std = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)
        self.slide: openslide.OpenSlide | None = None

    def __len__(self) -> int:
        """Count the tiles."""
        return len(self.coords)

    def __getitem__(self, index: int) -> Tensor:
        """Read and normalise one tile, `(3, tile_px, tile_px)` float32."""
        if self.slide is None:
            self.slide = openslide.OpenSlide(str(self.path))
        x, y = (int(v) for v in self.coords[index])
        image = self.slide.read_region((x, y), 0, (self.tile_px, self.tile_px)).convert("RGB")
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
        return (pixels - self.mean) / self.std


def encode(model: torch.nn.Module, dataset: TileDataset, setting: dict) -> np.ndarray:
    """Encode all tiles of a dataset."""
    loader = DataLoader(dataset, batch_size=setting["batch"], num_workers=setting["workers"])
    bf16 = setting["precision"] == "bf16"
    rows = []
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        for batch in loader:
            rows.append(model(batch).float().numpy())
    return np.concatenate(rows)


def main() -> None:
    """Either try every setting on a few tiles and print their rates, or encode a slide with one setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", type=Path)
    parser.add_argument("coords", type=Path, help=".npy of (N, 2) level-0 corners")
    parser.add_argument("out", type=Path)
    parser.add_argument("--network", required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--tile-px", type=int, required=True)
    parser.add_argument("--mean", type=float, nargs=3, required=True)
    parser.add_argument("--std", type=float, nargs=3, required=True)
    parser.add_argument("--try-tiles", type=int, default=0)
    parser.add_argument("--setting", type=json.loads, default=None)
    args = parser.parse_args()
    model = timm.create_model(args.network, num_classes=0).eval()
    model.load_state_dict(torch.load(args.weights, weights_only=True))
    coords = np.load(args.coords)
    dataset = TileDataset(args.slide, coords, args.tile_px, args.mean, args.std)
    if args.setting is not None:
        np.save(args.out, encode(model, dataset, args.setting))
        return
    few = TileDataset(args.slide, coords[: args.try_tiles], args.tile_px, args.mean, args.std)
    rates = []
    for precision in ("fp32", "bf16"):
        slow = False
        for workers in (0, 1, 2):
            for batch in (8, 16, 32):
                if slow:
                    continue
                setting = {"workers": workers, "batch": batch, "precision": precision}
                if precision == "bf16" and rates[-1]["precision"] != "bf16":
                    # Where the processor only imitates bf16, 64 tiles take half an hour: two tiles tell.
                    two = TileDataset(args.slide, coords[:2], args.tile_px, args.mean, args.std)
                    began = time.perf_counter()
                    encode(model, two, setting)
                    slow = 2 / (time.perf_counter() - began) < max(rate["tiles_per_second"] for rate in rates) / 8
                    if slow:
                        rates.append(setting | {"tiles_per_second": 2 / (time.perf_counter() - began)})
                        continue
                began = time.perf_counter()
                encode(model, few, setting)
                rates.append(setting | {"tiles_per_second": len(few) / (time.perf_counter() - began)})
                best = max(rate["tiles_per_second"] for rate in rates)
                # A precision the processor emulates is a tenth as fast at the first try: no use trying it nine times.
                slow = rates[-1]["tiles_per_second"] < best / 4
    args.out.write_text(json.dumps(rates))


if __name__ == "__main__":
    main()
