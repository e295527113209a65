"""Refusing to measure a fine-tuned encoder on what it was trained on."""

from collections.abc import Iterable, Mapping

from lamella.cohort import Cohort
from lamella.encoders.tuned import list_hashes
from lamella.errors import LeakageError
from lamella.runs.facts import BagFacts


def refuse_seen_by_encoder(slide_ids: Iterable[str], facts: Mapping[str, BagFacts], cohort: Cohort) -> None:
    """Raise where one is to test on a slide that the encoder of its bag was fine-tuned on, in this fold or another.

    The bag says so itself, wherever it was copied: it was compared when it was made, by patient, id, bytes and looks;
    and it carries its encoder's patients as salted hashes, so that this cohort's are compared too.

    Args:
        slide_ids: What is to be tested on.
        facts: What each bag states of itself.
        cohort: For the patients.

    Raises:
        LeakageError: Naming the slide, and how it was seen.
    """
    patients = {slide.slide_id: slide.patient_id for slide in cohort.slides}
    seen: list[tuple[str, str]] = []
    for slide_id in (name for name in dict.fromkeys(slide_ids) if name in facts):
        bag = facts[slide_id]
        reason, salt = bag.leak or "", bag.seen_salt or ""
        if not reason and salt and not list_hashes(patients[slide_id], salt).isdisjoint(bag.seen_patients):
            reason = "its patient was among those that the encoder was trained on"
        if reason:
            seen.append((slide_id, reason))
    if not seen:
        return
    slide_id, reason = seen[0]
    encoder = facts[slide_id].encoder or "the encoder"
    others = f" ({len(seen)} slides of the table)" if len(seen) > 1 else ""
    raise LeakageError(
        f"slide '{slide_id}' is to be tested with encoder '{encoder}', but {reason}{others}: the result would flatter. "
        "Take these slides out of the test, or use an encoder that was not fine-tuned on them."
    )
