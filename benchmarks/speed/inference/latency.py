"""Latency over batch sizes and thread counts:
`python -m attunet.benchmarks.speed.inference.latency MODEL... [--batch-sizes 1,2,4] [--threads 1,2]`.

Prints a table and one JSON line. All models are measured in one process, in turns; the first one is what the others are
compared with. Loading and the first pass are timed apart.
"""

import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path

from attunet.benchmarks.evaluation.models import EvaluatedModel, load_models
from attunet.benchmarks.evaluation.results_table import Json, format_table
from attunet.benchmarks.speed.program import (
    LATENCY_COLUMNS,
    add_runs,
    choices,
    numbers,
    program_parser,
    rows_in_turns,
    run_program,
    timing_settings,
)
from attunet.system.environment import environment
from attunet.system.workers import usable_cores

logger = logging.getLogger(__name__)

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
COLUMNS = {
    "model": "{model}",
    "threads": "{threads}",
    "batch": "{shape[0]}",
    **LATENCY_COLUMNS,
    "speed-up": "{times_the_first_model:.2f}",
}


def sweep(
    models: Sequence[Path],
    *,
    providers: Sequence[str] | None = None,
    device: str = "cpu",
    batch_sizes: Sequence[int] = BATCH_SIZES,
    threads: Sequence[int | None] = (None,),
    runs: int = 200,
    seconds: float = math.inf,
) -> Json:
    """Times every model at every batch size and number of threads:
    `runs` times each, or as often as `seconds` allow (3 at least).

    Example:
        >>> sweep([Path("model.onnx")], batch_sizes=(1, 8), threads=(1, 2), seconds=5)  # doctest: +SKIP
    """
    rows: list[Json] = []
    load_ms = {}
    for count in threads:
        began = time.perf_counter()
        loaded = load_models(models, providers=providers or ["cpu"], device=device, num_threads=count)
        load_ms[str(count or "auto")] = 1000 * (time.perf_counter() - began)
        for batch_size in batch_sizes:
            rows += _time_batch(loaded, batch_size, count, runs, seconds)
            logger.info(
                f"{count or 'auto'} threads, batch {batch_size}: {rows[-1]['p50_ms']:.1f} ms ({rows[-1]['model']})"
            )
    settings = {**timing_settings(runs, seconds), "load_all_ms_by_threads": load_ms, "dtype": "float32"}
    return {"environment": environment(), "settings": settings, "rows": rows}


def _time_batch(
    loaded: Sequence[EvaluatedModel], batch_size: int, threads: int | None, runs: int, seconds: float
) -> list[Json]:
    calls = [one.timed_call(one.random_slices(batch_size)) for one in loaded]
    timed = rows_in_turns(calls, batch_size, "times_the_first_model", runs=runs, seconds=seconds)
    return [
        {
            "model": one.label,
            "provider_options": one.options,
            "threads": threads,
            "shape": [batch_size, one.model.spec.in_channels, *one.model.spec.size],
            **row,
        }
        for one, row in zip(loaded, timed, strict=True)
    ]


def table(results: Json) -> str:
    return format_table(({**row, "threads": row["threads"] or "auto"} for row in results["rows"]), COLUMNS)


def main() -> None:
    cores = usable_cores()
    counts = [n for n in (1, 2, 4, 8, 16, 32, 64) if n < cores] + [cores]
    parser = program_parser("Latency of runs and artefacts over batch sizes and thread counts.")
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL", help="a run or an .onnx")
    parser.add_argument(
        "--provider",
        dest="providers",
        action="append",
        help="for artefacts, cpu by default; may be repeated",
    )
    parser.add_argument("--device", default="cpu", help="for runs: cpu or cuda")
    parser.add_argument(
        "--batch-sizes", type=numbers, default=list(BATCH_SIZES), help="comma-separated, 1 to 64 by default"
    )
    parser.add_argument(
        "--threads", type=numbers, default=counts, help="comma-separated, powers of two up to the cores by default"
    )
    add_runs(parser)
    run_program("inference.latency", parser, lambda options: sweep(**choices(options)), table)


if __name__ == "__main__":
    main()
