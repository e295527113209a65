"""Running a study: cohort and design -> bags, arms, controls, verdict, doing only what is missing.

What can be shared is shared: tiles are placed once, each is decoded once for all encoders and depths, and all arms of
one encoder read the same bags, on the same folds and with the same seeds. A study that was killed goes on where it
stood, to the same figures; arms may be added to its design later and are marked.
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lamella.analysis.permutation import judge_permutations
from lamella.cohort import Cohort, list_rounds, split_folds, split_holdout
from lamella.encoders import EncoderSpec, RuntimeSettings
from lamella.errors import CohortError, LamellaError, LeakageError, OutputError
from lamella.explain.localise import LocaliseSettings, localise_run
from lamella.explain.outlines import LesionFolder
from lamella.features.extract import ExtractReport, extract_cohort
from lamella.features.failures import Failure
from lamella.features.settings import ExtractSettings
from lamella.files import parse_json_file, refuse_links, write_record
from lamella.progress import Progress, SilentProgress, say_time
from lamella.runs.bags import RunBags, load_bags
from lamella.runs.execute import check_images, save_ledger, save_run_cohort
from lamella.runs.folder import RunFolder, hash_tables
from lamella.runs.predict import open_run
from lamella.runs.settings import CamSettings, TrainingSettings
from lamella.studies.arm_rows import describe_arm
from lamella.studies.arm_runs import ArmPlace, FrozenRun, compare_blocks, permute_arm, run_frozen, run_stage_two
from lamella.studies.arms import CHOSEN, CHOSEN_ARMS, Arm
from lamella.studies.choice import (
    FoldChoice,
    choose_in_folds,
    count_chosen,
    describe_chosen,
    run_choices,
    say_choices,
)
from lamella.studies.costs import draw_cost_tiles, load_costs, measure_costs, name_cost
from lamella.studies.design import StudyDesign
from lamella.studies.facts import gather_facts
from lamella.studies.folder import StudyFolder
from lamella.studies.judge import ArmCost, Declared, join_costs, judge_predictions
from lamella.studies.outcome import ArmOutcome, list_predictions, save_outcomes
from lamella.studies.plan import LEFT, PlannedArm, plan_units
from lamella.studies.presets import list_differences
from lamella.studies.prospects import list_obstacles
from lamella.studies.record import describe_study, load_record, refuse_other_design, was_declared
from lamella.studies.robustness import measure_features, measure_gap
from lamella.studies.work import CHOSEN_KEY, PlanFacts, base_of
from lamella.temporaries import sweep_temporaries


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


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Study:
    """What a study found.

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
    verdict: dict[str, Any] | None
    record: dict[str, Any]
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
    return _Study(cohort, design, StudyFolder(Path(out)), options or StudyOptions(), progress or SilentProgress()).run()


