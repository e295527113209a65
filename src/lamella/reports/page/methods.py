"""The methods, ready to paste, after TRIPOD+AI (Collins et al. 2024): what is not known is left as [state: ...]."""

from lamella.analysis.verdict import Verdict
from lamella.reports.record import Record
from lamella.reports.words import PRETRAINING, count, join_words
from lamella.studies.record import ArmRecord, StudyRecord

SOURCES = (
    ("Bretz F et al. A graphical approach to sequentially rejective multiple test procedures. Stat Med "
     "2009;28:586-604.", "10.1002/sim.3495"),
    ("Collins GS et al. TRIPOD+AI statement: updated guidance for reporting clinical prediction models that use "
     "regression or machine learning methods. BMJ 2024;385:e078378.", "10.1136/bmj-2023-078378"),
    ("DeLong ER, DeLong DM, Clarke-Pearson DL. Comparing the areas under two or more correlated receiver operating "
     "characteristic curves. Biometrics 1988;44:837-845.", "10.2307/2531595"),
    ("Gonzalez TF. Clustering to minimize the maximum intercluster distance. Theor Comput Sci 1985;38:293-306.",
     "10.1016/0304-3975(85)90224-5"),
    ("Holm S. A simple sequentially rejective multiple test procedure. Scand J Stat 1979;6:65-70.", ""),
    ("Howard FM et al. The impact of site-specific digital histology signatures on deep learning model accuracy and "
     "bias. Nat Commun 2021;12:4423.", "10.1038/s41467-021-24698-1"),
    ("Hsu JC. Simultaneous confidence intervals for all distances from the best. Ann Stat 1981;9:1026-1034.",
     "10.1214/aos/1176345582"),
    ("Ilse M, Tomczak JM, Welling M. Attention-based deep multiple instance learning. ICML 2018.", ""),
    ("Javed SA et al. Additive MIL: intrinsically interpretable multiple instance learning for pathology. NeurIPS "
     "2022.", ""),
    ("King G, Zeng L. Logistic regression in rare events data. Polit Anal 2001;9:137-163.",
     "10.1093/oxfordjournals.pan.a004868"),
    ("Kornblith S et al. Similarity of neural network representations revisited. ICML 2019.", ""),
    ("LeDell E, Petersen M, van der Laan M. Computationally efficient confidence intervals for cross-validated area "
     "under the ROC curve estimates. Electron J Stat 2015;9:1583-1607.", "10.1214/15-EJS1035"),
    ("Lu MY et al. Data-efficient and weakly supervised computational pathology on whole-slide images. Nat Biomed Eng "
     "2021;5:555-570.", "10.1038/s41551-020-00682-w"),
    ("Newcombe RG. Confidence intervals for an effect size measure based on the Mann-Whitney statistic. Part 2. Stat "
     "Med 2006;25:559-573.", "10.1002/sim.2324"),
    ("Romano JP, Wolf M. Exact and approximate stepdown methods for multiple hypothesis testing. J Am Stat Assoc "
     "2005;100:94-108.", "10.1198/016214504000000539"),
    ("Romano JP, Shaikh AM, Wolf M. A practical two-step method for testing moment inequalities. Econometrica "
     "2014;82:1979-2002.", "10.3982/ECTA11011"),
    ("Selvaraju RR et al. Grad-CAM: visual explanations from deep networks via gradient-based localization. ICCV 2017.",
     "10.1109/ICCV.2017.74"),
    ("Shao Z et al. TransMIL: transformer based correlated multiple instance learning for whole slide image "
     "classification. NeurIPS 2021.", ""),
    ("Tsamardinos I, Greasidou E, Borboudakis G. Bootstrapping the out-of-sample predictions for efficient and "
     "accurate cross-validation. Mach Learn 2018;107:1895-1922.", "10.1007/s10994-018-5714-4"),
    ("Van Calster B et al. Calibration: the Achilles heel of predictive analytics. BMC Med 2019;17:230.",
     "10.1186/s12916-019-1466-7"),
    ("HistoTransfer: understanding transfer learning for histopathology. IEEE BHI 2021.", ""),
)  # fmt: skip
_HEADS = {
    "attention": "attention pooling",
    "ilse": "attention pooling as first published",
    "gated": "gated attention pooling",
    "mean": "mean pooling",
    "max": "max pooling",
    "clam-sb": "CLAM with one attention branch (Lu 2021)",
    "transmil": "TransMIL (Shao 2021)",
    "additive": "additive attention pooling (Javed 2022)",
}


