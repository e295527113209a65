"""A study as a whole: from slides, labels and a design to the verdict, pictures and the page."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lamella.cohort import Cohort, CohortSlide, find_missing, load_cohort
from lamella.encoders.trust import trusting
from lamella.errors import LamellaError, OutputError, SettingsError
from lamella.explain.cam import map_run
from lamella.explain.cam_record import CamRecord
from lamella.explain.outlines import SUFFIXES
from lamella.features.failures import Failure
from lamella.files import refuse_links
from lamella.progress import Progress, SilentProgress
from lamella.renaming import hide_names, rename_cohort, rename_outlines, save_public_failures
from lamella.reports.draw.heatmap import locate_tiles
from lamella.reports.draw.panels import draw_panels
from lamella.reports.page import write_page
from lamella.runs.attention import load_attention
from lamella.runs.folder import RunFolder
from lamella.runs.predict import open_run
from lamella.runs.settings import CamSettings
from lamella.runs.units import list_slides_of
from lamella.slide import open_slide
from lamella.studies.design import StudyDesign, load_design
from lamella.studies.execute import Study, execute_study
from lamella.studies.options import StudyOptions
from lamella.studies.outcome import ArmOutcome
from lamella.studies.presets import find_preset
from lamella.studies.work import base_of

N_PICTURES = 12


def compare_arms(
    cohort: Cohort | Path | str,
    design: StudyDesign | Path | str,
    out: Path | str,
    *,
    options: StudyOptions | None = None,
    pseudonyms: bool = False,
    trust: Sequence[Path | str] = (),
    progress: Progress | None = None,
) -> Study:
    """Run a study from slides and labels to its page; what is finished is kept.

    Args:
        cohort: Labelled slides, or their table (CSV or Parquet).
        design: What is compared: a design, the name of a preset (`paper`, `quick`, `camelyon16`, `gastro`), or a file.
        out: The study folder; `report.html` in it is the page.
        options: Where it runs, and for how long at most.
        pseudonyms: Whether patients and slides go by salted hashes from the first step on; the key and everything
            that holds paths stay under `local/`.
        trust: Your own `FILE.py` that arms name: code that a study's file names is never run by itself.
        progress: Where to report to.

    Raises:
        LamellaError: Whatever cannot be done, in one line.
    """
    progress, options, out = progress or SilentProgress(), options or StudyOptions(), Path(out)
    refuse_links(out)
    if not isinstance(cohort, Cohort):
        cohort = load_cohort(cohort)
    if not isinstance(design, StudyDesign):
        design = load_design(Path(design)) if Path(design).suffix in (".yaml", ".yml") else find_preset(str(design))
    if pseudonyms and any(arm.features for arm in design.list_arms()):
        raise SettingsError(
            "bags that are there go by the slides' ids, which --pseudonyms would replace. Leave --pseudonyms out, or "
            "rename the bags and the table before."
        )
    if pseudonyms:
        renamed = rename_cohort(cohort, out)
        lesions = rename_outlines(options.lesions, cohort, renamed, out, kind="lesions", suffixes=SUFFIXES)
        options = dataclasses.replace(options, lesions=lesions)
        cohort = renamed
    with trusting(*trust):
        outcome = execute_study(cohort, design, out, options=options, progress=progress)
        failures = outcome.failures
        if outcome.outcomes:
            failures = (*failures, *_draw_pictures(outcome, maps=design.cam, progress=progress))
    if pseudonyms:
        failures = hide_names(failures, cohort)
    save_public_failures(failures, cohort, outcome.folder.path / "failures.csv")
    write_page(outcome.folder.path)
    return dataclasses.replace(outcome, failures=failures)


def _draw_pictures(outcome: Study, *, maps: bool, progress: Progress) -> list[Failure]:
    """Draw the slides of the arm that the page speaks of, the worst errors first."""
    shown = _choose_arm(outcome)
    run = outcome.runs[base_of(shown.arm).name]
    slides = {slide.slide_id: slide for slide in outcome.cohort.slides}
    missing = {slide.slide_id for slide in find_missing(outcome.cohort)} if shown.arm.features else set()
    ranked = _list_slides(rank_errors(shown, outcome.cohort), outcome)
    chosen = [i for i in ranked if i not in missing and (run.attention / f"{i}.h5").exists()][:N_PICTURES]
    if not chosen and shown.arm.features:
        progress.say("no slide is drawn: its file is not there, or the bags do not say where their tiles lie")
    records: dict[str, CamRecord] = {}
    failures: list[Failure] = []
    if maps and not shown.arm.features:
        try:
            mapped, lost = map_run(open_run(run.path), CamSettings(), slide_ids=chosen, progress=progress)
            records, failures = {record.slide_id: record for record in mapped}, list(lost)
        except OutputError:
            raise
        except LamellaError as error:  # an encoder whose embedding is no mean of a map has no such maps
            progress.say(f"no class activation maps were drawn: {error}")
    with progress.stage("draw slides", len(chosen), "slides") as stage:
        for slide_id in chosen:
            try:
                _draw_one(slides[slide_id], run, outcome.folder.slides / slide_id, records.get(slide_id))
            except OutputError:
                raise
            except (LamellaError, OSError) as error:
                failures.append(Failure(slide_id, "draw", str(error)))
            stage.advance()
    return failures


def _list_slides(ranked: Sequence[str], outcome: Study) -> list[str]:
    """Return the slides of what was predicted, in its order: of a patient all."""
    if outcome.record.design.unit == "slide":
        return list(ranked)
    slides = list_slides_of(outcome.cohort)
    return [slide_id for patient in ranked for slide_id in slides[patient]]


def rank_errors(shown: ArmOutcome, cohort: Cohort) -> list[str]:
    """Return the slides that an arm tested, those furthest from their label first (by log-loss over the seeds)."""
    tested = shown.predictions[shown.predictions["side"] == "test"]
    logits = tested[[f"logit_{name}" for name in cohort.classes]].to_numpy(np.float64)
    columns = [cohort.classes.index(str(label)) for label in tested["label"]]
    losses: dict[str, list[float]] = {}
    for slide_id, row, column in zip(tested["slide_id"], logits, columns, strict=True):
        losses.setdefault(slide_id, []).append(float(np.logaddexp.reduce(row) - row[column]))
    return sorted(losses, key=lambda slide_id: (-float(np.mean(losses[slide_id])), slide_id))


def _choose_arm(outcome: Study) -> ArmOutcome:
    """Return the recommended arm; else the best of the frozen ones by AUC."""
    by_name = {arm_outcome.arm.name: arm_outcome for arm_outcome in outcome.outcomes}
    said = None if outcome.verdict is None else outcome.verdict.verdict
    names = () if said is None else (said.arm, said.best_arm)
    return next((by_name[name] for name in names if name in by_name), outcome.outcomes[0])


def _draw_one(item: CohortSlide, run: RunFolder, folder: Path, cam: CamRecord | None) -> None:
    record = load_attention(run.attention / f"{item.slide_id}.h5")
    with open_slide(item.path, slide_mpp=item.slide_mpp, image=item.slide_image) as slide:
        path = run.cam / item.slide_id / "cam.tiff"
        draw_panels(
            slide, locate_tiles(record, slide)[0], folder, key=record.key, cam=None if cam is None else (cam, path)
        )
