"""Latency of one network in every form, or of runs and artefacts as they are:
`python -m attunet.benchmarks.speed.inference.sweep [MODEL...] [--width 64] [--size 256] [--threads 2] [--device cpu]`.

Without a MODEL it times PyTorch, bare ONNX Runtime sessions and the runtime's `Segmenter`, which compute one network
with random weights, or a run's (`--run`). The rows have int8 beside fp32, the runtime beside a bare session,
up-sampling by transposed convolution beside a pixel shuffle. Accuracy is `attunet evaluate`'s; here logits are only
compared, so that no form is timed that computes something else. All is timed in one process and in turns, the first
pass of each apart. Prints a table and one JSON line.
"""

import argparse
import logging
import math
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from attunet.benchmarks.evaluation.models import load_models
from attunet.benchmarks.evaluation.results_table import Json
from attunet.benchmarks.evaluation.timing import WARM_UP_RUNS, time_interleaved
from attunet.benchmarks.speed.inference.forms import Form, Make, Subject, fresh_network, on_cpu, on_gpu
from attunet.benchmarks.speed.program import (
    keep,
    percentile_fields,
    program_parser,
    run_program,
    seconds_of,
    table_with_skipped,
)
from attunet.config import MODELS
from attunet.errors import InputError, RunError, one_line
from attunet.system.environment import environment
from attunet.system.private_folder import PrivateFolder
from attunet.system.workers import usable_cores

logger = logging.getLogger(__name__)

COLUMNS = {
    "": "{name}",
    "batch": "{shape[0]}",
    **{f"{p} ms": f"{{{p}_ms:.2f}}" for p in ("p50", "p95", "p99")},
    "slices/s": "{slices_per_s:.1f}",
    "runs": "{runs}",
    "× first": "{times_the_first:.2f}",
    "logits differ by": "{logits_differ_by:.1e}",
}


def measure(
    makers: Mapping[str, Make],
    settings: Json,
    *,
    batch_sizes: Sequence[int],
    runs: int = 200,
    seconds: float = math.inf,
    file: Path | None = None,
) -> Json:
    """A row for each form and batch size. A form that does not load, or fails in its first pass, is in `skipped`, with
    the reason; `file` is written again after every batch size.

    Args:
        settings: of the forms, for the results.
        runs: timed runs of each row, fewer where they take longer than `seconds`.

    Example:
        >>> measure(on_cpu(subject, num_threads=2), {}, batch_sizes=[1, 8], runs=20)  # doctest: +SKIP
    """
    forms, skipped, load_ms = _load(makers)
    if not forms:
        raise RunError("inference: nothing could be loaded")
    limits = {"runs": runs, "seconds": seconds if math.isfinite(seconds) else None, "warm_up_runs": WARM_UP_RUNS}
    results: Json = {
        "environment": environment(),
        "settings": {**settings, **limits},
        "skipped": skipped,
        "load_ms": load_ms,
        "rows": [],
    }
    for batch in batch_sizes:
        results["rows"] += _time(forms, batch, runs, seconds, skipped)
        keep(results, file)
    return results


def _load(makers: Mapping[str, Make]) -> tuple[dict[str, Form], dict[str, str], dict[str, float]]:
    """The forms that load, the reasons of the others, and the milliseconds that loading took."""
    forms: dict[str, Form] = {}
    skipped, load_ms = {}, {}
    for name, make in makers.items():
        began = time.perf_counter()
        try:
            forms[name] = make()
        except (InputError, RunError) as error:
            skipped[name] = str(error)
            logger.info(f"skipped: {name}: {error}")
        else:
            load_ms[name] = 1000 * (time.perf_counter() - began)
    return forms, skipped, load_ms


