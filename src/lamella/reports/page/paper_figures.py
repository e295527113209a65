"""The figures of HistoTransfer (2021), AUC in per cent: (Gastro, CAMELYON16); one run each, no intervals given."""

Pair = tuple[float | None, float | None]

# By encoder and depth, frozen: Tables I, II and IV.
FROZEN: dict[tuple[str, int], Pair] = {
    ("resnet18", 4): (90.3, 76.5),
    ("resnet34", 4): (90.8, 71.9),
    ("resnet50", 4): (88.4, 71.9),
    ("densenet121", 4): (91.1, 79.9),
    ("densenet169", 4): (90.8, 75.0),
    ("efficientnet-b0-pytorch", 4): (86.6, 72.5),
    ("efficientnet-b1-pytorch", 4): (90.0, 76.9),
    ("efficientnet-b2-pytorch", 4): (87.8, 69.3),
    ("efficientnet-b3-pytorch", 4): (90.5, 69.9),
    ("resnet18-ciga", 4): (93.7, None),
    ("densenet121-mormont", 4): (93.1, None),
    ("resnet50-mormont", 4): (90.6, None),
    ("resnet18", 3): (90.8, 78.5),
    ("resnet18", 2): (88.3, 70.5),
    ("resnet18", 1): (84.5, 39.1),
    ("densenet121", 3): (91.8, 80.8),
    ("densenet121", 2): (91.7, 76.7),
    ("densenet121", 1): (85.4, 46.5),
}
# Fine-tuned: Table III.
TUNED: dict[tuple[str, int], Pair] = {
    ("resnet18", 4): (91.3, 84.5),
    ("densenet121", 4): (92.9, 89.0),
}
# Presets whose page shows the paper's figures beside its own.
PRESETS = ("paper", "camelyon16", "gastro")
COLUMNS = ("paper, Gastro, %", "paper, CAMELYON16, %")
NOTE = (
    "The paper's figures (HistoTransfer, 2021; AUC in per cent) are of its own two cohorts, one run each, without "
    "intervals: they stand beside these, they are not compared with them."
)
FIGURE_2 = (
    "In the paper's figure 2, for both of its networks and cohorts, the largest change lies in the later blocks; it "
    "prints no values."
)


def find_paper_figure(encoder: str, depth: int, finetuned: str, weights: str = "auto") -> Pair | None:
    """Return what the paper found for an arm, (Gastro, CAMELYON16) in per cent; None where it did not look.

    Example:
        >>> find_paper_figure("resnet18", 3, "frozen"), find_paper_figure("resnet18-ciga", 4, "frozen")
        ((90.8, 78.5), (93.7, None))
        >>> find_paper_figure("resnet18", 4, "frozen", "random") is None
        True
    """
    if weights != "auto":
        return None
    return {"frozen": FROZEN, "tuned": TUNED}.get(finetuned, {}).get((encoder, depth))


def format_pair(pair: Pair | None) -> tuple[str, str]:
    """Return the two figures as text, a dash where there is none.

    Example:
        >>> format_pair((93.7, None)), format_pair(None)
        (('93.7', '-'), ('-', '-'))
    """
    first, second = pair or (None, None)
    return ("-" if first is None else f"{first:.1f}", "-" if second is None else f"{second:.1f}")
