"""The threshold of a fine-tuned arm, frozen for new slides: found on the validation slides of each fold.

Stage 2 is tested on test slides alone, so validation slides are predicted here; for a tuned encoder they must be
encoded first, a fold's with its own encoder. Their bags are kept beside those of its test slides.
"""

from collections.abc import Mapping, Sequence

from lamella.analysis.thresholds import Threshold
from lamella.cohort import Cohort, CohortSlide, Round, load_cohort
from lamella.encoders import EncoderSpec
from lamella.errors import LamellaError, OutputError
from lamella.features.bag import BagFolder
from lamella.features.extract import extract_cohort
from lamella.features.layouts import open_own_bag
from lamella.progress import Progress
from lamella.runs.measure import find_frozen_threshold
from lamella.runs.predict import FinishedRun
from lamella.runs.predictions import tabulate
from lamella.runs.predictor import Member
from lamella.runs.rounds import Protocol, ProtocolOutcome
from lamella.runs.settings import restore_extract_settings


def encode_validation(run: FinishedRun, members: Sequence[Member], progress: Progress) -> dict[EncoderSpec, BagFolder]:
    """Encode the validation slides of each member by its own encoder; finished bags are kept.

    Slides that are not there any more are left out.

    Returns:
        Where the bags of each encoder lie.
    """
    try:
        cohort = load_cohort(run.folder.local / "cohort.csv")
    except LamellaError:  # passed on without `local/`: what is encoded already must do
        cohort = None
    embeddings = {}
    for member in members:
        settings = restore_extract_settings(run.settings, member.encoder)
        folder = run.folder.stage_two(member.fold, member.model.settings.seed) / "tuned" / "features"
        embeddings[member.encoder] = settings.folder(folder)
        wanted = [s for s in cohort.slides if s.slide_id in member.model.training.val] if cohort else []
        wanted = [s for s in wanted if s.path.exists()]
        if not wanted:
            continue
        try:
            extract_cohort(wanted, settings, folder, progress=progress)
        except OutputError as error:
            progress.say(f"validation slides are not encoded with the tuned encoder: {error}")
    return embeddings


def find_arm_threshold(
    run: FinishedRun,
    members: Sequence[Member],
    bags: Mapping[EncoderSpec, BagFolder],
    cohort: Mapping[str, CohortSlide],
) -> Threshold | None:
    """Return the threshold of an arm, as that of a run is found; None where validation slides have no bags.

    Args:
        run: The run that the arm went on from.
        members: Models of the arm.
        bags: Where the bags of each encoder lie.
        cohort: Slides by id.
    """
    rounds, predictions = [], []
    for fold in sorted({member.fold for member in members}):
        of_fold = [member for member in members if member.fold == fold]
        training = of_fold[0].model.training
        rounds.append(Round(fold=fold, train=training.train, val=training.val, test=()))
        for slide_id in training.val:
            paths = [bags[member.encoder].features_path(slide_id) for member in of_fold]
            if slide_id not in cohort or not all(path.exists() for path in paths):
                return None
            for member, path in zip(of_fold, paths, strict=True):
                prediction = member.model.predict(open_own_bag(path).read_stored())
                predictions.append(prediction.of(cohort[slide_id], fold=fold, side="val"))
    whole = Cohort(slides=tuple(cohort.values()), classes=run.classes, positive=run.positive, notes=())
    outcome = ProtocolOutcome(
        protocol=Protocol(name="fold", rounds=tuple(rounds)), predictions=tabulate(predictions, run.classes)
    )
    return find_frozen_threshold(outcome, whole, run.settings.sensitivity)
