"""The rows of the judged cases as one JSON and one table."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from attunet.benchmarks.accuracy.arms import Arm
from attunet.benchmarks.evaluation.results_table import aligned
from attunet.fields import JsonObject
from attunet.metrics.aggregate import mean, nan_to_null
from attunet.metrics.significance import compare_paired

KEY = ("arm", "kind", "network", "seed", "fold", "case")
KINDS = ("single", "snapshots", "ensemble")
MAX_LINES = 60

Row = JsonObject


def merged(rows: Sequence[Row], new: Sequence[Row]) -> list[Row]:
    """The rows with new ones, which replace those of the same training and case."""
    by_key = {tuple(row[name] for name in KEY): row for row in [*rows, *new]}
    return list(by_key.values())


def summary(rows: Sequence[Row], arms: Sequence[Arm]) -> JsonObject:
    """The means of every arm and the planned comparisons.

    Args:
        rows: of judged cases.
        arms: in the order of the table.

    Returns:
        `{"arms": rows of means, "comparisons": paired differences}` as JSON values.
    """
    means = []
    for arm in arms:
        for kind in KINDS:
            networks = [*arm.networks, "all"] if kind == "single" and arm.has_ensembles else ["all"]
            means += [row for network in networks if (row := _means(_select(rows, arm.name, kind, network), arm.name, kind, network))]
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
                    comparisons.append(_compare(first, second, f"{arm.against} {network}", f"{arm.name} {network}", planned=False))
        for kind in ("snapshots", "ensemble"):
            comparisons.append(_compare(singles, _select(rows, arm.name, kind, "all"), f"{arm.name} single", f"{arm.name} {kind}"))
    plain: JsonObject = nan_to_null({"arms": means, "comparisons": [one for one in comparisons if one is not None]})
    return plain


def _select(rows: Iterable[Row], arm: str, kind: str, network: str) -> list[Row]:
    return [row for row in rows if row["arm"] == arm and row["kind"] == kind and network in ("all", row["network"])]


def _by_case(rows: Iterable[Row], value: str = "mean") -> dict[str, float]:
    """Case -> mean of a value over all trainings that left it out."""
    values: dict[str, list[float]] = {}
    for row in rows:
        number = row[value]
        values.setdefault(row["case"], []).append(np.nan if number is None else number)
    return {case: mean(numbers) for case, numbers in sorted(values.items())}


def _means(rows: Sequence[Row], arm: str, kind: str, network: str) -> JsonObject | None:
    if not rows:
        return None
    cases = _by_case(rows)
    worst = min(cases, key=lambda case: cases[case])
    organs = {organ: mean(_by_case([row["dice"] | {"case": row["case"]} for row in rows], organ).values()) for organ in rows[0]["dice"]}
    return {
        "arm": arm,
        "kind": kind,
        "network": network,
        "trainings": len({(row["network"], row["seed"], row["fold"]) for row in rows}),
        "cases": len(cases),
        "mean": mean(cases.values()),
        "worst": {"case": worst, "mean": cases[worst]},
        "worst_of_all": min(row["mean"] for row in rows),
        "per_organ": organs,
        "per_case": cases,
    }


def _compare(first: Sequence[Row], second: Sequence[Row], first_name: str, second_name: str, *, planned: bool = True) -> JsonObject | None:
    """`second` minus `first`, on the trainings that both have, or where the kinds differ on the cases that both have.

    planned: False for a difference that decides nothing, which the table leaves out.
    """
    names = ("network", "seed", "fold", "case") if {r["kind"] for r in first} == {r["kind"] for r in second} else ("case",)
    keys = {tuple(row[name] for name in names) for row in first} & {tuple(row[name] for name in names) for row in second}
    if not keys:
        return None
    shared = [[row for row in rows if tuple(row[name] for name in names) in keys] for rows in (first, second)]
    patients = {row["case"]: row["patient"] for row in first}
    tested = compare_paired(_by_case(shared[0]), _by_case(shared[1]), patients, names=(first_name, second_name))
    low, high = tested.ci95 or (np.nan, np.nan)
    about = {"first": first_name, "second": second_name, "planned": planned}
    return {**about, "leaves_out_zero": bool(low > 0 or high < 0), **tested.to_json()}


def table(results: Mapping[str, JsonObject]) -> str:
    """The summary as aligned text of at most `MAX_LINES` lines."""
    rows = results["summary"]["arms"]
    organs = list(rows[0]["per_organ"]) if rows else []
    header = ["arm", "kind", "network", "trainings", "cases", "Dice", "worst case", *organs]
    lines = aligned([header, *([*_cells(row), *(_dice(row["per_organ"][organ]) for organ in organs)] for row in rows)]).splitlines()
    differences = [["second against first", "patients", "difference", "95 % interval", "p", ""]]
    for one in [one for one in results["summary"]["comparisons"] if one["planned"]]:
        interval = f"{one['ci95'][0]:+.4f} to {one['ci95'][1]:+.4f}" if one["ci95"] else "-"
        kept = "leaves out zero" if one["leaves_out_zero"] else ""
        p_value = "-" if one["p_value"] is None else f"{one['p_value']:.3f}"
        cells = [f"{one['second']} against {one['first']}", str(one["num_patients"]), f"{one['mean']:+.4f}", interval, p_value, kept]
        differences.append(cells)
    return "\n".join([*lines, "", *aligned(differences).splitlines()][:MAX_LINES])


def _cells(row: JsonObject) -> list[str]:
    worst = row["worst"]
    where = f"{_dice(worst['mean'])} ({worst['case'].split('-')[0]})"
    return [row["arm"], row["kind"], row["network"], str(row["trainings"]), str(row["cases"]), _dice(row["mean"]), where]


def _dice(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
