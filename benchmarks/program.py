"""The frame of the programs that `python -m` starts: their parser, their log as lines, their errors in one line."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from attunet.errors import InputError, RunError
from attunet.system.log_lines import forward_log
from attunet.system.stop_signals import UnwindOnSignals


def program_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser whose help has the description as it is written."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def add_settings(parser: argparse.ArgumentParser, of: str | None = None) -> None:
    """`--set`, as `settings`. of: whose settings, for the help."""
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="SECTION.FIELD=VALUE", help=of)


@contextmanager
def running(out: TextIO) -> Iterator[None]:
    """The log goes to `out` while the context is open. An error ends the process with one line and exit code 1 or 2."""
    try:
        with UnwindOnSignals(), forward_log(lambda line: print(line, flush=True, file=out)):
            yield
    except (InputError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)
