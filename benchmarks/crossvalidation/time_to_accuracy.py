"""Minutes of training until the mean validation Dice reaches a target, averaged over the runs of one recipe,
from their metrics.jsonl.
"""

from collections.abc import Sequence

import numpy as np

from attunet.metrics.results import MetricsRow, TimeToAccuracy

TARGETS = (0.80, 0.85, 0.90)  # Dice


def accuracy_curve(rows: Sequence[MetricsRow]) -> np.ndarray:
    """Minutes since the start and mean Dice on the training grid `(2, n)` at every validation of one run.

    The clock of a continued run restarts at 0; its parts are concatenated.
    """
    points = []
    before = offset = 0.0
    for row in rows:
        if row["seconds"] < before:
            offset += before
        before = row["seconds"]
        if row["event"] == "validation" and row["dice"]["mean"] is not None:
            points.append(((offset + before) / 60, row["dice"]["mean"]))
    return np.array(points).reshape(-1, 2).T


def mean_curve(curves: Sequence[np.ndarray]) -> np.ndarray:
    """Minutes and Dice `(2, n)` of the n-th validations, averaged over the runs that have any, with as many points as
    the shortest of them.
    """
    curves = [curve for curve in curves if curve.size]
    if not curves:
        return np.zeros((2, 0))
    length = min(curve.shape[1] for curve in curves)
    return np.asarray(np.mean([curve[:, :length] for curve in curves], axis=0))


def minutes_to(target: float, minutes: np.ndarray, dice: np.ndarray) -> float | None:
    """Minutes until the curve reaches `target`, interpolated linearly between validations; None if it does not."""
    reached = np.flatnonzero(dice >= target)
    if not len(reached):
        return None
    beside = slice(max(0, reached[0] - 1), reached[0] + 1)
    return float(np.interp(target, dice[beside], minutes[beside]))


def time_row(runs: Sequence[Sequence[MetricsRow]]) -> TimeToAccuracy:
    """A method's curve and its minutes to each target, as they stand in results.json."""
    minutes, dice = mean_curve([accuracy_curve(rows) for rows in runs])
    return {
        "minutes": minutes.tolist(),
        "dice": dice.tolist(),
        "minutes_to": {f"{target:.2f}": minutes_to(target, minutes, dice) for target in TARGETS},
        "num_runs": len(runs),
    }
