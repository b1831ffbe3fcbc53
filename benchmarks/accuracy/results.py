"""The judged cases, a row each, and their summary: means of every arm, and the planned comparisons."""

from collections.abc import Callable, Iterable, Mapping, Sequence

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


def confusion_of(model: Model) -> Callable[[LabelledCase], np.ndarray]:
    """The function that segments a case with the model and counts its voxels, after post-processing."""
    return lambda case: evaluate_case(model, case).confusion


def judge(about: Json, store: Store, fold: int, confusion: Callable[[LabelledCase], np.ndarray]) -> list[Json]:
    """Dice on the native grid of the cases that a fold of the store leaves out, as the cross-validation judges them.

    Args:
        about: other fields of the rows; for `summary` "arm", "kind", "network", "seed" and "fold", of which an ensemble
            has the network "all" and the seed -1.
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
    """The means of every arm, in the order of `arms`, and the planned comparisons."""
    means, comparisons = [], []
    for arm in arms:
        for kind in KINDS:
            networks = [*arm.networks, "all"] if kind == "single" and arm.has_ensembles else ["all"]
            means += [_means(own, network) for network in networks if (own := _select(rows, arm.name, kind, network))]
        pairs = [((arm.against, kind), (arm.name, kind)) for kind in KINDS] if arm.against else []
        pairs += [((arm.name, "single"), (arm.name, kind)) for kind in KINDS if kind != "single"]
        comparisons += [compared for first, second in pairs if (compared := _compare(rows, first, second))]
    return nan_to_null({"arms": means, "comparisons": comparisons})


def _select(rows: Iterable[Json], arm: str, kind: str, network: str = "all") -> list[Json]:
    return [row for row in rows if row["arm"] == arm and row["kind"] == kind and network in ("all", row["network"])]


def _by_case(rows: Iterable[Json], organ: str | None = None) -> dict[str, float]:
    """Case -> mean Dice over all trainings that left it out, of one organ or of the mean over the classes."""
    values: dict[str, list[float]] = {}
    for row in rows:
        number = row["mean"] if organ is None else row["dice"][organ]
        values.setdefault(row["case"], []).append(np.nan if number is None else number)
    return {case: mean(numbers) for case, numbers in sorted(values.items())}


def _means(rows: Sequence[Json], network: str) -> Json:
    cases = _by_case(rows)
    worst = min(cases, key=lambda case: cases[case])
    return {
        "arm": rows[0]["arm"],
        "kind": rows[0]["kind"],
        "network": network,
        "trainings": len({(row["network"], row["seed"], row["fold"]) for row in rows}),
        "cases": len(cases),
        "mean": mean(cases.values()),
        "worst": {"case": worst, "mean": cases[worst]},
        "per_organ": {organ: mean(_by_case(rows, organ).values()) for organ in rows[0]["dice"]},
        "per_case": {**cases},
    }


def _compare(rows: Sequence[Json], first: tuple[str, str], second: tuple[str, str]) -> Json | None:
    """The second arm and kind minus the first on the trainings that both have; on the cases that both have where the
    kinds differ.
    """
    fields = ("network", "seed", "fold", "case") if first[1] == second[1] else ("case",)

    def key(row: Json) -> tuple[object, ...]:
        return tuple(row[name] for name in fields)

    a, b = _select(rows, *first), _select(rows, *second)
    keys = {key(row) for row in a} & {key(row) for row in b}
    if not keys:
        return None
    before, after = (_by_case(row for row in own if key(row) in keys) for own in (a, b))
    patients = {row["case"]: row["patient"] for row in a}
    tested = compare_paired(before, after, patients, names=(" ".join(first), " ".join(second)))
    low, high = tested.ci95 or (np.nan, np.nan)
    leaves_out_zero = bool(low > 0 or high < 0)
    return {"first": tested.first, "second": tested.second, "leaves_out_zero": leaves_out_zero, **tested.to_json()}


def table(results: Json) -> str:
    means = table_by_organ(results["summary"]["arms"], MEANS, "per_organ")
    return f"{means}\n\n{format_table(results['summary']['comparisons'], DIFFERENCES)}"


def table_by_organ(rows: Sequence[Json], columns: Mapping[str, str], field: str) -> str:
    """A table with a column for each organ of a field. columns: those before."""
    organs = {name: f"{{organs[{number}]:.4f}}" for number, name in enumerate(rows[0][field] if rows else ())}
    return format_table([{**row, "organs": list(row[field].values())} for row in rows], {**columns, **organs})
