"""Annotations that are made to harm: refused in one line, in time that grows with the file alone."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL.Image")
from attunet.errors import InputError
from attunet.io.pictures import annotations
from attunet.io.pictures.annotations import load_annotations, read_annotations
from attunet.io.pictures.regions import Annotations

SHAPE = (9, 7, 1)
OUTLINE = [1, 1, 5, 1, 5, 4]


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


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.json", "[" + "[]," * 400 + "0]"), ("a.json", "[" + "{}," * 400 + "0]"), ("a.xml", "<a>" + "<a/>" * 400)],
)
def test_a_file_of_lists_that_hold_nothing_is_not_parsed(
    name: str, content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_text(content)
    monkeypatch.setattr(annotations, "FREE_PARTS", 100)
    for parser in ("parse_json", "read_cvat"):
        monkeypatch.setattr(annotations, parser, None)
    with pytest.raises(InputError, match=r"bytes must have at most \d{3} lists or elements, got 40\d"):
        load_annotations(tmp_path / name)


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


@pytest.mark.parametrize("kept", range(6))
def test_run_lengths_that_are_cut_short_are_refused(tmp_path: Path, kept: int) -> None:
    runs = [5, 10, 2, 30, 1, 15][:kept]
    for counts in (runs, packed(runs)):
        with pytest.raises(InputError, match="must be whole numbers that fill 63 pixels"):
            read_annotations(coco(tmp_path, {"counts": counts, "size": [7, 9]}), tmp_path / "a.png", SHAPE)
    image = '<image id="0" name="a.png" width="9" height="7"><mask label="x" left="0" top="0" width="9" height="7" rle='
    rle = ",".join(map(str, runs)) or "1"
    (tmp_path / "a.xml").write_text(f'<annotations>{image}"{rle}"/></image></annotations>')
    with pytest.raises(InputError, match="must be whole numbers that fill 63 pixels"):
        read_annotations(tmp_path / "a.xml", tmp_path / "a.png", SHAPE)


def test_text_that_ends_within_a_run_length_is_refused(tmp_path: Path) -> None:
    text = packed([3, 60])
    assert len(text) == 3
    with pytest.raises(InputError, match="the last one is cut short"):
        read_annotations(coco(tmp_path, {"counts": text[:-1], "size": [7, 9]}), tmp_path / "a.png", SHAPE)


@pytest.mark.parametrize("key", ["image_id", "category_id"])
@pytest.mark.parametrize("number", [0.9, 1.9, True, float("inf")])
def test_ids_are_not_rounded(tmp_path: Path, key: str, number: float) -> None:
    path = coco(tmp_path, [OUTLINE])
    data = json.loads(path.read_text())
    data["annotations"][0][key] = number
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"ids and sizes must be whole numbers|is neither COCO"):
        read_annotations(path, tmp_path / "a.png", SHAPE)


@pytest.mark.parametrize("counts", [[5.9, 10, 48], [5.0, 10, 48], [True, 62], ["5", 10, 48]])
def test_run_lengths_are_not_rounded(tmp_path: Path, counts: list[object]) -> None:
    with pytest.raises(InputError, match="must be whole numbers that fill 63 pixels"):
        read_annotations(coco(tmp_path, {"counts": counts, "size": [7, 9]}), tmp_path / "a.png", SHAPE)


@pytest.mark.parametrize("corner", [float("inf"), float("nan"), 1e18, -1e18, 1e300])
def test_a_polygon_far_from_its_picture_is_refused(tmp_path: Path, corner: float) -> None:
    with pytest.raises(InputError, match="must lie on its picture"):
        read_annotations(coco(tmp_path, [[0, 0, corner, 0, 6, 6]]), tmp_path / "a.png", SHAPE)


def test_a_polygon_may_leave_its_picture_by_little(tmp_path: Path) -> None:
    labels = read_annotations(coco(tmp_path, [[-1, -1, 10, -1, 10, 8, -1, 8]]), tmp_path / "a.png", SHAPE)
    assert labels.all()


@pytest.mark.parametrize("corners", [[12, 1, 15, 1, 15, 4], [1, 9, 5, 9, 5, 11], [-6, 1, -2, 1, -2, 4]])
def test_a_polygon_beside_its_picture_draws_nothing(tmp_path: Path, corners: list[int]) -> None:
    assert not read_annotations(coco(tmp_path, [corners]), tmp_path / "a.png", SHAPE).any()


def test_a_mask_is_not_unpacked_before_its_size_is_compared(tmp_path: Path) -> None:
    path = coco(tmp_path, {"counts": [0, 2**30], "size": [2**15, 2**15]})
    data = json.loads(path.read_text())
    del data["images"][0]["width"]
    path.write_text(json.dumps(data))
    tracemalloc.start()
    with pytest.raises(InputError, match=r"a\.png is annotated on 32768 × 32768 pixels and has 9 × 7"):
        read_annotations(path, tmp_path / "a.png", SHAPE)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


@pytest.mark.parametrize("seed", range(20))
def test_run_lengths_are_those_of_the_whole_mask(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((7, 9)) < rng.choice([0, 0.05, 0.5, 1])
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *edges, flat.size]).tolist()
    runs = [0, *runs] if flat[0] else runs
    labels = read_annotations(coco(tmp_path, {"counts": runs, "size": [7, 9]}), tmp_path / "a.png", SHAPE)
    np.testing.assert_array_equal(labels[:, :, 0], mask.T)


@pytest.mark.parametrize("seed", range(20))
def test_polygons_are_those_of_a_whole_canvas(tmp_path: Path, seed: int) -> None:
    from PIL import Image, ImageDraw

    rng = np.random.default_rng(seed)
    corners = rng.uniform((-4, -3), (14, 11), (6, 2)).ravel().tolist()
    canvas = Image.new("1", (9, 7))
    ImageDraw.Draw(canvas).polygon(corners, fill=1, outline=1)
    labels = read_annotations(coco(tmp_path, [corners]), tmp_path / "a.png", SHAPE)
    np.testing.assert_array_equal(labels[:, :, 0], np.asarray(canvas).T)


@pytest.mark.parametrize(("large", "covered"), [(16, 253), (1, 16)])
def test_regions_cover_a_large_picture_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: int, covered: int
) -> None:
    monkeypatch.setattr(annotations, "LARGE", large)
    path = coco(tmp_path, {"counts": [0, 63], "size": [7, 9]})
    data = json.loads(path.read_text())
    data["annotations"] *= covered
    path.write_text(json.dumps(data))
    assert read_annotations(path, tmp_path / "a.png", SHAPE).all()
    data["annotations"] += data["annotations"][:1]
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match=f"must not cover it more than {covered:,} times"):
        read_annotations(path, tmp_path / "a.png", SHAPE)


SMALL_MASK = {"counts": [2000 * 1990 + 1993, 1, 2000 * 7 - 1, 1, 2000 * 2 + 6], "size": [2000, 2000]}


@pytest.mark.parametrize(
    ("drawn", "times"), [([[1993, 1993, 1996, 1993, 1996, 1997]], 8000), (SMALL_MASK, 6000)], ids=["polygon", "mask"]
)
def test_thousands_of_small_regions_of_a_large_picture_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn: object, times: int
) -> None:
    monkeypatch.setattr(annotations, "LARGE", 1)
    path = coco(tmp_path, drawn)
    data = json.loads(path.read_text())
    data["images"][0].update(width=2000, height=2000)
    data["annotations"] *= times
    path.write_text(json.dumps(data))
    labels = read_annotations(path, tmp_path / "a.png", (2000, 2000, 1))
    assert np.argwhere(labels)[:, 1].min() == 1993


def test_regions_that_cover_a_picture_a_thousand_times_are_refused(tmp_path: Path) -> None:
    path = coco(tmp_path, [[0, 0, 8, 0, 8, 6, 0, 6]])
    data = json.loads(path.read_text())
    data["annotations"] *= 1001
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match="must not cover it more than 1,000 times"):
        read_annotations(path, tmp_path / "a.png", SHAPE)


def test_a_polygon_that_crosses_its_rows_too_often_is_refused(tmp_path: Path) -> None:
    zigzag = [coordinate for corner in range(1001) for coordinate in (corner % 9, corner % 2 * 6)]
    with pytest.raises(InputError, match=r"the regions of a\.png must not cover it more than 1,000 times"):
        read_annotations(coco(tmp_path, [zigzag]), tmp_path / "a.png", SHAPE)
    assert read_annotations(coco(tmp_path, [zigzag[:60]]), tmp_path / "a.png", SHAPE).any()


@pytest.mark.parametrize(
    ("names", "picture", "expected"),
    [
        (["a.png", "x/a.png", "y/x/a.png"], "/data/y/x/a.png", "y/x/a.png"),
        (["z/a.png", "x/a.png"], "/data/y/x/a.png", "x/a.png"),
        (["z/a.png", "v/a.png", "a.png"], "/data/y/x/a.png", "a.png"),
        (["0a1b2c3d-a.png"], "/data/a.png", "0a1b2c3d-a.png"),
        (["0a1b2c3d-a.png", "q/a.png"], "/data/a.png", "q/a.png"),
        (["b.png"], "/data/a.png", None),
    ],
)
def test_a_picture_has_the_longest_common_end(names: list[str], picture: str, expected: str | None) -> None:
    assert Annotations({}, {name: [] for name in names}).name_of(Path(picture)) == expected


def test_classes_are_the_names_of_labels_and_not_of_what_they_hold(tmp_path: Path) -> None:
    path = cvat(tmp_path, "", "b", "utf-8")
    within = "<label><name>a</name><attributes><attribute><name>age</name></attribute></attributes></label>"
    path.write_text(path.read_text().replace("<image", f"<meta>{within}<label><name>b</name></label></meta><image", 1))
    assert load_annotations(path).values == {"a": 1, "b": 2}


def test_labels_within_each_other_take_memory_in_proportion(tmp_path: Path) -> None:
    path = cvat(tmp_path, "", "x", "utf-8")
    nested = "<label>" * 2000 + "<name>x</name>" * 2000 + "</label>" * 2000
    path.write_text(path.read_text().replace("<image", f"<meta>{nested}</meta><image", 1))
    tracemalloc.start()
    assert load_annotations(path).values == {"x": 1}
    assert tracemalloc.get_traced_memory()[1] < 2**23
    tracemalloc.stop()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "iso-8859-1"])
def test_entities_are_refused_in_every_encoding(tmp_path: Path, encoding: str) -> None:
    assert read_annotations(cvat(tmp_path, "", "x", encoding), tmp_path / "a.png", SHAPE).any()
    head = '<!DOCTYPE a [<!ENTITY a0 "bb"><!ENTITY a1 "&a0;&a0;">]>'
    with pytest.raises(InputError, match="must not define entities"):
        read_annotations(cvat(tmp_path, head, "&a1;", encoding), tmp_path / "a.png", SHAPE)


@pytest.mark.parametrize("kind", ["images", "categories"])
def test_an_id_of_two_rows_is_refused(tmp_path: Path, kind: str) -> None:
    data = json.loads(coco(tmp_path, [OUTLINE]).read_text())
    data[kind].append({**data[kind][0], "file_name": "b.png", "name": "y"})
    (tmp_path / "annotations.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"gives two rows the (picture|category) id [01]: give each an id of its own"):
        read_annotations(tmp_path / "annotations.json", tmp_path / "a.png", SHAPE)


def test_names_with_the_separators_of_windows(tmp_path: Path) -> None:
    path = coco(tmp_path, [OUTLINE])
    path.write_text(path.read_text().replace("a.png", "images\\\\a.png"))
    assert read_annotations(path, tmp_path / "images/a.png", SHAPE).any()


def brush(folder: Path, stream: str) -> Path:
    """A brush of Label Studio on 9 x 7 pixels: its run lengths as bits."""
    stream += "0" * (-len(stream) % 8)
    rle = [int(stream[at : at + 8], 2) for at in range(0, len(stream), 8)]
    value = {"brushlabels": ["x"], "rle": rle}
    result = {"type": "brushlabels", "original_width": 9, "original_height": 7, "value": value}
    data = [{"data": {"image": "/data/local-files/?d=my%20folder/%C3%BC.png"}, "annotations": [{"result": [result]}]}]
    (folder / "tasks.json").write_text(json.dumps(data))
    return folder / "tasks.json"


def brush_head(word: int) -> str:
    return format(9 * 7 * 4, "032b") + format(word - 1, "05b") + "".join(format(n - 1, "04b") for n in (3, 4, 8, 16))


def test_a_brush_of_runs_and_literals(tmp_path: Path) -> None:
    alpha = np.random.default_rng(0).integers(0, 256, 63)
    alpha[:20], alpha[20:30] = 0, 255
    values = [value for pixel in alpha for value in (pixel, 1, 2, pixel)]
    stream = brush_head(8) + "1" + "10" + format(79, "08b") + format(0, "08b")  # 80 zeros, of which alpha alone counts
    stream += "0" + "10" + format(171, "08b") + "".join(format(int(value), "08b") for value in values[80:])
    labels = read_annotations(brush(tmp_path, stream), tmp_path / "my folder/ü.png", SHAPE)
    np.testing.assert_array_equal(labels[:, :, 0].T.ravel(), alpha > 127)
    with pytest.raises(InputError, match="a brush's run lengths are cut short"):
        read_annotations(brush(tmp_path, stream[:-8]), tmp_path / "ü.png", SHAPE)
    with pytest.raises(InputError, match="a brush's words must have 8 bits, got 1: export it again"):
        read_annotations(brush(tmp_path, brush_head(1) + "0" * 99), tmp_path / "ü.png", SHAPE)


def test_corners_take_memory_in_proportion(tmp_path: Path) -> None:
    path = cvat(tmp_path, "", "x", "utf-8")
    path.write_text(path.read_text().replace("5,4", "5,4" + ";5,4" * 200_000))
    tracemalloc.start()
    load_annotations(path)
    assert tracemalloc.get_traced_memory()[1] < 25 * path.stat().st_size
    tracemalloc.stop()


@pytest.mark.parametrize(
    "points", ["", "1,1;;5,4", "1,1;5,4;", "1;5;4", "1,1,1;5,1,1;5,4,1", "1,1;5,1,5;4", "1,x;2,3;4,5"]
)
def test_points_that_are_no_pairs_are_refused(tmp_path: Path, points: str) -> None:
    path = cvat(tmp_path, "", "x", "utf-8")
    path.write_text(path.read_text().replace("1,1;5,1;5,4", points))
    with pytest.raises(InputError, match=r"annotations\.xml: .*(: export it|; export them) again"):
        read_annotations(path, tmp_path / "a.png", SHAPE)


@pytest.mark.parametrize("counts", ["0" * 200, [0] * 198 + [63]])
def test_more_run_lengths_than_pixels_are_refused(tmp_path: Path, counts: object) -> None:
    with pytest.raises(InputError, match=r"run lengths (are damaged: .* or too many|must be whole numbers that fill)"):
        read_annotations(coco(tmp_path, {"counts": counts, "size": [7, 9]}), tmp_path / "a.png", SHAPE)


def test_a_class_called_background_is_what_no_region_covers(tmp_path: Path) -> None:
    path = coco(tmp_path, [OUTLINE])
    data = json.loads(path.read_text())
    data["categories"] = [{"id": 1, "name": "background"}, {"id": 2, "name": "x"}]
    whole = {"image_id": 0, "category_id": 2, "segmentation": {"counts": [0, 63], "size": [7, 9]}}
    data["annotations"].insert(0, whole)
    path.write_text(json.dumps(data))
    labels = read_annotations(path, tmp_path / "a.png", SHAPE)
    assert set(np.unique(labels)) == {0, 2}
    assert labels[4, 2, 0] == 0
