"""The files of a case get their names together: a killed call leaves those of one label map, or of none."""

import hashlib
import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from attunet.errors import InputError, RunError
from attunet.export.runtime.case_output import CaseOutput, clear, confidence_file, map_file, require_own_files
from attunet.export.runtime.origin import Origin, origin_file, unchanged
from attunet.system.private_folder import remove_abandoned


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    return tmp_path / "out/one.nii.gz"


def write(labels: Path, scan: str) -> None:
    with CaseOutput(labels) as output:
        for file in (map_file(output.draft, "attention-1"), output.draft, confidence_file(output.draft)):
            file.write_text(f"{file.name} of {scan}")
        output.publish(Origin("model", scan))


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.glob("[!.]*")}


def killed_before(change: int, call: Callable[[], None]) -> bool:
    """Runs `call` in a child that is killed before its `change`-th change of names; False if there were fewer."""
    process = os.fork()
    if not process:
        left = [change]

        def counted(original: Callable[..., None]) -> Callable[..., None]:
            def run(*args: object, **options: object) -> None:
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1
                original(*args, **options)

            return run

        for name in ("replace", "unlink", "rmdir"):
            setattr(os, name, counted(getattr(os, name)))
        call()
        os._exit(0)
    return os.waitpid(process, 0)[1] == signal.SIGKILL


def test_a_killed_call_leaves_the_files_of_one_label_map_or_of_none(labels: Path) -> None:
    write(labels, "first")
    first, change = contents(labels.parent), 0
    second = {name: text.replace("first", "second") for name, text in first.items()}
    while killed_before(change, lambda: write(labels, "second")):
        there = contents(labels.parent)
        assert there in (first, second) or labels.name not in there
        assert there.items() <= first.items() or there.items() <= second.items()
        write(labels, "second")  # what the killed call left is its own
        assert contents(labels.parent) == second
        assert {path.name for path in labels.parent.iterdir()} == {*second, origin_file(labels).name}
        write(labels, "first")
        assert contents(labels.parent) == first
        change += 1
    assert change > 8
    assert contents(labels.parent) == second


def test_of_two_calls_at_once_one_has_all_files(labels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second begins while the first has given the origin its name, and not yet the label map."""
    others: list[threading.Thread] = []

    def replace(source: Path, target: Path) -> None:
        if target == labels and not others:
            others.append(threading.Thread(target=write, args=(labels, "second")))
            others[0].start()
            others[0].join(0.5)
        rename(source, target)

    rename = os.replace
    monkeypatch.setattr(os, "replace", replace)
    write(labels, "first")
    others[0].join()
    assert unchanged(labels, map_file(labels, "attention-1"), confidence_file(labels))
    assert {text.rpartition(" ")[2] for text in contents(labels.parent).values()} == {"second"}


def test_an_abandoned_folder_goes_with_the_next_call(labels: Path) -> None:
    assert killed_before(0, lambda: write(labels, "first"))
    assert len(list(labels.parent.iterdir())) == 1
    remove_abandoned(labels.parent)
    assert not list(labels.parent.iterdir())


@pytest.mark.parametrize(
    "error",
    [
        lambda draft: OSError(28, "No space left on device", str(draft)),
        lambda draft: InputError(f"{draft}: must be something else"),
    ],
    ids=["system", "own"],
)
def test_errors_have_the_names_that_the_files_will_have(labels: Path, error: Callable[[Path], Exception]) -> None:
    def fail() -> None:
        with CaseOutput(labels) as output, output.errors_by_name():
            draft = map_file(output.draft, "uncertainty")
            draft.write_text("half")
            raise error(draft)

    with pytest.raises((InputError, RunError)) as caught:
        fail()
    assert str(caught.value).startswith(f"{map_file(labels, 'uncertainty')}: ")
    assert not list(labels.parent.iterdir())


def test_a_file_of_somebody_else_is_not_replaced(labels: Path) -> None:
    write(labels, "first")
    require_own_files(labels, [confidence_file(labels), map_file(labels, "attention-1")])
    other = map_file(labels, "uncertainty")
    other.symlink_to("nowhere")
    with pytest.raises(InputError, match=r"one-uncertainty\.nii\.gz: is there, and was not written with one\.nii\.gz"):
        require_own_files(labels, [other])


def test_no_label_map_comes_beside_that_of_another_scan_whose_name_differs_in_its_ending(labels: Path) -> None:
    """Whoever writes it: a command, or a client of a server."""
    write(labels, "first")
    before = contents(labels.parent)
    with CaseOutput(labels.with_name("one.nii")) as output:
        output.draft.write_text("second")
        with pytest.raises(InputError, match=r"one\.nii\.gz: is of another scan or model than one\.nii will be"):
            output.publish(Origin("model", "second"))
    assert contents(labels.parent) == before


def test_tables_above_that_do_not_list_a_label_map_stay(tmp_path: Path) -> None:
    """A user may keep copies of other tables there, of this model or of another one."""
    labels = tmp_path / "results/new/one.nii.gz"
    write(labels, "first")
    tables = {tmp_path: ("other", "one"), labels.parents[1]: ("model", "one"), labels.parent: ("model", "one")}
    for folder, (model, case) in tables.items():
        content = {"model_sha256": model, "cases": {case: {}}}
        (folder / "confidence.json").write_text(json.dumps(content))
        (folder / "confidence.csv").write_text("case")
    clear(labels)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("confidence.*")}
    assert left == {f"{folder}confidence.{ending}" for folder in ("", "results/") for ending in ("json", "csv")}


@pytest.mark.parametrize(
    ("earlier", "words"), [(True, "was changed since it was made"), (False, "no file says which model and scan")]
)
def test_a_label_map_that_somebody_writes_meanwhile_stays(labels: Path, earlier: bool, words: str) -> None:
    if earlier:
        write(labels, "first")
    with CaseOutput(labels) as output:
        for file in (confidence_file(output.draft), output.draft):
            file.write_text("second")
        labels.write_text("corrected by hand")
        before = contents(labels.parent)
        with pytest.raises(InputError, match=rf"one\.nii\.gz: .*{words}.*: move it elsewhere"):
            output.publish(Origin("model", "second"))
    assert contents(labels.parent) == before


def test_a_hidden_file_of_somebody_else_removes_nothing_but_its_own(tmp_path: Path) -> None:
    labels, content = tmp_path / "out/a.nii.gz", b"the same"
    for path in (labels, tmp_path / "scan.nii.gz", tmp_path / "out/scan.nii.gz", tmp_path / "out/a-map.nii.gz"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    files = ["a.nii.gz", "../scan.nii.gz", "scan.nii.gz", "a-map.nii.gz", "a-/../scan.nii.gz"]
    origin_file(labels).write_text(json.dumps({"files": dict.fromkeys(files, digest)}))
    others = [tmp_path / "scan.nii.gz", tmp_path / "out/scan.nii.gz", tmp_path / "out/a-map.nii.gz"]
    assert [unchanged(labels, path) for path in others] == [False, False, True]
    clear(labels)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["scan.nii.gz"]
    assert (tmp_path / "scan.nii.gz").read_bytes() == content


def test_what_a_killed_container_left_beside_label_maps_goes_after_a_day(labels: Path) -> None:
    left = labels.with_name(".attunet-temporary-01234567-left")
    left.mkdir(parents=True)
    (left / "one.nii.gz").touch()
    os.utime(left, times=(0, 0))
    write(labels, "first")
    assert not left.exists()
