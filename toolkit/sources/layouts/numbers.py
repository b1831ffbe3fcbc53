"""Pairs of image and mask by the numbers in their names, for names that are equal apart from these."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from itertools import combinations

from attunet.errors import InputError

Row = tuple[int, ...]
MAX_VARYING = 6  # numbers in a name; more are dates and identifiers, with too many readings


def match_by_numbers(images: Collection[str], masks: Collection[str]) -> dict[str, list[str]] | None:
    """Masks by image, by the numbers in their names: img0001 with label0001, 7 with mask_007, p1_s2 with mask_1_2.

    If both names have equally many numbers, all of them are compared, in their order or by the words before them
    (`slice2_case1`). Otherwise only those numbers are compared under which every image has a mask.

    Args:
        images, masks: stems, below their folders.

    Returns:
        For each image that has a mask, its masks in the order of their names; None if the numbers pair nothing.

    Raises:
        InputError: two interpretations of the numbers give a mask different images.
    """
    image_rows, mask_rows = _rows(images), _rows(masks)
    if not image_rows or not mask_rows:
        return None
    whole = _whole(image_rows, mask_rows, _turn(images, masks))
    if whole is not None:
        return _by_image(whole)
    readings = list(_partial(image_rows, mask_rows))
    for other in readings[1:]:
        if differing := sorted(mask for mask in other if other[mask] != readings[0][mask]):
            mask = differing[0]
            raise InputError(
                f"{mask}: by the numbers in its name it is the mask of {readings[0][mask]} in one reading and of "
                f"{other[mask]} in another; give each mask its image's name"
            )
    return _by_image(readings[0]) if readings else None


def row_keys(images: Collection[str], masks: Collection[str]) -> tuple[dict[str, Row], dict[str, Row]] | None:
    """Return all numbers of each image and of each mask; None if they cannot be compared."""
    image_rows, mask_rows = _rows(images), _rows(masks)
    if not image_rows or not mask_rows or _length(image_rows) != _length(mask_rows):
        return None
    return image_rows, mask_rows


def _rows(stems: Collection[str]) -> dict[str, Row]:
    """The numbers of each name, of its last part or, where these repeat, of the whole path;
    empty where the names differ otherwise.
    """
    rows: dict[str, Row] = {}
    for whole in (False, True):
        texts = {stem: stem if whole else stem.rpartition("/")[2] for stem in stems}
        if len({re.sub(r"\d+", "#", text) for text in texts.values()}) != 1:
            continue
        rows = {stem: tuple(int(digits) for digits in re.findall(r"\d+", text)) for stem, text in texts.items()}
        if len(set(rows.values())) == len(rows):
            return rows
    return rows


def _length(rows: Mapping[str, Row]) -> int:
    return len(next(iter(rows.values())))


def _turn(images: Collection[str], masks: Collection[str]) -> list[int] | None:
    """Return, for each number of an image's name, the position of the number after the same word in the mask's name.

    None if the words do not show it.
    """
    image_words, mask_words = (_words(next(iter(stems))) for stems in (images, masks))
    distinct = "" not in image_words and len(set(image_words)) == len(image_words)
    return (
        [mask_words.index(word) for word in image_words]
        if distinct and sorted(image_words) == sorted(mask_words)
        else None
    )


def _words(stem: str) -> list[str]:
    """The letters before each number of a name."""
    return [word.lower() for word in re.findall(r"([A-Za-z]*)[-_ .]?\d+", stem.rpartition("/")[2])]


def _whole(images: Mapping[str, Row], masks: Mapping[str, Row], turn: list[int] | None) -> dict[str, str] | None:
    """The image of each mask by all of the numbers."""
    length = _length(images)
    if length == 0 or length != _length(masks):
        return None
    places = turn if turn is not None and len(turn) == length else range(length)
    return _paired(images, {mask: tuple(row[place] for place in places) for mask, row in masks.items()})


def _partial(images: Mapping[str, Row], masks: Mapping[str, Row]) -> Iterator[dict[str, str]]:
    """The image of each mask by some of the numbers, in every reading that gives each image a mask."""
    image_places, mask_places = _varying(images), _varying(masks)
    if max(len(image_places), len(mask_places)) > MAX_VARYING:
        return
    for count in range(1, min(len(image_places), len(mask_places)) + 1):
        for of_image in combinations(image_places, count):
            image_keys = {image: tuple(row[i] for i in of_image) for image, row in images.items()}
            for of_mask in combinations(mask_places, count):
                paired = _paired(image_keys, {mask: tuple(row[i] for i in of_mask) for mask, row in masks.items()})
                if paired is not None and len(set(paired.values())) == len(images):
                    yield paired


def _varying(rows: Mapping[str, Row]) -> list[int]:
    """Places of the numbers that are not the same in all names."""
    return [place for place in range(_length(rows)) if len({row[place] for row in rows.values()}) > 1]


def _paired(images: Mapping[str, Row], masks: Mapping[str, Row]) -> dict[str, str] | None:
    """The image of each mask by equal keys; None where a key is of two images or of none."""
    named = {key: image for image, key in images.items()}
    if len(named) < len(images) or not all(key in named for key in masks.values()):
        return None
    return {mask: named[key] for mask, key in masks.items()}


def _by_image(image_of: Mapping[str, str]) -> dict[str, list[str]]:
    matched: defaultdict[str, list[str]] = defaultdict(list)
    for mask in sorted(image_of):
        matched[image_of[mask]].append(mask)
    return dict(matched)
