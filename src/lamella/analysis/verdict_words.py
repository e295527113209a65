"""The verdict in three sentences: what to use, what is shown to be worse, what is open."""

from collections.abc import Sequence
from dataclasses import dataclass

from lamella.analysis.auc import find_auc_interval
from lamella.analysis.judgement import LEAST_PATIENTS, Judgement
from lamella.analysis.sample_size import PatientsNeeded

_MOST_NAMED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentences:
    """What a study says.

    Attributes:
        use: What to use, or why nothing is recommended.
        worse: Which arms are shown to be worse than which.
        open: What is not settled, and how many patients would settle it.
    """

    use: str
    worse: str
    open: str


def say_verdict(
    judgement: Judgement,
    names: Sequence[str],
    *,
    needed: tuple[int, PatientsNeeded] | None,
    within_batch: str | None = None,
) -> Sentences:
    """Return the verdict in words.

    Args:
        judgement: The one that rules.
        names: Of the arms.
        needed: Which arm more patients would settle, and how many; None where that cannot be said.
        within_batch: Why only pairs of the same batch count; None where all do.
    """
    chains = len(judgement.rules.chains)
    said = [_say_chain(judgement, names, number) for number in range(chains)]
    if chains != 1:
        contest = _say_contest(judgement, names)
        said.append(f"Secondary question, against every arm: {contest}" if chains else contest)
    kinds = {judgement.find_kind(chain=number) for number in range(chains)} or {judgement.find_kind(chain=None)}
    if kinds & {"too few", "no signal", "one arm"}:
        said = said[:1]
    use = " ".join(([within_batch] if within_batch else []) + said)
    if kinds & {"too few", "one arm"}:
        return Sentences(use=use, worse="", open="")
    return Sentences(use=use, worse=_say_worse(judgement, names), open=_say_open(judgement, names, needed))


def join_names(names: Sequence[str]) -> str:
    """Return names in a list; of many, the first few and how many more.

    Example:
        >>> join_names(["a", "b", "c"]), join_names(list("abcdefg"))
        ('a, b and c', 'a, b, c, d and 3 more')
    """
    if len(names) > _MOST_NAMED + 1:
        return f"{', '.join(names[:_MOST_NAMED])} and {len(names) - _MOST_NAMED} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _say_chain(judgement: Judgement, names: Sequence[str], number: int) -> str:
    kind, margin = judgement.find_kind(chain=number), f"{judgement.rules.margin:g}"
    chain = judgement.rules.chains[number]
    whole = names[chain.whole]
    general = _say_general(judgement, kind, names, chain.whole)
    if general is not None:
        return general
    if kind == "inconclusive":
        return (
            f"Inconclusive: no depth is shown to be non-inferior to the whole network, {whole} (margin {margin} AUC)."
        )
    if kind == "no own signal":
        return (
            f"No recommendation: {names[judgement.accepted[number][-1]]} is non-inferior to the whole network (margin "
            f"{margin} AUC) but is not shown to beat chance."
        )
    chosen = judgement.find_chosen(number)
    assert chosen is not None
    said = f"Use {names[chosen]}: it is non-inferior to the whole network, {whole} (it loses less than {margin} AUC)"
    if kind == "non-inferior":
        return f"{said}."
    rest = chain.cuts[chain.cuts.index(chosen) + 1 :]
    return f"{said}; {join_names([names[i] for i in rest])} {'is' if len(rest) == 1 else 'are'} not shown to be."


def _say_contest(judgement: Judgement, names: Sequence[str]) -> str:
    kind, margin = judgement.find_kind(chain=None), f"{judgement.rules.margin:g}"
    general = _say_general(judgement, kind, names, int(judgement.estimate.auc.argmax()))
    if general is not None:
        return general
    if kind == "inconclusive":
        return f"Inconclusive: no arm is shown to be non-inferior to all others (margin {margin} AUC)."
    if kind == "no own signal":
        return "No recommendation: the arms that are non-inferior to all others are not shown to beat chance."
    chosen = judgement.find_winner()
    assert chosen is not None
    first = "cheapest arm" if judgement.rules.is_priced else "arm that was named first"
    if kind == "non-inferior":
        return f"Use {names[chosen]}: it is the {first}, and non-inferior to every other (margin {margin} AUC)."
    shown = "shown to be non-inferior to every other"
    if not judgement.rules.is_priced:
        return f"Use {names[chosen]}: of the arms {shown} (margin {margin} AUC), it was named first."
    return f"Use {names[chosen]}: it is the {first} that is {shown} (margin {margin} AUC)."


