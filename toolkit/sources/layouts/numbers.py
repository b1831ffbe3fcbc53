"""Pairs of image and mask by the numbers in their names, for names that are equal apart from these."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from itertools import combinations, product

from attunet.errors import InputError

Row = tuple[int, ...]
MAX_VARYING = 6  # numbers in a name; more are dates and identifiers, with too many readings


def match_by_numbers(images: Collection[str], masks: Collection[str]) -> dict[str, list[str]] | None:
    """The masks of each image that has some, in the order of their names, by the numbers in the names: img0001 with
    label0001, 7 with mask_007, p1_s2 with mask_1_2; None if the numbers pair nothing.

    If both names have equally many numbers, all of them are compared, in their order or by the words before them
    (`slice2_case1`). Otherwise as many are compared as both names have, of those that vary, where they give every image
    a mask. Raises InputError if two interpretations of the numbers give a mask different images.
    """
    image_rows, mask_rows = _rows(images), _rows(masks)
    if not image_rows or not mask_rows:
        return None
    whole = _by_all_numbers(image_rows, mask_rows)
    if whole is None and not set(image_rows.values()).isdisjoint(mask_rows.values()):
        return None  # some are equal in all numbers, so the other masks have no image
    readings = [whole] if whole is not None else list(_by_some_numbers(image_rows, mask_rows))
    for other in readings[1:]:
        if differing := sorted(mask for mask in other if other[mask] != readings[0][mask]):
            mask = differing[0]
            raise InputError(
                f"{mask}: by the numbers in its name it is the mask of {readings[0][mask]} in one reading and of "
                f"{other[mask]} in another; give each mask its image's name"
            )
    return by_image(readings[0]) if readings else None


def row_keys(images: Collection[str], masks: Collection[str]) -> tuple[dict[str, Row], dict[str, Row]] | None:
    """Return all numbers of each image and of each mask; None if they cannot be compared."""
    image_rows, mask_rows = _rows(images), _rows(masks)
    comparable = image_rows and mask_rows and _length(image_rows) == _length(mask_rows)
    return (image_rows, mask_rows) if comparable else None


def pair_by_number(images: Sequence[str], masks: Sequence[str]) -> dict[str, str] | None:
    """Image name -> mask name, for two lists of equal length.

    Names are paired by a number in them if both lists have the same numbers; else by their order if it is that of the
    numbers. None if neither rule applies (as for `1, 10, 2` and `003, 004, 005`), if two numbers in the names give
    different pairs, or if their last numbers are the same but for a few, which were lost (`1, 2, 3` and `2, 3, 4`).
    """
    image_numbers, mask_numbers = _distinct_numbers(images), _distinct_numbers(masks)
    pairs = [pair_by_key(mask, image) for image, mask in product(image_numbers, mask_numbers)]
    readings = [reading for reading in pairs if reading is not None]
    if readings:
        return readings[0] if all(reading == readings[0] for reading in readings) else None
    for image, mask in zip(image_numbers[:1], mask_numbers[:1], strict=False):
        if _lost_others(set(image.values()), set(mask.values())):
            return None
    for numbers in (*image_numbers[:1], *mask_numbers[:1]):
        if sorted(numbers) != sorted(numbers, key=lambda name: numbers[name]):
            return None
    return dict(zip(sorted(images), sorted(masks), strict=True))


def _lost_others(images: set[int], masks: set[int]) -> bool:
    """True for two equally long lists with the same numbers but for a few, unless they count from 0 and from 1."""
    counts = (set(range(len(images))), set(range(1, len(images) + 1)))
    is_few = len(images - masks) <= max(1, len(images) // 10) and len(images) > 2
    return is_few and (images, masks) not in (counts, counts[::-1])


def pair_by_key(images: Mapping[str, Hashable], masks: Mapping[str, Hashable]) -> dict[str, str] | None:
    """The image of each mask, which has the same key; None where a key is of two images or of none."""
    named = {key: image for image, key in images.items()}
    if len(named) < len(images) or not all(key in named for key in masks.values()):
        return None
    return {mask: named[key] for mask, key in masks.items()}


def by_image(image_of: Mapping[str, str]) -> dict[str, list[str]]:
    """The masks of each image, in the order of their names, from the image of each mask."""
    matched: defaultdict[str, list[str]] = defaultdict(list)
    for mask in sorted(image_of):
        matched[image_of[mask]].append(mask)
    return dict(matched)


def other_number(image: str, masks: Collection[str]) -> str | None:
    """A mask with numbers that the only image lacks; None if all have its numbers, or count from 0 or 1."""
    own = _numbers_in(image)
    numbers = {mask: _numbers_in(mask) for mask in sorted(masks)}
    odd = [mask for mask, theirs in numbers.items() if not (own <= theirs or theirs <= own)]
    if not own or not odd:
        return None
    counts = sorted(max(theirs, default=-1) for theirs in numbers.values())
    are_counted = len(odd) > 1 and counts[0] in (0, 1) and counts == list(range(counts[0], counts[0] + len(counts)))
    return None if are_counted else odd[0]


def _numbers_in(stem: str) -> Counter[int]:
    return Counter(map(int, re.findall(r"\d+", last_part(stem))))


def last_part(stem: str) -> str:
    """A name without the folders before it."""
    return stem.rpartition("/")[2]


def _rows(stems: Collection[str]) -> dict[str, Row]:
    """The numbers of each name, or of its whole path if these repeat; empty where the names differ otherwise."""
    rows: dict[str, Row] = {}
    for text_of in (last_part, str):
        if len({re.sub(r"\d+", "#", text_of(stem)) for stem in stems}) == 1:
            rows = {stem: tuple(map(int, re.findall(r"\d+", text_of(stem)))) for stem in stems}
            if len(set(rows.values())) == len(rows):
                break
    return rows


def _length(rows: Mapping[str, Row]) -> int:
    return len(next(iter(rows.values())))


def number_columns(names: Sequence[str]) -> list[tuple[int, ...]]:
    """Return the first numbers of all names, their second numbers, ..., as far as every name has them."""
    rows = [[int(digits[-18:]) for digits in re.findall(r"\d+", name)] for name in names]
    return list(zip(*rows, strict=False))


def _distinct_numbers(names: Sequence[str]) -> list[dict[str, int]]:
    """Return the numbers in which the names differ, the last one first."""
    columns = reversed(number_columns(names))
    return [dict(zip(names, numbers, strict=True)) for numbers in columns if len(set(numbers)) == len(numbers)]


def _by_all_numbers(images: Mapping[str, Row], masks: Mapping[str, Row]) -> dict[str, str] | None:
    """The image of each mask by all numbers, compared by the words before them if these are the same, else in order."""
    length = _length(images)
    if length == 0 or length != _length(masks):
        return None
    image_words, mask_words = (
        [word.lower() for word in re.findall(r"([A-Za-z]*)[-_ .]?\d+", last_part(next(iter(rows))))]
        for rows in (images, masks)
    )
    same_words = len(set(image_words) - {""}) == length and sorted(image_words) == sorted(mask_words)
    places = [mask_words.index(word) for word in image_words] if same_words else range(length)
    return pair_by_key(images, {mask: tuple(row[place] for place in places) for mask, row in masks.items()})


def _by_some_numbers(images: Mapping[str, Row], masks: Mapping[str, Row]) -> Iterator[dict[str, str]]:
    """The image of each mask by as many varying numbers as both have, in every reading that gives each image one."""
    image_places, mask_places = _varying(images), _varying(masks)
    if max(len(image_places), len(mask_places)) > MAX_VARYING:
        return
    count = min(len(image_places), len(mask_places))  # fewer would pair p1_s2 with p1_s1, whose mask is missing
    for of_image, of_mask in product(combinations(image_places, count), combinations(mask_places, count)):
        paired = pair_by_key(
            {image: tuple(row[place] for place in of_image) for image, row in images.items()},
            {mask: tuple(row[place] for place in of_mask) for mask, row in masks.items()},
        )
        if count and paired is not None and len(set(paired.values())) == len(images):
            yield paired


def _varying(rows: Mapping[str, Row]) -> list[int]:
    """Places of the numbers that are not the same in all names."""
    return [place for place in range(_length(rows)) if len({row[place] for row in rows.values()}) > 1]
