"""`attunet benchmark`: every precision, provider and kind of graph of one model in one table,
and the reasons of those that do not load.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from attunet.benchmarks.evaluation.evaluate import evaluate_loaded
from attunet.benchmarks.evaluation.models import BATCH_SIZES, EvaluatedModel, check_seconds, load_models
from attunet.benchmarks.evaluation.results_table import aligned, model_label, notes, number, table
from attunet.errors import InputError, RunError
from attunet.export.artefact.artefact import PRECISIONS
from attunet.export.artefact.artefact_file import read_artefact
from attunet.metrics.results import EvaluatedRow, EvaluationResults
from attunet.privacy.pseudonyms import pseudonyms
from attunet.store import open_store
from attunet.system.atomic_files import write_text
from attunet.system.lock import writing
from attunet.system.outputs import require_own_folder
from attunet.system.plain_text import printable_line, table_cell

if TYPE_CHECKING:  # needs torch, which a benchmark of artefacts does without
    from attunet.runs.load_run import TrainedRun

logger = logging.getLogger(__name__)

SCHEMA = 1


@dataclass(frozen=True)
class BenchmarkResults:
    """Results of an evaluation of everything that loaded."""

    results: EvaluationResults  # content of results.json
    not_loaded: dict[str, str]  # name of a row -> the reason

    def rows(self) -> list[list[str]]:
        """Cells of the table, the header first."""
        first, *_ = models = self.results["models"]
        batches = list(first["latency_ms"]["batch"])
        header = ["model", "MB", "Dice", "difference"]
        header += [f"ms at {batch}, {p}" for batch in batches for p in ("p50", "p99")]
        header += [*(f"slices/s at {batch}" for batch in batches), "volume ms", "memory MB"]
        return [header, *(_cells(row, first["dice"]["mean"]) for row in models)]

    def reasons(self) -> list[str]:
        return [printable_line(f"{name}: {reason}") for name, reason in self.not_loaded.items()]

    def table(self) -> str:
        lines = map(printable_line, notes(self.results))
        reasons = ["", "not loaded:", *self.reasons()] if self.not_loaded else []
        return "\n".join([aligned(self.rows()), *lines, *reasons])

    def markdown(self) -> str:
        header, *rows = self.rows()
        parts = [
            "# Benchmark",
            f"{len(self.results['store']['cases'])} cases. Dice in 3D on the native grid, mean over those that the "
            "model has not seen in training, and its difference to the first row; times of the network alone with "
            "input and output on its device (a whole graph resamples too), the models in turns; a volume from file "
            "to file.",
            table(header, rows),
            *map(table_cell, notes(self.results)),
        ]
        if self.not_loaded:
            parts += ["## Not loaded", "\n".join(f"- {table_cell(reason)}" for reason in self.reasons())]
        return "\n\n".join(parts) + "\n"


def _cells(row: EvaluatedRow, first_dice: float | None) -> list[str]:
    dice, latency = row["dice"]["mean"], row["latency_ms"]["batch"].values()
    return [
        model_label(row),
        number(row["file_mb"], 1),
        number(dice, 4),
        "–" if dice is None or first_dice is None else f"{dice - first_dice:+.4f}",
        *(number(milliseconds, 1) for one in latency for milliseconds in (one["p50"], one["p99"])),
        *(number(rate, 1) for rate in row["throughput_slices_per_s"]["batch"].values()),
        number(row["volume_ms"]["total"], 0),
        number(row["peak_memory_mb"], 0),
    ]


def benchmark(
    model: str | Path,
    store: str | Path,
    out: str | Path,
    *,
    providers: Sequence[str],
    precisions: Sequence[str] = PRECISIONS,
    batch_sizes: Sequence[int] = (),
    source: str | Path | None = None,
    latency_seconds: float = 2.0,
    pseudonymise: str | Path | None = None,
) -> BenchmarkResults:
    """Exports a run in every precision, as slices and whole, and evaluates each file with each provider.

    Args:
        model: a run, a folder of runs, or an artefact, which is evaluated as it is.
        out: folder for the artefacts (those of an earlier call for the run's checkpoint are not exported again),
            benchmark.json, benchmark.md, and the files of `evaluate`.
        batch_sizes: besides 1 and 8.
        source: where the store's source files are now, if they moved.
        latency_seconds: time for timing each model at each batch size.
        pseudonymise: a CSV file outside of `out` with the names of cases and patients; all that is written has their
            numbers.

    Raises:
        InputError: for a model that does not fit the store, for other artefacts in `out`, or if nothing loads.

    Example:
        >>> print(benchmark("run", "store", "out", providers=["cpu", "openvino"]).table())  # doctest: +SKIP
    """
    check_seconds(latency_seconds)
    model, out = Path(model), Path(out)
    if not model.exists():
        raise InputError(f"{model}: no such run or artefact")
    with writing(out, "benchmark") as lock:
        require_own_folder(out, "an evaluation")
        not_loaded: dict[str, str] = {}
        loaded: list[EvaluatedModel] = []
        files, fold = [model], None
        if model.is_dir():
            loaded += _load([model], ("cpu", "cuda"), not_loaded)
            files, fold = _export(model, store, out / "artefacts", precisions, source, pseudonymise, not_loaded)
        loaded += _load(files, providers, not_loaded)
        if not loaded:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in not_loaded.items())
            raise InputError(f"{model}: nothing loads; {reasons}")
        with pseudonyms(pseudonymise, [out]) as names:
            evaluated = evaluate_loaded(
                loaded,
                open_store(store, names, source=source),
                out,
                fold=fold,
                seconds=latency_seconds,
                batch_sizes=sorted({*BATCH_SIZES, *batch_sizes}),
                check=lock.check,
            )
        results = BenchmarkResults(evaluated, not_loaded)
        header, *rows = results.rows()
        data = {
            "schema": SCHEMA,
            "not_loaded": not_loaded,
            "header": header,
            "rows": rows,
            "notes": notes(evaluated),
        }
        write_text(out / "benchmark.json", json.dumps(data, indent=1) + "\n")
        write_text(out / "benchmark.md", results.markdown())
    return results


def _export(
    run: Path,
    store: str | Path,
    folder: Path,
    precisions: Sequence[str],
    source: str | Path | None,
    pseudonymise: str | Path | None,
    not_loaded: dict[str, str],
) -> tuple[list[Path], int | None]:
    """Artefacts of a run, and the fold that it held out. With numbers for names all are written anew, and those of
    other precisions go, since those of an earlier call may have names.
    """
    from attunet.export.build.export_run import export_run, of_store
    from attunet.runs.ensemble import load_runs

    loaded, files = load_runs(run), []

    def planned(names: Sequence[str]) -> dict[Path, tuple[str, bool]]:
        return {folder / f"{name}{'-whole' if w else ''}.onnx": (name, w) for name in names for w in (False, True)}

    plan = planned(precisions)
    there = {path: how for path, how in planned(PRECISIONS if pseudonymise else precisions).items() if path.exists()}
    for path, (precision, whole) in there.items():
        if not _is_of(path, loaded, precision, whole):
            raise InputError(
                f"{path}: is no {precision} artefact of {run} as this command exports it; name another folder than "
                f"{folder.parent}, or remove the file"
            )
    if there and not pseudonymise:  # the export of the others does so
        of_store(loaded, open_store(store, source=source))
    folder.mkdir(parents=True, exist_ok=True)
    for path, (precision, whole) in plan.items():
        try:
            if pseudonymise or not path.exists():
                export_run(
                    run, path, precision=precision, store=store, source=source, whole=whole, pseudonymise=pseudonymise
                )
            files.append(path)
        except RunError as error:
            not_loaded[path.stem] = str(error)
            logger.warning(str(error))
    for path in there.keys() - files if pseudonymise else ():
        path.unlink()
    return files, loaded.fold if isinstance(loaded.fold, int) else None


def _is_of(path: Path, run: "TrainedRun", precision: str, whole: bool) -> bool:
    """True for an artefact that an earlier call made of this checkpoint, not one with other options of `export`."""
    outputs = ("labels",) if whole else ("labels", "logits")
    expected = (run.checkpoint_sha256, precision, whole, run.preprocessing, outputs, None, None)
    try:
        about = read_artefact(path)
    except InputError:
        return False
    there = (about.checkpoint_sha256, about.precision, about.whole, about.preprocessing, about.outputs)
    return (*there, about.height, about.confidence) == expected


def _load(paths: Sequence[Path], providers: Sequence[str], not_loaded: dict[str, str]) -> list[EvaluatedModel]:
    loaded = []
    for path in paths:
        for provider in dict.fromkeys(providers):
            try:
                loaded += load_models([path], providers=(provider,), device=provider if path.is_dir() else "cpu")
            except (InputError, RunError) as error:
                not_loaded[f"{path.stem} on {provider}"] = str(error).removeprefix(f"{path}: ")
    return loaded
