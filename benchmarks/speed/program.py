"""The frame of every benchmark program: output options, rows of timings, a table, one JSON line, errors in one line."""

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypedDict, TypeVar, cast

import numpy as np

from attunet.benchmarks.evaluation.results_table import aligned
from attunet.errors import InputError, RunError
from attunet.system.atomic_files import write_text
from attunet.system.log_lines import forward_log

Results = TypeVar("Results", bound=Mapping[str, object])  # JSON values


def percentile_fields(
    values: np.ndarray | Sequence[float], name: str, percentiles: Sequence[int] = (20, 50, 80)
) -> dict[str, float]:
    """Percentiles of the values as fields of a row; `name` has a place for the percentile: "ms_p{}"."""
    return {name.format(p): float(np.percentile(values, p)) for p in percentiles}


def format_table(rows: Iterable[Mapping[str, object]], columns: Mapping[str, str], missing: str = "-") -> str:
    """Aligned text. columns: header -> format of its cells, "{p50_ms:.2f}"; `missing` stands for None."""
    shown = [[_cell(row, template, missing) for template in columns.values()] for row in rows]
    return aligned([list(columns), *shown])


def _cell(row: Mapping[str, object], template: str, missing: str) -> str:
    try:
        return template.format_map(row)
    except TypeError:  # None has no format of numbers
        return missing


def numbers(text: str) -> list[int]:
    """The value of an option of comma-separated integers from 1."""
    values = [int(word) for word in text.split(",")]
    if min(values) < 1:
        raise argparse.ArgumentTypeError(f"must be integers of at least 1, got {text!r}")
    return values


def last_line(printed: str) -> str:
    """The last line that a process printed, for its error."""
    return (printed.strip().splitlines() or ["no message"])[-1]


class LatencyRow(TypedDict):
    """Repeated calls on a batch of slices."""

    runs: int
    p20_ms: float
    p50_ms: float
    p80_ms: float
    p95_ms: float
    p99_ms: float
    slices_per_s: float


LATENCY_COLUMNS = {
    **{f"{p} ms": f"{{{p}_ms:.2f}}" for p in ("p50", "p95", "p99")},
    "slices/s": "{slices_per_s:.1f}",
    "runs": "{runs}",
}


def latency_row(seconds: np.ndarray, batch_size: int) -> LatencyRow:
    """The fields of a row for the seconds of repeated calls on `batch_size` slices."""
    milliseconds = percentile_fields(1000 * seconds, "p{}_ms", (20, 50, 80, 95, 99))
    throughput = float(batch_size * len(seconds) / seconds.sum())
    return cast(LatencyRow, {"runs": len(seconds), **milliseconds, "slices_per_s": throughput})


def keep(results: Results, file: Path | None) -> None:
    """Writes the results so far, where a file is wanted: those of a program that is ended early stay."""
    if file is not None:
        write_text(file, json.dumps(results, indent=1) + "\n")


def program_parser(description: str | None, *, plot: bool = False) -> argparse.ArgumentParser:
    """A parser with `--json` and, where the benchmark draws, `--plot`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also writes the JSON to a file")
    if plot:
        parser.add_argument("--plot", type=Path, metavar="FILE.png", help="also draws a picture")
    return parser


def run_program(
    name: str,
    arguments: argparse.Namespace,
    measure: Callable[[], Results],
    table: Callable[[Results], str],
    draw: Callable[[Results, Path], object] | None = None,
) -> None:
    """Prints the measurements as a table and as one JSON line with the command that made them.
    Exits with 1 or 2 after an error.

    Args:
        name: the module below `attunet.benchmarks.speed`.
        arguments: of a `program_parser`.
        measure: returns the results as JSON values.
        table: formats the results for a terminal.
        draw: draws the results into a picture; None where there is no `--plot`.

    Example:
        >>> run_program("operations.gate", parser.parse_args(), lambda: benchmark(settings), table)  # doctest: +SKIP
    """
    try:
        with forward_log(lambda line: print(line, file=sys.stderr)):
            measured = measure()
    except (InputError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)
    command = shlex.join(["python", "-m", f"attunet.benchmarks.speed.{name}", *sys.argv[1:]])
    results = cast(Results, {"schema": 1, "command": command, **measured})
    print(table(results))
    print(json.dumps(results))
    keep(results, arguments.json)
    if draw is not None and arguments.plot:
        draw(results, arguments.plot)
