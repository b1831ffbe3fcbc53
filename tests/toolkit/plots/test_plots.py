"""Pictures show the patient the right way round, and what they are given."""

import itertools
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="matplotlib draws the pictures")

from matplotlib.image import imread

from attunet.classes import CHAOS_MR, Classes
from attunet.plots.attention import draw_attention
from attunet.plots.confusion import draw_confusion
from attunet.plots.contact_sheet import draw_contact_sheet, tile
from attunet.plots.curves import draw_curves
from attunet.plots.figure import new_figure, save
from attunet.plots.organ_slices import MAX_SLICES, draw_organ_slices, slices_to_show
from attunet.plots.outlines import draw_outlines
from attunet.plots.speed import (
    PART_COLORS,
    draw_dice_against_latency,
    draw_latency_against_batch,
    draw_volume_time,
    pareto_front,
)
from attunet.plots.view import fullest_slice, largest_slice, view_of
from attunet.volumes.volume import Volume

RAS = np.diag([1.5, 2.0, 8.0, 1.0])
LAS = np.diag([-1.5, 2.0, 8.0, 1.0])
# Sagittal scan: axes run to anterior, superior, right
ASR = np.array([[0, 0, 1.5, 0], [2.0, 0, 0, 0], [0, 8.0, 0, 0], [0, 0, 0, 1.0]])


def scan(affine: np.ndarray, shape: tuple[int, int, int] = (20, 30, 8)) -> Volume:
    return Volume(np.random.default_rng(0).normal(100, 10, (1, *shape)), affine)


