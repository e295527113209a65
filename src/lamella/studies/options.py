"""What a study is told besides its design."""

from dataclasses import dataclass, field
from pathlib import Path

from lamella.encoders import RuntimeSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyOptions:
    """What a study is told besides its design: what does not change its figures.

    Attributes:
        runtime: Where encoders run.
        lesions: Folder of outlines for localisation; None measures none.
        lesion_classes: Which classes of outlines are lesions; empty takes the only one there is.
        lesion_values: Which values of masks are lesions; empty takes the only one besides the background.
        budget_s: Seconds that may be spent; None is no limit. Arms that would go past it are listed as not run.
        cautions: What the page is to say of this cohort besides, such as that its slides share tissue.
    """

    runtime: RuntimeSettings = field(default_factory=RuntimeSettings)
    lesions: Path | None = None
    lesion_classes: tuple[str, ...] = ()
    lesion_values: tuple[str, ...] = ()
    budget_s: float | None = None
    cautions: tuple[str, ...] = ()
