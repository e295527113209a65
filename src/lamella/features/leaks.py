"""Whether an encoder has already seen a slide: by its patient, its id, its bytes, or by what it looks like."""

from lamella.cohort import CohortSlide
from lamella.encoders.tuned import SeenSlides
from lamella.slide import Slide, hash_quickly
from lamella.slide.signature import is_same_slide, sign_slide


def find_leak(seen: SeenSlides, item: CohortSlide, slide: Slide) -> str:
    """Say how a fine-tuned encoder has seen a slide, in words that end a sentence; empty where it has not.

    Args:
        seen: What the encoder has seen.
        item: The slide, by the names that the cohort gives it.
        slide: The slide itself.

    Raises:
        SlideError: If the slide cannot be read.
    """
    if not seen.slides:
        return ""
    if seen.knows(item.patient_id, {known.patient for known in seen.slides}):
        return "its patient was among those that the encoder was trained on"
    if seen.knows(item.slide_id, {known.slide for known in seen.slides}):
        return "the encoder was trained on a slide of this id"
    if hash_quickly(item.path) in {known.quickhash for known in seen.slides}:
        return "the encoder was trained on this very file, under another name"
    signature = sign_slide(slide)
    if any(is_same_slide(signature, known.signature) for known in seen.slides):
        return "the encoder was trained on the same image, in another file or format"
    return ""
