"""`attunet report`: an evaluation or a cross-validation as one HTML file that needs no network and no server."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import resources
from itertools import chain
from pathlib import Path
from typing import cast

from attunet.benchmarks.report import of_crossvalidation, of_evaluation
from attunet.benchmarks.report.answer import answer
from attunet.benchmarks.report.bundles import HOW_TO_INSTALL, load_bundles, missing_packages, script_json
from attunet.benchmarks.report.case_data import CaseData, case_data, choose_cases
from attunet.benchmarks.report.contents import Contents
from attunet.benchmarks.report.figures import figures
from attunet.benchmarks.report.tables import cases_table, data_table, models_table, organs_table
from attunet.errors import InputError
from attunet.fields import is_file_name, read_json, shown
from attunet.metrics.aggregate import is_score
from attunet.metrics.results import CrossvalidationResults, EvaluationResults
from attunet.system.atomic_files import write_error, write_text
from attunet.system.outputs import require_ending
from attunet.system.plain_text import printable
from attunet.version import __version__

logger = logging.getLogger(__name__)

RESULTS = "results.json"
DEFAULT_CASES = "worst:3"
STYLES = ("report.css", "cases.css")
SCRIPTS = ("page.js", "volumes.js", "outlines.js", "viewer.js", "charts.js", "browser.js", "start.js")


def write_report(folder: str | Path, out: str | Path | None = None, *, cases: str = DEFAULT_CASES) -> Path:
    """Writes the report of an evaluation or a cross-validation.

    Args:
        folder: what `attunet evaluate` or `attunet crossvalidate` wrote.
        out: the file to write; `report.html` in the folder by default.
        cases: that can be looked at slice by slice: `worst:N`, `all`, or names joined by commas. They make up most
            of the file.

    Returns:
        The path of the file.

    Raises:
        InputError: for another folder, an unknown case, and where the extra `report` is not installed.
    """
    folder = Path(folder)
    contents = read_contents(folder)
    out = folder / "report.html" if out is None else Path(out)
    require_ending(out, ".html")
    chosen = choose_cases(contents, cases)
    with _damaged(folder / RESULTS):
        page = _render(contents, [case_data(contents, name, number) for number, name in enumerate(chosen)])
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, page)
    except OSError as error:
        raise write_error(out, error) from None
    shown = f"{len(chosen)} of {len(contents.cases)} cases to look at" if chosen else "no images were kept"
    logger.info(f"report: {out} ({out.stat().st_size / 1e6:.1f} MB, {shown})")
    return out


def write_report_if_installed(folder: Path) -> Path | None:
    """As `write_report`; one line says how to get what is missing, and None is returned."""
    if absent := missing_packages():
        logger.info(f"no report: {', '.join(absent)} not installed ({HOW_TO_INSTALL}, then: attunet report {folder})")
        return None
    return write_report(folder)


def read_contents(folder: Path) -> Contents:
    """Raises InputError for a folder that is neither an evaluation nor a cross-validation,
    and for one of another version.
    """
    file = folder / RESULTS
    if not file.is_file():
        raise InputError(f"{folder}: must be the folder of an evaluation or a cross-validation; it has no results.json")
    results = read_json(file).data
    schema = of_crossvalidation.SCHEMA if "methods" in results else of_evaluation.SCHEMA
    if results.get("schema") != schema:
        raise InputError(f"{file}: the version must be {schema}, got {results.get('schema')!r}; evaluate again")
    with _damaged(file):
        if "methods" in results:
            compared = cast(CrossvalidationResults, results)
            _require_file_names(file, chain(*compared["store"]["folds"].values()))
            _require_file_names(file, (name for row in compared["methods"] for name in (row["recipe"], row["model"])))
            return _checked(file, of_crossvalidation.contents_of(folder, compared))
        evaluated = cast(EvaluationResults, results)
        _require_file_names(file, evaluated["store"]["cases"])
        _require_file_names(file, (name for row in evaluated["models"] for name in row["dice"]["per_case"]))
        return _checked(file, of_evaluation.contents_of(folder, evaluated))


def _checked(file: Path, contents: Contents) -> Contents:
    """The contents. Raises InputError for a figure that its metric cannot have."""
    for metric, score in (item for model in contents.models for item in model.scores.items()):
        by_case = (value for row in score["per_case"].values() for value in row.values())
        for value in (score["mean"], *score["per_class"].values(), *by_case):
            if not is_score(metric, value):
                raise InputError(f"{file}: is damaged: {metric} cannot be {shown(value)}; evaluate again")
    return contents


def _require_file_names(file: Path, names: Iterable[str]) -> None:
    """Raises InputError for a name of a case, a recipe or a network that leads to another folder."""
    for name in names:
        if not is_file_name(name):
            raise InputError(f"{file}: is damaged: {shown(name)} must be a plain file name; evaluate again")


@contextmanager
def _damaged(file: Path) -> Iterator[None]:
    """Raises InputError where a value of the results has another type or is missing."""
    try:
        yield
    except InputError:
        raise
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, ArithmeticError) as error:
        raise InputError(f"{file}: is damaged: {type(error).__name__} {error}; evaluate again") from error


def _render(contents: Contents, cases: list[CaseData]) -> str:
    from jinja2 import Environment, FunctionLoader, StrictUndefined, UndefinedError

    environment = Environment(
        loader=FunctionLoader(_template),
        autoescape=True,
        finalize=lambda value: printable(value) if type(value) is str else value,  # not what is HTML already
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    charts = figures(contents)
    names = [str(case.about["name"]) for case in cases]
    class_colors = list(zip(contents.classes.foreground, contents.classes.colors[1:], strict=True))
    data = {
        "charts": {name: {"data": chart["data"], "layout": chart["layout"]} for name, chart in charts.items()},
        "cases": [case.about for case in cases],
        "classes": [{"name": name, "color": color} for name, color in class_colors],
    }
    values: dict[str, object] = {
        "contents": contents,
        "answer": answer(contents),
        "tables": {
            "models": models_table(contents),
            "organs": organs_table(contents),
            "cases": cases_table(contents, names),
            "data": data_table(contents),
        },
        "charts": charts,
        "confusions": [name for name in charts if name.startswith("confusion-")],
        "class_colors": class_colors,
        "licenses": sorted({text for m in contents.models if m.details and (text := m.details.get("license"))}),
        "cases": cases,
        "case_names": names,
        "bundles": load_bundles(),
        "styles": "".join(_template(name) for name in STYLES),
        "scripts": [_template(name) for name in SCRIPTS],
        "data": script_json(data),
        "version": __version__,
    }
    try:
        return environment.get_template("report.html").render(values)
    except UndefinedError as error:  # a value of the results is no object
        raise ValueError(str(error)) from None


def _template(name: str) -> str:
    return resources.files("attunet.benchmarks.report").joinpath("templates", name).read_text(encoding="utf-8")
