"""The folder of an evaluation or a cross-validation as the contents of a report."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, pairwise
from pathlib import Path
from typing import cast

import numpy as np

from attunet.benchmarks.evaluation.details import FILE as DETAILS
from attunet.benchmarks.evaluation.details import CaseDetails, EvaluationDetails, ModelDetails, as_card, curves_of
from attunet.benchmarks.evaluation.results_table import model_label, selection, unit_notes
from attunet.benchmarks.evaluation.saved_cases import ATTENTION, FOLDER, HELD_OUT, load_arrays, load_case, worst_first
from attunet.benchmarks.evaluation.scores import SCORES
from attunet.benchmarks.report.contents import Contents, ModelRow
from attunet.classes import Classes
from attunet.errors import InputError
from attunet.fields import Fields, Rule, is_file_name, read_json, shown
from attunet.metrics.aggregate import is_score
from attunet.metrics.overlap import confusion
from attunet.metrics.results import CrossvalidationResults, EvaluatedRow, EvaluationResults, MethodRow
from attunet.runs.run_folder import read_metrics
from attunet.system.outputs import RESULTS
from attunet.system.plain_text import named

EVALUATION, CROSSVALIDATION = 2, 4  # schemas of results.json


def read_contents(folder: Path) -> Contents:
    """Raises InputError for a folder that is neither an evaluation nor a cross-validation,
    and for one of another version.
    """
    file = folder / RESULTS
    if not file.is_file():
        raise InputError(f"{folder}: must be the folder of an evaluation or a cross-validation; it has no results.json")
    _require_own_files(folder)
    results = read_json(file).data
    schema = CROSSVALIDATION if "methods" in results else EVALUATION
    if results.get("schema") != schema:
        raise InputError(f"{file}: the version must be {schema}, got {results.get('schema')!r}; evaluate again")
    with damaged(file):
        if "methods" in results:
            compared = cast(CrossvalidationResults, results)
            _require_file_names(file, chain(*compared["store"]["folds"].values()))
            _require_file_names(file, (name for row in compared["methods"] for name in (row["recipe"], row["model"])))
            return _checked(file, _of_crossvalidation(folder, compared))
        evaluated = cast(EvaluationResults, results)
        _require_file_names(file, evaluated["store"]["cases"])
        _require_file_names(file, (name for row in evaluated["models"] for name in row["dice"]["per_case"]))
        return _checked(file, _of_evaluation(folder, evaluated))


def _require_own_files(folder: Path) -> None:
    """Raises InputError for a link out of the folder: what it leads to would be in a page that is handed on. Logs, to
    which trackers link, are read by no report.
    """
    inside = Path(os.path.realpath(folder))
    for path in folder.rglob("*"):
        is_read = path.is_symlink() and (path.suffix != ".log" or path.is_dir())
        if is_read and not Path(os.path.realpath(path)).is_relative_to(inside):
            raise InputError(f"{path}: leads out of {folder}, of which alone a report is made: put the files there")


def _worst_first(cases: Sequence[str], models: Sequence[ModelRow]) -> tuple[str, ...]:
    """Cases by their mean Dice over all models; equal ones by name."""
    return tuple(worst_first({case: [[model.case_mean(case)] for model in models] for case in sorted(cases)}))


def _checked(file: Path, contents: Contents) -> Contents:
    """The contents. Raises InputError for a figure that its metric cannot have."""
    for metric, score in (item for model in contents.models for item in model.scores.items()):
        by_case = (value for row in score["per_case"].values() for value in row.values())
        interval = score["ci95"] or ()
        if any(low > high for low, high in pairwise(interval)):
            raise InputError(f"{file}: is damaged: ci95 must be two ascending numbers, got {list(interval)}")
        for value in (score["mean"], *interval, *score["per_class"].values(), *by_case):
            if not is_score(metric, value):
                raise InputError(f"{file}: is damaged: {metric} cannot be {shown(value)}; evaluate again")
    return contents


def _require_file_names(file: Path, names: Iterable[str]) -> None:
    """Raises InputError for a name of a case, a recipe or a network that leads to another folder."""
    for name in names:
        if not is_file_name(name):
            raise InputError(f"{file}: is damaged: {shown(name)} must be a plain file name; evaluate again")


@contextmanager
def damaged(file: Path) -> Iterator[None]:
    """Raises InputError where a value of the results has another type or is missing."""
    try:
        yield
    except InputError:
        raise
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, ArithmeticError) as error:
        raise InputError(f"{file}: is damaged: {type(error).__name__} {error}; evaluate again") from error


def _of_evaluation(folder: Path, results: EvaluationResults) -> Contents:
    """Contents from results.json and, for cards, curves and hashes, details.json if there is one."""
    details: EvaluationDetails = {"schema": EVALUATION, "models": {}, "cases": {}, "commands": {}}
    if (folder / DETAILS).is_file():
        details = cast(EvaluationDetails, {**details, **read_json(folder / DETAILS).data})
    models = [
        _evaluated_row(folder, index, row, details["models"].get(model_label(row), {}))
        for index, row in enumerate(results["models"])
    ]
    store, cases = results["store"], results["store"]["cases"]
    commands = [
        details["commands"].get("prepare"),
        *(model.details.get("command") for model in models if model.details),
        details["commands"].get("evaluate"),
    ]
    about = f"{len(cases)} case{'s' if len(cases) > 1 else ''}: {selection(store['fold'])}"
    return Contents(
        kind="evaluation",
        folder=folder,
        store=store["name"],
        classes=Classes.from_json(Fields(store, "store").rows("classes")),
        cases=_worst_first(cases, models),
        models=tuple(models),
        comparisons=tuple(results["comparisons"]),
        environment=results["environment"],
        case_details=details["cases"],
        commands=tuple(dict.fromkeys(line for line in commands if line)),
        about=". ".join([about, *unit_notes(store["unit"])]),
    )


def _evaluated_row(folder: Path, index: int, row: EvaluatedRow, details: ModelDetails) -> ModelRow:
    label, cases = model_label(row), row["dice"]["per_case"]
    curves = details.get("curves")

    def files(name: str) -> dict[str, Path]:
        paths = {case: folder / FOLDER / case / f"{name}-{index}.npz" for case in cases}
        return {case: path for case, path in paths.items() if path.is_file()}

    return ModelRow(
        label=label,
        scores={metric: row[metric] for metric in SCORES},
        speed=row,
        confusion=np.array(row["confusion"]),
        seen=frozenset(row["seen_cases"]),
        predictions=files("prediction"),
        attention=files("attention"),
        curves={label: curves} if curves else {},
        details=details,
    )


def _of_crossvalidation(folder: Path, results: CrossvalidationResults) -> Contents:
    """Contents from results.json and, for label maps, curves and hashes, the runs below the folder."""
    store, seeds = results["store"], results["seeds"]
    classes = Classes.from_json(Fields(store, "store").rows("classes"))
    cases = [case for fold in store["folds"].values() for case in fold]
    methods = [method for method in results["methods"] if method["configured"] and method["num_runs"]]
    models = [_method_row(folder, method, cases, classes, results) for method in methods]
    runs = [run for method in methods for run in _runs(folder, method, results)]
    labels = {model.label for model in models}
    return Contents(
        kind="cross-validation",
        folder=folder,
        store=store["name"],
        classes=classes,
        cases=_worst_first(cases, models),
        models=tuple(models),
        comparisons=tuple(c for c in results["comparisons"] if c["first"] in labels and c["second"] in labels),
        environment=results["environment"],
        case_details=_case_details(runs, cases),
        commands=tuple(results["commands"]),
        about=f"{len(cases)} cases of {store['num_patients']} patients in {len(store['folds'])} folds, "
        f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}; every case is judged by networks that were trained without "
        f"its patient{_missing(results)}{''.join(f'. {line}' for line in unit_notes(store['unit']))}",
    )


def _missing(results: CrossvalidationResults) -> str:
    names = [missing["run"] for missing in results["missing"]]
    if not names:
        return ""
    unfinished = f"{len(names)} of {results['num_runs']} trainings are not finished"
    return f"; {unfinished}, so not every case is judged: {named(names)} missing"


def _runs(folder: Path, method: MethodRow, results: CrossvalidationResults) -> list[Path]:
    """The trainings of a network and recipe that the results are of, those of the lowest seed first; the folder may
    have others of earlier calls.
    """
    own = folder / method["recipe"] / method["model"]
    planned = [(seed, fold) for seed in results["seeds"] for fold in results["store"]["folds"]]
    return [path for seed, fold in planned if (path := own / f"seed-{int(seed)}" / f"fold-{int(fold)}").is_dir()]


def _method_row(
    folder: Path, method: MethodRow, cases: list[str], classes: Classes, results: CrossvalidationResults
) -> ModelRow:
    runs, recipe = _runs(folder, method, results), results["recipes"][method["recipe"]]
    settings = recipe | {"model": recipe["model"] | {"name": method["model"]}}  # it is noted with its first network
    predictions = _first_file(runs, cases, HELD_OUT)
    curves = {_name(run): curves_of(read_metrics(run)) for run in runs}
    return ModelRow(
        label=method["name"],
        scores={metric: method["scores"][metric] for metric in SCORES},
        confusion=_confusion(folder, predictions, classes),
        predictions=predictions,
        attention=_first_file(runs, cases, ATTENTION),
        curves={f"{method['name']} {name}": rows for name, rows in curves.items() if rows},
        time_to_accuracy=method["time_to_accuracy"],
        details={"card": _card(method, runs), "settings": settings},
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


def _first_file(runs: list[Path], cases: list[str], place: str) -> dict[str, Path]:
    """Case -> the file of the first run that has one in its folder `place`."""
    return {
        case: path
        for case in cases
        for run in reversed(runs)  # the first one's replaces the others'
        if (path := run / place / f"{case}.npz").is_file()
    }


def _confusion(folder: Path, predictions: dict[str, Path], classes: Classes) -> np.ndarray | None:
    counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
    for case, path in predictions.items():
        saved = load_case(folder / FOLDER / case)
        if saved is not None:
            prediction = saved.comparable(load_arrays(path)["prediction"])
            counts += confusion(prediction, saved.truth, len(classes))
    return counts if counts.any() else None


def _case_details(runs: Iterable[Path], cases: list[str]) -> dict[str, CaseDetails]:
    """Hashes as the runs noted them when they were judged."""
    details: dict[str, CaseDetails] = {}
    for file in filter(Path.is_file, (run / "held_out.json" for run in runs)):
        hashes = read_json(file).inner("cases")
        for case in hashes.data:
            image, label = hashes.get(case, Rule(str, length=2))
            if case in cases:
                details.setdefault(case, {"image_sha256": image, "label_sha256": label})
    return details
