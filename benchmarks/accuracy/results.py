"""The rows of the judged cases as one JSON and one table."""

from collections.abc import Iterable, Sequence
from typing import Literal, TypedDict

import numpy as np

from attunet.benchmarks.accuracy.arms import Arm
from attunet.benchmarks.evaluation.results_table import aligned
from attunet.fields import JsonObject
from attunet.metrics.aggregate import mean, nan_to_null
from attunet.metrics.results import PerClass, TestedDifference
from attunet.metrics.significance import compare_paired
from attunet.system.environment import Environment

Key = Literal["arm", "kind", "network", "seed", "fold", "case"]
KEY: tuple[Key, ...] = ("arm", "kind", "network", "seed", "fold", "case")
KINDS = ("single", "snapshots", "ensemble")
MAX_LINES = 60


class Row(TypedDict):
    """One judged case of one training or ensemble; `mean`: of `dice` over the classes."""

    arm: str
    kind: str
    network: str
    seed: int
    fold: int
    case: str
    patient: str
    mean: float | None
    dice: PerClass


class WorstCase(TypedDict):
    case: str
    mean: float | None


class Means(TypedDict):
    """Means of an arm's trainings of one kind; `worst_of_all`: of a single training."""

    arm: str
    kind: str
    network: str
    trainings: int
    cases: int
    mean: float | None
    worst: WorstCase
    worst_of_all: float | None
    per_organ: PerClass
    per_case: PerClass


class Comparison(TestedDifference):
    first: str
    second: str
    planned: bool
    leaves_out_zero: bool


class Summary(TypedDict):
    arms: list[Means]
    comparisons: list[Comparison]


class Results(TypedDict):
    """results.json. `left`: tasks that are not done; `reasons`: of each arm; `trainings`: time and errors."""

    schema: int
    environment: Environment
    store: str
    left: int
    reasons: dict[str, str]
    rows: list[Row]
    trainings: list[JsonObject]
    summary: Summary


def merged(rows: Sequence[Row], new: Sequence[Row]) -> list[Row]:
    """The rows with new ones, which replace those of the same training and case."""
    by_key = {tuple(row[name] for name in KEY): row for row in [*rows, *new]}
    return list(by_key.values())


def summary(rows: Sequence[Row], arms: Sequence[Arm]) -> Summary:
    """The means of every arm and the planned comparisons.

    Args:
        rows: of judged cases.
        arms: in the order of the table.

    Returns:
        The summary of results.json.
    """
    means: list[Means] = []
    for arm in arms:
        for kind in KINDS:
            networks = [*arm.networks, "all"] if kind == "single" and arm.has_ensembles else ["all"]
            means += [
                row
                for network in networks
                if (row := _means(_select(rows, arm.name, kind, network), arm.name, kind, network))
            ]
    comparisons = []
    for arm in arms:
        singles = _select(rows, arm.name, "single", "all")
        if arm.against:
            for kind in KINDS:
                first, second = _select(rows, arm.against, kind, "all"), _select(rows, arm.name, kind, "all")
                comparisons.append(_compare(first, second, f"{arm.against} {kind}", f"{arm.name} {kind}"))
            if arm.has_ensembles:
                for network in arm.networks:
                    first, second = (_select(rows, name, "single", network) for name in (arm.against, arm.name))
                    comparisons.append(
                        _compare(first, second, f"{arm.against} {network}", f"{arm.name} {network}", planned=False)
                    )
        for kind in ("snapshots", "ensemble"):
            comparisons.append(
                _compare(singles, _select(rows, arm.name, kind, "all"), f"{arm.name} single", f"{arm.name} {kind}")
            )
    result: Summary = {"arms": means, "comparisons": [one for one in comparisons if one is not None]}
    return nan_to_null(result)


def _select(rows: Iterable[Row], arm: str, kind: str, network: str) -> list[Row]:
    return [row for row in rows if row["arm"] == arm and row["kind"] == kind and network in ("all", row["network"])]


