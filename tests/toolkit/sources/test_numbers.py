"""Pairs of image and mask by the numbers in their names: every reading that the names allow,
or a refusal that names two of them.
"""

from pathlib import Path
from types import SimpleNamespace

import pytest

from attunet.errors import InputError
from attunet.sources.find_cases import find_cases
from attunet.sources.layouts.matching import match_masks
from attunet.sources.layouts.numbers import pair_by_number


@pytest.mark.parametrize(
    ("images", "masks", "expected"),
    [
        # All numbers, in their order
        (["p1_s2", "p2_s1", "p2_s2"], ["m_2_1", "m_1_2"], {"p1_s2": ["m_1_2"], "p2_s1": ["m_2_1"]}),
        (
            ["case01_slice003", "case01_slice004"],
            ["gt1-3", "gt1-4"],
            {"case01_slice003": ["gt1-3"], "case01_slice004": ["gt1-4"]},
        ),
        (
            ["case1_slice2", "case2_slice1"],
            ["slice1_case2_x", "slice2_case1_x"],
            {"case1_slice2": ["slice2_case1_x"], "case2_slice1": ["slice1_case2_x"]},
        ),
        # A year that is the same in all
        (["img_2020_7", "img_2020_8"], ["m7", "m8"], {"img_2020_7": ["m7"], "img_2020_8": ["m8"]}),
        (
            ["img_2020_7", "img_2020_8"],
            ["m_2021_7", "m_2021_8"],
            {"img_2020_7": ["m_2021_7"], "img_2020_8": ["m_2021_8"]},
        ),
        (
            ["a_1_10_5", "a_2_20_5", "a_10_1_5"],
            ["m1", "m10", "m2"],
            {"a_1_10_5": ["m1"], "a_10_1_5": ["m10"], "a_2_20_5": ["m2"]},
        ),
        (["i3", "i4"], ["x3_1", "x3_2", "x4_1"], {"i3": ["x3_1", "x3_2"], "i4": ["x4_1"]}),  # objects
        (
            ["p1/i1", "p1/i2", "p2/i1"],
            ["p1/x01", "p1/x02", "p2/x01"],
            {"p1/i1": ["p1/x01"], "p1/i2": ["p1/x02"], "p2/i1": ["p2/x01"]},
        ),
    ],
)
def test_names_with_several_numbers(images: list[str], masks: list[str], expected: dict[str, list[str]]) -> None:
    assert match_masks(images, masks) == expected


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        (["scan_1_2", "scan_2_1"], ["m1", "m2"]),  # either number
        (["i1", "i2"], ["x1_2", "x2_1"]),
    ],
)
def test_two_readings_are_refused_with_both(images: list[str], masks: list[str]) -> None:
    with pytest.raises(
        InputError,
        match=rf"it is the mask of {images[0]} in one reading and of {images[1]} in another; give each mask its",
    ):
        match_masks(images, masks)


PAIRED = ["P01", "P02", "P02_post", "P03", "P03_post"]  # an image P01_post was lost


@pytest.mark.parametrize(
    ("images", "masks", "lost"),
    [
        (PAIRED, [f"{name}_mask" for name in (*PAIRED, "P01_post")], "P01_post_mask"),
        (PAIRED, [f"{name}.ah" for name in (*PAIRED, "P01_post")], r"P01_post\.ah"),
        (PAIRED, [f"{name}_{organ}" for name in (*PAIRED, "P01_post") for organ in "ab"], "P01_post_[ab]"),
        (["a", "c"], ["a_mask", "a b_mask", "c_mask"], "a b_mask"),
        (["i/scan", "i/s"], ["m/scan_seg", "m/s_seg", "m/scan_left_seg"], "m/scan_left_seg"),
    ],
)
def test_a_mask_of_an_image_that_was_lost_is_not_of_another(images: list[str], masks: list[str], lost: str) -> None:
    with pytest.raises(InputError, match=rf"{lost}: may be a mask of \S+, or of an image that is missing: add the"):
        match_masks(images, masks)


def test_a_part_that_one_case_alone_has_lies_in_the_folder_of_its_image() -> None:
    with pytest.raises(InputError, match="put each case's masks into a folder of its image's name"):
        match_masks(["P01", "P02"], ["P01_seg", "P02_seg", "P02_tumor_seg"])
    matched = {"P01": ["P01/seg"], "P02": ["P02/seg", "P02/tumor_seg"]}
    assert match_masks(["P01", "P02"], ["P01/seg", "P02/seg", "P02/tumor_seg"]) == matched


