"""How the work for a study's arms is done, in the study's folder; what is there is loaded and not done again.

Whatever an item needs of those before it is loaded from the folder by the very function that makes it: so it is found
whether this process made it, an earlier one that was killed, or another machine.
"""

import contextlib
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from lamella.cohort import Cohort
from lamella.encoders import EncoderSpec
from lamella.errors import BagError, CohortError
from lamella.features.encoder_choice import split_address
from lamella.features.extract import ExtractReport, extract_cohort
from lamella.features.failures import Failure
from lamella.features.fewer import keep_fewer_tiles
from lamella.features.settings import ExtractSettings
from lamella.progress import AlikeOnce, Progress
from lamella.runs.bags import RunBags, load_bags, load_good_bags
from lamella.runs.folder import RunFolder
from lamella.runs.settings import TrainingSettings
from lamella.runs.units import Units, gather_units
from lamella.studies.arm_runs import ArmPlace, FrozenRun, continue_fold, run_frozen, run_given
from lamella.studies.arms import Arm
from lamella.studies.choice import FoldChoice, choose_in_folds
from lamella.studies.costs import draw_cost_tiles, load_costs, measure_costs, name_cost
from lamella.studies.design import StudyDesign
from lamella.studies.folder import StudyFolder
from lamella.studies.options import StudyOptions
from lamella.studies.record import EncoderCost
from lamella.studies.work import EXTRACT, BagSet, WorkItem, bags_of, find_source
from lamella.words import name_some


