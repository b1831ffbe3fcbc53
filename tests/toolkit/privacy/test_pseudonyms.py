"""The table of names and numbers: kept, extended by several processes at once,
and nothing else than such a table is read.
"""

import csv
import logging
import os
import stat
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from attunet.errors import InputError, RunError
from attunet.privacy.pseudonyms import Pseudonyms
from attunet.system.lock import Lock
from attunet.system.plain_text import printable

ADD = """
import sys
from attunet.privacy.pseudonyms import Pseudonyms
print(Pseudonyms(sys.argv[1], []).numbers_of([f"name-{n}" for n in range(int(sys.argv[2]), int(sys.argv[2]) + 40)]))
"""


def test_several_processes_extend_one_table(tmp_path: Path) -> None:
    key = tmp_path / "key.csv"
    starts = [0, 20, 40, 60]
    processes = [
        subprocess.Popen([sys.executable, "-c", ADD, key, str(n)], stdout=subprocess.PIPE, text=True) for n in starts
    ]
    given = [eval(process.communicate(timeout=120)[0]) for process in processes]
    numbers = Pseudonyms(key, []).numbers_of([f"name-{n}" for n in range(100)])
    assert sorted(numbers.values()) == [f"{n:04d}" for n in range(1, 101)]
    assert all(numbers[name] == number for one in given for name, number in one.items())
    assert [path.name for path in tmp_path.iterdir()] == ["key.csv"]


def test_a_process_that_lost_the_table_s_lock_does_not_write_it(tmp_path: Path, monkeypatch) -> None:
    """It was suspended, and another has given numbers since."""
    key = tmp_path / "key.csv"

    def lost(lock: Lock) -> None:
        key.write_text("name,number,0123456789abcdef\nMiller,0001\n")
        raise RunError("another has taken over")

    monkeypatch.setattr(Lock, "check", lost)
    with pytest.raises(RunError, match="taken over"):
        Pseudonyms(key, []).numbers_of(["Smith"])
    assert Pseudonyms(key, []).numbers_of(["Miller"]) == {"Miller": "0001"}


