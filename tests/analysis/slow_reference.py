"""The same figures as `lamella.analysis`, by double loops over pairs: slow, and plain enough to believe."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def log_odds(row: Floats, c: int) -> float:
    return float(row[c] - np.log(sum(np.exp(row[k]) for k in range(len(row)) if k != c)))


def kernel(up: float, down: float) -> float:
    return 1.0 if up > down else 0.5 if up == down else 0.0


def one_class(scores: Floats, positive: NDArray[np.bool_], folds: NDArray[np.int64]) -> tuple[float, Floats] | None:
    """AUC within folds and the influence of each unit, pair by pair."""
    n = len(scores)
    pairs = [(i, j) for i in range(n) for j in range(n) if positive[i] and not positive[j] and folds[i] == folds[j]]
    if not pairs:
        return None
    auc = sum(kernel(scores[i], scores[j]) for i, j in pairs) / len(pairs)
    influence = np.zeros(n)
    for i, j in pairs:
        influence[i] += (kernel(scores[i], scores[j]) - auc) / len(pairs)
        influence[j] += (kernel(scores[i], scores[j]) - auc) / len(pairs)
    return auc, influence


def matrix(
    scores: Floats, targets: NDArray[np.int64], folds: NDArray[np.int64], patients: NDArray[np.int64] | None = None
) -> tuple[Floats, Floats]:
    """AUC `(J,)` and covariance `(J, J)` from scores `(J, n, C)`, every class against the rest, averaged."""
    aucs, influences = [], []
    for arm in scores:
        found = [one_class(arm[:, c], targets == c, folds) for c in range(arm.shape[1])]
        real = [f for f in found if f is not None]
        aucs.append(np.mean([f[0] for f in real]))
        influences.append(np.mean([f[1] for f in real], axis=0))
    n_arms = len(aucs)
    cov = np.zeros((n_arms, n_arms))
    for a in range(n_arms):
        for b in range(n_arms):
            if patients is None:
                for c in np.unique(targets):
                    rows = [i for i in range(len(targets)) if targets[i] == c]
                    m = len(rows)
                    mean_a, mean_b = (sum(influences[x][i] for i in rows) / m for x in (a, b))
                    cov[a, b] += (
                        m / (m - 1) * sum((influences[a][i] - mean_a) * (influences[b][i] - mean_b) for i in rows)
                    )
            else:
                names = sorted(set(patients.tolist()))
                sums = [
                    [sum(influences[x][i] for i in range(len(targets)) if patients[i] == p) for p in names]
                    for x in (a, b)
                ]
                p_count = len(names)
                cov[a, b] = p_count / (p_count - 1) * sum(x * y for x, y in zip(*sums, strict=True))
    return np.array(aucs), cov


def delong(scores: Floats, positive: NDArray[np.bool_]) -> Floats:
    """DeLong's covariance (1988, eq. 5) of arms `(J, n)`, by structural components, pair by pair."""
    ups, downs = np.flatnonzero(positive), np.flatnonzero(~positive)
    v10 = np.array([[np.mean([kernel(s[i], s[j]) for j in downs]) for i in ups] for s in scores])
    v01 = np.array([[np.mean([kernel(s[i], s[j]) for i in ups]) for j in downs] for s in scores])
    return np.atleast_2d(np.cov(v10)) / len(ups) + np.atleast_2d(np.cov(v01)) / len(downs)


def pair_excess(
    logits: Floats, targets: NDArray[np.int64], folds: NDArray[np.int64], patients: NDArray[np.int64]
) -> Floats:
    """What the covariance counts twice, `(J, J)`, from logits `(J, n, C)`: pairs added up by pair of patients."""
    n_arms, n, n_classes = logits.shape
    scores = np.array([[[log_odds(row, c) for c in range(n_classes)] for row in arm] for arm in logits])
    pairs = {
        c: [(i, j) for i in range(n) for j in range(n) if targets[i] == c != targets[j] and folds[i] == folds[j]]
        for c in range(n_classes)
    }
    scored = [c for c in range(n_classes) if pairs[c]]
    sums = np.zeros((n_arms, patients.max() + 1, patients.max() + 1))
    for a in range(n_arms):
        for c in scored:
            right = [kernel(scores[a, i, c], scores[a, j, c]) for i, j in pairs[c]]
            for (i, j), value in zip(pairs[c], right, strict=True):
                ends = sorted((patients[i], patients[j]))
                sums[a, ends[0], ends[1]] += (value - np.mean(right)) / len(right) / len(scored)
    return np.array([[(sums[a] * sums[b]).sum() for b in range(n_arms)] for a in range(n_arms)])
