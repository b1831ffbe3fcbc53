"""Minutes of training until the mean validation Dice reaches a target, averaged over the runs of one recipe,
from their metrics.jsonl.
"""

from collections.abc import Sequence

import numpy as np

from attunet.metrics.results import MetricsRow, TimeToAccuracy

TARGETS = (0.80, 0.85, 0.90)  # Dice

Rows = Sequence[MetricsRow]


def accuracy_curve(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Minutes since the start and mean Dice on the training grid at every validation of one run.

    The clock of a continued run restarts at 0; its parts are concatenated.
    """
    minutes, dice = [], []
    before = offset = 0.0
    for row in rows:
        if row["seconds"] < before:
            offset += before
        before = row["seconds"]
        if row["event"] == "validation" and row["dice"]["mean"] is not None:
            minutes.append((offset + before) / 60)
            dice.append(row["dice"]["mean"])
    return np.array(minutes), np.array(dice)


def mean_curve(curves: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Minutes and Dice of the n-th validations, averaged over the runs, with as many points as the shortest run."""
    length = min((len(minutes) for minutes, _ in curves), default=0)
    if not length:
        return np.zeros(0), np.zeros(0)
    return np.mean([m[:length] for m, _ in curves], axis=0), np.mean([d[:length] for _, d in curves], axis=0)


def minutes_to(target: float, minutes: np.ndarray, dice: np.ndarray) -> float | None:
    """Minutes until the curve reaches `target`, interpolated linearly between validations; None if it does not."""
    reached = np.flatnonzero(dice >= target)
    if not len(reached):
        return None
    first = int(reached[0])
    if first == 0:
        return float(minutes[0])
    share = (target - dice[first - 1]) / (dice[first] - dice[first - 1])
    return float(minutes[first - 1] + share * (minutes[first] - minutes[first - 1]))


def time_row(runs: Sequence[Rows]) -> TimeToAccuracy:
    """A method's curve and its minutes to each target, as they stand in results.json."""
    curves = [accuracy_curve(rows) for rows in runs]
    minutes, dice = mean_curve([c for c in curves if len(c[0])])
    return {
        "minutes": minutes.tolist(),
        "dice": dice.tolist(),
        "minutes_to": {f"{target:.2f}": minutes_to(target, minutes, dice) for target in TARGETS},
        "num_runs": len(curves),
    }