class ArmBench:
    """Cohort, design and folder of a study, and what was loaded from the folder so far.

    Args:
        cohort: With folds or splits.
        design: What is compared.
        folder: The study's.
        options: Where encoders run, and what is localised.
        items: All work of the study, finished or not.
        progress: Where to report to.
    """

    def __init__(
        self,
        cohort: Cohort,
        design: StudyDesign,
        folder: StudyFolder,
        options: StudyOptions,
        items: Iterable[WorkItem],
        progress: Progress,
    ) -> None:
        self.cohort, self.design, self.folder, self.options = cohort, design, folder, options
        self.progress = progress
        self.once = AlikeOnce(progress)  # folds are trained on one by one, and each would say the same
        self._extractions = [item.bags for item in items if item.kind == EXTRACT]
        self._reports: dict[tuple[BagSet, ...], ExtractReport] = {}
        self._frozen: dict[Arm, FrozenRun] = {}
        self.tiles_a_slide: dict[BagSet, float] = {}
        self.said: list[str] = []  # what must be said aloud of the bags
        self._given: dict[str, tuple[RunBags, dict[str, str]]] = {}
        self._fewer: dict[BagSet, RunBags] = {}
        self._units: dict[BagSet, Units] = {}

    # Bags and costs -----------------------------------------------------------------------------------------------

    def extract(self, item: WorkItem) -> Sequence[Failure]:
        """Encode every tile once for all encoders and depths that share tiles and kind of weights."""
        return self._extract(item.bags).failures

    def _extract(self, bags: tuple[BagSet, ...]) -> ExtractReport:
        if bags not in self._reports:
            source = find_source(bags[0], bags)
            settings, features = self._settings(bags), self.folder.features_of(source.weights)
            report = extract_cohort(self.cohort.slides, settings, features, progress=self.progress)
            if len(report.failures) == len(self.cohort.slides):
                raise CohortError(
                    f"none of the {len(self.cohort.slides)} slides could be encoded. "
                    f"The first: {report.failures[0].reason}"
                )
            for kept in bags:
                if kept.tiles_per_slide != source.tiles_per_slide:
                    fewer = self._settings([kept])
                    keep_fewer_tiles(
                        (*report.done, *report.kept), settings.folder(features, _spec(kept)), fewer.folder(features)
                    )
            self._reports[bags] = report
        return self._reports[bags]

    def list_reports(self) -> list[ExtractReport]:
        """Return what all extractions of the study said."""
        return [self._extract(bags) for bags in self._extractions]

    def list_lost(self) -> dict[str, Failure]:
        """Return the slides that any encoder could not encode, by id: they are left out of every arm."""
        lost = {failure.slide_id: failure for report in self.list_reports() for failure in report.failures}
        return lost | self._find_missing()

    def _find_missing(self) -> dict[str, Failure]:
        """Return the slides of which a folder of bags has none that a head can learn from: no arm has them."""
        missing: dict[str, Failure] = {}
        for folder in dict.fromkeys(arm.features for arm in self.design.list_arms() if arm.features):
            if split_address(folder)[0].is_dir():  # else the arm waits for it
                with contextlib.suppress(BagError):  # of a folder without any, which the arm's own work says
                    bad = self._load_folder(folder)[1]
                    missing |= {slide_id: Failure(slide_id, "bags", reason) for slide_id, reason in bad.items()}
        return missing

    def _load_folder(self, folder: str) -> tuple[RunBags, dict[str, str]]:
        """Return the bags of a folder, read once for all its arms, and the slides of which there is no good one."""
        if folder not in self._given:
            self._given[folder] = load_good_bags(Path(folder), [slide.slide_id for slide in self.cohort.slides])
        return self._given[folder]

    def cost(self, item: WorkItem) -> Sequence[Failure]:
        """Measure what encoders cost that have no cost yet."""
        settings, tiles = self._settings(item.bags), item.bags[0].tiles
        lost = self.list_lost()
        good = [slide for slide in self.cohort.slides if slide.slide_id not in lost]
        pixels = draw_cost_tiles(good, settings.cut)
        measure_costs(self.folder.costs, tiles, settings.encoders, pixels, self.options.runtime, self.progress)
        return ()

    def find_cost(self, arm: Arm) -> EncoderCost:
        """Return what `costs.json` holds of an arm's encoder."""
        return load_costs(self.folder.costs)[name_cost(arm.tiles, _spec(bags_of(arm)))]

    def _settings(self, bags: Sequence[BagSet]) -> ExtractSettings:
        """Return how bags are made: each encoder once, on the tiles of the most."""
        encoders = tuple(dict.fromkeys(_spec(kept) for kept in bags))
        cut = self.design.tiles[bags[0].tiles].cut(find_source(bags[0], bags).tiles_per_slide)
        return ExtractSettings(cut=cut, encoders=encoders, runtime=self.options.runtime, off_spec=self.design.off_spec)

    # Arms ---------------------------------------------------------------------------------------------------------

    def train(self, item: WorkItem) -> Sequence[Failure]:
        """Train the heads of a frozen arm in all folds, predict and measure."""
        assert item.arm is not None
        self.load_frozen(item.arm)
        return ()

    def load_frozen(self, arm: Arm) -> FrozenRun:
        """Return stage 1 of an arm; what is missing of it is trained."""
        if arm not in self._frozen and arm.features:
            self._frozen[arm] = self._load_given(arm)
        if arm not in self._frozen:
            features = self.folder.features_of(arm.weights)
            bags, lost = bags_of(arm), self.list_lost()
            settings = self._settings([bags])
            report = next(self._extract(group) for group in self._extractions if bags in group)
            kept = [slide.slide_id for slide in self.cohort.slides if slide.slide_id not in lost]
            loaded = load_bags(settings.folder(features), kept)
            self._count_tiles(bags, loaded)
            run = RunFolder(self.folder.models(arm))
            place = ArmPlace(cohort=self.cohort, folder=run, features=features, report=report)
            self._frozen[arm] = run_frozen(
                arm, place, self._gather(loaded), settings, self._training(arm), self.progress
            )
        return self._frozen[arm]

    def _load_given(self, arm: Arm) -> FrozenRun:
        """Return stage 1 of an arm whose bags are there; slides that an encoder of the study lost are left out."""
        loaded = self._load_given_bags(bags_of(arm)).without(self.list_lost())
        self._count_tiles(bags_of(arm), loaded)
        if bags_of(arm) not in self._units:
            self._units[bags_of(arm)] = self._gather(loaded)
        folder, units = RunFolder(self.folder.models(arm)), self._units[bags_of(arm)]
        return run_given(arm, folder, units, self._training(arm), self.progress)

    def _gather(self, bags: RunBags) -> Units:
        """Return what is predicted, slides or patients, and say aloud what must be said of that."""
        units = gather_units(self.cohort, bags, self.design.unit)
        for note in units.notes:
            if note not in self.said:
                self.said.append(note)
                self.once.say(note)
        return units

    def _training(self, arm: Arm) -> TrainingSettings:
        return TrainingSettings(
            train=self.design.train.settings(arm.head, 0),
            n_seeds=self.design.seeds,
            by_batch=False,
            unit=self.design.unit,
            width=arm.width or None,
        )

    def _load_given_bags(self, bags: BagSet) -> RunBags:
        """Return bags that are there, with no more tiles than are asked for."""
        every = self._load_folder(bags.features)[0]
        if not bags.tiles_per_slide:
            return every
        if bags not in self._fewer:
            self._fewer[bags], unplaced = every.keep_tiles(bags.tiles_per_slide)
            if unplaced:
                note = (
                    f"The bags of {bags.encoder} do not say where the tiles of {len(unplaced)} slides lie "
                    f"({name_some(unplaced, 3)}): their tiles were drawn at random, by the slide's id."
                )
                if note not in self.said:
                    self.said.append(note)
                    self.once.say(note)
        return self._fewer[bags]

    def _count_tiles(self, bags: BagSet, loaded: RunBags) -> None:
        self.tiles_a_slide[bags] = sum(map(len, loaded.features.values())) / len(loaded.features)

    def count_tiles(self, arm: Arm) -> float:
        """Return how many tiles a slide has that an arm reads, on average; 1 where it was not loaded."""
        return self.tiles_a_slide.get(bags_of(arm), 1.0)

    def share_tiles(self, arm: Arm) -> float:
        """Return the share of the tiles of bags that are there that an arm reads."""
        every = self._load_folder(arm.features)[0].without(self.list_lost())
        return self.count_tiles(arm) * len(every.features) / sum(map(len, every.features.values()))

    def finetune(self, item: WorkItem) -> Sequence[Failure]:
        """Train on in one fold: from the arm that is named, or from the one that is best there."""
        assert item.fold is not None
        base = item.arm
        if base is None:
            base = next((choice.arm for choice in self.choose(item) if choice.fold == item.fold), None)
        if base is None:  # no arm was validated in this fold
            return ()
        stage = self.design.finetune.stage(item.finetuned)
        continue_fold(self.load_frozen(base), item.fold, self.cohort, stage, self.once)
        return ()

    def choose(self, item: WorkItem) -> tuple[FoldChoice, ...]:
        """Return which arm is best in each fold, of those that an item of chosen arms comes after."""
        frozen = [arm for arm in self.design.list_arms() if f"train {arm.folder}" in item.after]
        return choose_in_folds([self.load_frozen(arm).outcome for arm in self.sort_by_cost(frozen)])

    def sort_by_cost(self, arms: Iterable[Arm]) -> list[Arm]:
        """Return arms, those that cost least a tile first; those whose bags were there follow, as they are declared."""
        listed = list(arms)
        encoded = [arm for arm in listed if not arm.features]
        encoded.sort(key=lambda arm: (self.find_cost(arm).seconds_per_tile, arm.tiles_per_slide or math.inf, arm.name))
        return [*encoded, *(arm for arm in listed if arm.features)]


def _spec(bags: BagSet) -> EncoderSpec:
    return EncoderSpec(f"{bags.encoder}@{bags.depth}", bags.weights)