def write_methods(record: Record) -> list[tuple[str, str]]:
    """Return (heading, text) of each paragraph of a study, ready to paste."""
    study = record.study
    if study is None:
        return []
    if study.given is not None:
        images, training = _say_given(study), "[state: how the models were trained, and on which patients]."
    else:
        images, training = _say_images(study), _say_training(study)
    return [
        ("Source of data and participants", _say_source(study)),
        ("Outcome", _say_outcome(record)),
        ("Images and encoders", images),
        ("Models and their training", training),
        ("Validation", _say_validation(study)),
        ("Statistical analysis", _say_statistics(study, record.verdict)),
        ("Controls", _say_controls(record, study)),
        ("Sample size, missing data, fairness", _say_sample(record)),
        ("Open science", _say_software(study)),
    ]


def _say_source(study: StudyRecord) -> str:
    per_class = ", ".join(f"{n} {name}" for name, n in study.cohort.per_class.items())
    return (
        f"{study.cohort.n_slides} digitised slides of {study.cohort.n_patients} patients ({per_class}) were studied. "
        "[state: setting, centres, dates, eligibility, how patients were chosen; stain, scanner and its resolution]. "
        "[state: age, sex and other characteristics of the patients]."
    )


def _say_outcome(record: Record) -> str:
    return (
        f"The outcome was {' against '.join(record.classes)}"
        f"{f', {record.positive} being positive' if len(record.classes) == 2 else ''}, one label a "
        f"{record.unit}. [state: how the reference label was made, by whom, and whether blind to what is predicted]."
    )


def _say_given(study: StudyRecord) -> str:
    arms = join_words([arm.arm for arm in study.arms])
    return (
        f"The predictions of {arms} were made with [state: software and versions; how slides were cut; encoders]. "
        "Lamella trained nothing and compared what was predicted."
    )


def _say_images(study: StudyRecord) -> str:
    tiles = "; ".join(
        f"{cut.tile_px} px at {cut.mpp:g} um per pixel, stride {cut.stride_px or cut.tile_px} px, at least "
        f"{cut.min_tissue:.0%} tissue"
        for cut in study.design.tiles.values()
    )
    trunks: dict[str, list[int]] = {}
    for arm in study.arms:
        if arm.state != "done" or arm.chosen or arm.features is not None:
            continue
        weights = {"auto": f"{PRETRAINING.get(str(arm.pretraining), 'other')} weights", "random": "random weights"}
        label = f"{arm.encoder} ({weights.get(arm.weights, arm.weights)}{_say_seen(arm)})"
        trunks.setdefault(label, []).append(arm.depth or 0)
    named = "; ".join(
        f"{label} after block {join_words([str(depth) for depth in sorted(set(depths))])}"
        for label, depths in trunks.items()
    )
    given = list(dict.fromkeys(arm.encoder for arm in study.arms if arm.state == "done" and arm.features is not None))
    said = f"Features of {join_words(given)} were made with [state: software; tiles; encoders]." if given else ""
    said = f"{said} {_say_budgets(study)}".strip()
    if given and not trunks:
        return said
    text = (
        f"Tissue was found on a thumbnail and cut into tiles ({tiles}). Encoders, whole (block 4) or cut after an "
        f"earlier one of their four blocks, turned each tile into features: {named or 'none ran'}."
    )
    return f"{text} {said}".strip()


