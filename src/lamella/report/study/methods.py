"""The methods paragraph, after TRIPOD+AI (Collins et al. 2024): what is not known is left as [state: ...]."""

from typing import Any

SOURCES = (
    "Collins GS et al. TRIPOD+AI statement. BMJ 2024;385:e078378.",
    "DeLong ER, DeLong DM, Clarke-Pearson DL. Comparing the areas under two or more correlated ROC curves. "
    "Biometrics 1988;44:837-845.",
    "Ilse M, Tomczak JM, Welling M. Attention-based deep multiple instance learning. ICML 2018.",
    "LeDell E, Petersen M, van der Laan M. Computationally efficient confidence intervals for cross-validated AUC. "
    "Electron J Stat 2015;9:1583-1607.",
    "Newcombe RG. Confidence intervals for an effect size measure based on the Mann-Whitney statistic. Part 2. "
    "Stat Med 2006;25:559-573.",
    "Tsamardinos I, Greasidou E, Borboudakis G. Bootstrapping the out-of-sample predictions for efficient and "
    "accurate cross-validation. Mach Learn 2018;107:1895-1922.",
    "HistoTransfer: Understanding transfer learning for histopathology. 2021.",
)


def write_methods(study: dict[str, Any], verdict: dict[str, Any]) -> list[str]:
    """Return the paragraphs, ready to paste."""
    design, cohort = study["design"], study["cohort"]
    encoders = list(dict.fromkeys(row["encoder"] for row in study["arms"] if row["state"] == "done"))
    tiles = "; ".join(
        f"{one['tile_px']} px at {one['mpp']:g} um per pixel, stride {one['stride_px'] or one['tile_px']} px, over "
        f"{one['min_tissue']:.0%} tissue"
        for one in design["tiles"].values()
    )
    per_class = ", ".join(f"{n} {name}" for name, n in cohort["per_class"].items())
    rounds = cohort["n_rounds"]
    split = (
        f"{rounds} rounds, split by patient: fold k tested, fold k+1 validated, the rest trained"
        if rounds > 1
        else "one division into training, validation and test by patient"
    )
    versions = ", ".join(f"{name} {version}" for name, version in study["versions"].items())
    train = design["train"]
    return [
        f"Source of data: {cohort['n_slides']} whole-slide images of {cohort['n_patients']} patients ({per_class}). "
        "[state: setting, dates, eligibility, scanner, staining, how the reference label was made and by whom, whether "
        "blind to the images, how missing data were handled].",
        f"Images were cut into tiles ({tiles}) over tissue found on a thumbnail. Frozen encoders "
        f"({', '.join(encoders) or 'none'}) turned tiles into features; attention pooling (Ilse et al. 2018; "
        f"HistoTransfer 2021) turned each slide's bag into a prediction. Heads were trained with AdamW (learning rate "
        f"{train['lr']:g}, at most {train['epochs']} epochs, stopping on the validation log-loss), "
        f"{design['seeds']} seeds from 0, averaged. " + _say_finetuning(study),
        f"Validation: internal, {split}, split seed {design['split_seed']}. The same folds and seeds served every arm. "
        "Standardisation, class weights, stopping and thresholds never saw the test fold.",
        "Statistics: AUC counts pairs of the same fold (LeDell et al. 2015) with score intervals (Newcombe 2006) "
        "widened for cross-validation; differences are paired (DeLong et al. 1988) with p values adjusted by Holm "
        "within a table. An arm is called not worse when the upper bound of its deficit against every other arm lies "
        f"below {verdict.get('margin', design['margin']):g} AUC (Bonferroni over the others); the cheapest such arm is "
        "recommended. The best arm's AUC is corrected for having been picked (Tsamardinos et al. 2018). Sample size: "
        "[state: how the number of patients was arrived at]. Fairness and subgroups: [state].",
        f"Software: {versions}. Code, data and models: [state: where they can be had]. Ethics, funding, registration: "
        "[state].",
    ]


def _say_finetuning(study: dict[str, Any]) -> str:
    if not any(row["finetuned"] == "tuned" and row["state"] == "done" for row in study["arms"]):
        return ""
    own = study["design"]["finetune"]
    blocks = "all blocks" if own["train_blocks"] is None else f"the last {own['train_blocks']} block(s)"
    return (
        f"Stage 2 trained {blocks} of the encoder and the head on each slide's {own['k']} most attended tiles (Adam, "
        f"{own['encoder_lr']:g} and {own['head_lr']:g}, at most {own['epochs']} epochs), beside a control with the "
        "encoder frozen."
    )