def corner_marked(affine: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """A label in the patient's right, anterior, superior corner, wherever the array has it."""
    corners = np.array([(*corner, 1) for corner in itertools.product(*((0, n - 1) for n in shape))])
    world = corners @ affine.T
    chosen = corners[np.argmax(world[:, :3] @ (1, 1, 1))]  # RAS+: right, anterior and superior are positive
    labels = np.zeros(shape, dtype=np.uint8)
    labels[tuple(chosen[:3].astype(int))] = 1
    return labels


@pytest.mark.parametrize("affine", [RAS, LAS, ASR], ids=["RAS", "LAS", "ASR"])
@pytest.mark.parametrize(
    ("slice_axis", "corner"),
    [(2, (-1, 0, 0)), (1, (0, 0, 0)), (0, (0, 0, 0))],
    ids=["axial", "coronal", "sagittal"],
)
def test_right_is_on_the_left_and_front_or_head_at_the_top(
    affine: np.ndarray, slice_axis: int, corner: tuple[int, int, int]
) -> None:
    volume = scan(affine)
    shown = view_of(volume, slice_axis=slice_axis).slices(corner_marked(affine, volume.shape))
    assert shown[corner] == 1  # (slice, row, column): the superior slice's top left, and so on


def test_pixels_have_their_true_proportion() -> None:
    assert view_of(scan(RAS)).row_over_column == pytest.approx(2.0 / 1.5)
    assert view_of(scan(RAS), slice_axis=1).row_over_column == pytest.approx(8.0 / 1.5)
    assert view_of(scan(ASR), slice_axis=0).row_over_column == pytest.approx(8.0 / 2.0)


def test_images_without_orientation_are_shown_as_stored() -> None:
    volume = Volume(np.arange(12.0).reshape(1, 4, 3, 1), np.eye(4), unit="pixel")
    view = view_of(volume, oriented=False)
    assert view.sides == ()
    np.testing.assert_array_equal(view.slices(volume.data[0])[0], volume.data[0, :, :, 0].T)


def test_which_slice_is_shown() -> None:
    labels = np.zeros((4, 5, 5), dtype=np.uint8)
    labels[1], labels[2, 0], labels[2, 1] = 1, 1, 2
    assert largest_slice(labels == 1) == 1
    assert largest_slice(labels == 3) is None
    assert fullest_slice(labels) == 2


def _is_picture(path: Path) -> bool:
    pixels = imread(path)
    return min(pixels.shape[:2]) > 200 and float(pixels[..., :3].std()) > 0.02


def test_every_picture_is_drawn(tmp_path: Path) -> None:
    volume = scan(LAS)
    truth = np.zeros(volume.shape, dtype=np.uint8)
    truth[3:9, 5:12, 2:6], truth[12:18, 5:12, 3:7] = 1, 2
    missing = np.zeros_like(truth)
    view = view_of(volume)
    counts = np.array([[90, 5, 0, 0, 0], [10, 40, 0, 0, 0], *([[0] * 5] * 3)])
    rows = [
        {"event": "train", "step": 1, "epoch": 0.5, "loss": 1.0},
        {"event": "validation", "step": 2, "epoch": 1.0, "loss": 0.9, "dice": {"mean": None}},
        {"event": "train", "step": 3, "epoch": 1.5, "loss": 0.5},
        {"event": "validation", "step": 4, "epoch": 2.0, "loss": 0.6, "dice": {"mean": 0.7}},
    ]
    maps = [np.random.default_rng(n).uniform(size=(n, n)) for n in (4, 8, 16)]
    pictures = [
        draw_outlines(
            tmp_path / "new/outlines.png", volume, view, {"a": truth, "b": missing}, CHAOS_MR, truth=truth, title="a"
        ),
        draw_organ_slices(tmp_path / "organ.png", volume, view, truth == 1, missing == 1, title="missed"),
        draw_organ_slices(tmp_path / "false.png", volume, view, missing == 1, truth == 1, title="invented"),
        draw_contact_sheet(tmp_path / "sheet.png", [tile("a", volume, view, one) for one in (truth, None)], CHAOS_MR),
        draw_attention(
            *(tmp_path / "attention.png", np.eye(32), maps, CHAOS_MR),
            labels=np.eye(32, dtype=np.uint8),
            sides=view.sides,
            title="a",
        ),
        draw_confusion(tmp_path / "confusion.png", counts, CHAOS_MR, title="rows without voxels"),
        draw_curves(tmp_path / "curves.png", {"unet": rows, "just started": []}),
    ]
    assert all(_is_picture(path) for path in pictures)


def test_the_most_wrong_slices_of_an_organ_are_shown() -> None:
    true = np.zeros((40, 8, 8), dtype=bool)
    true[5:35, :4] = True
    found = true.copy()
    found[10:20, 0] = False  # eight pixels wrong in ten slices
    found[36, 7, 7] = True  # one, where there is no organ
    shown = slices_to_show(true, found)
    assert len(shown) == MAX_SLICES
    assert {*range(10, 20), 36} < {*shown.tolist()}
    assert (np.diff(shown) > 0).all()


def test_speed_pictures(tmp_path: Path) -> None:
    def row(dice: float | None, latency: float) -> dict[str, object]:
        return {
            "dice": {"mean": dice, "ci95": [0.8, 0.9] if dice else None},
            "latency_ms": {
                "batch": {"1": {"p50": latency, "p95": 2 * latency}, "8": {"p50": 6 * latency, "p95": 7 * latency}}
            },
            "throughput_slices_per_s": {"batch": {"1": 1 / latency, "8": 8 / latency}},
            "volume_ms": {"read": 5, "prepare": 6, "network": 30 * latency, "finish": 7, "write": 8, "total": 0},
        }

    rows = {"slow": row(0.9, 30.0), "fast": row(0.88, 3.0), "all cases seen": row(None, 4.0)}
    for draw in (draw_dice_against_latency, draw_latency_against_batch, draw_volume_time):
        assert _is_picture(draw(tmp_path / f"{draw.__name__}.png", rows))


def test_pareto_front_leaves_out_what_is_beaten_in_both() -> None:
    points = {"slow best": (30.0, 0.92), "beaten": (31.0, 0.91), "fast": (3.0, 0.88), "middle": (10.0, 0.90)}
    points["as fast, worse"] = (3.0, 0.87)
    assert pareto_front(points) == ["fast", "middle", "slow best"]


def test_the_confusion_of_many_classes_is_a_picture_of_a_few_megapixels(tmp_path: Path) -> None:
    classes = Classes(("background", *(f"organ {index}" for index in range(39))), tuple(range(40)))
    picture = draw_confusion(tmp_path / "confusion.png", np.eye(40), classes)
    assert max(imread(picture).shape) < 2000


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["a\x1b[31m", "a\udcff"])
def test_control_characters_and_names_that_are_no_utf8_are_drawn(tmp_path: Path, name: str) -> None:
    figure = new_figure(4, 3)
    figure.text(0.1, 0.5, name)
    assert _is_picture(save(figure, tmp_path / "picture.png", title=name))
    classes = Classes(("background", name.replace("\udcff", "\x85")), (0, 1))  # whose names are UTF-8
    assert _is_picture(draw_confusion(tmp_path / "confusion.png", np.eye(2), classes, title=name))
    row = {"volume_ms": dict.fromkeys(PART_COLORS, 1.0)}
    assert _is_picture(draw_volume_time(tmp_path / "time.png", {name: row, "b": row}))


@pytest.mark.parametrize("name", ["$\\frac{$", "$x^2$", "a$b$c"])
def test_a_name_is_drawn_as_text(tmp_path: Path, name: str) -> None:
    """Names come from files: a dollar sign begins no formula, which would fail where it is none."""

    def picture(text: str) -> np.ndarray:
        figure = new_figure(3, 1)
        figure.text(0.1, 0.5, text)
        return np.asarray(imread(save(figure, tmp_path / "picture.png")))

    assert picture(name).shape == picture("").shape
    assert not np.array_equal(picture(name), picture(name.replace("$", "")))  # the signs are seen


def test_no_settings_of_the_working_directory_have_tex_draw_names(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\n")
    script = "import attunet.plots.figure, matplotlib; print(matplotlib.rcParams['text.usetex'])"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_letters_that_the_font_lacks_are_no_warning(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save(new_figure(2, 1), tmp_path / "a.png", "\u809d\u81d3")
    assert (tmp_path / "a.png").stat().st_size > 0