class _Study:
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
        self._cohort = _divide(cohort, design)
        self._own_division = self._cohort is cohort
        self._notes = list(self._cohort.notes)
        self._rows: dict[str, dict[str, Any]] = {}
        self._frozen: dict[Arm, FrozenRun] = {}
        self._outcomes: dict[Arm, ArmOutcome] = {}
        self._failures: dict[str, Failure] = {}
        self._reports: dict[tuple[str, str], ExtractReport] = {}
        self._costs: dict[str, dict[str, Any]] = load_costs(folder.costs)
        self._tiles_a_slide: dict[str, float] = {}
        self._planned: set[str] | None = None
        self._choices: tuple[FoldChoice, ...] = ()

    def run(self) -> Study:
        """Run what is missing; return what came out."""
        list_rounds(self._cohort)
        check_images(self._cohort)
        self._check_lesions()
        save_run_cohort(self._cohort, RunFolder(self._folder.path))
        arms = list(self._design.list_arms())
        for arm in arms:
            self._rows[arm.name] = describe_arm(arm, declared=was_declared(arm, self._earlier))
        runnable = [arm for arm in arms if self._rows[arm.name]["command"] is None]
        for arm in CHOSEN_ARMS if self._design.finetune_best else ():
            self._rows[arm.name] = describe_chosen(arm, declared=was_declared(arm, self._earlier))
        if self._options.budget_s is not None:
            runnable = self._keep_within_budget(runnable, self._options.budget_s)
        for note in (*list_obstacles(self._design, self._cohort), *self._list_differences()):
            self._notes.append(note)
            self._progress.say(note)
        self._save_record("running")
        bases = list(dict.fromkeys(base_of(arm) for arm in runnable))
        self._extract(bases)
        if len(runnable) < len(arms) and self._options.budget_s is None:
            self._estimate(plan_units(self._design, self._gather_facts()).arms)
        for base in self._by_cost(bases):
            self._run_frozen(base, declared=base in runnable)
        for base in bases:
            self._run_stage_two(base, [arm for arm in runnable if arm.finetuned != "frozen" and base_of(arm) == base])
        if self._design.finetune_best:
            self._run_choices()
        verdict = self._judge()
        write_record(self._folder.controls, self._run_controls(verdict))
        write_record(self._folder.cka, self._compare_blocks())
        write_record(self._folder.localisation, self._localise())
        record = self._save_record("finished" if not self._is_over_budget() else "budget spent")
        return Study(
            folder=self._folder,
            cohort=self._cohort,
            outcomes=tuple(self._outcomes.values()),
            verdict=verdict,
            record=record,
            runs={
                **{run.arm.name: run.folder for run in self._frozen.values()},
                **({CHOSEN: self._frozen[count_chosen(self._choices)].folder} if self._choices else {}),
            },
            failures=tuple(self._failures.values()),
        )

    def _list_differences(self) -> list[str]:
        return [f"Differs from the paper: {said}." for said in list_differences(self._design.preset or "")]

    def _keep_within_budget(self, runnable: Sequence[Arm], budget_s: float) -> list[Arm]:
        """Return the arms that the plan lets run; the others are listed with what they would have cost."""
        facts = self._gather_facts()
        plan = plan_units(self._design, facts, budget_s=budget_s)
        self._planned = {unit.key for unit in plan.units} | set(facts.done)
        self._notes += [note for note in plan.notes if note not in self._notes]
        self._estimate(plan.arms)
        left = {one.arm.name: one.seconds for one in plan.arms if one.state == LEFT}
        for name, seconds in left.items():
            reason = f"past the budget: it would have taken about {say_time(seconds)}"
            self._rows[name] |= {"state": LEFT, "reason": reason}
        return [arm for arm in runnable if arm.name not in left]

    def _gather_facts(self) -> PlanFacts:
        return gather_facts(self._design, self._cohort, self._folder.path, options=self._options.runtime)

    def _estimate(self, planned: Sequence[PlannedArm]) -> None:
        """Say of each arm what it would take; of those that run it is replaced by what they took."""
        for one in planned:
            if one.arm.name in self._rows:
                self._rows[one.arm.name]["estimated_seconds"] = round(one.seconds, 1)

    def _fits(self, kind: str) -> bool:
        """Say whether the plan has room for a kind of work besides arms, or has done it, and there is time left."""
        if self._is_over_budget():
            return False
        return self._planned is None or any(key.startswith(kind) for key in self._planned)

    # Bags and costs ---------------------------------------------------------------------------------------------

    def _extract(self, bases: Sequence[Arm]) -> None:
        """Encode every tile once for all encoders and depths that share tiles and kind of weights."""
        groups: dict[tuple[str, str], list[Arm]] = {}
        for arm in bases:
            groups.setdefault((arm.tiles, arm.weights), []).append(arm)
        for (tiles, weights), group in groups.items():
            specs = tuple(dict.fromkeys(EncoderSpec(arm.trunk, arm.weights) for arm in group))
            settings = self._settings(tiles, specs)
            report = extract_cohort(
                self._cohort.slides, settings, self._folder.features_of(weights), progress=self._progress
            )
            self._reports[tiles, weights] = report
            self._failures |= {failure.slide_id: failure for failure in report.failures}
            self._notes += [note for note in report.notes if note not in self._notes]
            if len(report.failures) == len(self._cohort.slides):
                raise CohortError(
                    f"none of the {len(self._cohort.slides)} slides could be encoded. "
                    f"The first: {report.failures[0].reason}"
                )
            self._measure_costs(tiles, specs)

    def _measure_costs(self, tiles: str, specs: Sequence[EncoderSpec]) -> None:
        if all(name_cost(tiles, spec) in self._costs for spec in specs):
            return
        good = [slide for slide in self._cohort.slides if slide.slide_id not in self._failures]
        pixels = draw_cost_tiles(good, self._design.tiles[tiles].cut())
        self._costs = measure_costs(self._folder.costs, tiles, specs, pixels, self._options.runtime, self._progress)

    def _settings(self, tiles: str, specs: tuple[EncoderSpec, ...]) -> ExtractSettings:
        return ExtractSettings(cut=self._design.tiles[tiles].cut(), encoders=specs, runtime=self._options.runtime)

    def _find_cost(self, arm: Arm) -> ArmCost:
        """Return what an arm costs: that of its encoder, frozen or fine-tuned."""
        if arm.is_chosen:
            chosen = sorted({choice.arm for choice in self._choices})
            return join_costs([(self._rows[one.name], self._find_cost(one)) for one in chosen])
        own = self._costs[name_cost(arm.tiles, EncoderSpec(arm.trunk, arm.weights))]
        a_tile = float(own["seconds_per_tile"])
        a_slide = a_tile * self._tiles_a_slide.get(arm.tiles, 1.0)
        return ArmCost(a_slide=a_slide, a_tile=a_tile, gflops=float(own["gflops"]))

    def _by_cost(self, bases: Sequence[Arm]) -> list[Arm]:
        return sorted(bases, key=lambda arm: (self._find_cost(arm).a_slide, arm.name))

    # Arms -------------------------------------------------------------------------------------------------------

    def _run_frozen(self, arm: Arm, *, declared: bool) -> None:
        if self._is_over_budget():
            self._leave_out(arm)
            return
        began = time.monotonic()
        report = self._reports[arm.tiles, arm.weights]
        extract = self._settings(arm.tiles, (EncoderSpec(arm.trunk, arm.weights),))
        features = self._folder.features_of(arm.weights)
        bags = self._load_bags(extract, features)
        folder = RunFolder(self._folder.models(arm))
        if arm.tiles not in self._tiles_a_slide:
            self._tiles_a_slide[arm.tiles] = sum(map(len, bags.features.values())) / len(bags.features)
        if not self._frozen:
            save_ledger(self._cohort, bags, RunFolder(self._folder.path))
        training = TrainingSettings(
            train=self._design.train.settings(arm.head, 0), n_seeds=self._design.seeds, by_batch=False
        )
        place = ArmPlace(cohort=self._cohort, folder=folder, features=features, report=report)
        self._frozen[arm] = run_frozen(arm, place, bags, extract, training, self._progress)
        if declared:
            self._finish(arm, self._frozen[arm].outcome, time.monotonic() - began)

    def _load_bags(self, extract: ExtractSettings, features: Path) -> RunBags:
        done = [slide.slide_id for slide in self._cohort.slides if slide.slide_id not in self._failures]
        return load_bags(extract.folder(features), done)

    def _run_stage_two(self, base: Arm, arms: Sequence[Arm]) -> None:
        if not arms or base not in self._frozen:
            for arm in arms:
                self._leave_out(arm)
            return
        if self._is_over_budget():
            for arm in arms:
                self._leave_out(arm)
            return
        began = time.monotonic()
        kind = "tuned" if any(arm.finetuned == "tuned" for arm in arms) else "head"
        stage = self._design.finetune.stage(kind)
        try:
            found, notes = run_stage_two(self._frozen[base], arms, self._cohort, stage, self._progress)
        except (OutputError, LeakageError):
            raise
        except LamellaError as error:
            for arm in arms:
                self._rows[arm.name] |= {"state": "failed", "reason": str(error)}
            return
        self._notes += [f"{base.name}: {note}" for note in notes]
        for arm, outcome in zip(arms, found, strict=True):
            self._finish(arm, outcome, time.monotonic() - began)

    def _run_choices(self) -> None:
        """Fine-tune in each fold the frozen arm that is best on the fold's own validation patients."""
        choices = choose_in_folds([o for arm, o in self._outcomes.items() if arm.finetuned == "frozen"])
        if not choices:
            return
        if not self._fits(CHOSEN_KEY):
            for arm in CHOSEN_ARMS:
                self._rows[arm.name]["reason"] = "past the budget: the plan had no room for fine-tuning"
            return
        began = time.monotonic()
        for arm in CHOSEN_ARMS:
            self._rows[arm.name] = describe_chosen(arm, declared=self._rows[arm.name]["declared"], choices=choices)
        self._notes.append(say_choices(choices))
        self._progress.say(self._notes[-1])
        try:
            found = run_choices(
                choices, self._frozen, self._cohort, self._design.finetune.stage("tuned"), self._progress
            )
        except (OutputError, LeakageError):
            raise
        except LamellaError as error:
            for arm in CHOSEN_ARMS:
                self._rows[arm.name] |= {"state": "failed", "reason": str(error)}
            return
        self._choices = choices
        for outcome in found:
            self._rows[outcome.arm.name]["reason"] = None
            self._finish(outcome.arm, outcome, time.monotonic() - began)

    def _finish(self, arm: Arm, outcome: ArmOutcome, seconds: float) -> None:
        self._outcomes[arm] = outcome
        self._rows[arm.name] |= {"state": "done", "estimated_seconds": round(seconds, 1)}
        self._save_record("running")

    def _leave_out(self, arm: Arm) -> None:
        if arm.name in self._rows:
            self._rows[arm.name] |= {"state": "not run", "reason": "the budget was spent before it began"}

    def _is_over_budget(self) -> bool:
        budget = self._options.budget_s
        return budget is not None and time.monotonic() - self._began > budget

    # Controls and what the models saw -----------------------------------------------------------------------------

    def _run_controls(self, verdict: Mapping[str, Any] | None) -> dict[str, Any]:
        """Run the controls on the arm that is shown: the recommended one, else the one of highest AUC."""
        runs = {run.arm.name: run for run in self._frozen.values() if run.arm in self._outcomes}
        if not runs or verdict is None:
            return {"permutations": None, "baselines": {}, "batches": []}
        name = verdict["verdict"]["arm"] or verdict["verdict"]["best_arm"]
        shown = next(outcome for arm, outcome in self._outcomes.items() if arm.name == name)
        # What is retrained is the head: of a fine-tuned arm, the frozen one that it went on from.
        base = count_chosen(self._choices) if shown.arm.is_chosen else base_of(shown.arm)
        first = runs.get(base.name, next(iter(runs.values())))
        metrics = parse_json_file(first.folder.metrics)
        baselines = {
            name: one.get("patients", one).get("auc", one) if "reason" not in one else one
            for name, one in metrics["arms"]["baselines"].items()
        }
        permutations = None
        if self._design.permutations and self._fits("permute"):
            control = runs.get(self._design.control_arm or "", first)
            runs_of = permute_arm(control, self._cohort, self._design.permutations, self._progress)
            permutations = {
                "arm": control.arm.name,
                **dataclasses.asdict(runs_of),
                **judge_permutations(runs_of.auc, runs_of.aucs, within=runs_of.within),
            }
        return {
            "permutations": permutations,
            "baselines": baselines,
            "arm": name,
            "batches": shown.metrics.get("batches", []),
            "robustness": self._measure_robustness(),
        }

    def _measure_robustness(self) -> list[dict[str, Any]]:
        """Measure how far each arm follows the batch; none where the cohort names no two batches."""
        rows = []
        for arm, outcome in self._outcomes.items():
            features = None
            if arm in self._frozen:
                frozen = self._frozen[arm]
                features = measure_features(frozen.bags.features, frozen.trained.protocol.rounds, self._cohort)
            gap = measure_gap(outcome, self._cohort)
            if features is not None or gap is not None:
                rows.append({"arm": arm.name, "gap": gap, **(features or {"index": None, "batch_auc": None})})
        return rows

    def _compare_blocks(self) -> dict[str, Any]:
        if not self._design.cka or not self._fits("cka"):
            return {}
        tuned = [arm for arm in self._outcomes if arm.finetuned == "tuned" and not arm.is_chosen]
        return {
            "pairs": [
                row
                for arm in tuned
                for row in compare_blocks(self._frozen[base_of(arm)], arm, self._cohort, self._progress)
            ]
        }

    def _check_lesions(self) -> None:
        """Refuse outlines that fit no slide or are not clear before anything long begins."""
        options = self._options
        if options.lesions is not None:
            positive = self._cohort.positive or self._cohort.classes[-1]
            folder = LesionFolder(path=options.lesions, classes=options.lesion_classes, values=options.lesion_values)
            folder.find([slide for slide in self._cohort.slides if slide.label == positive])

    def _localise(self) -> dict[str, Any]:
        """Measure attention and maps of every arm of the design against outlines, where there are any."""
        if self._options.lesions is None or not self._fits("localise"):
            return {}
        found: list[dict[str, Any]] = []
        reason = None
        for arm in self._outcomes:
            if arm.finetuned == "head" or arm.is_chosen:
                continue
            kind = "tuned" if arm.finetuned == "tuned" else "frozen"
            settings = LocaliseSettings(
                lesions=self._options.lesions,
                classes=self._options.lesion_classes,
                values=self._options.lesion_values,
                cam=CamSettings(arm=kind) if self._design.cam else None,
                arm=kind,
            )
            run = open_run(self._frozen[base_of(arm)].folder.path)
            try:
                content, failures = localise_run(run, settings, progress=self._progress)
            except CohortError as error:  # of no tested slide, say: the arms can be compared all the same
                reason = f"Where the maps of {arm.name} light up was not measured: {error}"
                self._notes.append(reason)
                continue
            self._failures |= {failure.slide_id: failure for failure in failures}
            found.append({"arm": arm.name, **content})
        return {"arms": found, "reason": reason}

    # What came out --------------------------------------------------------------------------------------------------

    def _judge(self) -> dict[str, Any] | None:
        outcomes = list(self._outcomes.values())
        if not outcomes:
            return None
        costs = {o.arm.name: self._find_cost(o.arm) for o in outcomes}
        declared = Declared(
            classes=self._cohort.classes,
            margin=self._design.margin,
            tables=self._design.list_tables([o.arm for o in outcomes]),
            reference=self._design.reference,
            slides=[dataclasses.asdict(slide) for slide in self._cohort.slides],
        )
        verdict = judge_predictions(list_predictions(outcomes, self._cohort), declared, rows=self._rows, costs=costs)
        if verdict["n_lost"]:
            self._notes.append(
                f"{verdict['n_lost']} patients could not be scored by every arm and are left out of all."
            )
        save_outcomes(
            outcomes,
            self._cohort,
            {name: one.a_tile for name, one in costs.items()},
            self._folder.predictions,
            self._folder.results,
        )
        write_record(self._folder.metrics, {o.arm.name: dict(o.metrics) for o in outcomes})
        write_record(self._folder.verdict, verdict)
        return verdict

    def _save_record(self, status: str) -> dict[str, Any]:
        record = describe_study(self._cohort, self._design, status=status, rows=self._rows.values())
        record["cohort"] |= {
            "n_failed": len(self._failures),
            "tiles_a_slide": dict(self._tiles_a_slide),
            "own_division": self._own_division,
        }
        record |= {"notes": self._notes, "scope": " ".join(self._options.cautions) or None}
        if status != "running":  # until then tables are written
            record["files"] = hash_tables(self._folder.path)
        write_record(self._folder.record, record)
        return record


def _divide(cohort: Cohort, design: StudyDesign) -> Cohort:
    """Give the cohort the folds or splits of the design; those that it brings are kept."""
    if any(slide.fold is not None or slide.split is not None for slide in cohort.slides):
        return cohort
    if design.split == "given":
        raise CohortError(
            "the design takes the cohort's own folds or splits and the table has none. Run: lamella split"
        )
    if design.split == "holdout":
        return split_holdout(cohort, seed=design.split_seed)
    return split_folds(cohort, n_folds=design.folds, seed=design.split_seed)
