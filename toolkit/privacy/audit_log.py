"""A log that is only ever appended to: every record holds the hash of the one before it,
so that no line can be changed or left out.

What a chain cannot show is that its last lines were cut off. `verify_audit` gives the number of records and the last
hash; who notes them elsewhere sees that too.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from attunet.errors import InputError
from attunet.fields import JsonObject, parse_json
from attunet.system.atomic_files import name_in_errors, sync

FIRST = "0" * 64  # stands for the record before the first
MAX_LINE_BYTES = 2**20


@dataclass(frozen=True)
class AuditState:
    """Records of a log, and the hash of the last."""

    records: int
    last_hash: str

    def __str__(self) -> str:
        return f"{self.records} records, the chain holds; the last hash is {self.last_hash}"


class AuditLog:
    """A log file. Several processes and threads may append to one; a record is on the disk when `append` returns.
    Raises InputError for a file that is no such log. A last line that a crash cut short behind a record is taken away
    at the next record, which says so.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.exists():
            if not self.path.is_file():
                raise InputError(f"{self.path}: must be a regular file, an audit log")
            with self.path.open("rb") as file:
                self._end(file)
        else:
            self.path.parent.mkdir(parents=True, exist_ok=True)

    def append(self, record: Mapping[str, object]) -> str:
        """Adds a record, JSON values by name, and returns its hash; `previous`, `hash` and `repaired` are the log's
        own.
        """
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        with name_in_errors(self.path), os.fdopen(descriptor, "rb+", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            end, torn, previous = self._end(file)
            values = {**record, **({"repaired": True} if torn else {}), "previous": previous}
            digest = _hash(values)
            line = _line({**values, "hash": digest})
            if len(line) > MAX_LINE_BYTES:
                raise InputError(f"{self.path}: a record has at most {MAX_LINE_BYTES:,} bytes, got {len(line):,}")
            file.truncate(end)
            file.seek(end)
            try:
                _write_all(file, line)
                os.fsync(file.fileno())
                if not end:  # a new log: its name too
                    sync(self.path.parent)
            except OSError:  # a full disk: no part of a record stays
                file.truncate(end)
                raise
        return digest

    def records(self) -> Iterator[JsonObject]:
        """The log's records, one after another, without a last line that a crash cut short. Raises InputError as
        `verify_audit` does for a single line.
        """
        for number, line in enumerate(_lines(self.path) if self.path.exists() else (), start=1):
            if line.endswith(b"\n"):
                yield _record(line, f"{self.path}: line {number}")

    def _end(self, file: BinaryIO) -> tuple[int, int, str]:
        """The end of the last record, the bytes behind it, and the record's hash."""
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 2 * MAX_LINE_BYTES))
        tail = file.read()
        whole = tail[: tail.rfind(b"\n") + 1]
        torn = tail[len(whole) :]
        if not tail:
            return 0, 0, FIRST
        if not whole or not b'{"'.startswith(torn[:2]):
            raise InputError(f"{self.path}: is no audit log, or holds nothing but a record that was cut short")
        last = whole[whole.rfind(b"\n", 0, -1) + 1 :]
        return end - len(torn), len(torn), str(_record(last, f"{self.path}: the last line")["hash"])


def verify_audit(path: str | Path) -> AuditState:
    """Follows the chain from the first record to the last. Raises InputError naming the first line that does not
    belong.
    """
    count, last = 0, FIRST
    for number, line in enumerate(_lines(Path(path)), start=1):
        if not line.endswith(b"\n"):
            raise InputError(f"{path}: the last line is cut short")
        record = _record(line, f"{path}: line {number}")
        if record["previous"] != last:
            raise InputError(
                f"{path}: line {number}: does not follow the line before it: one was changed, taken away or put in "
                "between"
            )
        count, last = number, str(record["hash"])
    return AuditState(count, last)


def _lines(path: Path) -> Iterator[bytes]:
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: must be a regular file, an audit log")
    try:
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                yield line
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None


def _record(line: bytes, where: str) -> JsonObject:
    """The record of a line. Raises InputError where it is none, or not written as its hash says: a key that is there
    twice, or a blank, means another thing to another reader.
    """
    try:
        record: JsonObject = parse_json(line)
        values = {name: value for name, value in record.items() if name != "hash"}
        is_own = record["hash"] == _hash(values) and isinstance(values["previous"], str) and line == _line(record)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):  # writing goes deeper than reading
        raise InputError(f"{where}: is no record of an audit log") from None
    if not is_own:
        raise InputError(f"{where}: was changed: its hash is not the one of its content")
    return record


def _write_all(file: BinaryIO, data: bytes) -> None:
    """Write all bytes to a file without a buffer, which may take a part of them at a time."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def _hash(values: Mapping[str, object]) -> str:
    return hashlib.sha256(_line(values)[:-1]).hexdigest()


def _line(values: Mapping[str, object]) -> bytes:
    return json.dumps(values, sort_keys=True, separators=(",", ":")).encode() + b"\n"
