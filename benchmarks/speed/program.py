"""What every benchmark's program does around its measurement: options for output, a table, one JSON line, errors in one line."""

import argparse
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attunet.errors import InputError, RunError
from attunet.system.atomic_files import write_text
from attunet.system.log_lines import forward_log

Results = dict[str, Any]


def add_output_options(parser: argparse.ArgumentParser, *, plot: bool = False) -> None:
    """`--json` and, where the benchmark draws, `--plot`."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="also writes the JSON to a file")
    if plot:
        parser.add_argument("--plot", type=Path, metavar="FILE.png", help="also draws a picture")


def run_program(
    name: str,
    arguments: argparse.Namespace,
    measure: Callable[[], Results],
    table: Callable[[Results], str],
    draw: Callable[[Results, Path], object] | None = None,
) -> None:
    """Prints what `measure` gives as a table and as one JSON line, with the command that gave it. Exits with 1 or 2 after an error.

    name: of the module below `attunet.benchmarks.speed`.
    """
    try:
        with forward_log(lambda line: print(line, file=sys.stderr)):
            measured = measure()
    except (InputError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)
    results = {"schema": 1, "command": shlex.join(["python", "-m", f"attunet.benchmarks.speed.{name}", *sys.argv[1:]]), **measured}
    print(table(results))
    print(json.dumps(results))
    if arguments.json:
        write_text(arguments.json, json.dumps(results, indent=1) + "\n")
    if draw is not None and arguments.plot:
        draw(results, arguments.plot)
