"""Whether slides bear the names of a public cohort that an encoder was trained on."""

import re
from collections.abc import Iterable

from lamella.encoders.cards import EncoderCard
from lamella.encoders.names import drop_folders

# How the slides of public cohorts are called by those who publish them.
_COHORTS = {
    "CAMELYON16": re.compile(r"^(?:tumor|normal|test)_\d{3}$", re.IGNORECASE),
    "CAMELYON17": re.compile(r"^patient_\d{3}_node_\d$", re.IGNORECASE),
    "TCGA": re.compile(r"^TCGA-\w{2}-\w{4}", re.IGNORECASE),
    "GTEx": re.compile(r"^GTEX-\w{4,5}-\d{4}", re.IGNORECASE),
    "CPTAC": re.compile(r"^C3[LN]-\d{5}", re.IGNORECASE),
}


def find_overlap(card: EncoderCard, slide_names: Iterable[str]) -> str:
    """Say which public cohort slides seem to be of that an encoder has learned from; empty where there is none.

    Args:
        card: Of the encoder.
        slide_names: File names without ending.

    Example:
        >>> from lamella.encoders import find_encoder
        >>> find_overlap(find_encoder("resnet18-ciga"), ["tumor_001", "normal_007"])[:60]
        "encoder 'resnet18-ciga' was trained on CAMELYON16 and 2 slid"
        >>> find_overlap(find_encoder("phikon-v2"), ["GTEX-1117F-0126"])[:58]
        "encoder 'phikon-v2' was trained on GTEx and 1 slides bear "
        >>> find_overlap(find_encoder("resnet18"), ["tumor_001"]), find_overlap(find_encoder("conch"), ["TCGA-A1-A0SB"])
        ('', '')
    """
    names, trained_on = list(slide_names), " ".join(card.trained_on)
    for cohort, pattern in _COHORTS.items():
        alike = [name for name in names if pattern.match(name)]
        if alike and cohort in trained_on:
            return (
                f"encoder '{drop_folders(card.name)}' was trained on {cohort} and {len(alike)} slides bear its names "
                f"('{alike[0]}'): figures on them flatter"
            )
    return ""
