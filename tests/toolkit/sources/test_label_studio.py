"""Label Studio's PNG export: the picture of each task by what its number can mean, or a refusal with two readings."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from attunet.config import DataConfig
from attunet.errors import InputError
from attunet.preparation.prepare import prepare
from attunet.sources.case_files import SourceOptions
from attunet.sources.find_cases import find_cases
from attunet.sources.inputs import find_inputs

pytest.importorskip("PIL.Image")


def write(
    made: SimpleNamespace,
    root: Path,
    pictures: list[str],
    tasks: list[int],
    shapes: list[tuple[int, int]] | None = None,
) -> Path:
    """Pictures, and for each task two masks: `liver` in two rows, and `left-kidney` with smoothed edges."""
    shapes = shapes or [(20, 16)] * len(pictures)
    for name, shape in zip(pictures, shapes, strict=True):
        made.save_picture(root / "images" / name, np.full(shape, 90, np.uint8))
    for number, task in enumerate(tasks):
        mask = np.zeros(shapes[number % len(shapes)], np.uint8)
        mask[2:4, number : number + 3] = 255
        made.save_picture(root / f"masks/task-{task}-annotation-{task + 1}-by-3-tag-liver-0.png", mask)
        soft = np.zeros_like(mask)
        soft[10:14, 4:9], soft[11:13, 5:8] = 60, 255
        made.save_picture(root / f"masks/task-{task}-annotation-{task + 1}-by-3-tag-left-kidney-0.png", soft)
    return root


@pytest.mark.parametrize(
    ("pictures", "tasks", "expected"),
    [
        (["p0.png", "p1.png", "p2.png"], [1, 2, 3], {1: "p0", 2: "p1", 3: "p2"}),
        (["cat.png", "dog.png"], [7, 9], {7: "cat", 9: "dog"}),
        (["1.png", "2.png", "10.png"], [2, 10], {2: "2", 10: "10"}),
        (["x.png", "y.png", "z.png"], [1, 3], {1: "x", 3: "z"}),
        (["IMG_2.png", "IMG_3.png"], [2, 3], {2: "IMG_2", 3: "IMG_3"}),
    ],
)
def test_a_task_is_the_picture_that_its_number_means(
    made, tmp_path: Path, pictures: list[str], tasks: list[int], expected: dict[int, str]
) -> None:
    source = find_cases(write(made, tmp_path, pictures, tasks))
    assert {int(c.labels[0].name.split("-")[1]): c.case for c in source.cases if c.labels} == expected
    assert [decision.rule for decision in source.decisions] == ["label-studio-tasks"]
    assert source.codings[0].foreground == ("left-kidney", "liver")


def test_two_meanings_are_refused_and_chosen(made, tmp_path: Path) -> None:
    write(made, tmp_path, ["p0.png", "p1.png", "p2.png"], [1, 2])  # p1 by its name, p0 by its place
    with pytest.raises(
        InputError,
        match=r"task 1 is p1.png by name and p0.png by position; choose with --read label-studio-tasks=name or",
    ):
        find_cases(tmp_path)
    for wanted, expected in (("name", ["p1", "p2"]), ("position", ["p0", "p1"])):
        source = find_cases(tmp_path, SourceOptions(choices={"label-studio-tasks": wanted}))
        assert [case.case for case in source.cases if case.labels] == expected


def test_sizes_tell_readings_apart(made, tmp_path: Path) -> None:
    write(made, tmp_path, ["p2.png", "p10.png"], [5, 6], [(20, 16), (30, 16)])  # letter by letter p10 is the first
    assert {case.case: case.labels[0].name[:6] for case in find_cases(tmp_path).cases} == {
        "p2": "task-5",
        "p10": "task-6",
    }
    write(made, tmp_path / "same", ["p2.png", "p10.png"], [5, 6])
    with pytest.raises(InputError, match=r"task 5 is p2.png by order and p10.png by order, letter by letter"):
        find_cases(tmp_path / "same")


def test_the_store_has_the_classes_and_one_annotator_counts(made, tmp_path: Path, attunet) -> None:
    write(made, tmp_path / "s", ["a.png", "b.png"], [1, 2])
    other = np.zeros((20, 16), np.uint8)
    other[6:8, 6:8] = 255
    made.save_picture(tmp_path / "s/masks/task-1-annotation-9-by-8-tag-liver-0.png", other)
    store = prepare(tmp_path / "s", tmp_path / "store", DataConfig(), folds=2)
    assert store.classes.names == ("background", "left-kidney", "liver")
    labels = store.read_source("a")[1]
    assert (labels == 2).sum() == 6  # the first annotation's
    assert (labels == 1).sum() == 6  # from 128 on: not the soft edge
    rules = {finding["rule"] for finding in store.manifest["findings"]}
    assert {"label-studio-tasks", "label-studio-annotations", "mask-greys"} <= rules
    done = attunet("prepare", tmp_path / "s", tmp_path / "by-8", "--folds", 2, "--masks", "by-8", "--allow-unlabelled")
    assert "classes background, liver" in done.out
    assert sorted(one.name for one in find_inputs(tmp_path / "s")) == ["a", "b"]


def test_what_cannot_be_paired_says_what_to_do(made, tmp_path: Path) -> None:
    write(made, tmp_path / "more", ["a.png", "b.png"], [4, 5, 6])
    with pytest.raises(
        InputError, match=r"no reading of its task's number .*: 3 tasks from 4 to 6, 2 pictures; export"
    ):
        find_cases(tmp_path / "more")
    write(made, tmp_path / "other", ["a.png", "b.png"], [4, 5])
    made.save_picture(tmp_path / "other/images/b.png", np.zeros((30, 30), np.uint8))
    with pytest.raises(
        InputError, match="no reading of its task's number gives each task a picture of its masks' size"
    ):
        find_cases(tmp_path / "other")
    made.save_picture(tmp_path / "alone/task-1-annotation-1-by-1-tag-x-0.png", np.eye(8, dtype=np.uint8) * 255)
    with pytest.raises(InputError, match="has masks alone: put the pictures into a folder images/ beside them"):
        find_cases(tmp_path / "alone")


def test_arrays_of_numpy_are_named(made, tmp_path: Path) -> None:
    made.save_picture(tmp_path / "a.png", np.zeros((5, 5), np.uint8))
    np.save(tmp_path / "task-1-annotation-1-by-1-tag-x-0.npy", np.zeros((5, 5)))
    with pytest.raises(InputError, match="as NumPy's array is not read: export the brush labels as PNG"):
        find_cases(tmp_path)


def test_of_a_json_export_the_first_annotation_that_stands_counts_and_pictures_without_one_are_left_out(
    made, tmp_path: Path
) -> None:
    def drawn(corner: int) -> dict[str, object]:
        points = [[corner, corner], [corner + 30, corner], [corner + 30, corner + 30], [corner, corner + 30]]
        value = {"points": points, "polygonlabels": ["liver"]}
        return {"result": [{"original_width": 20, "original_height": 20, "type": "polygonlabels", "value": value}]}

    annotations = {
        "a": [drawn(10)],
        "b": [drawn(0) | {"was_cancelled": True}, drawn(20), drawn(50)],
        "c": [],
        "d": [{"result": []}],
    }
    for name in annotations:
        made.save_picture(tmp_path / f"s/{name}.png", np.arange(400, dtype=np.uint8).reshape(20, 20) % 251)
    tasks = [
        {"data": {"image": f"/data/upload/1/{name}.png"}, "annotations": each} for name, each in annotations.items()
    ]
    (tmp_path / "s/project.json").write_text(json.dumps(tasks))
    source = find_cases(tmp_path / "s")
    assert [case.case for case in source.cases] == ["a", "b", "d"]
    assert [decision.rule for decision in source.decisions] == ["label-studio-annotations"]
    assert source.notes == (
        "pictures of project.json that nobody annotated, which are left out: 1",
        "1 of 4 files belong to no case and are left out, first c.png",
    )
    store = prepare(tmp_path / "s", tmp_path / "store", DataConfig(), folds=2)
    second = store.read_source("b")[1][:, :, 0]
    assert (int(np.flatnonzero(second.any(axis=1))[0]), int(np.flatnonzero(second.any(axis=1))[-1])) == (4, 10)
    assert not store.read_source("d")[1].any()