def _time(forms: Mapping[str, Form], batch_size: int, runs: int, seconds: float, skipped: dict[str, str]) -> list[Json]:
    """Rows of one batch size; the forms take turns after the first pass of each, in which libraries compile and choose
    their algorithms.
    """
    calls, first_ms = {}, {}
    for name, form in forms.items():
        try:
            calls[name] = call = form.timed_call(form.slices(batch_size))
            first_ms[name] = 1000 * seconds_of(call)
        except Exception as error:  # of torch, Triton or ONNX Runtime, which share no other base
            calls.pop(name, None)
            skipped[f"{name}, batch {batch_size}"] = one_line(error)
    timed = time_interleaved(list(calls.values()), seconds=seconds, max_runs=runs)
    expected: np.ndarray | None = None
    rows = []
    for name, times in zip(calls, timed, strict=True):
        form, slices = forms[name], forms[name].slices(batch_size)
        logits = None if form.logits is None else form.logits(slices)
        expected = logits if expected is None else expected
        rows.append(
            {
                "name": name,
                "options": {**form.options},
                "shape": list(slices.shape),
                "first_ms": first_ms[name],
                "runs": len(times),
                **percentile_fields(1000 * times, "p{}_ms", (20, 50, 80, 95, 99)),
                "slices_per_s": float(batch_size * len(times) / times.sum()),
                "times_the_first": float(np.median(timed[0]) / np.median(times)),
                "logits_differ_by": None if logits is None or expected is None else _difference(logits, expected),
            }
        )
    return rows


def _difference(logits: np.ndarray, expected: np.ndarray) -> float:
    """The root mean square of the difference, relative to that of the expected logits."""
    return float(np.sqrt(np.mean(np.square(logits - expected)) / np.mean(np.square(expected))))


def table(results: Json) -> str:
    return table_with_skipped(results, COLUMNS)


def main() -> None:
    parser = program_parser("Latency of one network in every form, or of runs and artefacts, timed in turns.")
    parser.add_argument("models", nargs="*", type=Path, metavar="MODEL", help="a run or an .onnx, timed as it is")
    parser.add_argument(
        "--provider", dest="providers", action="append", help="of artefacts, cpu by default; may be repeated"
    )
    parser.add_argument("--run", type=Path, help="a trained run's network in every form instead of random weights")
    parser.add_argument("--model", choices=list(MODELS), default="attention_unet")
    parser.add_argument("--width", type=int, default=64, help="channels of the finest level, 64 by default")
    parser.add_argument("--size", type=int, default=256, help="of the square slices, 256 by default")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="of the forms and of runs")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="of the CPU, all usable cores by default")
    parser.add_argument("--batch-sizes", type=int, nargs="+", help="1 and 8 by default, on a GPU 1 and 32")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="one row of the table; may be repeated"
    )
    parser.add_argument("--runs", type=int, default=200, help="timed runs of each row, 200 by default")
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="ends a row after so long with fewer runs; no limit by default"
    )
    run_program("inference.sweep", parser, _measured, table)


def _measured(options: argparse.Namespace) -> Json:
    on_cuda = options.device == "cuda"
    settings: Json = {"device": options.device, "threads": None if on_cuda else options.threads}
    with PrivateFolder() as folder:
        if options.models:
            makers = _models(options)
        else:
            subject = _subject(options, folder.path)
            settings |= {"size": list(subject.size), "num_parameters": subject.num_parameters}
            makers = on_gpu(subject) if on_cuda else on_cpu(subject, num_threads=options.threads)
        return measure(
            only_named(makers, options.only),
            settings,
            batch_sizes=options.batch_sizes or ([1, 32] if on_cuda else [1, 8]),
            runs=options.runs,
            seconds=options.seconds,
            file=options.json,
        )


def only_named(makers: Mapping[str, Make], names: Sequence[str]) -> dict[str, Make]:
    """The forms of `--only`, all without a name."""
    if unknown := [name for name in names if name not in makers]:
        raise InputError(f"--only: must be of {'; '.join(makers)}, got {unknown[0]!r}")
    return {name: makers[name] for name in names or makers}


def _models(options: argparse.Namespace) -> dict[str, Make]:
    loaded = load_models(
        options.models, providers=options.providers or ["cpu"], device=options.device, num_threads=options.threads
    )
    return {one.label: partial(Form, one.timed_call, one.random_slices, options=one.options) for one in loaded}


def _subject(options: argparse.Namespace, folder: Path) -> Subject:
    if options.run is None:
        width, size = options.width, options.size
        if width < 1 or size < 16 or size % 16:
            raise InputError(f"--width, --size: must be at least 1 and a multiple of 16, got {width} and {size}")
        return Subject(fresh_network(options.model, width=width), (size, size), folder)
    from attunet.runs.ensemble import load_runs

    run = load_runs(options.run)
    return Subject(run.network.eval(), run.spec.size, folder, run.spec.in_channels, len(run.classes))


if __name__ == "__main__":
    main()
