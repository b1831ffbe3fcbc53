"""The frame of every benchmark program: output options, percentiles, a table, one JSON line, errors in one line."""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from attunet.benchmarks import program
from attunet.benchmarks.evaluation.results_table import Json, format_table
from attunet.system.atomic_files import write_text


def percentile_fields(
    values: np.ndarray | Sequence[float], name: str, percentiles: Sequence[int] = (20, 50, 80)
) -> dict[str, float]:
    """Percentiles of the values as fields of a row; `name` has a place for the percentile: "ms_p{}"."""
    return {name.format(p): float(np.percentile(values, p)) for p in percentiles}


def numbers(text: str) -> list[int]:
    """The value of an option of comma-separated integers from 1."""
    values = [int(word) for word in text.split(",")]
    if min(values) < 1:
        raise argparse.ArgumentTypeError(f"must be integers of at least 1, got {text!r}")
    return values


def last_line(printed: str) -> str:
    """The last line that a process printed, for its error."""
    return (printed.strip().splitlines() or ["no message"])[-1]


def seconds_of(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def keep(results: Json, file: Path | None) -> None:
    """Writes the results so far, where a file is wanted: those of a program that is ended early stay."""
    if file is not None:
        write_text(file, json.dumps(results, indent=1) + "\n")


def table_with_skipped(results: Json, columns: Mapping[str, str]) -> str:
    """The rows, and below them what could not be measured."""
    skipped = [f"skipped: {name}: {reason}" for name, reason in results["skipped"].items()]
    return "\n".join([format_table(results["rows"], columns), *skipped])


def program_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with `--json`."""
    parser = program.program_parser(description)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also writes the JSON to a file")
    return parser


def choices(options: argparse.Namespace) -> Json:
    """The benchmark's own options, for the function that measures."""
    return {name: value for name, value in vars(options).items() if name != "json"}


def add_device(parser: argparse.ArgumentParser) -> None:
    """`--device`, a GPU's where there is one."""
    import torch

    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=("cpu", "cuda"), default=default)


def run_program(
    name: str,
    parser: argparse.ArgumentParser,
    measure: Callable[[argparse.Namespace], Json],
    table: Callable[[Json], str],
) -> tuple[argparse.Namespace, Json]:
    """Prints the measurements as a table and as one JSON line with the command that made them. Returns the options and
    the results; exits with 1 or 2 after an error.

    Args:
        name: the module below `attunet.benchmarks.speed`.
        parser: a `program_parser`.
        measure: the options -> the results.
        table: formats the results for a terminal.
    """
    options = parser.parse_args()
    with program.running(sys.stderr):
        measured = measure(options)
    command = shlex.join(["python", "-m", f"attunet.benchmarks.speed.{name}", *sys.argv[1:]])
    results = {"schema": 1, "command": command, **measured}
    print(table(results))
    print(json.dumps(results))
    keep(results, options.json)
    return options, results