@pytest.mark.parametrize(
    "masks",
    [
        ["P01_mask", "P01_left_mask", "P02_mask", "P02_left_mask", "P02_post_mask"],
        ["P01_liver", "P02_liver", "P02_spleen", "P02_post_liver"],
        ["P01_mask", "P01_mask_2", "P02_mask", "P02_post_mask"],
        ["P01_mask", "P02_left_mask", "P02_post_mask"],
    ],
)
def test_masks_of_parts_are_of_the_image_that_their_names_begin_with(masks: list[str]) -> None:
    images = ["P01", "P02", "P02_post"]
    matched = match_masks(images, masks)
    assert matched == {
        image: sorted(mask for mask in masks if mask.startswith(image) and ("post" in mask) == ("post" in image))
        for image in images
    }


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        (["scan_1_t1", "scan_1_t2"], ["seg_1"]),  # the mask is of both channels
        (["a_1_2", "a_1_3"], ["m_1_4", "m_1_5"]),
        (["a_1", "b_1"], ["m_1"]),
    ],
)
def test_numbers_that_pair_nothing_leave_it(images: list[str], masks: list[str]) -> None:
    assert match_masks(images, masks) is None


def test_slices_whose_two_numbers_pair_them_differently_are_refused() -> None:
    assert pair_by_number(["I_1_2.dcm", "I_2_1.dcm"], ["m1.png", "m2.png"]) is None
    assert pair_by_number(["I_9_1.dcm", "I_9_2.dcm"], ["m_2.png", "m_1.png"]) == {
        "I_9_1.dcm": "m_1.png",
        "I_9_2.dcm": "m_2.png",
    }


@pytest.mark.parametrize(
    ("images", "masks", "is_paired"),
    [
        (range(1, 9), range(2, 10), False),  # a series without its last slice, a folder without its first mask
        ([1, 2, 3, 5], [1, 2, 4, 5], False),
        (range(3, 23), range(1, 21), False),
        (range(10, 40), range(1, 31), True),  # the part of a series that shows the organ
        (range(30), range(1, 31), True),  # counted from 0 and from 1
        (range(1, 31), range(30), True),
        (range(1, 9), range(101, 109), True),
        (range(2, 28, 2), range(1, 14), True),  # one of two phases that are numbered together
    ],
    ids=str,
)
@pytest.mark.parametrize("form", ["liver_GT_{:03d}.png", "m_{:03d}_of_500.png", "m_7_{:03d}.png"])
def test_slices_and_masks_that_lost_others_are_not_paired_by_their_order(images, masks, is_paired, form: str) -> None:
    slices, pictures = [f"i{number:04d}.dcm" for number in images], [form.format(number) for number in masks]
    assert pair_by_number(slices, pictures) == (dict(zip(slices, pictures, strict=True)) if is_paired else None)


def test_another_number_that_is_the_same_by_chance_does_not_refuse_slices() -> None:
    slices, pictures = [f"i{n + 1}_{n + 501}.dcm" for n in range(1, 9)], [f"m{n}.png" for n in range(1, 9)]
    assert pair_by_number(slices, pictures) == dict(zip(slices, pictures, strict=True))


def test_prepare_pairs_them_or_says_both(attunet, tmp_path: Path, made: SimpleNamespace) -> None:
    for patient in (1, 2):
        for z in (1, 2, 3):
            picture, labels = made.plane(10 * patient + z)
            made.save_picture(tmp_path / f"good/images/pat{patient:02d}_z{z:03d}.png", picture)
            made.save_picture(tmp_path / f"good/masks/{patient}-{z}.png", 255 * (labels > 0).astype("uint8"))
    cases = {case.images[0].stem: case.labels[0].stem for case in find_cases(tmp_path / "good").cases}
    assert cases == {f"pat{p:02d}_z{z:03d}": f"{p}-{z}" for p in (1, 2) for z in (1, 2, 3)}
    assert attunet("prepare", tmp_path / "good", tmp_path / "store", "--folds", 2).code == 0
    for one, other in ((1, 2), (2, 1)):
        picture, labels = made.plane(one)
        made.save_picture(tmp_path / f"both/images/i_{one}_{other}.png", picture)
        made.save_picture(tmp_path / f"both/masks/{one}.png", 255 * (labels > 0).astype("uint8"))
    refused = attunet("prepare", tmp_path / "both", tmp_path / "other", "--folds", 2)
    assert refused.code == 2
    assert refused.err.count("\n") == 1
    assert (
        "it is the mask of images/i_1_2 in one reading and of images/i_2_1 in another; give each mask its image's name"
        in refused.err
    )
