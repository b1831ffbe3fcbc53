"""Annotations that are made to harm: refused in one line, in time that grows with the file alone."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL.Image")
from attunet.errors import InputError
from attunet.io.pictures.annotations import read_annotations

SHAPE = (9, 7, 1)


def coco(folder: Path, segmentation: object) -> Path:
    data = {
        "images": [{"id": 0, "file_name": "a.png", "width": 9, "height": 7}],
        "categories": [{"id": 1, "name": "x"}],
        "annotations": [{"image_id": 0, "category_id": 1, "segmentation": segmentation}],
    }
    (folder / "annotations.json").write_text(json.dumps(data))
    return folder / "annotations.json"


def cvat(folder: Path, head: str, label: str, encoding: str) -> Path:
    text = f'<?xml version="1.0" encoding="{encoding}"?>{head}<annotations>'
    text += '<image id="0" name="a.png" width="9" height="7">'
    text += f'<polygon label="{label}" points="1,1;5,1;5,4"/></image></annotations>'
    (folder / "annotations.xml").write_bytes(text.encode(encoding))
    return folder / "annotations.xml"


def packed(counts: list[int]) -> str:
    """COCO's text of run lengths: differences to the run before the last, in groups of five bits."""
    text = ""
    for number, count in enumerate(counts):
        value, more = count - (counts[number - 2] if number > 2 else 0), True
        while more:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            text += chr(48 + (bits | (32 if more else 0)))
    return text


def test_run_lengths_as_text_are_those_as_numbers(tmp_path: Path) -> None:
    runs = [5, 10, 2, 30, 1, 15]
    as_numbers = read_annotations(coco(tmp_path, {"counts": runs, "size": [7, 9]}), tmp_path / "a.png", SHAPE)
    assert as_numbers.sum() == 55
    as_text = read_annotations(coco(tmp_path, {"counts": packed(runs), "size": [7, 9]}), tmp_path / "a.png", SHAPE)
    np.testing.assert_array_equal(as_text, as_numbers)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("counts", ["o" * 1_000_000 + "0", "P" * 9 + "0", "é" * 10, "p0", "/0", " "])
def test_text_that_is_no_run_length_is_refused(tmp_path: Path, counts: str) -> None:
    with pytest.raises(InputError, match="run lengths are damaged"):
        read_annotations(coco(tmp_path, {"counts": counts, "size": [7, 9]}), tmp_path / "a.png", SHAPE)


@pytest.mark.parametrize("corner", [float("inf"), float("nan"), 1e18, -1e18, 1e300])
def test_a_polygon_far_from_its_picture_is_refused(tmp_path: Path, corner: float) -> None:
    with pytest.raises(InputError, match="must lie on its picture"):
        read_annotations(coco(tmp_path, [[0, 0, corner, 0, 6, 6]]), tmp_path / "a.png", SHAPE)


def test_a_polygon_may_leave_its_picture_by_little(tmp_path: Path) -> None:
    labels = read_annotations(coco(tmp_path, [[-1, -1, 10, -1, 10, 8, -1, 8]]), tmp_path / "a.png", SHAPE)
    assert labels.all()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "iso-8859-1"])
def test_entities_are_refused_in_every_encoding(tmp_path: Path, encoding: str) -> None:
    assert read_annotations(cvat(tmp_path, "", "x", encoding), tmp_path / "a.png", SHAPE).any()
    head = '<!DOCTYPE a [<!ENTITY a0 "bb"><!ENTITY a1 "&a0;&a0;">]>'
    with pytest.raises(InputError, match="must not define entities"):
        read_annotations(cvat(tmp_path, head, "&a1;", encoding), tmp_path / "a.png", SHAPE)
