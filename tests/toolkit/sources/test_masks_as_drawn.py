"""Masks of drawing programs: the store has what was drawn, and prepare says how it was read."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from attunet.config import DataConfig
from attunet.decisions import parse_choices
from attunet.errors import InputError
from attunet.io.readers import read_volume
from attunet.preparation.prepare import prepare
from attunet.sources.case_files import SourceOptions
from attunet.sources.labels.codings import parse_classes
from attunet.sources.read_case import MaskOptions, read_labels
from attunet.store import Store

Image = pytest.importorskip("PIL.Image")
RGB = {0: (0, 0, 0), 1: (255, 0, 0), 2: (0, 255, 0)}


def stored(root: Path, options: SourceOptions = SourceOptions()) -> Store:  # noqa: B008
    return prepare(root, root.with_name(root.name + "-store"), DataConfig(), options=options, folds=2)


def indices(store: Store, case: str) -> np.ndarray:
    """Class indices (rows, columns) of a picture."""
    labels = store.read_source(case)[1]
    assert labels is not None
    return labels[:, :, 0].T


def assert_drawn(store: Store, truth: list[np.ndarray], expected: Callable[[np.ndarray], np.ndarray]) -> None:
    """Every picture has the class indices that are expected of its true labels."""
    for i, labels in enumerate(truth):
        np.testing.assert_array_equal(indices(store, f"p{i}"), expected(labels))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def rules(store: Store) -> set[str]:
    return {finding["rule"] for finding in store.manifest["findings"] if finding["level"] == "decided"}


def set_of(made: SimpleNamespace, root: Path, masks, number: int = 4, **plane) -> list[np.ndarray]:
    """A set of pictures; `masks(i, labels)` is what is saved as the i-th mask. Returns the true labels."""
    truth = []
    for i in range(number):
        image, labels = made.plane(i, **plane)
        made.save_picture(root / f"images/p{i}.png", image)
        saved = masks(i, labels)
        options = {}
        if isinstance(saved, tuple):
            saved, options = saved
        made.save_picture(root / f"masks/p{i}{options.pop('suffix', '.png')}", saved, **options)
        truth.append(labels)
    return truth


def palette(labels: np.ndarray, order: tuple[int, ...], extra: tuple[int, ...] = ()) -> "Image.Image":
    mask = Image.fromarray(np.argsort(order).astype(np.uint8)[labels])
    mask.putpalette([part for value in order for part in RGB[value]] + list(extra))
    return mask


def test_a_colour_is_a_class_whatever_its_place_in_the_palettes(made: SimpleNamespace, tmp_path: Path) -> None:
    orders = [(0, 1, 2), (1, 0, 2), (2, 1, 0), (0, 2, 1)]
    truth = set_of(made, tmp_path / "s", lambda i, labels: palette(labels, orders[i]))
    store = stored(tmp_path / "s")
    assert store.classes.names == ("background", "#00ff00", "#ff0000")
    assert_drawn(store, truth, lambda labels: np.array([0, 2, 1])[labels])
    assert "mask-colours" in rules(store)


def test_colours_without_a_palette_are_the_same_classes(made: SimpleNamespace, tmp_path: Path) -> None:
    def mask(i: int, labels: np.ndarray) -> object:
        return palette(labels, (2, 0, 1)) if i % 2 else np.array([RGB[v] for v in range(3)], np.uint8)[labels]

    truth = set_of(made, tmp_path / "s", mask)
    store = stored(tmp_path / "s", SourceOptions(classes=parse_classes("liver=#ff0000,spleen=#00FF00")))
    assert store.classes.names == ("background", "liver", "spleen")
    assert_drawn(store, truth, lambda labels: labels)


@pytest.mark.parametrize("suffix", [".png", ".gif", ".bmp", ".tif"])
def test_palettes_of_the_colours_in_use_alone(made: SimpleNamespace, tmp_path: Path, suffix: str) -> None:
    """Programs that make files smaller leave out the colours that a picture does not have."""
    orders = [(2, 0), (0, 1), (1, 2, 0), (2, 0, 1)]

    def drawn(i: int, labels: np.ndarray) -> np.ndarray:
        return np.where(np.isin(labels, orders[i]), labels, 0).astype(np.uint8)

    def mask(i: int, labels: np.ndarray) -> object:
        places = np.zeros(3, np.uint8)
        places[list(orders[i])] = np.arange(len(orders[i]))
        image = Image.fromarray(places[drawn(i, labels)])
        image.putpalette([part for value in orders[i] for part in RGB[value]])
        return image, {"suffix": suffix}

    truth = set_of(made, tmp_path / "s", mask)
    store = stored(tmp_path / "s")
    assert store.classes.names == ("background", "#00ff00", "#ff0000")
    for i, labels in enumerate(truth):
        np.testing.assert_array_equal(indices(store, f"p{i}"), np.array([0, 2, 1])[drawn(i, labels)])


def test_black_and_white_in_either_order_of_the_palette(made: SimpleNamespace, tmp_path: Path) -> None:
    def mask(i: int, labels: np.ndarray) -> object:
        image = Image.fromarray(((labels > 0) != i % 2).astype(np.uint8))
        image.putpalette([255, 255, 255, 0, 0, 0] if i % 2 else [0, 0, 0, 255, 255, 255])
        return image

    truth = set_of(made, tmp_path / "s", mask)
    store = stored(tmp_path / "s")
    assert_drawn(store, truth, lambda labels: labels > 0)


def test_palettes_that_agree_keep_their_indices(made: SimpleNamespace, tmp_path: Path) -> None:
    truth = set_of(made, tmp_path / "s", lambda i, labels: palette(labels * (i != 2), (0, 1, 2)))
    store = stored(tmp_path / "s")
    assert (store.classes.values, store.classes.names[1]) == ((0, 1, 2), "label 1")
    np.testing.assert_array_equal(indices(store, "p0"), truth[0])


def test_a_users_classes_name_the_indices_of_palettes_that_agree(made: SimpleNamespace, tmp_path: Path) -> None:
    truth = set_of(made, tmp_path / "s", lambda i, labels: palette(labels, (0, 1, 2)))
    store = stored(tmp_path / "s", SourceOptions(classes=parse_classes("liver=2,ignore=1")))
    assert (store.classes.names, store.classes.values) == (("background", "liver"), (0, 2))
    assert_drawn(store, truth, lambda labels: np.array([0, 255, 1])[labels])
    with pytest.raises(InputError, match="label values must be among 0, 1, got 2"):
        prepare(tmp_path / "s", tmp_path / "t", DataConfig(), options=SourceOptions(classes=parse_classes("liver=1")))


def test_a_palette_whose_colours_are_all_alike_keeps_its_indices(made: SimpleNamespace, tmp_path: Path) -> None:
    def mask(_: int, labels: np.ndarray) -> object:
        image = Image.fromarray(labels)
        image.putpalette([0, 0, 0] * 256)
        return image

    truth = set_of(made, tmp_path / "s", mask)
    assert stored(tmp_path / "s").classes.values == (0, 1, 2)
    np.testing.assert_array_equal(indices(stored(tmp_path / "s"), "p1"), truth[1])


def painted(labels: np.ndarray, colours: np.ndarray) -> np.ndarray:
    return np.dstack([*np.moveaxis(colours, -1, 0), 255 * (labels > 0)]).astype(np.uint8)


@pytest.mark.parametrize("colour", [(255, 255, 255), (0, 0, 0), (200, 30, 40)])
def test_one_colour_of_paint_on_a_transparent_ground_is_the_object(
    made: SimpleNamespace, tmp_path: Path, colour: tuple[int, ...]
) -> None:
    truth = set_of(made, tmp_path / "s", lambda _, labels: painted(labels, np.broadcast_to(colour, (*labels.shape, 3))))
    store = stored(tmp_path / "s")
    assert_drawn(store, truth, lambda labels: labels > 0)
    assert rules(store) == {"alpha-mask", *(["mask-colours"] if colour == (200, 30, 40) else [])}


def test_half_transparent_paint_keeps_its_colours(made: SimpleNamespace, tmp_path: Path) -> None:
    colours = np.array([(0, 0, 0), RGB[1], RGB[2]])

    def mask(_: int, labels: np.ndarray) -> np.ndarray:
        layers = painted(labels, colours[labels])
        layers[:, :, 3] //= 3
        return layers

    truth = set_of(made, tmp_path / "s", mask)
    np.testing.assert_array_equal(indices(stored(tmp_path / "s"), "p0"), np.array([0, 2, 1])[truth[0]])


def test_several_colours_of_paint_on_a_transparent_ground_are_classes(made: SimpleNamespace, tmp_path: Path) -> None:
    colours = np.array([(77, 66, 55), RGB[1], RGB[2]])
    truth = set_of(made, tmp_path / "s", lambda _, labels: painted(labels, colours[labels]))
    store = stored(tmp_path / "s")
    np.testing.assert_array_equal(indices(store, "p0"), np.array([0, 2, 1])[truth[0]])


@pytest.mark.parametrize("colours", [np.array([(0, 0, 0), (255, 0, 0), (0, 255, 0)]), np.array([[0], [90], [180]])])
def test_a_mask_of_one_class_alone_keeps_its_colour(made: SimpleNamespace, tmp_path: Path, colours: np.ndarray) -> None:
    def mask(number: int, labels: np.ndarray) -> np.ndarray:
        kept = np.where(labels == number % 2 + 1, labels, 0)
        return painted(kept, np.broadcast_to(colours[kept], (*kept.shape, 3)))

    truth = set_of(made, tmp_path / "s", mask)
    store = stored(tmp_path / "s")
    assert len(store.classes) == 3
    drawn = [np.unique(indices(store, f"p{number}")).tolist() for number in range(len(truth))]
    assert {tuple(values) for values in drawn} == {(0, 1), (0, 2)}


def test_masks_of_slices_are_read_as_the_user_wants_and_say_so(made, tmp_path: Path, write_series) -> None:
    path = write_series(tmp_path / "series", np.ones((6, 5, 1), np.int16), np.diag([-1.0, -1, 5, 1]))[0]
    painted = np.zeros((5, 6, 4), np.uint8)
    painted[:2, :, 3] = 255
    made.save_picture(tmp_path / f"masks/{path.stem}.png", painted)
    image = read_volume(tmp_path / "series")
    for choices, value, rule in (({}, 255, ["alpha-mask"]), ({"alpha-mask": "drop"}, 0, [])):
        mask = read_labels([tmp_path / "masks"], image, tmp_path / "series", MaskOptions(choices=choices))
        assert (mask.values[0, 0, 0], [one.rule for one in mask.decisions]) == (value, rule)


def test_grey_paint_and_a_transparent_index_of_a_palette(made: SimpleNamespace, tmp_path: Path) -> None:
    def mask(i: int, labels: np.ndarray) -> object:
        if i % 2:
            layers = np.dstack([np.full_like(labels, 255), 255 * (labels > 0).astype(np.uint8)])
            return Image.fromarray(layers, "LA")
        image = Image.fromarray((labels > 0).astype(np.uint8))
        image.putpalette([255, 255, 255, 255, 255, 255])
        return image, {"transparency": 0}

    truth = set_of(made, tmp_path / "s", mask)
    store = stored(tmp_path / "s")
    assert_drawn(store, truth, lambda labels: labels > 0)


@pytest.mark.parametrize("orientation", [2, 3, 5, 6, 8])
def test_photographs_are_turned_as_viewers_turn_them(made: SimpleNamespace, tmp_path: Path, orientation: int) -> None:
    """The mask was drawn on what people see; a second mask carries the tag itself."""
    from PIL import ImageOps

    root, tag = tmp_path / "s", Image.Exif()
    tag[0x0112] = orientation
    undone = Image.Exif()
    undone[0x0112] = {5: 5, 6: 8, 8: 6}.get(orientation, orientation)  # the inverse turn
    for i in range(3):
        image, labels = made.plane(i, (60, 44, 1), {1: (-0.45, 0.4, 0, 0.33)})
        turn = Image.fromarray(image)
        turn.getexif()[0x0112] = undone[0x0112]
        made.save_picture(root / f"images/p{i}.jpg", ImageOps.exif_transpose(turn).convert("RGB"), exif=tag, quality=95)
        mask = Image.fromarray(255 * labels)
        if i == 2:
            mask.getexif()[0x0112] = undone[0x0112]
            made.save_picture(root / f"masks/p{i}.png", ImageOps.exif_transpose(mask), exif=tag)
        else:
            made.save_picture(root / f"masks/p{i}.png", mask)
    store = stored(root)
    for i in range(3):
        volume, labels = store.read_source(f"p{i}")
        assert volume.shape == (60, 44, 1)
        assert dice(volume.data[0] > 90, labels > 0) > 0.95
    assert rules(store) == {"exif-orientation"}
    if orientation == 3:
        ignored = stored(root.rename(tmp_path / "t"), SourceOptions(choices=parse_choices(["exif-orientation=ignore"])))
        assert "exif-orientation" not in rules(ignored)


@pytest.mark.parametrize("kind", ["grey", "binary", "16 bits"])
def test_tiff_samples_are_labels_whatever_the_photometric_tag(made: SimpleNamespace, tmp_path: Path, kind: str) -> None:
    """White is zero: the samples are stored as they are, and the tag alone would invert them."""

    def mask(_: int, labels: np.ndarray) -> object:
        image = {"grey": Image.fromarray(labels), "16 bits": Image.fromarray(labels.astype(np.uint16) * 300)}.get(kind)
        return image or Image.fromarray(labels > 0), {"suffix": ".tif"}

    truth = set_of(made, tmp_path / "s", mask)
    for path in (tmp_path / "s/masks").iterdir():
        raw = path.read_bytes()
        entry = raw.index(b"\x06\x01\x03\x00\x01\x00\x00\x00")
        # As other programs write it: the tag, not the samples
        path.write_bytes(raw[: entry + 8] + b"\x00" + raw[entry + 9 :])
    store = stored(tmp_path / "s")
    assert_drawn(store, truth, lambda labels: labels > 0 if kind == "binary" else labels)


def smoothed(mask: np.ndarray, factor: int = 4) -> "Image.Image":
    image, size = Image.fromarray(mask), (mask.shape[1], mask.shape[0])
    larger = image.resize((factor * size[0], factor * size[1]), Image.Resampling.BICUBIC)
    return larger.resize(size, Image.Resampling.BILINEAR)


NESTED = {1: (-0.1, 0.1, 0, 0.34), 2: (-0.1, 0.1, 0, 0.22)}
APART = {1: (-0.45, 0.35, 0, 0.34), 2: (0.45, -0.35, 0, 0.3)}
FOUR = {**APART, 3: (0.5, 0.5, 0, 0.25)}


@pytest.mark.parametrize(
    ("organs", "greys"),
    [(NESTED, (0, 128, 255)), (APART, (0, 255, 128)), (APART, (0, 100, 200)), (FOUR, (0, 85, 170, 255))],
)
def test_greys_with_regions_are_classes_however_smooth_their_edges(
    made, tmp_path: Path, organs: dict, greys: tuple[int, ...]
) -> None:
    def mask(_: int, labels: np.ndarray) -> object:
        return smoothed(np.array(greys, np.uint8)[labels])

    truth = set_of(made, tmp_path / "s", mask, shape=(96, 80, 1), organs=organs)
    store = stored(tmp_path / "s")
    assert store.classes.values == tuple(sorted(greys))
    order = np.argsort(np.argsort(greys))
    for i, labels in enumerate(truth):
        for value in range(1, len(greys)):
            assert dice(indices(store, f"p{i}") == order[value], labels == value) > 0.95, (i, value)
    assert rules(store) == {"mask-greys"}


def test_edges_between_black_and_white_are_no_pixels_of_a_grey_class(made: SimpleNamespace, tmp_path: Path) -> None:
    """Its pixels would be those of a class that was not drawn."""
    greys = np.array((0, 128, 255), np.uint8)

    def mask(number: int, labels: np.ndarray) -> object:
        return smoothed(greys[np.where(labels == 1, int(number > 0), labels)])

    set_of(made, tmp_path / "s", mask, shape=(96, 80, 1), organs=APART)
    (tmp_path / "drawn.json").write_text('{"p0": ["label 255"]}')
    store = prepare(tmp_path / "s", tmp_path / "store", DataConfig(), folds=2, labelled_file=tmp_path / "drawn.json")
    assert store.drawn_classes("p0").tolist() == [True, False, True]


def jpeg(quality: int) -> dict[str, object]:
    return {"suffix": ".jpg", "quality": quality}


@pytest.mark.parametrize(
    ("organs", "greys", "quality"),
    [*((APART, (0, 128, 255), q) for q in (90, 50)), (FOUR, (0, 85, 170, 255), 75), (APART, (0, 100, 200), 100)],
)
def test_greys_that_went_through_jpeg_are_classes(
    made, tmp_path: Path, organs: dict, greys: tuple[int, ...], quality: int
) -> None:
    values = np.array(greys, np.uint8)
    truth = set_of(made, tmp_path / "s", lambda _, x: (values[x], jpeg(quality)), shape=(96, 80, 1), organs=organs)
    store = stored(tmp_path / "s")
    assert (store.classes.values, rules(store)) == (greys, {"mask-greys"})
    for i, labels in enumerate(truth):
        for value in range(1, len(greys)):
            assert dice(indices(store, f"p{i}") == value, labels == value) > 0.9, (i, value)


@pytest.mark.parametrize("values", [(0, 20, 40), (0, 10, 20), (0, 10, 255), (0, 1, 2)])
def test_near_values_that_went_through_jpeg_are_refused(
    made: SimpleNamespace, tmp_path: Path, values: tuple[int, ...]
) -> None:
    greys = np.array(values, np.uint8)
    set_of(made, tmp_path / "s", lambda _, labels: (greys[labels], jpeg(90)), shape=(96, 80, 1), organs=APART)
    with pytest.raises(
        InputError, match=r"masks as JPEG, which changes values, must have few greys|a mask must have a value besides 0"
    ):
        stored(tmp_path / "s")


def test_organ_files_that_went_through_jpeg_are_black_and_white_or_refused(
    made: SimpleNamespace, tmp_path: Path
) -> None:
    for grey in (255, 128):
        for i in range(2):
            image, labels = made.plane(i, shape=(96, 80, 1), organs=APART)
            made.save_picture(tmp_path / f"{grey}/images/p{i}.png", image)
            for value, name in ((1, "liver"), (2, "spleen")):
                mask = (grey * (labels == value)).astype(np.uint8)
                made.save_picture(tmp_path / f"{grey}/masks/p{i}_{name}.jpg", mask, quality=90)
    assert stored(tmp_path / "255").classes.names == ("background", "liver", "spleen")
    with pytest.raises(InputError, match=r"liver\.jpg: a mask as JPEG must be black and white here"):
        stored(tmp_path / "128")


def test_thin_vessels_that_went_through_jpeg_are_black_and_white(made: SimpleNamespace, tmp_path: Path) -> None:
    lines = np.zeros((80, 96), np.uint8)
    lines[::9, 5:90] = 255
    set_of(made, tmp_path / "s", lambda *_: (lines, jpeg(85)), shape=(96, 80, 1), organs=APART)
    store = stored(tmp_path / "s")
    assert store.classes.values == (0, 255)
    assert (indices(store, "p0") != (lines > 0)).mean() < 0.01


def blurred(mask: np.ndarray, kind: str) -> "Image.Image":
    from PIL import ImageFilter

    image = Image.fromarray(mask)
    filters = {"gauss": ImageFilter.GaussianBlur(1), "box": ImageFilter.BoxBlur(1)}
    return image.filter(filters[kind]) if kind in filters else image.rotate(7, Image.Resampling.BILINEAR)


@pytest.mark.parametrize("kind", ["gauss", "box", "turned"])
def test_two_classes_stay_two_however_they_are_smoothed(made: SimpleNamespace, tmp_path: Path, kind: str) -> None:
    greys = np.array((0, 255, 255), np.uint8)
    set_of(made, tmp_path / "s", lambda _, x: blurred(greys[x], kind), shape=(300, 260, 1), organs=APART)
    assert stored(tmp_path / "s").classes.values == (0, 255)


def test_a_peak_without_a_region_is_asked_about(made: SimpleNamespace, tmp_path: Path) -> None:
    """A ring so thin that smoothing leaves no region of it: a class, or the edge of the other?"""
    ring = {1: (-0.1, 0.1, 0, 0.30), 2: (-0.1, 0.1, 0, 0.27)}
    greys = np.array((0, 128, 255), np.uint8)
    truth = set_of(made, tmp_path / "s", lambda _, x: blurred(greys[x], "gauss"), shape=(300, 260, 1), organs=ring)
    with pytest.raises(InputError, match="the masks have a peak at grey 128 between 0, 255: a class, or edges"):
        stored(tmp_path / "s")
    three = stored(tmp_path / "s", SourceOptions(classes=parse_classes("background=0,ring=128,middle=255")))
    assert dice(indices(three, "p0") == 2, truth[0] == 2) > 0.9
    two = stored(
        (tmp_path / "s").rename(tmp_path / "t"), SourceOptions(classes=parse_classes("background=0,organ=255"))
    )
    assert set(np.unique(indices(two, "p0"))) == {0, 1}


def test_thin_classes_of_their_own_grey_are_no_edges(made: SimpleNamespace, tmp_path: Path) -> None:
    def mask(_: int, labels: np.ndarray) -> np.ndarray:
        drawn = 255 * (labels == 1).astype(np.uint8)
        drawn[3, 2:40] = drawn[36, 2:40] = 128  # vessels of one pixel
        return drawn

    set_of(made, tmp_path / "s", mask)
    assert stored(tmp_path / "s").classes.values == (0, 128, 255)


@pytest.mark.parametrize("values", [(1, 2, 3), (255, 0, 0)])
def test_a_set_whose_background_nothing_shows_is_asked_about(
    made: SimpleNamespace, tmp_path: Path, values: tuple[int, ...]
) -> None:
    truth = set_of(made, tmp_path / "s", lambda _, labels: np.array(values, np.uint8)[labels])
    with pytest.raises(InputError, match=f"--classes background={values[0]},NAME="):
        stored(tmp_path / "s")
    names = ",".join(
        f"{name}={value}" for name, value in zip(("background", "a", "b"), dict.fromkeys(values), strict=False)
    )
    store = stored(tmp_path / "s", SourceOptions(classes=parse_classes(names)))
    expected = {v: i for i, v in enumerate(dict.fromkeys(values))}
    np.testing.assert_array_equal(indices(store, "p0"), np.vectorize(lambda v: expected[values[v]])(truth[0]))


def test_colours_on_a_white_ground_are_asked_about_by_their_colours(made: SimpleNamespace, tmp_path: Path) -> None:
    colours = np.array([(255, 255, 255), (255, 0, 0), (0, 0, 255)], np.uint8)
    truth = set_of(made, tmp_path / "s", lambda _, labels: colours[labels])
    with pytest.raises(InputError, match="--classes background=255,NAME=#0000ff,NAME=#ff0000 or"):
        stored(tmp_path / "s")
    store = stored(tmp_path / "s", SourceOptions(classes=parse_classes("background=#ffffff,a=#ff0000,b=#0000ff")))
    np.testing.assert_array_equal(indices(store, "p0"), truth[0])


def test_masks_without_any_foreground_are_refused_in_one_line(made: SimpleNamespace, tmp_path: Path) -> None:
    set_of(made, tmp_path / "s", lambda _, labels: 0 * labels)
    with pytest.raises(InputError, match="a mask must have a value besides 0"):
        stored(tmp_path / "s")


def organ_files(made: SimpleNamespace, root: Path, names: dict[str, object], number: int = 3) -> list[np.ndarray]:
    truth = []
    for i in range(number):
        image, labels = made.body(i)
        made.save_nifti(root / f"s{i:04d}/ct.nii.gz", image)
        for name, inside in names.items():
            made.save_nifti(root / f"s{i:04d}/segmentations/{name}.nii.gz", inside(labels).astype(np.uint8))
        truth.append(labels)
    return truth


def test_a_file_for_each_organ_is_a_class_for_each(made: SimpleNamespace, tmp_path: Path) -> None:
    truth = organ_files(made, tmp_path / "s", {"liver": lambda x: x == 1, "kidney_left": lambda x: x == 2})
    store = stored(tmp_path / "s")
    assert store.classes.names == ("background", "kidney_left", "liver")
    np.testing.assert_array_equal(store.read_source("s0001")[1], np.array([0, 2, 1])[truth[1]])
    assert "mask-files" in rules(store)


@pytest.mark.parametrize(
    ("options", "drawn", "words"),
    [
        (
            {},
            ("liver",),
            "1 of 3 cases, s0002 the first, have no file for a class (kidney_left): it was not drawn there",
        ),
        ({"choices": {"missing-masks": "empty"}}, None, "(kidney_left): it is empty there"),
        ({"classes": parse_classes("Liver=2,kidney left=1")}, ("Liver",), "it was not drawn there"),
    ],
)
def test_a_case_without_the_file_of_a_class_is_partially_labelled(
    made: SimpleNamespace, tmp_path: Path, options: dict, drawn: tuple[str, ...] | None, words: str
) -> None:
    organ_files(made, tmp_path / "s", {"liver": lambda x: x == 1, "kidney_left": lambda x: x == 2})
    (missing,) = (tmp_path / "s").rglob("s0002/**/kidney_left*")
    missing.unlink()
    store = stored(tmp_path / "s", SourceOptions(**options))
    assert store.case("s0002").drawn == drawn
    assert store.case("s0001").drawn is None
    assert any(
        finding["rule"] == "missing-masks" and words in finding["text"] for finding in store.manifest["findings"]
    )


def test_images_beside_a_folder_with_a_mask_for_each_organ(made: SimpleNamespace, tmp_path: Path) -> None:
    for i in range(3):
        image, labels = made.body(i)
        made.save_nifti(tmp_path / f"s/c{i}/images/ct.nii.gz", image)
        for value, organ in ((1, "liver"), (2, "spleen")):
            made.save_nifti(tmp_path / f"s/c{i}/masks/{organ}.nii.gz", (labels == value).astype(np.uint8))
    store = stored(tmp_path / "s")
    assert store.classes.names == ("background", "liver", "spleen")
    np.testing.assert_array_equal(store.read_source("c1_ct")[1], made.body(1)[1])


def test_classes_in_folders_and_in_endings(made: SimpleNamespace, tmp_path: Path) -> None:
    for i in range(3):
        image, labels = made.plane(i)
        made.save_picture(tmp_path / f"lungs/images/p{i}.png", image)
        made.save_picture(tmp_path / f"ends/p{i}.png", image)
        for value, side in ((1, "left"), (2, "right")):
            mask = 255 * (labels == value).astype(np.uint8)
            made.save_picture(tmp_path / f"lungs/ManualMask/{side}Mask/p{i}.png", mask)
            made.save_picture(tmp_path / f"ends/p{i}_{side}_mask.png", mask)
    store = stored(tmp_path / "ends")
    assert store.classes.names == ("background", "left", "right")
    np.testing.assert_array_equal(indices(store, "p1"), made.plane(1)[1])
    store = stored(tmp_path / "lungs")
    assert store.classes.names == ("background", "left", "right")
    np.testing.assert_array_equal(indices(store, "p2"), made.plane(2)[1])


def test_classes_in_a_folder_or_in_names_beside_the_images_folder(made: SimpleNamespace, tmp_path: Path) -> None:
    for i in range(3):
        image, labels = made.body(i)
        for form, name in (("folders", "c{}/{}"), ("names", "c{}_{}")):
            made.save_nifti(tmp_path / f"{form}/images/c{i}.nii.gz", image)
            for value, organ in ((1, "liver"), (2, "spleen")):
                path = tmp_path / f"{form}/labels/{name.format(i, organ)}.nii.gz"
                made.save_nifti(path, (labels == value).astype(np.uint8))
    for form in ("folders", "names"):
        store = stored(tmp_path / form)
        assert store.classes.names == ("background", "liver", "spleen"), form
        np.testing.assert_array_equal(store.read_source("c1")[1], made.body(1)[1])


def test_numbered_masks_are_objects_and_ribs_are_classes(made: SimpleNamespace, tmp_path: Path) -> None:
    organ_files(made, tmp_path / "objects", {"tumour_1": lambda x: x == 1, "tumour_2": lambda x: x == 2})
    for case, name in (("s0000", "tumour_2"), ("s0001", "tumour_2")):
        (tmp_path / f"objects/{case}/segmentations/{name}.nii.gz").unlink()
    organ_files(made, tmp_path / "ribs", {"rib_left_1": lambda x: x == 1, "rib_left_2": lambda x: x == 2})
    assert stored(tmp_path / "objects").classes.names == ("background", "tumour")
    assert stored(tmp_path / "ribs").classes.names == ("background", "rib_left_1", "rib_left_2")


def test_classes_that_overlap_are_counted_or_ordered(made: SimpleNamespace, tmp_path: Path) -> None:
    truth = organ_files(made, tmp_path / "s", {"body": lambda x: x > 0, "organ": lambda x: x == 2})
    number = int((truth[0] == 2).sum())
    with pytest.raises(
        InputError,
        match=rf"organ\.nii\.gz: this class overlaps another in {number} voxels; .*overlapping-classes=first",
    ):
        stored(tmp_path / "s")
    for order, expected in (("first", truth[0] > 0), ("last", truth[0])):
        root = (tmp_path / "s").rename(tmp_path / order)
        store = stored(root, SourceOptions(choices=parse_choices([f"overlapping-classes={order}"])))
        np.testing.assert_array_equal(store.read_source("s0000")[1], expected)
        assert "overlapping-classes" in rules(store)
        root.rename(tmp_path / "s")
    store = stored((tmp_path / "s").rename(tmp_path / "chosen"), SourceOptions(masks=("organ",)))
    np.testing.assert_array_equal(store.read_source("s0000")[1], truth[0] == 2)
