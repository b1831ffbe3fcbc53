"""The table of a cross-validation: each network trained by each recipe, and the paired differences between them.

The networks that held a case out score it, one per seed; its scores are averaged over the seeds first. Means, medians
and worst cases are over cases, intervals and tests over patients.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from operator import attrgetter

import numpy as np

from attunet.benchmarks.crossvalidation.held_out import METRICS, CaseScores, HeldOut
from attunet.benchmarks.crossvalidation.plan import Key
from attunet.metrics.aggregate import mean, per_patient, summarize
from attunet.metrics.results import MethodComparison, MethodRow, MethodScore, TimeToAccuracy, WorstOrgan
from attunet.metrics.significance import PairedComparison, compare_paired, patient_interval
from attunet.volumes.spec import Postprocessing

HIGHER_IS_BETTER = ("dice", "surface_dice", "precision", "recall", "chaos_score")
PRIMARY = "dice"  # the metric that is tested


@dataclass(frozen=True)
class Method:
    """One network trained with one recipe, scored with one post-processing."""

    name: str  # in tables
    recipe: str
    model: str
    postprocessing: Postprocessing
    configured: bool  # it is the store's post-processing
    runs: Mapping[tuple[int, int], HeldOut]  # by seed and fold, the finished ones

    def by_seed(self, metric: str) -> dict[int, CaseScores]:
        by_seed: dict[int, CaseScores] = {}
        for (seed, _), run in sorted(self.runs.items()):
            for case, scores in run.scores[self.postprocessing.words].items():
                by_seed.setdefault(seed, {})[case] = scores[metric]
        return by_seed


def methods_of(runs: Mapping[Key, HeldOut | None], postprocessings: Sequence[Postprocessing]) -> list[Method]:
    """The methods in the order of the plan. runs: None where one has not finished; postprocessings: the configured one
    first.
    """
    finished: dict[tuple[str, str], dict[tuple[int, int], HeldOut]] = {}
    for (recipe, model, seed, fold), held in runs.items():
        own = finished.setdefault((recipe, model), {})
        if held is not None:
            own[seed, fold] = held
    several_recipes = len({recipe for recipe, _ in finished}) > 1
    methods = []
    for postprocessing in postprocessings:
        configured = postprocessing == postprocessings[0]
        for (recipe, model), own in finished.items():
            name = (f"{recipe} {model}" if several_recipes else model) + (
                "" if configured else f", {postprocessing.words}"
            )
            methods.append(Method(name, recipe, model, postprocessing, configured, own))
    return methods


def method_row(method: Method, patients: Mapping[str, str], time: TimeToAccuracy) -> MethodRow:
    """A method as it stands in results.json. patients: case -> patient."""
    scores = {metric: _summary(method, metric, patients) for metric in METRICS}
    return {
        "name": method.name,
        "recipe": method.recipe,
        "model": method.model,
        "postprocessing": method.postprocessing.words,
        "configured": method.configured,
        "num_runs": len(method.runs),
        "num_cases": sum(not isnan(value or 0.0) for value in scores[PRIMARY]["per_case_mean"].values()),
        "scores": scores,
        "worst_organ": worst_organ(method),
        "time_to_accuracy": time,
    }


def _summary(method: Method, metric: str, patients: Mapping[str, str]) -> MethodScore:
    by_seed = method.by_seed(metric)
    cases = _over_seeds(by_seed)
    classes, means = list(next(iter(cases.values()), {})), _means(cases)
    defined = {case: value for case, value in means.items() if not isnan(value)}
    worst_of = min if metric in HIGHER_IS_BETTER else max
    worst = worst_of(defined, key=lambda case: defined[case], default=None)
    per_seed_case = {str(seed): _means(scores) for seed, scores in by_seed.items()}
    return {
        **summarize({case: list(values.values()) for case, values in cases.items()}, classes),
        "median": float(np.median(list(defined.values()))) if defined else nan,
        "worst": None if worst is None else {"case": worst, "value": defined[worst]},
        "ci95": patient_interval(means, patients),
        "per_class_worst": {
            name: worst_of((v for values in cases.values() if not isnan(v := values[name])), default=nan)
            for name in classes
        },
        "per_case_mean": {**means},
        "per_seed": {seed: mean(scores.values()) for seed, scores in per_seed_case.items()},
        "per_seed_case": {seed: {**scores} for seed, scores in per_seed_case.items()},
    }


def worst_organ(method: Method) -> WorstOrgan | None:
    """Lowest Dice of one class in one case by one run: seed, fold, case, class and dice; None without scores."""
    scores: list[WorstOrgan] = [
        {"seed": seed, "fold": fold, "case": case, "class": name, "dice": value}
        for (seed, fold), run in sorted(method.runs.items())
        for case, scores in run.scores[method.postprocessing.words].items()
        for name, value in scores[PRIMARY].items()
        if not isnan(value)
    ]
    return min(scores, key=lambda one: one["dice"], default=None)


def pairs_to_compare(methods: Sequence[Method]) -> list[tuple[Method, Method]]:
    """Networks against the recipe's first, recipes against the network's first,
    post-processing against simpler ones.
    """
    main = [method for method in methods if method.configured]
    pairs = []
    for shared in (attrgetter("recipe"), attrgetter("model")):
        firsts = {shared(method): method for method in reversed(main)}
        pairs += [(firsts[shared(method)], method) for method in main if firsts[shared(method)] is not method]
    for other in (method for method in methods if not method.configured):
        method = next(a for a in main if (a.recipe, a.model) == (other.recipe, other.model))
        pairs.append((other, method) if other.postprocessing < method.postprocessing else (method, other))
    return [(a, b) for a, b in pairs if a.runs and b.runs]


def compare_methods(first: Method, second: Method, patients: Mapping[str, str]) -> MethodComparison:
    """`second` minus `first` on the cases and the seeds that both have:
    the tested difference in Dice, and those of the other metrics.
    """
    tested = {metric: _compare(first, second, metric, patients) for metric in METRICS}
    a, b = _on_common_seeds(first, second, PRIMARY)
    by_class = {
        name: {case: b[case][name] - values[name] for case, values in a.items()} for name in next(iter(a.values()), {})
    }
    means = {case: mean(b[case].values()) - mean(values.values()) for case, values in a.items()}
    return {
        "first": first.name,
        "second": second.name,
        "dice": {**tested[PRIMARY].to_json(), "per_patient": per_patient(means, patients)},
        "others": {metric: one.to_json() for metric, one in tested.items() if metric != PRIMARY},
        "per_class": {
            name: {
                "mean": mean(per_patient(differences, patients).values()),
                "ci95": patient_interval(differences, patients),
            }
            for name, differences in by_class.items()
        },
        "words": tested[PRIMARY].words,
    }


def _compare(first: Method, second: Method, metric: str, patients: Mapping[str, str]) -> PairedComparison:
    a, b = map(_means, _on_common_seeds(first, second, metric))
    title = metric.replace("_", " ").replace("dice", "Dice")
    return compare_paired(a, b, patients, names=(first.name, second.name), metric=title)


def _on_common_seeds(first: Method, second: Method, metric: str) -> tuple[CaseScores, CaseScores]:
    """Scores of both methods, over the (seed, case) pairs that both have."""
    a, b = first.by_seed(metric), second.by_seed(metric)

    def shared(own: dict[int, CaseScores], other: dict[int, CaseScores]) -> CaseScores:
        return _over_seeds({seed: {c: v for c, v in own[seed].items() if c in other.get(seed, {})} for seed in own})

    return shared(a, b), shared(b, a)


def _means(scores: CaseScores) -> dict[str, float]:
    """Case -> mean over its classes."""
    return {case: mean(values.values()) for case, values in scores.items()}


def _over_seeds(by_seed: Mapping[int, CaseScores]) -> CaseScores:
    """Means over the seeds, in the order of the cases' names."""
    means = {}
    for case in sorted({case for scores in by_seed.values() for case in scores}):
        rows = [scores[case] for scores in by_seed.values() if case in scores]
        means[case] = {name: mean(row[name] for row in rows) for name in rows[0]}
    return means
