"""What a study finds over its arms: outcomes, verdict, controls, and what the models saw."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from lamella.analysis.verdict import Verdict
from lamella.analysis.verdict_words import join_names
from lamella.cohort import Cohort
from lamella.errors import CohortError, LamellaError, LeakageError, OutputError
from lamella.explain.localise import LocaliseSettings, localise_run
from lamella.explain.records import CkaPair, CkaRecord, Localisation
from lamella.features.failures import Failure
from lamella.files import write_record
from lamella.progress import Progress
from lamella.runs.predict import open_run
from lamella.runs.settings import CamSettings
from lamella.studies.arm_rows import find_gflops
from lamella.studies.arm_runs import FrozenRun, compare_blocks, permute_arm, run_stage_two
from lamella.studies.arms import CHOSEN_ARMS, Arm
from lamella.studies.bench import ArmBench
from lamella.studies.choice import FoldChoice, count_chosen, describe_chosen, run_choices, say_choices
from lamella.studies.costs import COST_UNITS, NOT_PRICED, load_given_costs
from lamella.studies.design import StudyDesign
from lamella.studies.folder import StudyFolder, load_if_whole
from lamella.studies.judge import ArmCost, Declared, KnownSlide, join_costs, judge_predictions
from lamella.studies.looks import Controls, Robustness, StudyLocalisation
from lamella.studies.marks import load_marks
from lamella.studies.options import StudyOptions
from lamella.studies.outcome import ArmOutcome, list_predictions, save_outcomes
from lamella.studies.plan import StudyPlan
from lamella.studies.record import ArmRecord
from lamella.studies.robustness import measure_features, measure_gap
from lamella.studies.work import CKA, COST, EXTRACT, FINETUNE, LOCALISE, OF_ARMS, PERMUTE, TRAIN, WorkItem, base_of

_OfArm = TypeVar("_OfArm", CkaPair, Localisation)


class StudyBench(ArmBench):
    """A study's arms, and what is found over all that are finished.

    Args:
        cohort: With folds or splits.
        design: What is compared.
        folder: The study's.
        options: Where encoders run, and what is localised.
        plan: All work of the study, finished or not.
        arms: What `study.json` says of each arm, by name; it is told which arms were chosen.
        progress: Where to report to.
    """

    def __init__(
        self,
        cohort: Cohort,
        design: StudyDesign,
        folder: StudyFolder,
        options: StudyOptions,
        plan: StudyPlan,
        arms: dict[str, ArmRecord],
        progress: Progress,
    ) -> None:
        super().__init__(cohort, design, folder, options, plan.items, progress)
        self.plan, self.arms = plan, arms
        self.choices: tuple[FoldChoice, ...] = ()
        self.notes: list[str] = []
        self.lost_arms: dict[str, str] = {}
        self._outcomes: dict[Arm, ArmOutcome] | None = None
        self._verdict: Verdict | None = None
        self.cost_unit: str | None = None

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
            self.arms[arm.name] = describe_chosen(arm, declared=self.arms[arm.name].declared, choices=choices)
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
            return join_costs([(arm, self.price_arm(arm)) for arm in chosen])
        return ArmCost.of(self.find_cost(arm), self.count_tiles(arm))

    def price_all(self, outcomes: Sequence[ArmOutcome]) -> dict[str, ArmCost] | None:
        """Return what arms cost, in one unit; None where that of an arm is not known.

        Where the bags of some were there already, their costs are given; else arithmetic stands for time in all.
        """
        given = [outcome.arm for outcome in outcomes if outcome.arm.features]
        if not given:
            return {outcome.arm.name: self.price_arm(outcome.arm) for outcome in outcomes}
        names = [arm.whole.name for arm in given]
        priced, unit = ({}, "") if self.design.costs is None else load_given_costs(self.design.costs, names)
        if unit == COST_UNITS["seconds_a_slide"]:
            self.cost_unit = unit
            costs = {outcome.arm.name: self.price_arm(outcome.arm) for outcome in outcomes if not outcome.arm.features}
            return costs | {
                arm.name: ArmCost(
                    a_slide=priced[arm.whole.name] * self.share_tiles(arm),
                    a_tile=0.0,
                    gflops=find_gflops(arm),
                    n_tiles=self.count_tiles(arm),
                )
                for arm in given
            }
        gflops = {arm.name: priced.get(arm.whole.name) or find_gflops(arm) for arm in given}
        gflops |= {o.arm.name: self.price_arm(o.arm).gflops for o in outcomes if not o.arm.features}
        unknown = [name for name, value in gflops.items() if value is None]
        if unknown:
            self.cost_unit = ""
            self.notes.append(f"What {join_names(unknown)} costs is not known (costs: TABLE), so {NOT_PRICED}")
            return None
        self.cost_unit = "GFLOPs a slide"
        tiles = {outcome.arm.name: self.count_tiles(outcome.arm) for outcome in outcomes}
        return {
            name: ArmCost(a_slide=value * tiles[name], a_tile=0.0, gflops=value, n_tiles=tiles[name])
            for name, value in gflops.items()
            if value is not None
        }

    def judge(self) -> Verdict | None:
        """Judge the finished arms and write their predictions and the verdict; None where no arm is finished."""
        outcomes = list(self.load_outcomes().values())
        if self._verdict is not None or not outcomes:
            return self._verdict
        costs = self.price_all(outcomes)
        declared = Declared(
            classes=self.cohort.classes,
            margin=self.design.margin,
            tables=self.design.list_tables([outcome.arm for outcome in outcomes]),
            reference=self.design.reference,
            slides=[KnownSlide.model_validate(slide) for slide in self.cohort.slides],
        )
        verdict = judge_predictions(list_predictions(outcomes), declared, arms=self.arms, costs=costs)
        if verdict.n_lost:
            self.notes.append(f"{verdict.n_lost} patients could not be scored by every arm and are left out of all.")
        save_outcomes(
            outcomes,
            self.cohort,
            {o.arm.name: self.price_arm(o.arm).a_tile for o in outcomes if not o.arm.features},
            self.folder.predictions,
            self.folder.results,
        )
        write_record(self.folder.metrics, {outcome.arm.name: outcome.metrics.as_json() for outcome in outcomes})
        verdict.save(self.folder.verdict)
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
        name = verdict.verdict.arm or verdict.verdict.best_arm
        shown = next(outcome for arm, outcome in outcomes.items() if arm.name == name)
        base = count_chosen(self.choices) if shown.arm.is_chosen else base_of(shown.arm)
        return shown, self.load_frozen(base if base in frozen else frozen[0])

    def permute(self, item: WorkItem) -> Sequence[Failure]:
        """Train the control on permuted labels: the declared arm, else the one that is shown."""
        shown = self._find_shown()
        if shown is None:
            return ()
        control = shown[1] if item.arm is None else self.load_frozen(item.arm)
        permutations = permute_arm(control, self.design.permutations, self.progress)
        controls = load_if_whole(self.folder.controls, Controls) or Controls()
        controls.model_copy(update={"permutations": permutations}).save(self.folder.controls)
        return ()

    def cka(self, item: WorkItem) -> Sequence[Failure]:
        """Compare an arm's fine-tuned encoders with the frozen one, block by block."""
        assert item.arm is not None
        pairs = compare_blocks(self.load_frozen(base_of(item.arm)), item.arm, self.cohort, self.progress)
        content = load_if_whole(self.folder.cka, CkaRecord) or CkaRecord()
        others = [pair for pair in content.pairs if pair.arm != item.arm.name]
        CkaRecord(pairs=(*others, *pairs)).save(self.folder.cka)
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
            self._put_maps(item.arm, None, reason=self.notes[-1])
            return ()
        self._put_maps(item.arm, content.model_copy(update={"arm": item.arm.name}))
        return failures

    def _put_maps(self, arm: Arm, maps: Localisation | None, *, reason: str | None = None) -> None:
        """Put an arm's maps in place of those that the study's file holds of it; None says why there are none."""
        content = load_if_whole(self.folder.localisation, StudyLocalisation) or StudyLocalisation()
        others = [other for other in content.arms if other.arm != arm.name]
        kept = None if f"maps of {arm.name} light" in str(content.reason) else content.reason
        arms = (*others, *([] if maps is None else [maps]))
        StudyLocalisation(arms=arms, reason=reason or kept).save(self.folder.localisation)

    def save_findings(self) -> None:
        """Write what was found over all arms; of looks and controls, what belongs to arms that are finished."""
        kinds = {item.kind for item in self.list_finished()}
        verdict = self.judge()
        shown = self._find_shown()
        controls = Controls(permutations=None, baselines={}, batches=())
        if shown is not None:
            earlier = load_if_whole(self.folder.controls, Controls) if PERMUTE in kinds else None
            controls = Controls(
                permutations=None if earlier is None else earlier.permutations,
                baselines={name: score.auc for name, score in shown[1].analysis.metrics.scores.baselines.items()},
                arm=shown[0].arm.name,
                batches=shown[0].metrics.batches,
                robustness=self._measure_robustness(),
            )
        controls.save(self.folder.controls)
        names = [arm.name for arm in self.load_outcomes()] if verdict is not None else []
        cka, maps = CkaRecord(), StudyLocalisation()
        if CKA in kinds:
            cka = load_if_whole(self.folder.cka, CkaRecord) or cka
            cka = CkaRecord(pairs=_sort(cka.pairs, names))
        if LOCALISE in kinds:
            maps = load_if_whole(self.folder.localisation, StudyLocalisation) or maps
            maps = StudyLocalisation(arms=_sort(maps.arms, names), reason=maps.reason)
        cka.save(self.folder.cka)
        maps.save(self.folder.localisation)

    def _measure_robustness(self) -> tuple[Robustness, ...]:
        """Measure how far each arm follows the batch; none where the cohort names no two batches."""
        rows = []
        for arm, outcome in self.load_outcomes().items():
            features = None
            if arm.finetuned == "frozen" and not arm.is_chosen:
                frozen = self.load_frozen(arm)
                features = measure_features(frozen.units.bags.features, frozen.rounds, frozen.units.cohort)
            gap = measure_gap(outcome, self.cohort)
            if features is not None or gap is not None:
                index, batch_auc = features or (None, None)
                rows.append(Robustness(arm=arm.name, gap=gap, index=index, batch_auc=batch_auc))
        return tuple(rows)


def _sort(rows: Iterable[_OfArm], names: Sequence[str]) -> tuple[_OfArm, ...]:
    """Return what was found of some arms, in the order of their names."""
    return tuple(sorted((row for row in rows if row.arm in names), key=lambda row: names.index(row.arm)))
