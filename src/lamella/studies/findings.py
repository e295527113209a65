"""What a study finds over its arms: outcomes, verdict, controls, and what the models saw."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lamella.analysis.permutation import judge_permutations
from lamella.cohort import Cohort
from lamella.errors import CohortError, LamellaError, LeakageError, OutputError
from lamella.explain.localise import LocaliseSettings, localise_run
from lamella.features.failures import Failure
from lamella.files import write_record
from lamella.progress import Progress
from lamella.runs.predict import open_run
from lamella.runs.settings import CamSettings
from lamella.studies.arm_runs import FrozenRun, compare_blocks, permute_arm, run_stage_two
from lamella.studies.arms import CHOSEN_ARMS, Arm
from lamella.studies.bench import ArmBench
from lamella.studies.choice import FoldChoice, count_chosen, describe_chosen, run_choices, say_choices
from lamella.studies.design import StudyDesign
from lamella.studies.folder import StudyFolder, read_if_there
from lamella.studies.judge import ArmCost, Declared, join_costs, judge_predictions
from lamella.studies.marks import load_marks
from lamella.studies.options import StudyOptions
from lamella.studies.outcome import ArmOutcome, list_predictions, save_outcomes
from lamella.studies.plan import StudyPlan
from lamella.studies.robustness import measure_features, measure_gap
from lamella.studies.work import CKA, COST, EXTRACT, FINETUNE, LOCALISE, OF_ARMS, PERMUTE, TRAIN, WorkItem, base_of


class StudyBench(ArmBench):
    """A study's arms, and what is found over all that are finished.

    Args:
        cohort: With folds or splits.
        design: What is compared.
        folder: The study's.
        options: Where encoders run, and what is localised.
        plan: All work of the study, finished or not.
        rows: What `study.json` says of each arm, by name.
        progress: Where to report to.
    """

    def __init__(
        self,
        cohort: Cohort,
        design: StudyDesign,
        folder: StudyFolder,
        options: StudyOptions,
        plan: StudyPlan,
        rows: dict[str, dict[str, Any]],
        progress: Progress,
    ) -> None:
        super().__init__(cohort, design, folder, options, plan.items, progress)
        self.plan, self.rows = plan, rows
        self.choices: tuple[FoldChoice, ...] = ()
        self.notes: list[str] = []
        self.lost_arms: dict[str, str] = {}
        self._outcomes: dict[Arm, ArmOutcome] | None = None
        self._verdict: dict[str, Any] | None = None

    def list_finished(self) -> tuple[WorkItem, ...]:
        """Return the work that is finished, as the folder says."""
        marks = load_marks(self.folder.work)
        made = {(key, work.made_of) for key, work in marks.items()}
        finished = self.plan.finished
        return tuple(item for item in self.plan.items if item.key in finished or made.issuperset(item.makes))

    def list_finished_arms(self) -> set[str]:
        """Return the names of the arms of which nothing is left to do."""
        finished = {item.key for item in self.list_finished()}
        core = [item for item in self.plan.items if item.kind in OF_ARMS]
        left = {name for item in core if item.key not in finished for name in item.arms}
        return {name for item in core for name in item.arms} - left

    def do(self, item: WorkItem) -> Sequence[Failure]:
        """Do what is missing of an item, each kind its own way; return the slides that could not be done."""
        does = {
            EXTRACT: self.extract,
            COST: self.cost,
            TRAIN: self.train,
            FINETUNE: self.finetune,
            PERMUTE: self.permute,
            CKA: self.cka,
            LOCALISE: self.localise,
        }
        return does[item.kind](item)

    # Outcomes -----------------------------------------------------------------------------------------------------

    def load_outcomes(self) -> dict[Arm, ArmOutcome]:
        """Return what came out of each finished arm: frozen ones by their cost, then what went on from them."""
        if self._outcomes is not None:
            return self._outcomes
        finished = self.list_finished_arms()
        arms = [arm for arm in self.design.list_arms() if arm.name in finished]
        frozen = self.sort_by_cost(arm for arm in arms if arm.finetuned == "frozen")
        self._outcomes = {arm: self.load_frozen(arm).outcome for arm in frozen}
        for base in dict.fromkeys(base_of(arm) for arm in arms):
            self._load_stage_two(base, [arm for arm in arms if arm.finetuned != "frozen" and base_of(arm) == base])
        if finished.issuperset(arm.name for arm in CHOSEN_ARMS):
            self._load_choices()
        return self._outcomes

    def _load_stage_two(self, base: Arm, arms: Sequence[Arm]) -> None:
        assert self._outcomes is not None
        if not arms:
            return
        stage = self.design.finetune.stage("tuned" if any(arm.finetuned == "tuned" for arm in arms) else "head")
        try:
            outcomes, notes = run_stage_two(self.load_frozen(base), arms, self.cohort, stage, self.progress)
        except (OutputError, LeakageError):
            raise
        except LamellaError as error:
            self.lost_arms |= {arm.name: str(error) for arm in arms}
            return
        self.notes += [f"{base.name}: {note}" for note in notes]
        self._outcomes |= dict(zip(arms, outcomes, strict=True))

    def _load_choices(self) -> None:
        """Take up what was fine-tuned in each fold from the frozen arm that is best there."""
        assert self._outcomes is not None
        item = next(item for item in self.plan.items if CHOSEN_ARMS[0].name in item.arms)
        choices = self.choose(item)
        if not choices:
            self.lost_arms |= {arm.name: "no frozen arm ran that could be chosen" for arm in CHOSEN_ARMS}
            return
        for arm in CHOSEN_ARMS:
            self.rows[arm.name] = describe_chosen(arm, declared=self.rows[arm.name]["declared"], choices=choices)
        self.notes.append(say_choices(choices))
        self.progress.say(self.notes[-1])
        frozen = {choice.arm: self.load_frozen(choice.arm) for choice in choices}
        try:
            outcomes = run_choices(choices, frozen, self.cohort, self.design.finetune.stage("tuned"), self.progress)
        except (OutputError, LeakageError):
            raise
        except LamellaError as error:
            self.lost_arms |= {arm.name: str(error) for arm in CHOSEN_ARMS}
            return
        self.choices = choices
        self._outcomes |= {outcome.arm: outcome for outcome in outcomes}

    def price_arm(self, arm: Arm) -> ArmCost:
        """Return what an arm costs: that of its encoder, frozen or fine-tuned."""
        if arm.is_chosen:
            chosen = sorted({choice.arm for choice in self.choices})
            return join_costs([(self.rows[arm.name], self.price_arm(arm)) for arm in chosen])
        cost = self.find_cost(arm)
        a_tile = float(cost["seconds_per_tile"])
        a_slide = a_tile * self.tiles_a_slide.get(arm.tiles, 1.0)
        return ArmCost(a_slide=a_slide, a_tile=a_tile, gflops=float(cost["gflops"]))

    def judge(self) -> dict[str, Any] | None:
        """Judge the finished arms and write their predictions and the verdict; None where no arm is finished."""
        outcomes = list(self.load_outcomes().values())
        if self._verdict is not None or not outcomes:
            return self._verdict
        costs = {outcome.arm.name: self.price_arm(outcome.arm) for outcome in outcomes}
        declared = Declared(
            classes=self.cohort.classes,
            margin=self.design.margin,
            tables=self.design.list_tables([outcome.arm for outcome in outcomes]),
            reference=self.design.reference,
            slides=[dataclasses.asdict(slide) for slide in self.cohort.slides],
        )
        verdict = judge_predictions(list_predictions(outcomes), declared, rows=self.rows, costs=costs)
        if verdict["n_lost"]:
            self.notes.append(f"{verdict['n_lost']} patients could not be scored by every arm and are left out of all.")
        save_outcomes(
            outcomes,
            self.cohort,
            {name: cost.a_tile for name, cost in costs.items()},
            self.folder.predictions,
            self.folder.results,
        )
        write_record(self.folder.metrics, {outcome.arm.name: outcome.metrics.as_json() for outcome in outcomes})
        write_record(self.folder.verdict, verdict)
        self._verdict = verdict
        return verdict

    # Controls and what the models saw -----------------------------------------------------------------------------

    def _find_shown(self) -> tuple[ArmOutcome, FrozenRun] | None:
        """Return the arm that is shown, the recommended one, else the one of highest AUC; and what it went on from.

        What is retrained with permuted labels is the head: of a fine-tuned arm, that of the frozen one.
        """
        verdict = self.judge()
        outcomes = self.load_outcomes()
        frozen = [arm for arm in outcomes if arm.finetuned == "frozen" and not arm.is_chosen]
        if verdict is None or not frozen:
            return None
        name = verdict["verdict"]["arm"] or verdict["verdict"]["best_arm"]
        shown = next(outcome for arm, outcome in outcomes.items() if arm.name == name)
        base = count_chosen(self.choices) if shown.arm.is_chosen else base_of(shown.arm)
        return shown, self.load_frozen(base if base in frozen else frozen[0])

    def permute(self, item: WorkItem) -> Sequence[Failure]:
        """Train the control on permuted labels: the declared arm, else the one that is shown."""
        shown = self._find_shown()
        if shown is None:
            return ()
        control = shown[1] if item.arm is None else self.load_frozen(item.arm)
        runs = permute_arm(control, self.cohort, self.design.permutations, self.progress)
        permutations = {
            "arm": control.arm.name,
            **dataclasses.asdict(runs),
            **judge_permutations(runs.auc, runs.aucs, within=runs.within),
        }
        write_record(self.folder.controls, read_if_there(self.folder.controls) | {"permutations": permutations})
        return ()

    def cka(self, item: WorkItem) -> Sequence[Failure]:
        """Compare an arm's fine-tuned encoders with the frozen one, block by block."""
        assert item.arm is not None
        pairs = compare_blocks(self.load_frozen(base_of(item.arm)), item.arm, self.cohort, self.progress)
        _put_rows(self.folder.cka, "pairs", item.arm, pairs)
        return ()

    def localise(self, item: WorkItem) -> Sequence[Failure]:
        """Measure attention and maps of an arm against outlines."""
        assert item.arm is not None
        assert self.options.lesions is not None
        kind = "tuned" if item.arm.finetuned == "tuned" else "frozen"
        settings = LocaliseSettings(
            lesions=self.options.lesions,
            classes=self.options.lesion_classes,
            values=self.options.lesion_values,
            cam=CamSettings(finetuned=kind) if self.design.cam else None,
            arm=kind,
        )
        run = open_run(self.load_frozen(base_of(item.arm)).folder.path)
        try:
            content, failures = localise_run(run, settings, progress=self.progress)
        except CohortError as error:  # of no tested slide, say: the arms can be compared all the same
            self.notes.append(f"Where the maps of {item.arm.name} light up was not measured: {error}")
            _put_rows(self.folder.localisation, "arms", item.arm, [], reason=self.notes[-1])
            return ()
        _put_rows(self.folder.localisation, "arms", item.arm, [{"arm": item.arm.name, **content.as_json()}])
        return failures

    def save_findings(self) -> None:
        """Write what was found over all arms; of looks and controls, what belongs to arms that are finished."""
        kinds = {item.kind for item in self.list_finished()}
        verdict = self.judge()
        shown = self._find_shown()
        controls: dict[str, Any] = {"permutations": None, "baselines": {}, "batches": []}
        if shown is not None:
            permutations = read_if_there(self.folder.controls).get("permutations") if PERMUTE in kinds else None
            controls = {
                "permutations": permutations,
                "baselines": {
                    name: score.auc.as_json() for name, score in shown[1].analysis.metrics.scores.baselines.items()
                },
                "arm": shown[0].arm.name,
                "batches": [batch.as_json() for batch in shown[0].metrics.batches],
                "robustness": self._measure_robustness(),
            }
        write_record(self.folder.controls, controls)
        names = [arm.name for arm in self.load_outcomes()] if verdict is not None else []
        pairs = _sort_rows(read_if_there(self.folder.cka).get("pairs", ()), names)
        write_record(self.folder.cka, {"pairs": pairs} if CKA in kinds else {})
        located = read_if_there(self.folder.localisation)
        arms = _sort_rows(located.get("arms", ()), names)
        found = {"arms": arms, "reason": located.get("reason")} if LOCALISE in kinds else {}
        write_record(self.folder.localisation, found)

    def _measure_robustness(self) -> list[dict[str, Any]]:
        """Measure how far each arm follows the batch; none where the cohort names no two batches."""
        rows = []
        for arm, outcome in self.load_outcomes().items():
            features = None
            if arm.finetuned == "frozen" and not arm.is_chosen:
                frozen = self.load_frozen(arm)
                features = measure_features(frozen.bags.features, frozen.rounds, self.cohort)
            gap = measure_gap(outcome, self.cohort)
            if features is not None or gap is not None:
                rows.append({"arm": arm.name, "gap": gap, **(features or {"index": None, "batch_auc": None})})
        return rows


def _put_rows(path: Path, name: str, arm: Arm, rows: Iterable[Mapping[str, Any]], *, reason: str | None = None) -> None:
    """Put an arm's rows in place of those that a file holds of it."""
    content = read_if_there(path)
    others = [row for row in content.get(name, ()) if row["arm"] != arm.name]
    kept = None if f"maps of {arm.name} light" in str(content.get("reason")) else content.get("reason")
    reasons = {"reason": reason or kept} if name == "arms" else {}
    write_record(path, {name: [*others, *rows], **reasons})


def _sort_rows(rows: Iterable[Mapping[str, Any]], names: Sequence[str]) -> list[Mapping[str, Any]]:
    """Return the rows of some arms, in the order of their names."""
    return sorted((row for row in rows if row["arm"] in names), key=lambda row: names.index(row["arm"]))