def _say_budgets(study: StudyRecord) -> str:
    """Return how many tiles of a slide were read, where some arm read fewer than all."""
    done = [arm for arm in study.arms if arm.state == "done" and not arm.chosen]
    budgets = sorted({arm.tiles_per_slide for arm in done if arm.tiles_per_slide is not None})
    if not budgets:
        return ""
    every = " (or all)" if any(arm.tiles_per_slide is None for arm in done) else ""
    return (
        f"Of each slide at most {join_words([str(n) for n in budgets])}{every} tiles were read, spread over the "
        "tissue by farthest-point sampling of their places (Gonzalez 1985) seeded by the slide's id, so that fewer "
        "tiles were part of more and all arms read the same."
    )


def _say_seen(arm: ArmRecord) -> str:
    """Return at which resolution an encoder saw tiles that it resized."""
    if arm.mpp_seen is None or arm.mpp_asked is None or abs(arm.mpp_seen / arm.mpp_asked - 1) < 1e-3:
        return ""
    return f"; it saw tiles of {arm.mpp_asked:g} um per pixel at {arm.mpp_seen:.3g}"


def _say_training(study: StudyRecord) -> str:
    train = study.design.train
    if train is None:
        return ""
    heads = dict.fromkeys(arm.head for arm in study.arms if arm.state == "done")
    named = ", ".join(_HEADS.get(head, head) for head in heads) or "no head"
    bag = "(the tiles of all slides of the patient, in one bag) " if study.design.unit == "patient" else ""
    text = (
        f"A head ({named}; Ilse 2018) turned a {study.design.unit}'s features {bag}into a prediction. It was "
        f"trained with AdamW (learning rate {train.lr:g}, weight "
        f"decay {train.weight_decay:g}), at most {train.epochs} epochs, stopping "
        f"{train.patience} epochs after the least log-loss on the validation patients; {study.design.seeds} seeds from "
        "0, their logits averaged. Class weights were taken off before any probability (King 2001)."
    )
    widths = sorted({arm.width for arm in study.arms if arm.state == "done" and arm.width is not None})
    if widths:
        text += (
            f" For arms of width {join_words([str(width) for width in widths])} embeddings that were wider were first "
            "projected on the principal components of the fold's training tiles, each slide weighing the same."
        )
    return f"{text} {_say_finetuning(study)}".strip()


def _say_finetuning(study: StudyRecord) -> str:
    kinds = {arm.finetuned for arm in study.arms if arm.state == "done"}
    if "tuned" not in kinds:
        return ""
    stage = study.design.finetune
    if stage is None:
        return ""
    blocks = "all blocks" if stage.train_blocks is None else f"the last {count(stage.train_blocks, 'block')}"
    text = (
        f"Fine-tuned arms went on from the frozen ones: {blocks} and the head were trained end to end on each slide's "
        f"{stage.k} most attended tiles (Adam, {stage.encoder_lr:g} and {stage.head_lr:g}, at most {stage.epochs} "
        f"epochs, {count(stage.n_seeds, 'seed')})"
    )
    if stage.flips or stage.stain_jitter:
        jitter = f"stain jitter {stage.stain_jitter:g}" if stage.stain_jitter else ""
        text += f", with {' and '.join(part for part in ('flips' if stage.flips else '', jitter) if part)}"
    return text + (", beside a control with the encoder frozen." if "head" in kinds else ".")


def _say_validation(study: StudyRecord) -> str:
    design, cohort = study.design, study.cohort
    rounds = cohort.n_rounds
    if study.given is not None:
        split = f"{rounds}-fold cross-validation" if rounds > 1 else "one set of test patients"
        return (
            f"Models were compared on {split}, the same for all, by models that had not learned from those patients "
            "[state: that this holds, and how validation was made]. [state: external validation, or that there was "
            "none]."
        )
    split = (
        f"{rounds}-fold cross-validation by patient, in which fold k was tested, fold k+1 validated and the rest "
        "trained"
        if rounds > 1
        else "one division into training, validation and test patients"
    )
    given = design.split == "given" if cohort.own_division is None else cohort.own_division
    by = "the cohort's own" if given else f"split seed {design.split_seed}"
    return (
        f"Validation was internal: {split} ({by}). All arms had the same division and seeds. Standardisation, class "
        "weights, stopping and thresholds never saw the patients that were tested. [state: external validation, or "
        "that there was none]."
    )


