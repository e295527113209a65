"""Running a study: cohort and design -> plan -> the work that is missing -> verdict.

The plan is what is done: `lamella.studies.plan` lists the work, and here the list is walked. What can be shared is
shared: tiles are placed once, each is decoded once for all encoders and depths, and all arms of one encoder read the
same bags, on the same folds and with the same seeds. A study that was killed goes on where it stood, to the same
figures; arms may be added to its design later and are marked.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lamella.analysis.verdict import Verdict
from lamella.cohort import Cohort, list_rounds
from lamella.errors import SettingsError
from lamella.explain.outlines import LesionFolder
from lamella.features.failures import Failure
from lamella.files import refuse_links
from lamella.progress import Progress, SilentProgress
from lamella.runs.execute import check_images, save_ledger, save_run_cohort
from lamella.runs.folder import RunFolder, hash_tables
from lamella.runs.units import refuse_mixed_labels
from lamella.studies.arm_rows import describe_arm
from lamella.studies.arms import CHOSEN, CHOSEN_ARMS
from lamella.studies.choice import count_chosen, describe_chosen
from lamella.studies.costs import COST_UNITS, load_given_costs
from lamella.studies.design import StudyDesign
from lamella.studies.facts import divide_cohort, gather_facts
from lamella.studies.findings import StudyBench
from lamella.studies.folder import StudyFolder
from lamella.studies.marks import load_marks
from lamella.studies.options import StudyOptions
from lamella.studies.outcome import ArmOutcome
from lamella.studies.plan import LEFT, StudyPlan, plan_work
from lamella.studies.presets import list_differences
from lamella.studies.prospects import list_obstacles
from lamella.studies.record import (
    ArmRecord,
    StudyRecord,
    WorkRecord,
    describe_study,
    load_record,
    refuse_other_design,
    was_declared,
)
from lamella.studies.walk import Unfinished, walk
from lamella.studies.work import FINETUNE, LOCALISE, OF_ARMS, TRAIN, WorkItem, bags_of, base_of
from lamella.temporaries import sweep_temporaries
from lamella.words import say_time


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Study:
    """A finished study, or as much of one as its budget let be done.

    Attributes:
        folder: Where everything lies.
        cohort: With the folds or splits that were used.
        outcomes: Of the arms that ran.
        verdict: What `verdict.json` holds; None where no arm ran.
        record: What `study.json` holds.
        runs: The run folder of each frozen arm, by name.
        failures: Slides that could not be done.
    """

    folder: StudyFolder
    cohort: Cohort
    outcomes: tuple[ArmOutcome, ...]
    verdict: Verdict | None
    record: StudyRecord
    runs: Mapping[str, RunFolder]
    failures: tuple[Failure, ...]


def execute_study(
    cohort: Cohort,
    design: StudyDesign,
    out: Path,
    *,
    options: StudyOptions | None = None,
    progress: Progress | None = None,
) -> Study:
    """Run every arm of a design whose weights are here, compare them, and write everything down.

    Args:
        cohort: Labelled slides.
        design: What is compared.
        out: The study folder; what is finished in it is kept.
        options: Where it runs, and for how long at most.
        progress: Where to report to.

    Raises:
        SettingsError: If the folder holds a study that was designed otherwise.
        CohortError: If the cohort does not hang together, or too little of it is left.
        LeakageError: If a patient is on two sides of a split, or an encoder has seen what it is tested on.
        OutputError: If the folder cannot be written.
    """
    return _Execution(
        cohort, design, StudyFolder(Path(out)), options or StudyOptions(), progress or SilentProgress()
    ).run()


class _Execution:
    """One run of a study, from where it stands."""

    def __init__(
        self, cohort: Cohort, design: StudyDesign, folder: StudyFolder, options: StudyOptions, progress: Progress
    ) -> None:
        self._design, self._folder, self._options, self._progress = design, folder, options, progress
        self._began = time.monotonic()
        self._earlier = load_record(folder.record)
        refuse_other_design(self._earlier, design, folder)
        refuse_links(folder.path)
        sweep_temporaries(folder.path)
        self._cohort = divide_cohort(cohort, design)
        self._has_own_division = self._cohort is cohort
        self._notes = list(self._cohort.notes)
        self._arms: dict[str, ArmRecord] = {}

    def run(self) -> Study:
        """Do what is missing; return what came out."""
        list_rounds(self._cohort)
        refuse_mixed_labels(self._cohort, self._design.unit)
        check_images(self._cohort)
        self._check_lesions()
        self._check_costs()
        save_run_cohort(self._cohort, RunFolder(self._folder.path))
        for arm in self._design.list_arms():
            self._arms[arm.name] = describe_arm(arm, self._design.tiles, declared=was_declared(arm, self._earlier))
        for arm in CHOSEN_ARMS if self._design.finetune_best else ():
            self._arms[arm.name] = describe_chosen(arm, declared=was_declared(arm, self._earlier))
        plan = self._plan()
        differences = [f"Differs from the paper: {said}." for said in list_differences(self._design.preset or "")]
        for note in (*list_obstacles(self._design, self._cohort), *differences):
            self._notes.append(note)
            self._progress.say(note)
        bench = StudyBench(self._cohort, self._design, self._folder, self._options, plan, self._arms, self._progress)
        self._save_record(bench, "running")
        unfinished = walk(
            plan.todo,
            bench,
            self._folder.work,
            is_over=self._is_over_budget,
            tell=lambda: self._save_record(bench, "running"),
        )
        outcomes = bench.load_outcomes()
        bench.save_findings()
        self._tell_unfinished(plan, bench, unfinished)
        frozen = [arm for arm in outcomes if arm.finetuned == "frozen" and not arm.is_chosen and not arm.features]
        if frozen:
            most = max(frozen, key=lambda arm: arm.tiles_per_slide or math.inf)
            save_ledger(self._cohort, bench.load_frozen(most).units.parts, RunFolder(self._folder.path))
        record = self._save_record(bench, "budget spent" if self._is_over_budget() else "finished")
        bases = {base_of(arm): RunFolder(self._folder.models(base_of(arm))) for arm in outcomes if not arm.is_chosen}
        return Study(
            folder=self._folder,
            cohort=self._cohort,
            outcomes=tuple(outcomes.values()),
            verdict=bench.judge(),
            record=record,
            runs={
                **{base.name: folder for base, folder in bases.items()},
                **({CHOSEN: bases[count_chosen(bench.choices)]} if bench.choices else {}),
            },
            failures=tuple(self._list_failures(bench).values()),
        )

    def _plan(self) -> StudyPlan:
        """Plan the work; it is priced where a price decides what is done, or is told of an arm that waits."""
        waits = any(arm.command is not None for arm in self._arms.values())
        facts = gather_facts(
            self._design,
            self._cohort,
            self._folder.path,
            options=self._options,
            prices=waits or self._options.budget_s is not None,
        )
        plan = plan_work(self._design, facts, budget_s=self._options.budget_s)
        if self._options.budget_s is not None:
            self._notes += [note for note in plan.notes if note not in self._notes]
        for planned in plan.arms:
            if facts.tiles_a_slide:
                self._change(planned.arm.name, estimated_seconds=round(planned.seconds, 1))
            if planned.state == LEFT:
                reason = f"past the budget: it would have taken about {say_time(planned.seconds)}"
                self._change(planned.arm.name, state=LEFT, reason=reason)
        if self._design.finetune_best and plan.items and not any(CHOSEN_ARMS[0].name in i.arms for i in plan.items):
            for arm in CHOSEN_ARMS:
                self._change(arm.name, reason="past the budget: the plan had no room for fine-tuning")
        return plan

    def _change(self, arm: str, **changes: str | float | None) -> None:
        """Say something else of an arm."""
        self._arms[arm] = self._arms[arm].model_copy(update=changes)

    def _check_lesions(self) -> None:
        """Refuse outlines that fit no slide or are not clear before anything long begins."""
        options = self._options
        if options.lesions is not None:
            positive = self._cohort.positive or self._cohort.classes[-1]
            folder = LesionFolder(path=options.lesions, classes=options.lesion_classes, values=options.lesion_values)
            folder.find([slide for slide in self._cohort.slides if slide.label == positive])

    def _check_costs(self) -> None:
        """Refuse a table of costs that does not fit the arms whose bags are there, before anything long begins."""
        names = [arm.whole.name for arm in self._design.list_arms() if arm.features]
        if self._design.costs is None or not names:
            return
        if load_given_costs(self._design.costs, names)[1] == COST_UNITS["cost"]:
            raise SettingsError(
                f"'{Path(self._design.costs).name}' has a column cost, whose unit no encoder of the study is measured "
                "in. Call it seconds_a_slide or gflops."
            )

    def _is_over_budget(self) -> bool:
        budget = self._options.budget_s
        return budget is not None and time.monotonic() - self._began > budget

    # What is said of it -------------------------------------------------------------------------------------------

    def _tell_unfinished(self, plan: StudyPlan, bench: StudyBench, unfinished: Mapping[str, Unfinished]) -> None:
        """Say of each arm that was not finished why."""
        why: dict[str, Unfinished] = {
            name: Unfinished(reason=reason, is_failure=True) for name, reason in bench.lost_arms.items()
        }
        for item in plan.todo:
            if item.kind in OF_ARMS and item.key in unfinished:
                for name in item.arms:
                    why.setdefault(name, unfinished[item.key])
        for name, cause in why.items():
            self._change(name, state="failed" if cause.is_failure else LEFT, reason=cause.reason)

    def _list_failures(self, bench: StudyBench) -> dict[str, Failure]:
        """Return the slides that could not be encoded or localised, by id."""
        marks = load_marks(self._folder.work)
        looks = [failure for key, work in marks.items() if key.startswith(LOCALISE) for failure in work.failures]
        return bench.list_lost() | {failure.slide_id: failure for failure in looks}

    def _save_record(self, bench: StudyBench, status: str) -> StudyRecord:
        is_running = status == "running"
        finished = bench.list_finished()
        self._mark_finished(bench, finished)
        known = describe_study(self._cohort, self._design, status=status, arms=self._arms.values())
        earlier = self._earlier.cohort.tiles_a_slide if self._earlier else {}
        counted = earlier | {bags.tiles: n for bags, n in bench.tiles_a_slide.items() if bags == bags.whole}
        counts = {
            "n_failed": 0 if is_running else len(self._list_failures(bench)),
            "tiles_a_slide": {name: counted[name] for name in self._design.tiles if name in counted},
            "own_division": self._has_own_division,
        }
        reports = [] if is_running else bench.list_reports()
        notes = [
            *self._notes,
            *(note for report in reports for note in report.notes),
            *bench.said,
            *bench.notes,
        ]
        states = {item.key: "done" for item in finished}
        tables = {} if is_running else {"files": hash_tables(self._folder.path)}  # until then they are written
        record = known.model_copy(
            update={
                "cohort": known.cohort.model_copy(update=counts),
                "notes": tuple(dict.fromkeys(notes)),
                "scope": " ".join(self._options.cautions) or None,
                "work": tuple(
                    WorkRecord(item=item.key, state=states.get(item.key, "to do")) for item in bench.plan.items
                ),
                **tables,
                **({} if bench.cost_unit is None else {"cost_unit": bench.cost_unit}),
            }
        )
        record.save(self._folder.record)
        return record

    def _mark_finished(self, bench: StudyBench, finished: tuple[WorkItem, ...]) -> None:
        """Say of each arm whose work is finished that it is done, and what it took."""
        marks, done = load_marks(self._folder.work), bench.list_finished_arms()
        arms = self._design.list_arms()
        counts = {arm.name: bench.tiles_a_slide[bags_of(arm)] for arm in arms if bags_of(arm) in bench.tiles_a_slide}
        for name in done - bench.lost_arms.keys():
            arm = self._arms[name]
            self._change(name, state="done", reason=None, mean_tiles=counts.get(name, arm.mean_tiles))
            made = [mark.key for item in finished if name in item.arms for mark in item.makes]
            kind = TRAIN if arm.finetuned == "frozen" and not arm.chosen else FINETUNE
            seconds = [marks[key].seconds for key in made if key in marks and key.startswith(kind)]
            if seconds:
                self._change(name, estimated_seconds=round(sum(seconds), 1))
