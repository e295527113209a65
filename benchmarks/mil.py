"""A fold of each head: Lamella against torchmil and a plain loop, on the same bags, in one run; prints ratios.

    python benchmarks/mil.py --environment torchmil-env      # made there once; sees what is installed here
    python benchmarks/mil.py --slides 20 --tiles 100 --heads attention,clam-sb

A fold is what a study does for one: standardise on the training slides, train for some epochs at one slide a step with
a look at the validation slides after each, predict the test slides. Networks have the same sizes, and AdamW the same
settings. Lamella is `fit_model` and `predict`. torchmil is its model and loss in the plain loop (its own trainer adds
metrics). The plain loop is what one would write from the paper: for TransMIL the attention of all tokens to all
landmarks, padding included, and three convolutions. torchmil's TransMIL has no convolution of values and no layer after
the heads, which is less work, and its CLAM trains with our loss of tiles; it has no additive head. One thread each,
turns interleaved, medians.
"""

import argparse
import math
import os
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from lamella.mil import TrainSettings, fit_model

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLASSES = ("benign", "malignant")
HEADS = ("attention", "clam-sb", "transmil", "additive")
LR = 2e-4
Loss = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # of rows (N, D) and a class (1,): the loss, and a margin


class Fold:
    """Planted bags, float16, and who learns, decides and is predicted."""

    def __init__(self, n: int, tiles: int, width: int) -> None:
        rng = np.random.default_rng(0)
        self.bags: dict[str, NDArray[Any]] = {}
        for number in range(n):
            bag = np.maximum(rng.normal(size=(tiles + number % 7, width)).astype(np.float32) + 0.3, 0)
            bag[: max(1, tiles // 25), : width // 8] += 2.0 * (number % 2)
            self.bags[f"S{number}"] = bag.astype(np.float16)
        self.labels = {name: CLASSES[number % 2] for number, name in enumerate(self.bags)}
        names = list(self.bags)
        self.train, self.val, self.test = names[: n * 3 // 5], names[n * 3 // 5 : n * 4 // 5], names[n * 4 // 5 :]


def run_lamella(fold: Fold, head: str, epochs: int) -> list[float]:
    """Fit and predict; return the margins of the test slides."""
    settings = TrainSettings(head=head, epochs=epochs, patience=epochs, lr=LR)
    model = fit_model(fold.bags, fold.labels, train=fold.train, val=fold.val, classes=CLASSES, settings=settings)
    return [float(np.diff(model.predict(fold.bags[name]).logits)[0]) for name in fold.test]


def run_loop(fold: Fold, make: Callable[[int], tuple[nn.Module, Loss]], epochs: int) -> list[float]:
    """Do the same in a plain loop; return the margins of the test slides."""
    rows = np.concatenate([fold.bags[name] for name in fold.train]).astype(np.float32)
    mean, sd = rows.mean(axis=0), rows.std(axis=0)
    bags = {name: torch.from_numpy((bag.astype(np.float32) - mean) / sd) for name, bag in fold.bags.items()}
    targets = {name: torch.tensor([CLASSES.index(label)]) for name, label in fold.labels.items()}
    torch.manual_seed(0)
    model, find_loss = make(rows.shape[1])
    optimiser = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=1e-4, fused=True)
    rng = np.random.default_rng(0)
    for _ in range(epochs):
        model.train()
        for number in rng.permutation(len(fold.train)):
            name = fold.train[number]
            optimiser.zero_grad()
            find_loss(bags[name], targets[name])[0].backward()
            optimiser.step()
        model.eval()
        with torch.no_grad():
            for name in fold.val:
                find_loss(bags[name], targets[name])
    with torch.no_grad():
        return [float(find_loss(bags[name], targets[name])[1]) for name in fold.test]


def make_plain(head: str, dim: int) -> tuple[nn.Module, Loss]:
    """Return a network and its loss, as one would write them."""
    if head == "transmil":
        transformer = PlainTransMil(dim)
        return transformer, lambda rows, target: _measure(transformer(rows), target)
    small = head != "clam-sb"
    inside, hidden = (64, 32) if small else (512, 256)
    first = [nn.Linear(dim, 256), nn.ReLU(), nn.Linear(256, 64), nn.ReLU()]
    embed = nn.Sequential(*(first if small else [nn.Linear(dim, 512), nn.ReLU()]))
    value, gate, score = nn.Linear(inside, hidden), nn.Linear(inside, hidden), nn.Linear(hidden, 1)
    read, classify = nn.Sequential(nn.Linear(inside, inside), nn.ReLU()), nn.Linear(inside, 2)
    tell = nn.ModuleList(nn.Linear(inside, 2) for _ in CLASSES)
    parts = [embed, value, score, classify, *([read] if head == "additive" else [])]
    parts += [] if small else [gate, tell]

    def find_loss(rows: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        tiles = embed(rows)
        branch = torch.tanh(value(tiles))
        scores = score(branch if small else branch * torch.sigmoid(gate(tiles)))
        attention = scores.softmax(dim=0)
        pooled = (attention * (read(tiles) if head == "additive" else tiles)).sum(dim=0)
        loss, margin = _measure(classify(pooled), target)
        if small:
            return loss, margin
        most, least = (tiles[attention[:, 0].topk(8, largest=largest).indices] for largest in (True, False))
        own, other = tell[int(target)], tell[1 - int(target)]
        ones, zeros = torch.ones(8, dtype=torch.int64), torch.zeros(8, dtype=torch.int64)
        of_tiles = _tell_apart(own(torch.cat([most, least])), torch.cat([ones, zeros])) + _tell_apart(
            other(most), zeros
        )
        return 0.7 * loss + 0.3 * of_tiles / 2, margin

    return nn.ModuleList(parts), find_loss


def _measure(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    return nn.functional.cross_entropy(logits[None], target), logits[1] - logits[0]


def _tell_apart(logits: Tensor, wanted: Tensor) -> Tensor:
    margin = 1.0 - nn.functional.one_hot(wanted, 2)
    return (logits + margin - logits.gather(1, wanted[:, None])).logsumexp(dim=1).mean()


class TileLoss(nn.Module):
    """Stands in for torchmil's loss of tiles, which in 1.0.2 mixes them, and stops with an error on sure ones."""

    def forward(self, logits: Tensor, wanted: Tensor) -> Tensor:
        """Return the mean loss of `(T, 2)` logits."""
        return _tell_apart(logits, wanted[:, 0].long())


class PlainAttention(nn.Module):
    """Nystrom attention of 8 heads and 256 landmarks, written from the papers."""

    def __init__(self) -> None:
        super().__init__()
        self.project, self.merge = nn.Linear(512, 1536, bias=False), nn.Linear(512, 512)
        self.convolve = nn.Conv2d(8, 8, (33, 1), padding=(16, 0), groups=8, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return what is added to each token `(T, 512)`."""
        length = math.ceil(len(tokens) / 256)
        padded = nn.functional.pad(tokens, (0, 0, 256 * length - len(tokens), 0))
        query, key, value = (part.view(-1, 8, 64).transpose(0, 1) for part in self.project(padded).chunk(3, dim=-1))
        query = query * 64**-0.5
        query_marks, key_marks = (part.reshape(8, 256, length, 64).mean(dim=2) for part in (query, key))
        first, middle = (query @ key_marks.mT).softmax(dim=-1), (query_marks @ key_marks.mT).softmax(dim=-1)
        last = (query_marks @ key.mT).softmax(dim=-1)
        inverse = middle.mT / (middle.sum(dim=-1).max() * middle.sum(dim=-2).max())
        one = torch.eye(256)
        for _ in range(6):
            product = middle @ inverse
            inverse = 0.25 * inverse @ (13 * one - product @ (15 * one - product @ (7 * one - product)))
        mixed = (first @ inverse) @ (last @ value) + self.convolve(value[None])[0]
        return self.merge(mixed.transpose(0, 1).flatten(1))[-len(tokens) :]


class PlainTransMil(nn.Module):
    """TransMIL, written from the paper."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(dim, 512), nn.ReLU())
        self.token = nn.Parameter(torch.zeros(1, 512))
        self.layers = nn.ModuleList(nn.Sequential(nn.LayerNorm(512), PlainAttention()) for _ in range(2))
        self.near = nn.ModuleList(nn.Conv2d(512, 512, size, padding=size // 2, groups=512) for size in (7, 5, 3))
        self.classify = nn.Sequential(nn.LayerNorm(512), nn.Linear(512, 2))

    def forward(self, rows: Tensor) -> Tensor:
        """Return the logits `(2,)` of a slide."""
        tiles = self.embed(rows)
        side = math.ceil(math.sqrt(len(tiles)))
        tokens = torch.cat([self.token, tiles, tiles[: side * side - len(tiles)]])
        tokens = tokens + self.layers[0](tokens)
        square = tokens[1:].T.reshape(1, 512, side, side)
        square = square + sum(layer(square) for layer in self.near)
        tokens = torch.cat([tokens[:1], square[0].flatten(1).T])
        logits: Tensor = self.classify((tokens + self.layers[1](tokens))[0])
        return logits


def make_torchmil(head: str, dim: int) -> tuple[nn.Module, Loss]:
    """Return torchmil's network and its loss."""
    from torchmil.models import ABMIL, CLAM_SB, TransMIL

    one = nn.Sequential(nn.Linear(dim, 512), nn.ReLU())
    if head == "attention":
        two = nn.Sequential(nn.Linear(dim, 256), nn.ReLU(), nn.Linear(256, 64), nn.ReLU())
        model = ABMIL((dim,), att_dim=32, feat_ext=two)
    elif head == "clam-sb":
        model = CLAM_SB((dim,), att_dim=256, gated=True, k_sample=8, feat_ext=one)
        model.inst_loss_fn = TileLoss()
    else:
        model = TransMIL((dim,), n_heads=8, feat_ext=one)

    def find_loss(rows: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        margin, losses = model.compute_loss(target.float(), rows[None])
        return sum(losses.values()), margin[0]

    return model, find_loss


def measure(fold: Fold, args: argparse.Namespace) -> None:
    """Time each head in turn and print the table."""
    print(f"{len(fold.bags)} slides of {args.tiles} tiles, width {args.width}, {args.epochs} epochs; seconds of a fold")
    print(f"{'head':10} {'Lamella':>8} {'torchmil':>9} {'plain':>8} {'torchmil / Lamella':>19} {'plain / Lamella':>16}")
    for head in args.heads:
        arms: dict[str, Callable[[], list[float]]] = {
            "lamella": lambda head=head: run_lamella(fold, head, args.epochs),
            "plain": lambda head=head: run_loop(fold, lambda dim: make_plain(head, dim), args.epochs),
        }
        if head != "additive":
            arms["torchmil"] = lambda head=head: run_loop(fold, lambda dim: make_torchmil(head, dim), args.epochs)
        times: dict[str, list[float]] = {name: [] for name in arms}
        aucs: dict[str, float] = {}
        for turn in range(-1, args.repeats):  # the first turn makes kernels, and does not count
            for name, run in arms.items():
                began = time.process_time()
                margins = np.array(run())
                taken = time.process_time() - began
                if turn >= 0:
                    times[name].append(taken)
                positive = np.array([fold.labels[slide] == CLASSES[1] for slide in fold.test])
                aucs[name] = float(np.mean(margins[positive][:, None] > margins[~positive]))
                print(f"turn {turn} {head} {name}: {taken:.2f} s, AUC {aucs[name]:.2f}", file=sys.stderr, flush=True)
        lamella, plain, torchmil = (
            float(np.median(times.get(name, [math.nan]))) for name in ("lamella", "plain", "torchmil")
        )
        print(
            f"{head:10} {lamella:8.2f} {torchmil:9.2f} {plain:8.2f} {torchmil / lamella:19.2f} {plain / lamella:16.2f}"
            f"   AUC {', '.join(f'{name} {auc:.2f}' for name, auc in aucs.items())}",
            flush=True,
        )


def make_environment(folder: Path) -> Path:
    """Make an environment with torchmil that sees the packages of this one, and return its Python."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        venv.create(folder, with_pip=True)
        asked = "import sysconfig; print(sysconfig.get_path('purelib'))"
        own = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=True).stdout.strip()
        Path(own, "here.pth").write_text(sysconfig.get_path("purelib"))
    subprocess.run([python, "-m", "pip", "install", "--quiet", "torchmil"], check=True)
    return python


def main() -> None:
    """Measure, in the environment that has torchmil."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slides", type=int, default=50)
    parser.add_argument("--tiles", type=int, default=500)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--heads", type=lambda text: text.split(","), default=HEADS)
    parser.add_argument("--environment", type=Path, help="folder with torchmil; made if it is not there")
    args = parser.parse_args()
    if args.environment is not None:
        given = [word for word in sys.argv[1:] if word not in ("--environment", str(args.environment))]
        raise SystemExit(subprocess.run([make_environment(args.environment), __file__, *given], check=False).returncode)
    if find_spec("torchmil") is None:
        parser.error("torchmil is not installed. Pass --environment torchmil-env")
    torch.set_num_threads(1)
    measure(Fold(args.slides, args.tiles, args.width), args)
    print(f"torch {torch.__version__}, one thread, processor seconds, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
