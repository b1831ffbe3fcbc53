"""`attunet demo`: prepare, train, export and evaluate in one call, on generated cases or the user's own."""

import json
import logging
from pathlib import Path

from attunet.benchmarks.program import require_same_call
from attunet.config import MODELS, Config
from attunet.errors import InputError
from attunet.launch.commands.inspect import draw_store
from attunet.metrics.results import EvaluationResults
from attunet.presets import with_model
from attunet.store import open_store

logger = logging.getLogger(__name__)

FOLDS, FOLD = 3, 0
PHANTOM_SEED = 0
LATENCY_SECONDS = 2.0


def run_demo(out: Path, *, data: Path | None, num_cases: int, config: Config) -> EvaluationResults:
    """Source, store, two runs, two artefacts and their evaluation on a third of the patients, kept out of training;
    returns the results. A finished folder is only reported, an interrupted one continued, one that was made of other
    data or settings is an InputError.
    """
    from attunet.benchmarks.evaluation.evaluate import evaluate
    from attunet.export.build.export_run import export_run
    from attunet.phantom import write_phantom
    from attunet.preparation.prepare import prepare
    from attunet.training.loop import train

    results_file = out / "evaluation" / "results.json"
    note = out / "demo.json"
    # Hidden are the lock of this call, where it lies in the folder, and what one that was killed at its first file left
    if not note.exists() and out.exists() and (not out.is_dir() or any(out.glob("[!.]*"))):
        raise InputError(f"{out}: must be a new or an empty folder, or that of an earlier demo")
    cases = str(data.resolve()) if data else f"{num_cases} generated cases"
    require_same_call(note, {"data": cases, "config": config.to_json()})
    if results_file.exists():
        results: EvaluationResults = json.loads(results_file.read_text(encoding="utf-8"))
        logger.info(f"{out}: this demo is finished; remove the folder, or name another one, to run it again")
        _log_table(results)
        _finish(out)
        return results
    source, store = data or out / "source", out / "store"
    if data is None and not source.exists():
        logger.info(f"== generating {num_cases} cases")
        write_phantom(source, cases=num_cases, seed=PHANTOM_SEED)
    logger.info("== preparing")
    prepare(source, store, config.data, folds=FOLDS)
    artefacts = []
    for name in MODELS:
        logger.info(f"== training {name}")
        run = out / "runs" / name
        train(store, run, with_model(config, name), fold=FOLD, resume="auto")
        artefacts.append(out / "models" / f"{name}.onnx")
        export_run(run, artefacts[-1])
    logger.info("== evaluating")
    runs = [out / "runs" / name for name in MODELS]
    results = evaluate(store, [*runs, *artefacts], out / "evaluation", fold=FOLD, latency_seconds=LATENCY_SECONDS)
    _log_table(results)
    logger.info(f"models: {', '.join(map(str, artefacts))}")
    _finish(out)
    return results


def _log_table(results: EvaluationResults) -> None:
    from attunet.benchmarks.evaluation.results_table import summary_table

    # The log has no line breaks: a name must not make a line of its own
    for line in ("", *summary_table(results).splitlines(), ""):
        logger.info(line)


def _finish(out: Path) -> None:
    """The picture of all cases and the report, unless they are there already, and where to find them."""
    from attunet.benchmarks.report.write_report import write_report_if_installed

    evaluation = out / "evaluation"
    if not (sheet := evaluation / "plots" / "cases.png").exists():
        opened = open_store(out / "store")
        draw_store(opened, sheet, f"{len(opened.cases)} cases")
    for picture in sorted((evaluation / "plots").glob("*.png")):
        logger.info(f"picture: {picture}")
    report = evaluation / "report.html"
    if report.exists() or write_report_if_installed(evaluation):
        logger.info(f"open it in a browser: {report.resolve().as_uri()}")
