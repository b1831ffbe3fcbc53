"""The judged cases, a row each, and their summary: means of every arm, and the planned comparisons."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import numpy as np

from attunet.benchmarks.accuracy.arms import Arm
from attunet.benchmarks.evaluation.results_table import Json, format_table
from attunet.evaluate_case import LabelledCase, evaluate_case, read_labelled_case
from attunet.metrics.aggregate import mean, nan_to_null
from attunet.metrics.overlap import dice_from_confusion
from attunet.metrics.significance import compare_paired
from attunet.store import Store
from attunet.volumes.model import Model

KEY = ("arm", "kind", "network", "seed", "fold", "case")
KINDS = ("single", "snapshots", "ensemble")
MEANS = {
    **{name: f"{{{name}}}" for name in ("arm", "kind", "network", "trainings", "cases")},
    "Dice": "{mean:.4f}",
    "worst case": "{worst[mean]:.4f} ({worst[case]})",
}
DIFFERENCES = {
    "second against first": "{second} against {first}",
    "patients": "{num_patients}",
    "difference": "{mean:+.4f}",
    "95 % interval": "{ci95[0]:+.4f} to {ci95[1]:+.4f}",
    "p": "{p_value:.3f}",
    "leaves out zero": "{leaves_out_zero}",
}

Group = tuple[str, str, str]  # arm, kind, and network or "all"


def confusion_of(model: Model) -> Callable[[LabelledCase], np.ndarray]:
    """The function that segments a case with the model and counts its voxels, after post-processing."""
    return lambda case: evaluate_case(model, case).confusion


def judge(
    about: Json, store: Store, fold: int | Literal["all"], confusion: Callable[[LabelledCase], np.ndarray]
) -> list[Json]:
    """Dice on the native grid of the cases that a fold of the store leaves out, as the cross-validation judges them.

    Args:
        about: the fields "arm", "kind", "network", "seed" and "fold" of the rows; an ensemble has the network "all" and
            the seed -1.
        confusion: a case -> voxel counts `(K, K)`, rows the reference, columns the prediction.
    """
    rows: list[Json] = []
    for name in store.split(fold)[1]:
        dice = dice_from_confusion(confusion(read_labelled_case(store, name)))[1:]
        by_class = dict(zip(store.classes.foreground, map(float, dice), strict=True))
        rows.append({**about, "case": name, "patient": store.case(name).patient, "mean": mean(dice), "dice": by_class})
    return nan_to_null(rows)


def merged(rows: Sequence[Json], new: Sequence[Json]) -> list[Json]:
    """The rows with new ones, which replace those of the same training and case."""
    return list({tuple(row[name] for name in KEY): row for row in [*rows, *new]}.values())


def summary(rows: Sequence[Json], arms: Sequence[Arm]) -> Json:
    """The means of every arm, in the order of `arms`, and the comparisons, of which those of one network decide
    nothing.
    """
    means = []
    pairs: list[tuple[Group, Group]] = []
    for arm in arms:
        for kind in KINDS:
            networks = [*arm.networks, "all"] if kind == "single" and arm.has_ensembles else ["all"]
            groups = [(arm.name, kind, network) for network in networks]
            means += [_means(group, own) for group in groups if (own := _select(rows, group))]
        if arm.against:
            pairs += [((arm.against, kind, "all"), (arm.name, kind, "all")) for kind in KINDS]
            if arm.has_ensembles:
                pairs += [((arm.against, "single", one), (arm.name, "single", one)) for one in arm.networks]
        pairs += [((arm.name, "single", "all"), (arm.name, kind, "all")) for kind in KINDS if kind != "single"]
    compared = (_compare(rows, first, second) for first, second in pairs)
    return nan_to_null({"arms": means, "comparisons": [one for one in compared if one is not None]})


def _select(rows: Iterable[Json], group: Group) -> list[Json]:
    arm, kind, network = group
    return [row for row in rows if row["arm"] == arm and row["kind"] == kind and network in ("all", row["network"])]


def _by_case(rows: Iterable[Json], organ: str | None = None) -> dict[str, float]:
    """Case -> mean Dice over all trainings that left it out, of one organ or of the mean over the classes."""
    values: dict[str, list[float]] = {}
    for row in rows:
        number = row["mean"] if organ is None else row["dice"][organ]
        values.setdefault(row["case"], []).append(np.nan if number is None else number)
    return {case: mean(numbers) for case, numbers in sorted(values.items())}


def _means(group: Group, rows: Sequence[Json]) -> Json:
    arm, kind, network = group
    cases = _by_case(rows)
    worst = min(cases, key=lambda case: cases[case])
    return {
        "arm": arm,
        "kind": kind,
        "network": network,
        "trainings": len({(row["network"], row["seed"], row["fold"]) for row in rows}),
        "cases": len(cases),
        "mean": mean(cases.values()),
        "worst": {"case": worst, "mean": cases[worst]},
        "per_organ": {organ: mean(_by_case(rows, organ).values()) for organ in rows[0]["dice"]},
        "per_case": {**cases},
    }


def _compare(rows: Sequence[Json], first: Group, second: Group) -> Json | None:
    """`second` minus `first` on the trainings that both have; on the cases that both have where the kinds differ."""
    fields = ("network", "seed", "fold", "case") if first[1] == second[1] else ("case",)

    def key(row: Json) -> tuple[object, ...]:
        return tuple(row[name] for name in fields)

    a, b = _select(rows, first), _select(rows, second)
    keys = {key(row) for row in a} & {key(row) for row in b}
    if not keys:
        return None
    scores = [_by_case(row for row in own if key(row) in keys) for own in (a, b)]
    names = tuple(f"{arm} {kind if network == 'all' else network}" for arm, kind, network in (first, second))
    tested = compare_paired(
        scores[0], scores[1], {row["case"]: row["patient"] for row in a}, names=(names[0], names[1])
    )
    low, high = tested.ci95 or (np.nan, np.nan)
    return {
        "first": names[0],
        "second": names[1],
        "planned": first[2] == "all",
        "leaves_out_zero": bool(low > 0 or high < 0),
        **tested.to_json(),
    }


def table(results: Json) -> str:
    """The summary as aligned text."""
    arms, comparisons = results["summary"]["arms"], results["summary"]["comparisons"]
    planned = [one for one in comparisons if one["planned"]]
    return f"{table_by_organ(arms, MEANS, 'per_organ')}\n\n{format_table(planned, DIFFERENCES)}"


def table_by_organ(rows: Sequence[Json], columns: Mapping[str, str], field: str) -> str:
    """A table with a column for each organ of a field. columns: those before."""
    organs = {name: f"{{organs[{number}]:.4f}}" for number, name in enumerate(rows[0][field] if rows else ())}
    return format_table([{**row, "organs": list(row[field].values())} for row in rows], {**columns, **organs})
