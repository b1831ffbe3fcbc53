"""Minutes of training until the cases left out are segmented so well: the mean over the runs of one recipe, from their metrics.jsonl."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

TARGETS = (0.86, 0.88, 0.90)

Rows = Sequence[Mapping[str, Any]]


def accuracy_curve(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Minutes since the start and mean Dice (on the training grid) at every validation of one run.

    A continued run's clock begins again; its parts are put end to end.
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
    """The n-th validations of all runs averaged, in minutes and in Dice; as many points as the shortest run has."""
    length = min((len(minutes) for minutes, _ in curves), default=0)
    if not length:
        return np.zeros(0), np.zeros(0)
    return np.mean([m[:length] for m, _ in curves], axis=0), np.mean([d[:length] for _, d in curves], axis=0)


def minutes_to(target: float, minutes: np.ndarray, dice: np.ndarray) -> float | None:
    """When the curve first reaches `target`, between two validations on the straight line; None when it never does."""
    reached = np.flatnonzero(dice >= target)
    if not len(reached):
        return None
    first = int(reached[0])
    if first == 0:
        return float(minutes[0])
    share = (target - dice[first - 1]) / (dice[first] - dice[first - 1])
    return float(minutes[first - 1] + share * (minutes[first] - minutes[first - 1]))


def time_row(runs: Sequence[Rows]) -> dict[str, Any]:
    """An arm's curve and its minutes to each target, as they stand in results.json."""
    curves = [accuracy_curve(rows) for rows in runs]
    minutes, dice = mean_curve([c for c in curves if len(c[0])])
    return {
        "minutes": minutes.tolist(),
        "dice": dice.tolist(),
        "minutes_to": {f"{target:.2f}": minutes_to(target, minutes, dice) for target in TARGETS},
        "num_runs": len(curves),
    }
