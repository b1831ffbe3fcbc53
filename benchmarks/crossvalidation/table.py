"""The table of a cross-validation: each network trained by each recipe, and the paired differences between them.

The networks that held a case out score it, one per seed; its scores are averaged over the seeds first. Means, medians
and worst cases are over cases, intervals and tests over patients.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from attunet.benchmarks.crossvalidation.held_out import METRICS, HeldOut
from attunet.metrics.aggregate import mean, mean_of_defined, per_patient
from attunet.metrics.results import Difference, MethodComparison, MethodRow, MethodScore, TimeToAccuracy, WorstOrgan
from attunet.metrics.significance import PairedComparison, bootstrap_interval, compare_paired
from attunet.volumes.spec import UNTOUCHED, Postprocessing

HIGHER_IS_BETTER = ("dice", "surface_dice", "precision", "recall", "chaos_score")
PRIMARY = "dice"  # the metric that is tested


@dataclass(frozen=True)
class Method:
    """One network trained with one recipe, scored with one post-processing.

    Args:
        configured: whether it is the store's post-processing.
        runs: (seed, fold) -> scores of the finished run on its held-out cases.
    """

    recipe: str
    model: str
    postprocessing: Postprocessing = UNTOUCHED
    configured: bool = True
    runs: Mapping[tuple[int, int], HeldOut] = field(default_factory=dict)

    def label(self, several_recipes: bool) -> str:
        parts = [self.recipe, self.model] if several_recipes else [self.model]
        return " ".join(parts) + ("" if self.configured else f", {self.postprocessing.words}")

    def by_seed(self, metric: str) -> dict[int, dict[str, dict[str, float]]]:
        """Scores as seed -> case -> class -> value."""
        by_seed: dict[int, dict[str, dict[str, float]]] = {}
        for (seed, _), run in sorted(self.runs.items()):
            for case, scores in run.scores[self.postprocessing.words].items():
                by_seed.setdefault(seed, {})[case] = scores[metric]
        return by_seed


def methods_of(
    runs: Mapping[tuple[str, str, int, int], HeldOut | None], postprocessings: Sequence[Postprocessing]
) -> list[Method]:
    """The methods in the order of the plan. runs: (recipe, model, seed, fold) -> scores,
    None where no run has finished.

    postprocessings: that label maps were finished in, the configured one first.
    """
    pairs = list(dict.fromkeys((recipe, model) for recipe, model, _, _ in runs))
    finished = {
        pair: {
            (seed, fold): held
            for (recipe, model, seed, fold), held in runs.items()
            if (recipe, model) == pair and held is not None
        }
        for pair in pairs
    }
    return [
        Method(recipe, model, postprocessing, postprocessing == postprocessings[0], finished[recipe, model])
        for postprocessing in postprocessings
        for recipe, model in pairs
    ]


def method_row(
    method: Method, label: str, patients: Mapping[str, str], organ: WorstOrgan | None, time: TimeToAccuracy
) -> MethodRow:
    """A method as it stands in results.json. patients: case -> patient."""
    return {
        "name": label,
        "recipe": method.recipe,
        "model": method.model,
        "postprocessing": method.postprocessing.words,
        "configured": method.configured,
        "num_runs": len(method.runs),
        "num_cases": len(method.by_seed(PRIMARY) and _over_seeds(method.by_seed(PRIMARY))),
        "scores": {metric: _summary(method, metric, patients) for metric in METRICS},
        "worst_organ": organ,
        "time_to_accuracy": time,
    }


def _summary(method: Method, metric: str, patients: Mapping[str, str]) -> MethodScore:
    by_seed = method.by_seed(metric)
    cases = _over_seeds(by_seed)
    means = {case: mean(values.values()) for case, values in cases.items()}
    defined = {case: value for case, value in means.items() if not np.isnan(value)}
    worst = (min if metric in HIGHER_IS_BETTER else max)(defined, key=lambda case: defined[case], default=None)
    interval = bootstrap_interval(np.array(list(per_patient(means, patients).values())))
    classes = list(next(iter(cases.values()), {}))
    return {
        "mean": mean(means.values()),
        "median": float(np.median(list(defined.values()))) if defined else float("nan"),
        "worst": None if worst is None else {"case": worst, "value": defined[worst]},
        "ci95": None if interval is None else list(interval),
        "per_class": {name: mean(values[name] for values in cases.values()) for name in classes},
        "per_class_worst": {
            name: _extreme([values[name] for values in cases.values()], low=metric in HIGHER_IS_BETTER)
            for name in classes
        },
        "per_case": {case: {"mean": means[case], **values} for case, values in cases.items()},
        "per_seed": {str(seed): mean(mean(v.values()) for v in scores.values()) for seed, scores in by_seed.items()},
        "per_seed_case": {
            str(seed): {case: mean(v.values()) for case, v in scores.items()} for seed, scores in by_seed.items()
        },
    }


def compare_methods(
    first: Method, second: Method, labels: tuple[str, str], patients: Mapping[str, str]
) -> MethodComparison:
    """`second` minus `first` on the cases and the seeds that both have:
    the tested difference in Dice, and those of the other metrics.
    """
    tested = _compare(first, second, PRIMARY, labels, patients)
    return {
        "first": labels[0],
        "second": labels[1],
        "dice": {**tested.to_json(), "per_patient": _patient_differences(first, second, PRIMARY, patients)},
        "others": {
            metric: _compare(first, second, metric, labels, patients).to_json()
            for metric in METRICS
            if metric != PRIMARY
        },
        "per_class": _class_differences(first, second, patients),
        "words": tested.words,
    }


def pairs_to_compare(methods: Sequence[Method]) -> list[tuple[Method, Method]]:
    """Networks against the recipe's first, recipes against the network's first,
    post-processing against simpler ones.
    """
    main = [method for method in methods if method.configured]
    pairs = []
    for method in main:
        same_recipe = next(a for a in main if a.recipe == method.recipe)
        if same_recipe is not method:
            pairs.append((same_recipe, method))
    for method in main:
        same_model = next(a for a in main if a.model == method.model)
        if same_model is not method:
            pairs.append((same_model, method))
    for other in (method for method in methods if not method.configured):
        method = next(a for a in main if (a.recipe, a.model) == (other.recipe, other.model))
        pairs.append((other, method) if other.postprocessing < method.postprocessing else (method, other))
    return [(a, b) for a, b in pairs if a.runs and b.runs]


def _compare(
    first: Method, second: Method, metric: str, labels: tuple[str, str], patients: Mapping[str, str]
) -> PairedComparison:
    scores = [
        {case: mean(values.values()) for case, values in scores.items()}
        for scores in _on_common_seeds(first, second, metric)
    ]
    return compare_paired(
        scores[0], scores[1], patients, names=labels, metric=metric.replace("_", " ").replace("dice", "Dice")
    )


def _patient_differences(first: Method, second: Method, metric: str, patients: Mapping[str, str]) -> dict[str, float]:
    a, b = _on_common_seeds(first, second, metric)
    return per_patient({case: mean(b[case].values()) - mean(a[case].values()) for case in a}, patients)


def _class_differences(first: Method, second: Method, patients: Mapping[str, str]) -> dict[str, Difference]:
    """Mean difference in Dice per class, with its interval."""
    a, b = _on_common_seeds(first, second, PRIMARY)
    rows: dict[str, Difference] = {}
    for name in next(iter(a.values()), {}):
        differences = np.array(
            list(per_patient({case: b[case][name] - a[case][name] for case in a}, patients).values())
        )
        interval = bootstrap_interval(differences)
        rows[name] = {"mean": float(mean_of_defined(differences)), "ci95": None if interval is None else list(interval)}
    return rows


def _on_common_seeds(
    first: Method, second: Method, metric: str
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """Scores of both methods as case -> class -> value, over the (seed, case) pairs that both have."""
    a, b = first.by_seed(metric), second.by_seed(metric)
    both = {(seed, case) for seed in a.keys() & b.keys() for case in a[seed].keys() & b[seed].keys()}

    def shared(scores: dict[int, dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
        return _over_seeds(
            {seed: {case: v for case, v in cases.items() if (seed, case) in both} for seed, cases in scores.items()}
        )

    return shared(a), shared(b)


def _over_seeds(by_seed: Mapping[int, Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Means over the seeds as case -> class -> value, in the order of the cases' names."""
    gathered: dict[str, dict[str, list[float]]] = {}
    for cases in by_seed.values():
        for case, values in cases.items():
            for name, value in values.items():
                gathered.setdefault(case, {}).setdefault(name, []).append(value)
    return {case: {name: mean(values) for name, values in gathered[case].items()} for case in sorted(gathered)}


def _extreme(values: Sequence[float], *, low: bool) -> float:
    known = [v for v in values if not np.isnan(v)]
    return (min if low else max)(known) if known else float("nan")
