"""How far fine-tuning moved each block of an encoder, over the slides that each fold tested.

DIR/cka.json                               a row a fold and seed, or why there is none
DIR/finetuned/fold<k>/seed<s>/cka/         that comparison, as `lamella.explain.cka` writes it
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lamella.analysis.cka import MIN_SLIDES
from lamella.cohort import CohortSlide
from lamella.encoders import EncoderSpec
from lamella.errors import ModelError
from lamella.explain.cka import CkaSettings, compare_encoders
from lamella.explain.records import CkaPair, CkaRecord
from lamella.features.plan import CutSettings
from lamella.features.settings import ExtractSettings
from lamella.mil import load_model
from lamella.progress import Progress, SilentProgress
from lamella.runs.execute import Run
from lamella.runs.folder import RunFolder
from lamella.runs.metrics import StageTwoScores
from lamella.runs.predict import find_tuned_file


def compare_run(result: Run, extract: ExtractSettings, *, progress: Progress | None = None) -> list[str]:
    """Compare the fine-tuned encoders of a run with the frozen one, and write `cka.json` into its folder.

    Args:
        result: The run.
        extract: Its encoder, and how its slides were cut into tiles.
        progress: Where to report to.

    Returns:
        What must be said aloud: the folds that tested too few slides.
    """
    progress = progress or SilentProgress()
    slides = {slide.slide_id: slide for slide in result.cohort.slides}
    tests: dict[int, list[CohortSlide]] = {}
    for prediction in result.predictions:
        tests.setdefault(prediction.fold, []).append(slides[prediction.slide_id])
    notes = find_untestable(tests)
    for note in notes:
        progress.say(note)
    pairs = compare_tuned(result.folder, extract.encoder, tests, extract.cut, progress=progress)
    CkaRecord(pairs=tuple(pairs)).save(result.folder.cka)
    return notes


def compare_tuned(
    folder: RunFolder,
    frozen: EncoderSpec,
    tests: Mapping[int, Sequence[CohortSlide]],
    cut: CutSettings,
    *,
    n_tiles: int = 32,
    progress: Progress | None = None,
) -> list[CkaPair]:
    """Compare the fine-tuned encoders of a run with the frozen one, each over the slides that its fold tested.

    Args:
        folder: The run's; each comparison goes to `cka` in the folder of its fold and seed.
        frozen: What they were trained from.
        tests: Test slides by fold.
        cut: How slides are cut into tiles.
        n_tiles: Tiles of each slide.
        progress: Where to report to.

    Returns:
        A pair a fold and seed; of a fold that tested too few slides it says that.
    """
    pairs = []
    trained = list_trained(folder)
    for fold, seed in trained:
        slides = tests.get(fold, ())
        few = find_untestable({fold: slides})
        if few:
            pairs.append(CkaPair(fold=fold, seed=seed, note=few[0]))
            continue
        tuned = EncoderSpec(str(_find_encoder(folder, fold, seed)))
        others = [_find_encoder(folder, fold, other) for at, other in trained if at == fold and other != seed]
        controls = [EncoderSpec(frozen.name, "random"), *(EncoderSpec(str(path)) for path in others[:1])]
        settings = CkaSettings(first=frozen, second=tuned, controls=tuple(controls), cut=cut, n_tiles=n_tiles)
        result = compare_encoders(slides, settings, folder.stage_two(fold, seed) / "cka", progress=progress)
        second, _, random, *another = result.alignments.values()
        pair = CkaPair(
            fold=fold,
            seed=seed,
            cka=tuple(np.diagonal(second.values).tolist()),
            low=tuple(np.diagonal(second.low).tolist()),
            high=tuple(np.diagonal(second.high).tolist()),
            matrix=second.values.tolist(),
            random=tuple(np.diagonal(random.values).tolist()),
            another_seed=tuple(np.diagonal(another[0].values).tolist()) if another else None,
            one_block=None if result.one_block is None else tuple(result.one_block.values[0].tolist()),
            weight_change=None if result.weight_change is None else tuple(result.weight_change.tolist()),
        )
        pairs.append(pair)
    return pairs


def find_untestable(tests: Mapping[int, Sequence[CohortSlide]]) -> list[str]:
    """Say of each fold that tested too few slides for CKA how many it tested."""
    return [
        f"fold {fold} tested {len(slides)} slides and CKA needs {MIN_SLIDES}: it is left out there."
        for fold, slides in tests.items()
        if len(slides) < MIN_SLIDES
    ]


def list_trained(folder: RunFolder) -> list[tuple[int, int]]:
    """List fold and seed of the fine-tuned encoders that the run's `arms.json` names; others are of earlier runs."""
    epochs = StageTwoScores.load(folder.finetuned / "arms.json").best_epochs
    return [(epoch.fold, epoch.seed) for epoch in epochs if epoch.finetuned == "tuned"]


def _find_encoder(folder: RunFolder, fold: int, seed: int) -> Path:
    """Return the encoder of a fine-tuned model, as the model names it."""
    home = folder.stage_two(fold, seed) / "tuned"
    path = find_tuned_file(home, load_model(home / "model"))
    if path is None:
        raise ModelError(
            f"fold {fold} has lost a fine-tuned encoder. Run `lamella run` again: it makes what is missing."
        )
    return path