def _say_statistics(study: StudyRecord, verdict: Verdict | None) -> str:
    margin = study.design.margin if verdict is None else verdict.margin
    crossed = verdict is None or verdict.cross_validated
    unit = "The patient was the unit: logits were averaged over a patient's slides and over seeds."
    if study.design.unit == "patient":
        unit = "The patient was the unit, predicted from all its slides; logits were averaged over seeds."
    if verdict is not None and verdict.units == "slides":
        unit = "Slides of a patient differ in label, so slides were scored and errors clustered by patient."
    cost = "Cost is encoding time on the same 64 tiles, arms in turn, median of 5."
    if study.given is not None:
        cost = f"Costs ({study.cost_unit}) were given." if study.cost_unit else "No costs were given."
    return (
        f"{unit} AUC counts pairs{' of the same fold (LeDell 2015)' if crossed else ''}, with score intervals "
        f"(Newcombe 2006){', widened for cross-validation' if crossed else ''}. Differences are paired "
        "(DeLong 1988), each pair of patients counted once, p values adjusted by Holm (1979) within a declared table; "
        f"intervals are not adjusted. {_say_question(verdict)} was tested with a margin of {margin:g} AUC. "
        f"{cost} The highest AUC was corrected for having been picked (Tsamardinos 2018). Calibration: "
        "intercept, slope and curve (Van Calster 2019)."
    )


def _say_question(verdict: Verdict | None) -> str:
    """Return which question was asked, and how many statements it holds for."""
    contest = (
        "non-inferiority of each arm to every other (Hsu 1981), one-sided 2.5%, by step-down max-t with the estimated "
        "correlations (Romano 2005, 2014)"
    )
    chains = [] if verdict is None else [chain.whole for chain in verdict.chains]
    if not chains:
        return f"{contest[0].upper()}{contest[1:]},"
    shared = f", the level shared by {len(chains)} networks and handed on (Bretz 2009)" if len(chains) > 1 else ""
    return (
        f"Non-inferiority of the cut depths of {join_words(chains)} to the whole network, in order of cost, each "
        f"one-sided 2.5%{shared}, was the primary question; the secondary one, {contest},"
    )


def _say_controls(record: Record, study: StudyRecord) -> str:
    if study.given is not None:
        return "[state: what colour, amount of tissue and batch alone predict on the same folds (Howard 2021)]."
    said = "Colour, amount of tissue and batch alone were held against the same folds (Howard 2021)."
    control = record.controls.permutations
    if control is not None:
        said += (
            f" Labels were permuted among patients within fold and, where given, batch, and everything was retrained, "
            f"{len(control.aucs)} times, for {control.arm}."
        )
    if any(pair.cka for pair in record.cka):
        said += " Fine-tuned encoders were compared with frozen ones by debiased linear CKA (Kornblith 2019)."
    if study.design.cam:
        said += " Class activation maps follow Selvaraju (2017)."
    return said


def _say_sample(record: Record) -> str:
    lost = 0 if record.verdict is None else record.verdict.n_lost or 0
    failed = len({failure.slide_id for failure in record.failures})
    return (
        "[state: how the number of patients was arrived at]. "
        f"{count(failed, 'slide')} could not be done in full and {count(lost, 'patient')} were left out of all "
        "comparisons. [state: how other missing data were handled]. [state: performance in subgroups, and fairness]. "
        "[state: involvement of patients and the public]."
    )


def _say_software(study: StudyRecord) -> str:
    named = ", ".join(f"{name} {version}" for name, version in study.versions.items())
    return (
        f"Software: {named or '[state: versions]'}. [state: where code, models and data can be had]. [state: protocol "
        "and registration]. [state: ethical approval]. [state: funding, and conflicts of interest]."
    )
