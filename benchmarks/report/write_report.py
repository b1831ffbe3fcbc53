"""`attunet report`: an evaluation or a cross-validation as one HTML file that needs no network and no server."""

import logging
from importlib import resources
from pathlib import Path

from attunet.benchmarks.report.answer import answer
from attunet.benchmarks.report.bundles import HOW_TO_INSTALL, load_bundles, missing_packages, script_json
from attunet.benchmarks.report.case_data import CaseData, case_data, choose_cases
from attunet.benchmarks.report.contents import Contents
from attunet.benchmarks.report.figures import figures
from attunet.benchmarks.report.read_contents import damaged, read_contents
from attunet.benchmarks.report.tables import cases_table, data_table, models_table, organs_table
from attunet.errors import InputError
from attunet.system.atomic_files import write_error, write_text
from attunet.system.lock import writing
from attunet.system.outputs import RESULTS, require_ending
from attunet.system.plain_text import printable
from attunet.version import __version__

logger = logging.getLogger(__name__)

DEFAULT_CASES = "worst:3"
STYLES = ("report.css", "cases.css")
SCRIPTS = ("page.js", "volumes.js", "outlines.js", "viewer.js", "charts.js", "browser.js", "start.js")


def write_report(folder: str | Path, out: str | Path | None = None, *, cases: str = DEFAULT_CASES) -> Path:
    """Writes the report of an evaluation or a cross-validation, and returns its path. Raises InputError for another
    folder, an unknown case, and where the extra `report` is not installed.

    Args:
        folder: what `attunet evaluate` or `attunet crossvalidate` wrote.
        out: the file to write; `report.html` in the folder by default.
        cases: that can be looked at slice by slice: `worst:N`, `all`, or names joined by commas. They make up most
            of the file.
    """
    folder = Path(folder)
    out = folder / "report.html" if out is None else Path(out)
    require_ending(out, ".html")
    if not folder.is_dir() or out.resolve().parent != folder.resolve():
        return _write(folder, out, cases)
    with writing(folder, "report"):  # the results in the folder stay those that are drawn
        return _write(folder, out, cases)


def _write(folder: Path, out: Path, cases: str) -> Path:
    contents = read_contents(folder)
    chosen = choose_cases(contents, cases)
    with damaged(folder / RESULTS):
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
    """As `write_report`, at the end of work that is done without a report too: where there is none, one line says why,
    and None is returned.
    """
    if absent := missing_packages():
        logger.info(f"no report: {', '.join(absent)} not installed ({HOW_TO_INSTALL}, then: attunet report {folder})")
        return None
    try:
        return write_report(folder)
    except InputError as error:  # a link out of the folder, as of runs on another disk
        logger.warning(f"no report: {error}")
        return None


def _render(contents: Contents, cases: list[CaseData]) -> str:
    bundles = load_bundles()  # first: it names the packages that are missing, jinja2 too
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
        "bundles": bundles,
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