def _by_case(rows: Iterable[Row], organ: str | None = None) -> dict[str, float]:
    """Case -> mean Dice over all trainings that left it out, of one organ or of the mean over the classes."""
    values: dict[str, list[float]] = {}
    for row in rows:
        number = row["mean"] if organ is None else row["dice"][organ]
        values.setdefault(row["case"], []).append(np.nan if number is None else number)
    return {case: mean(numbers) for case, numbers in sorted(values.items())}


def _means(rows: Sequence[Row], arm: str, kind: str, network: str) -> Means | None:
    if not rows:
        return None
    cases = _by_case(rows)
    worst = min(cases, key=lambda case: cases[case])
    organs = {organ: mean(_by_case(rows, organ).values()) for organ in rows[0]["dice"]}
    return {
        "arm": arm,
        "kind": kind,
        "network": network,
        "trainings": len({(row["network"], row["seed"], row["fold"]) for row in rows}),
        "cases": len(cases),
        "mean": mean(cases.values()),
        "worst": {"case": worst, "mean": cases[worst]},
        "worst_of_all": min((row["mean"] for row in rows if row["mean"] is not None), default=None),
        "per_organ": {**organs},
        "per_case": {**cases},
    }


def _compare(
    first: Sequence[Row], second: Sequence[Row], first_name: str, second_name: str, *, planned: bool = True
) -> Comparison | None:
    """`second` minus `first`, on the trainings that both have, or where the kinds differ on the cases that both have.

    planned: False for a difference that decides nothing, which the table leaves out.
    """
    names: tuple[Key, ...] = (
        ("network", "seed", "fold", "case") if {r["kind"] for r in first} == {r["kind"] for r in second} else ("case",)
    )
    keys = {tuple(row[name] for name in names) for row in first} & {
        tuple(row[name] for name in names) for row in second
    }
    if not keys:
        return None
    shared = [[row for row in rows if tuple(row[name] for name in names) in keys] for rows in (first, second)]
    patients = {row["case"]: row["patient"] for row in first}
    tested = compare_paired(_by_case(shared[0]), _by_case(shared[1]), patients, names=(first_name, second_name))
    low, high = tested.ci95 or (np.nan, np.nan)
    return {
        "first": first_name,
        "second": second_name,
        "planned": planned,
        "leaves_out_zero": bool(low > 0 or high < 0),
        **tested.to_json(),
    }


def table(results: Results) -> str:
    """The summary as aligned text of at most `MAX_LINES` lines."""
    rows = results["summary"]["arms"]
    organs = list(rows[0]["per_organ"]) if rows else []
    header = ["arm", "kind", "network", "trainings", "cases", "Dice", "worst case", *organs]
    lines = aligned(
        [header, *([*_cells(row), *(_dice(row["per_organ"][organ]) for organ in organs)] for row in rows)]
    ).splitlines()
    differences = [["second against first", "patients", "difference", "95 % interval", "p", ""]]
    for one in [one for one in results["summary"]["comparisons"] if one["planned"]]:
        interval = f"{one['ci95'][0]:+.4f} to {one['ci95'][1]:+.4f}" if one["ci95"] else "-"
        kept = "leaves out zero" if one["leaves_out_zero"] else ""
        p_value = "-" if one["p_value"] is None else f"{one['p_value']:.3f}"
        cells = [
            f"{one['second']} against {one['first']}",
            str(one["num_patients"]),
            "-" if one["mean"] is None else f"{one['mean']:+.4f}",
            interval,
            p_value,
            kept,
        ]
        differences.append(cells)
    return "\n".join([*lines, "", *aligned(differences).splitlines()][:MAX_LINES])


def _cells(row: Means) -> list[str]:
    worst = row["worst"]
    where = f"{_dice(worst['mean'])} ({worst['case'].split('-')[0]})"
    return [
        row["arm"],
        row["kind"],
        row["network"],
        str(row["trainings"]),
        str(row["cases"]),
        _dice(row["mean"]),
        where,
    ]


def _dice(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
