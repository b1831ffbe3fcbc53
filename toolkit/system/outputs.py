"""Outputs that a command may write: a result takes the place of an older one of its own kind alone."""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Literal

from attunet.errors import InputError
from attunet.fields import read_json
from attunet.system.private_folder import PrivateFolder

RESULTS, UNFINISHED = "results.json", ".unfinished"  # of a folder with one of them, all of BESIDE_RESULTS is ours
PLOTS = (
    *("attention_*", "cases", "confusion_*", "dice_against_latency", "differences", "latency_against_batch"),
    *("outlines_*", "time_to_accuracy", "training", "volume_time", "worst_*"),
)
BESIDE_RESULTS = (
    *(f"plots/{name}.png" for name in PLOTS),
    *("results.md", "details.json", "benchmark.json", "benchmark.md", "report.html"),
)

Product = Literal["a store", "a run", "an evaluation", "a cross-validation", "label maps", "a model repository"]


def require_ending(path: Path, *endings: str) -> None:
    """Raises InputError for a file of another type, which the output would replace: a model, a manifest, a scan."""
    if not path.name.lower().endswith(endings):
        raise InputError(f"{path}: must be a file name that ends in {' or '.join(endings)}")


def require_other_file(out: Path, inputs: Iterable[Path]) -> None:
    """Raises InputError where an output would replace a file of its input, or be one of the slices in an input's
    folder.
    """
    for path in inputs:
        if path.is_dir() and out.suffix.lower() == ".dcm" and out.resolve().is_relative_to(path.resolve()):
            raise InputError(f"{out}: must lie outside of the input's folder")
        if out.exists() and path.exists() and out.samefile(path):
            raise InputError(f"{out}: would overwrite the input")


def require_own_folder(out: Path, own: Product) -> None:
    """Raises InputError where a folder is a file, or holds another product than `own`."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: must be a folder, or nothing yet")
    if (held := _held(out)) not in ("", own):
        raise InputError(f"{out}: holds {held}; name another folder for {own}")


def claim_unfinished(folder: Path, work: str) -> None:
    """Make a folder for unfinished work, or take the one that a killed call left, which has a mark with the name of the
    work. Raises InputError for a link, and for a folder with anything else, such as a user's files, a finished product
    or the work of another command, which would go with it.
    """
    if folder.is_symlink():
        raise InputError(f"{folder}: must be a folder, not a link; remove it")
    if _is_marked(folder, work):
        return
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if held := [name for name in names if name != UNFINISHED]:
        raise InputError(f"{folder}: is needed for unfinished work, and holds {held[0]}: rename or remove it")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / UNFINISHED).write_text(work)


def remove_mark(folder: Path, work: str) -> None:
    """Call this once the work has its name; also where an earlier call may have been killed before it could do so."""
    if _is_marked(folder, work):
        (folder / UNFINISHED).unlink()


def _is_marked(folder: Path, work: str = "") -> bool:
    """True for the mark of `claim_unfinished`, or that of an evaluation, which is empty."""
    mark = folder / UNFINISHED
    return mark.is_file() and mark.stat().st_size == len(work) and mark.read_text() == work


def _held(folder: Path) -> str:
    results = folder / RESULTS
    if (folder / "manifest.json").exists():
        return "a store"
    if (folder / "checkpoints").exists():
        return "a run"
    if not results.exists():
        foreign = () if _is_marked(folder) else chain(*map(folder.glob, BESIDE_RESULTS))
        return next((f"a {file.relative_to(folder)} of something else" for file in foreign), "")
    data = read_json(results).data
    if "schema" in data and "methods" in data:
        return "a cross-validation"
    return "an evaluation" if "schema" in data and "models" in data else f"a {results.name} of something else"


@contextmanager
def new_results(out: Path, check: Callable[[], object] = lambda: None) -> Iterator[Path]:
    """A folder of this process to write an evaluation in, whose files replace those of an earlier one in `out` at the
    end; nothing is left of it after an error. results.json goes before the cases that it is of, and comes last. check:
    called before anything is replaced; `Lock.check` raises where another process has taken over.
    """
    is_new = not out.exists()
    try:
        with PrivateFolder(out, is_brief=True) as partial:  # inside: `out` may be a file system of its own
            yield partial.path
            check()
            remove_results(out)
            try:
                _move(partial.path, out)
            finally:
                if not (out / RESULTS).exists():  # it comes last: an error or a signal has ended the move
                    remove_results(out)
                mark_finished(out)
    finally:
        with suppress(OSError):  # something was written there
            if is_new:
                out.rmdir()


def _move(partial: Path, out: Path) -> None:
    for file in sorted(partial.rglob("*"), key=lambda file: file.name == RESULTS):
        if file.is_file():
            target = out / file.relative_to(partial)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)


def remove_results(out: Path) -> None:
    """Deletes what an evaluation or a cross-validation, finished or killed, wrote: its scores, results.json last, and
    its cases. Marks the folder for the next call, until `mark_finished`.
    """
    is_there = is_evaluated(out)
    (out / UNFINISHED).touch()
    if is_there:
        for file in chain(*map(out.glob, BESIDE_RESULTS), out.glob(RESULTS)):
            file.unlink()
        shutil.rmtree(out / "cases", ignore_errors=True)


def is_evaluated(out: Path) -> bool:
    """True for the folder of an evaluation or a cross-validation, finished or killed."""
    return (out / RESULTS).exists() or _is_marked(out)


def mark_finished(out: Path) -> None:
    """Call this once results.json is there."""
    (out / UNFINISHED).unlink(missing_ok=True)
