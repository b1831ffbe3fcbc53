"""The audit log: every change, gap or exchange of its lines is noticed;
writers that crash or run at once do not break it.
"""

import json
import multiprocessing
import os
import sys

import pytest

from attunet.errors import InputError
from attunet.privacy.audit_log import AuditLog, verify_audit


def write(path, count: int, start: int = 0) -> None:
    log = AuditLog(path)
    for number in range(start, start + count):
        log.append({"number": number, "text": "ü\n\"'"})


def test_an_untouched_log_verifies(tmp_path):
    path = tmp_path / "audit.jsonl"
    write(path, 3)
    write(path, 2, start=3)  # another start of the program goes on with the chain
    state = verify_audit(path)
    assert state.records == 5
    assert state.last_hash == json.loads(path.read_text().splitlines()[-1])["hash"]
    assert [json.loads(line)["number"] for line in path.read_text().splitlines()] == [0, 1, 2, 3, 4]
    assert path.stat().st_mode & 0o077 == 0


def test_every_change_is_noticed_with_its_line(tmp_path):
    path = tmp_path / "audit.jsonl"
    write(path, 5)
    lines = path.read_text().splitlines(keepends=True)
    changes = {
        "changed": ([*lines[:2], lines[2].replace('"number":2', '"number":7'), *lines[3:]], "line 3: was changed"),
        "without a line": (lines[:2] + lines[3:], "line 3: does not follow"),
        "without the first": (lines[1:], "line 1: does not follow"),
        "exchanged": ([*lines[:1], lines[2], lines[1], *lines[3:]], "line 2: does not follow"),
        "doubled": (lines[:2] + lines[1:], "line 3: does not follow"),
        "foreign": ([*lines[:2], "{}\n", *lines[2:]], "line 3: is no record"),
        "no JSON": ([*lines, "hello\n"], "line 6: is no record"),
        "a key twice": ([*lines[:2], lines[2].replace("{", '{"number":9,', 1), *lines[3:]], "line 3: is no record"),
        "blanks": ([*lines[:2], lines[2].replace(",", ", "), *lines[3:]], "line 3: was changed"),
        "line ends": ([*lines[:2], lines[2].replace("\n", "\r\n"), *lines[3:]], "line 3: was changed"),
        "cut short": ([*lines[:4], lines[4][:-5]], "the last line is cut short"),
    }
    for content, message in changes.values():
        path.write_text("".join(content))
        with pytest.raises(InputError, match=message):
            verify_audit(path)


def test_lines_nested_to_any_depth_are_no_records(tmp_path):
    """Between what Python reads and what it writes lie some depths."""
    path = tmp_path / "audit.jsonl"
    ends = f',"hash":"{"0" * 64}","previous":"{"0" * 64}"}}\n'
    for depth in range(sys.getrecursionlimit() - 120, sys.getrecursionlimit() + 5):
        path.write_text('{"a":' + "[" * depth + "]" * depth + ends)
        with pytest.raises(InputError, match=r"line 1: (is no record|was changed)"):
            verify_audit(path)


def test_a_line_that_a_crash_cut_short_is_taken_away_and_said(tmp_path):
    path = tmp_path / "audit.jsonl"
    write(path, 2)
    with path.open("ab") as file:
        file.write(b'{"number":2,"te')
    assert [record["number"] for record in AuditLog(path).records()] == [0, 1]
    with pytest.raises(InputError, match="the last line is cut short"):
        verify_audit(path)
    write(path, 1, start=3)
    assert verify_audit(path).records == 3
    assert json.loads(path.read_text().splitlines()[-1])["repaired"] is True


@pytest.mark.parametrize("content", ["hello\n", "0123456789abcdef", '{"a": 1}', "x" * 3_000_000, "RECORDS0123", "\n"])
def test_a_file_that_is_no_log_is_not_written_to(tmp_path, content):
    path = tmp_path / "notes.txt"
    if content.startswith("RECORDS"):
        write(path, 2)
        content = path.read_text() + content.removeprefix("RECORDS")
    log = AuditLog(tmp_path / "later.txt")
    for existing in (path, log.path):
        existing.write_text(content)
    with pytest.raises(InputError, match="audit log"):
        AuditLog(path)
    with pytest.raises(InputError, match="audit log"):
        log.append({"number": 1})
    assert path.read_text() == log.path.read_text() == content


def test_a_record_that_nobody_could_follow_is_not_written(tmp_path):
    path = tmp_path / "audit.jsonl"
    write(path, 1)
    before = path.read_bytes()
    with pytest.raises(InputError, match="a record has at most"):
        AuditLog(path).append({"text": "x" * 2**21})
    assert path.read_bytes() == before


@pytest.mark.timeout(60)
def test_a_pipe_is_no_log(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for call in (AuditLog, verify_audit):
        with pytest.raises(InputError, match="regular file"):
            call(tmp_path / "pipe")


def test_processes_that_write_at_once_keep_one_chain(tmp_path):
    path = tmp_path / "audit.jsonl"
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        pool.starmap(write, [(path, 20, 100 * number) for number in range(3)])
    assert verify_audit(path).records == 60


def test_the_name_of_a_new_log_is_on_the_disk_with_its_first_record(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr("attunet.privacy.audit_log.sync", synced.append)
    write(tmp_path / "audit.jsonl", 2)
    assert synced == [tmp_path]
