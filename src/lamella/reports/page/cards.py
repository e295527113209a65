"""The slides of a page: which of them have pictures, and what is known of each."""

from lamella.files import find_inside
from lamella.reports.page.parts import Card, Picture, Slides
from lamella.reports.record import Call, Record

VIEWS = {"thumbnail": "slide", "attention": "attention", "cam": "class activation map"}
_SHEETS = (
    ("heatmaps/{}/attention.png", "attention", False),
    ("cam/{}/cam.png", "class activation map: where the contrast comes from", False),
    ("heatmaps/{}/top_tiles.png", "most attended tiles", True),
)


def list_slides(record: Record) -> Slides:
    """List the slides that are drawn, the worst errors first."""
    calls = [
        (call, slide_id, pictures)
        for call in record.list_calls()
        for slide_id in call.slide.slides or (call.slide.slide_id,)
        if (pictures := _find_pictures(record, slide_id))
    ]
    return Slides(
        cards=tuple(
            Card(
                name=slide_id,
                tags=tuple(_list_tags(record, call, slide_id)),
                is_wrong=call.right is False,
                pictures=pictures,
            )
            for call, slide_id, pictures in calls
        ),
        positive=record.positive,
        empty="No arm ran, so no slide was predicted or drawn."
        if record.shown is None
        else "No slide is drawn: this folder holds no pictures of slides (lamella heatmap draws those of a run).",
    )


def _find_pictures(record: Record, slide_id: str) -> tuple[Picture, ...]:
    """Return the pictures of a slide: views in one frame, which a study draws, or sheets, which a run does."""
    views = []
    for name, said in VIEWS.items():
        for suffix in ("jpg", "png"):
            path = f"slides/{slide_id}/{name}.{suffix}"
            if find_inside(record.folder, path) is not None:
                views.append(Picture(name=said, path=path, is_view=True))
                break
    sheets = [
        Picture(name=said, path=path, folded=folded)
        for pattern, said, folded in _SHEETS
        if find_inside(record.folder, path := pattern.format(slide_id)) is not None
    ]
    return (*views, *sheets)


def _list_tags(record: Record, call: Call, slide_id: str) -> list[tuple[str, str]]:
    """List what is known of a slide: (what, which)."""
    slide = call.slide
    tags = [("label", slide.label)] if slide.label else []
    if record.study is None:
        tags.append(("predicted", call.predicted))
    shown = record.scored or slide.label or call.predicted
    tags.append((f"p({shown})", f"{call.probability:.3f}"))
    if slide.patient_id != slide_id:
        tags.append(("patient", slide.patient_id))
    if slide.batch:
        tags.append(("batch", slide.batch))
    if slide.fold is not None and not record.is_external:
        tags.append(("fold", str(slide.fold)))
    if slide.n_tiles:
        tags.append(("tiles of the patient" if slide.slides else "tiles", f"{slide.n_tiles:,}"))
    if call.right is False:
        tags.append(("", "misclassified" if record.thresholds else "misclassified at threshold 0.5"))
    return tags
