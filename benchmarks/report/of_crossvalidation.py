"""The folder of a cross-validation as the contents of a report."""

from pathlib import Path

import numpy as np

from attunet.benchmarks.evaluation.details import CaseDetails, as_card, curves_of
from attunet.benchmarks.evaluation.saved_cases import FOLDER, HELD_OUT, load_arrays, load_case
from attunet.benchmarks.evaluation.scores import SCORES
from attunet.benchmarks.report.contents import Contents, ModelRow, worst_first
from attunet.classes import Classes
from attunet.fields import Fields, Rule, read_json
from attunet.metrics.overlap import confusion
from attunet.metrics.results import CrossvalidationResults, MethodRow, Metric, Score
from attunet.runs.run_folder import read_metrics

SCHEMA = 3  # of results.json
MAX_NAMED = 8  # missing trainings


def contents_of(folder: Path, results: CrossvalidationResults) -> Contents:
    """Contents from results.json and, for label maps, curves and hashes, the runs below the folder."""
    store, seeds = results["store"], results["seeds"]
    classes = Classes.from_json(Fields(store, "store").rows("classes"))
    cases = [case for fold in store["folds"].values() for case in fold]
    methods = [method for method in results["methods"] if method["configured"] and method["num_runs"]]
    models = [_row(folder, method, cases, classes, results) for method in methods]
    labels = {model.label for model in models}
    return Contents(
        kind="cross-validation",
        folder=folder,
        store=store["name"],
        classes=classes,
        cases=worst_first(cases, models),
        models=tuple(models),
        comparisons=tuple(c for c in results["comparisons"] if c["first"] in labels and c["second"] in labels),
        environment=results["environment"],
        case_details=_case_details(folder, cases),
        commands=tuple(results["commands"]),
        about=f"{len(cases)} cases of {store['num_patients']} patients in {len(store['folds'])} folds, "
        f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}; every case is judged by networks that were trained without "
        f"its patient{_missing(results)}",
    )


def _missing(results: CrossvalidationResults) -> str:
    names = [missing["run"] for missing in results["missing"]]
    if not names:
        return ""
    shown = ", ".join(names[:MAX_NAMED]) + (f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else "")
    return (
        f"; {len(names)} of {results['num_runs']} trainings are not finished, so not every case is judged: {shown} "
        "missing"
    )


def _row(
    folder: Path, method: MethodRow, cases: list[str], classes: Classes, results: CrossvalidationResults
) -> ModelRow:
    own = folder / method["recipe"] / method["model"]
    planned = [(seed, fold) for seed in results["seeds"] for fold in results["store"]["folds"]]  # lowest seed first
    runs = [path for seed, fold in planned if (path := own / f"seed-{int(seed)}" / f"fold-{int(fold)}").is_dir()]
    predictions = _first_file(runs, cases, ".npz")
    scores: dict[Metric, Score] = {}
    for metric in SCORES:
        given = method["scores"][metric]
        mean, ci95, per_class = given["mean"], given["ci95"], given["per_class"]
        scores[metric] = {"mean": mean, "ci95": ci95, "per_class": per_class, "per_case": given["per_case"]}
    curves = {_name(run): curves_of(read_metrics(run)) for run in runs}
    return ModelRow(
        label=method["name"],
        scores=scores,
        confusion=_confusion(folder, predictions, classes),
        predictions=predictions,
        attention=_first_file(runs, cases, ".attention.npz"),
        curves={f"{method['name']} {name}": rows for name, rows in curves.items() if rows},
        time_to_accuracy=method["time_to_accuracy"],
        details={"card": _card(method, runs), "settings": results["recipes"][method["recipe"]]},
    )


def _card(method: MethodRow, runs: list[Path]) -> str:
    """The trainings of one network and recipe, for a person to read."""
    return as_card(
        {
            "network": method["model"],
            "recipe": method["recipe"],
            "trainings": f"{method['num_runs']}: {', '.join(map(_name, runs))}",
            "judged on": f"{method['num_cases']} cases that they left out",
            "afterwards": method["postprocessing"],
        }
    )


def _name(run: Path) -> str:
    return f"{run.parent.name} {run.name}"


def _first_file(runs: list[Path], cases: list[str], ending: str) -> dict[str, Path]:
    """Case -> the file of the first run that has one."""
    return {
        case: path
        for case in cases
        for run in reversed(runs)  # the first one's replaces the others'
        if (path := run / HELD_OUT / f"{case}{ending}").is_file()
    }


def _confusion(folder: Path, predictions: dict[str, Path], classes: Classes) -> np.ndarray | None:
    counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
    for case, path in predictions.items():
        saved = load_case(folder / FOLDER / case)
        if saved is not None:
            prediction = saved.comparable(load_arrays(path)["prediction"])
            counts += confusion(prediction, saved.truth, len(classes))
    return counts if counts.any() else None


def _case_details(folder: Path, cases: list[str]) -> dict[str, CaseDetails]:
    """Hashes as the runs noted them when they were judged; sizes from the kept images."""
    details: dict[str, CaseDetails] = {}
    for file in sorted(folder.glob("*/*/seed-*/fold-*/held_out.json")):
        hashes = read_json(file).inner("cases")
        for case in hashes.data:
            image, label = hashes.get(case, Rule(str, length=2))
            if case in cases:
                details.setdefault(case, {"image_sha256": image, "label_sha256": label})
    return details
