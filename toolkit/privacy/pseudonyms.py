"""Numbers instead of names.

The table of both lies in a file of its own, outside of everything that a command writes.
"""

import csv
import itertools
import os
import re
import secrets
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from attunet.errors import InputError
from attunet.privacy.hidden_names import HiddenNames
from attunet.system.atomic_files import write_error, write_file, write_text
from attunet.system.lock import Lock, waiting

COLUMNS = ["name", "number"]
DIGITS = 4
WAIT_S = 120.0  # for the table's lock
QUOTED = ("=", "+", "-", "@", "'", "\t", "\r", "\n")  # first characters of names that the table has behind a quote
MAX_MARK_BYTES = 64
MARK = ".pseudonyms"  # file in a folder of label maps that are called by numbers: the table's id


class Pseudonyms(HiddenNames):
    """The table of names and numbers in a CSV file. Raises InputError for a file that lies in an output, or is no such
    table.

    Args:
        path: the file; it is made when it is not there, and numbers that it has are used again. The third cell of its
            header is a random id, by which folders of label maps know their table.
        outputs: files and folders that a command writes, none of which may hold the table.
    """

    def __init__(self, path: str | Path, outputs: Iterable[str | Path]) -> None:
        self.path = Path(os.path.realpath(path))  # of a link, the table itself is written
        for output in map(Path, outputs):
            if self.path.is_relative_to(os.path.realpath(output)):
                raise InputError(
                    f"{self.path}: the table of names must lie outside of {output}, which is handed on without it"
                )
        if self.path.exists() and not self.path.is_file():
            raise InputError(f"{self.path}: must be a regular file, the table of names and numbers")
        self._id, self._numbers = self._read()
        super().__init__()

    def numbers_of(self, names: Iterable[str]) -> dict[str, str]:
        """The number of each name, which is hidden from now on, the same for composed and decomposed accents; new names
        get numbers in a random order, which tell nothing about them and are none of the names. Raises InputError where
        the file cannot be written, RunError where the disk is full or fails.
        """
        names = list(dict.fromkeys(names))
        written = {_composed(name): name for name in names}
        try:
            with waiting(self.path, "pseudonymisation", max_s=WAIT_S) as lock:
                self._id, self._numbers = self._read()
                known = {_composed(name): number for name, number in self._numbers.items()}
                new = [name for composed, name in written.items() if composed not in known]
                if new or not self._id:
                    self._add(new, lock)
                elif self.path.exists():
                    self.path.chmod(0o600)
        except OSError as error:
            raise write_error(self.path, error) from None
        self._given.update(self._numbers.values())
        known |= {_composed(name): self._numbers[name] for name in new}
        numbers = {name: self._numbers.get(name) or known[_composed(name)] for name in names}
        self.remember(numbers)
        return numbers

    def claim(self, folder: Path) -> None:
        """Mark a folder of outputs that are called by numbers of this table; see `claim`."""
        claim(folder, self._id, f"the table {self.path.name}")

    def _read(self) -> tuple[str, dict[str, str]]:
        """The table's id, empty where it has none, and the numbers."""
        if not self.path.exists():
            return "", {}
        table = f"{self.path}: must be a table of names and numbers with the columns name,number"
        try:
            with self.path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
                header, *rows = list(csv.reader(file)) or [[]]
            numbers = {_plain(name): number for name, number in rows}
        except (OSError, ValueError, csv.Error):
            raise InputError(table) from None
        is_table = header[:2] == COLUMNS and len(header) <= 3
        is_table = is_table and all(re.fullmatch(r"[0-9]{1,9}", number) for number in numbers.values())
        if not is_table or len(set(map(int, numbers.values()))) < len(rows):
            raise InputError(f"{table}, each once")
        return "".join(header[2:]), numbers

    def _add(self, names: list[str], lock: Lock) -> None:
        self._id = self._id or secrets.token_hex(8)
        first = max(map(int, self._numbers.values()), default=0) + 1
        known = {*names, *self._numbers, *self._words}
        free = (number for count in itertools.count(first) if (number := f"{count:0{DIGITS}d}") not in known)
        secrets.SystemRandom().shuffle(names)
        self._numbers |= dict(zip(names, free, strict=False))

        rows = [(_quoted(name), number) for name, number in self._numbers.items()]

        def write(partial: Path) -> None:
            descriptor = os.open(partial, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
                csv.writer(file).writerows([[*COLUMNS, self._id], *rows])

        lock.check()  # a process that was suspended meanwhile would take away numbers that another has given
        write_file(self.path, write)


def claim(folder: Path, table: str = "", what: str = "names") -> None:
    """Mark a folder of outputs, which is made, with the id of the table whose numbers they are called by, empty where
    they are called by names: in others, a number is another patient. `what` is the table, for the message. Raises
    InputError where it has files that are called by another table, by names where there is a table, or the other way.
    """
    mark = folder / MARK
    before = _marked(mark)
    if before == table:
        return
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    if output := next(files, None):
        other = "another table" if before else "names"
        raise InputError(f"{output}: is called by {other}, not by {what}: choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(mark, table)


def _marked(mark: Path) -> str:
    """The table of a marked folder; empty where there is no mark, and where names are used again."""
    if not mark.exists() and not mark.is_symlink():
        return ""
    is_file = mark.is_file() and not mark.is_symlink() and mark.stat().st_size <= MAX_MARK_BYTES
    table = mark.read_text(encoding="latin-1") if is_file else "?"
    if not re.fullmatch(r"[0-9a-f]*", table):
        raise InputError(f"{mark}: must be the id of a table of names, as predict --pseudonymise writes it; remove it")
    return table


@contextmanager
def pseudonyms(table: str | Path | None, outputs: Iterable[str | Path]) -> Iterator[Pseudonyms | None]:
    """Context with a table of names, as `Pseudonyms` makes it, in which log and errors have numbers; None and names
    where no table is given.
    """
    if table is None:
        yield None
        return
    names = Pseudonyms(table, outputs)
    with names.hidden():
        yield names


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _quoted(name: str) -> str:
    """The name as a cell that no spreadsheet takes for a formula."""
    return f"'{name}" if name[:1] in QUOTED else name


def _plain(cell: str) -> str:
    return cell[1:] if cell[:1] == "'" and cell[1:2] in QUOTED else cell
