"""The frame of the programs that `python -m` starts: their parser, their log as lines, their errors in one line,
the folders that a rerun continues.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from attunet.errors import InputError, RunError
from attunet.fields import JsonObject, read_json
from attunet.system.atomic_files import write_text
from attunet.system.log_lines import forward_log
from attunet.system.stop_signals import UnwindOnSignals


def program_parser(description: str | None) -> argparse.ArgumentParser:
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


def make_once(folder: Path, write: Callable[[Path], object]) -> None:
    """Writes a folder that no earlier call has finished."""
    if not folder.exists():
        unfinished = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(unfinished, ignore_errors=True)
        write(unfinished)
        os.replace(unfinished, folder)


def require_same_call(note: Path, call: JsonObject) -> None:
    """Notes in a folder what it is made with, for the calls that continue it. Raises InputError where an earlier call
    made it with something else: what is there would be taken for this call's. `call` has JSON values.
    """
    if note.exists():
        there = read_json(note).data
        if others := [name for name, value in call.items() if there.get(name) != value]:
            raise InputError(
                f"{note.parent}: was made with other {', '.join(others)}; name another folder or remove it"
            )
        return
    note.parent.mkdir(parents=True, exist_ok=True)
    write_text(note, json.dumps(call, indent=1))