def test_composed_and_decomposed_accents_are_one_name(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Müller") for form in ("NFC", "NFD"))
    for first, second in ((composed, decomposed), (decomposed, composed)):
        key = tmp_path / f"{len(first)}.csv"
        (number,) = Pseudonyms(key, []).numbers_of([first]).values()
        names = Pseudonyms(key, [])
        assert names.numbers_of([second, first, "Meier"]) == {second: number, first: number, "Meier": "0002"}
        assert names.hide(f"'{first}' '{second}'") == f"'{number}' '{number}'"
        assert len(key.read_text(encoding="utf-8").splitlines()) == 3


def test_a_table_that_others_could_read_is_closed(tmp_path: Path) -> None:
    key = tmp_path / "key.csv"
    key.write_text("name,number\nSmith,0007\n")
    key.chmod(0o644)
    assert Pseudonyms(key, []).numbers_of(["Smith"]) == {"Smith": "0007"}
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert Pseudonyms(key, []).numbers_of(["Miller"]) == {"Miller": "0008"}


def test_no_cell_of_the_table_is_a_formula(tmp_path: Path) -> None:
    Pseudonyms(tmp_path / "key.csv", []).numbers_of(["=1+1", "+cmd|x", "-1", "@SUM(1)", "\t=1"])
    with (tmp_path / "key.csv").open(newline="") as file:
        names = [row["name"] for row in csv.DictReader(file)]
    assert {name[0] for name in names} == {"'"}


@pytest.mark.parametrize(
    "name",
    [
        'a,"b',
        "=1+1",
        "'=1",
        "'",
        "''a",
        "'Ada",
        "+cmd|x",
        "@SUM(1)",
        " blank ",
        "zwei\nzeilen",
        "M\xfcller",
        os.fsdecode(b"b\xff"),
    ],
)
def test_every_name_comes_back_as_it_was(tmp_path: Path, name: str) -> None:
    first = Pseudonyms(tmp_path / "key.csv", []).numbers_of([name, "other"])
    assert Pseudonyms(tmp_path / "key.csv", []).numbers_of(["another", name])[name] == first[name]


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe\x00",
        b"name;number\nSmith;1\n",
        b"name,number\nSmith,1\nMiller,1\n",
        b"name,number\nSmith,1\nMiller,01\n",
        b"name,number\nSmith,../x\n",
        b"name,number\nSmith," + b"9" * 5000 + b"\n",
        "name,number\nSmith,٣\n".encode(),
        b"name,number\nSmith\n",
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key.csv").write_bytes(content)
    with pytest.raises(InputError, match="must be a table"):
        Pseudonyms(tmp_path / "key.csv", [])
    assert (tmp_path / "key.csv").read_bytes() == content


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        with pytest.raises(InputError, match="regular file"):
            Pseudonyms(tmp_path / name, [tmp_path / "out"])


def test_text_and_log_have_numbers(tmp_path: Path, log_lines: list[str]) -> None:
    names = Pseudonyms(tmp_path / "key.csv", [])
    names.remember({"Smith": "0001", "imaging": "0001"})
    names.remember({"imaging": "0002", "12": "0003", "19700131": "0004"})
    names.remember_file(tmp_path / "src" / "ward" / "Smith_t1.nii.gz", tmp_path / "src", "0001")
    text = "Smith, Smithson and Smith's 'imaging' of imaging at 0.12"
    assert names.hide(text) == "0001, Smithson and 0001's '(a name)' of imaging at 0.12"
    assert names.hide(f"{tmp_path}/src/ward/Smith_t1.nii.gz: no ward") == "0001: no ward"
    assert names.hide("ward/Smith_t1.nii.gz, Smith_t1 of 19700131") == "0001, 0001 of 0004"
    with names.hidden():
        logging.getLogger("attunet.x").warning("%s is late", "Smith")
    logging.getLogger("attunet.x").warning("Smith")
    assert log_lines == ["warning: 0001 is late", "warning: Smith"]


@pytest.mark.parametrize("rows", ["", "name,number\n0001,0002\n0002,0003\n0003,0001\n"])
def test_a_number_in_a_line_is_not_taken_for_the_name_of_another_scan(tmp_path: Path, rows: str) -> None:
    (tmp_path / "key.csv").write_text(rows or "name,number\n")
    names, scans = Pseudonyms(tmp_path / "key.csv", []), ["0001", "0002", "0003"]
    numbers = names.numbers_of(scans)
    for scan in scans:
        names.remember_file(tmp_path / "src" / f"{scan}.nii.gz", tmp_path / "src", numbers[scan])
    for number in numbers.values():
        line = f"1/3 labels/{number}.nii.gz; review"
        assert names.hide(line) in (line, "1/3 labels/(a name); review")
        label_map = {f"labels/{number}.nii.gz": f"labels/{number}.nii.gz"}
        names.remember(label_map, are_whole=True)
        assert names.hide(line) == line
    assert [names.hide(f"{tmp_path}/src/{scan}.nii.gz: late") for scan in scans] == [
        f"{number}: late" for number in numbers.values()
    ]
    assert not rows or names.hide("0002.nii.gz and '0002'") == "(a name) and '(a name)'"


def test_new_numbers_are_no_names(tmp_path: Path) -> None:
    names = Pseudonyms(tmp_path / "key.csv", [])
    names.remember_file(tmp_path / "src" / "0002.nii.gz", tmp_path / "src")
    assert set(names.numbers_of(["0001", "0004", "Smith"]).values()) == {"0003", "0005", "0006"}


def test_a_count_in_a_line_is_no_path(tmp_path: Path) -> None:
    names = Pseudonyms(tmp_path / "key.csv", [])
    names.remember({"1": "0003", "12": "0004"})
    assert names.hide("  [1/12] labels/0004 of 1/12/x, 'out/12'") == "  [1/12] labels/0004 of 0003/0004/x, 'out/0004'"


def test_a_path_of_figures_is_no_count(tmp_path: Path) -> None:
    names = Pseudonyms(tmp_path / "key.csv", [])
    names.remember({"4711001/3": "0001"})
    assert names.hide("1/2 case 4711001/3 has no label") == "1/2 case 0001 has no label"
    assert names.hide("4711001/3 has no label") == "0001 has no label"


@pytest.mark.parametrize(
    "name", ["Zwicky  Fritz", "Zwicky\tFritz", "Zwicky\nFritz", "Zwicky\x1bFritz", "Zwi\u0301cky", "Zw\xedcky"]
)
def test_a_name_is_hidden_however_a_line_writes_it(tmp_path: Path, name: str) -> None:
    """Lines are put on one line, without control characters, quoted, with accents as one letter or two."""
    names = Pseudonyms(tmp_path / "key.csv", [])
    names.remember({name: "0001"})
    names.remember_file(tmp_path / "src" / f"{name}-src.nii", tmp_path / "src", "0001")
    for text in (name, f"{tmp_path}/src/{name}-src.nii", f"{name}-src.nii"):
        for form in ("NFC", "NFD"):
            line = unicodedata.normalize(form, text)
            for written in (
                line,
                " ".join(line.split()),
                printable(line),
                " ".join(printable(line).split()),
                repr(line),
            ):
                assert names.hide(f"error: {written}: is late").replace("'", "") == "error: 0001: is late"


def fail(names: Pseudonyms, error: Exception) -> None:
    with names.hidden():
        raise error


@pytest.mark.parametrize("kind", [InputError, RunError])
def test_errors_have_numbers(tmp_path: Path, kind: type[Exception]) -> None:
    names = Pseudonyms(tmp_path / "key.csv", [])
    names.remember({"Smith": "0001"})
    with pytest.raises(kind, match=r"^0001 is full$"):
        fail(names, kind("Smith is full"))
    with pytest.raises(RunError, match=r"^0001: No space left on device$"):
        fail(names, OSError(28, "No space left on device", "Smith"))