def _say_general(judgement: Judgement, kind: str, names: Sequence[str], reference: int) -> str | None:
    """Return the sentence of a kind that both questions share."""
    if kind == "too few":
        if judgement.n_least < LEAST_PATIENTS:
            n = f"only {judgement.n_least}" if judgement.n_least else "no"
            return (
                f"No verdict: {n} patients of the rarest class are tested together with patients of another class, and "
                f"at least {LEAST_PATIENTS} are needed."
            )
        return "No verdict: too few patients of a class are tested beside another class in the same fold."
    if kind == "no signal":
        return "No recommendation: no arm is shown to predict the label better than chance."
    if kind == "one arm":
        return f"{names[0]} is the only arm, so there is nothing to compare."
    if kind == "margin too wide":
        low, high = find_auc_interval(judgement.estimate, arm=reference)
        return (
            f"No recommendation: a margin of {judgement.rules.margin:g} AUC is too wide for this signal. "
            f"{names[reference]} reaches AUC {judgement.estimate.auc[reference]:.2f} (95% CI {low:.2f}-{high:.2f}), "
            f"so the margin may be at most {judgement.find_widest_margin(reference):.3f}: half of what the lower limit "
            "exceeds 0.50 by."
        )
    return None


def _say_worse(judgement: Judgement, names: Sequence[str]) -> str:
    """Return which arms are shown to be worse, those worse than the same arms together."""
    groups: dict[str, list[str]] = {}
    auc = judgement.estimate.auc
    for arm in sorted(range(len(names)), key=lambda i: float(auc[i])):
        better = [b for b in range(len(names)) if judgement.worse[arm, b]]
        if better:
            better.sort(key=lambda b: -float(auc[b]))
            groups.setdefault(join_names([names[b] for b in better]), []).append(names[arm])
    if not groups:
        return "No arm is shown to be worse than another."
    said = (
        f"{join_names(worse)} {'is' if len(worse) == 1 else 'are'} worse than {than}" for than, worse in groups.items()
    )
    return f"It is shown that {'; '.join(said)}."


def _say_open(judgement: Judgement, names: Sequence[str], needed: tuple[int, PatientsNeeded] | None) -> str:
    parts = []
    recommended, reachable = judgement.find_recommended(), judgement.reachable_margin
    if recommended is None and reachable is not None and reachable >= judgement.rules.margin:
        parts.append(f"No data from so few patients could show a margin below {reachable:.3f} AUC.")
    if recommended is None:
        still = [names[i] for i in judgement.still_in]
        parts.append(f"Not shown to be worse than any other: {join_names(still)}." if still else "")
        guess = judgement.guess()
        if guess is not None and any(judgement.beats_chance(i) for i in range(len(names))):
            parts.append(f"Best guess, not proven: {names[guess]}.")
    if needed is not None:
        arm, patients = needed
        against = "the whole network" if len(judgement.rules.chains) == 1 else "every other arm"
        high = "no upper limit" if patients.high is None else f"{patients.high:,}"
        spread = f"90% range {patients.low:,} to {high}"
        if patients.low == patients.high:
            spread = "these data leave no range to give"
        parts.append(
            f"About {patients.n:,} patients would settle whether {names[arm]} is non-inferior to {against} (80% power "
            f"if it is truly as good, same prevalence and models; {spread})."
        )
    elif judgement.find_kind(chain=0 if len(judgement.rules.chains) == 1 else None) == "inconclusive":
        parts.append("How many patients would settle it cannot be told from these data.")
    return " ".join(part for part in parts if part) or "Nothing is open at this margin."
