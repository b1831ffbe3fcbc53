"""Pairs of image and mask, by their names alone."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from attunet.errors import InputError
from attunet.io.readers import is_single_file, stem_of
from attunet.sources.layouts.numbers import by_image, last_part, match_by_numbers, pair_by_key, row_keys

CHANNEL = re.compile(r"(.+)_\d{4}")  # nnU-Net's case_0000, case_0001

MASK_WORDS = "masks?|msk|d?segm?|segmentations?|labels?|gt|ground[-_ ]?truth|truth|anno|annotations?|manual"
IMAGE_WORDS = "images?|imgs?|src|volume|photo|orig|original|input|train|training|test"
# A mask's name is an image's with one of these words behind or before it; a number may follow: X_mask_1 is a second
# mask.
MASK_NAME = re.compile(rf"(.+?)[-_ .](?:{MASK_WORDS})(?:[-_ .]?\d{{1,3}})?|(?:{MASK_WORDS})[-_ .](.+)", re.IGNORECASE)
IMAGE_NAME = re.compile(rf"(.+?)[-_ .](?:{IMAGE_WORDS})|(?:{IMAGE_WORDS})[-_ .](.+)", re.IGNORECASE)
MASK_WORD = re.compile(rf"({MASK_WORDS})\d{{0,3}}", re.IGNORECASE)
# Of files in a folder for each case
MASK_ROLE = re.compile(rf"({MASK_WORDS}|lesions?|delineations?)\d{{0,3}}", re.IGNORECASE)

LABEL_STUDIO_MASK = re.compile(
    r"task-(\d+)-annotation-(\d+)-by-[^-]*-([^-]+?)(?:-(.+))?-\d+\.(?:png|npy)", re.IGNORECASE
)

Name = Callable[[str], str]
Key = TypeVar("Key")


def without_mask_words(stem: str) -> str:
    """`X` of `X_mask`, `X_mask_1` or `mask_X`; anything else as it is. The folders before the name stay."""
    return _without(MASK_NAME, stem)


def _without(words: re.Pattern[str], stem: str) -> str:
    folder, slash, name = stem.rpartition("/")
    match = words.fullmatch(name)
    return f"{folder}{slash}{match[1] or match[2]}" if match else stem


def names_a_mask(stem: str) -> bool:
    """True if a file's name says that it is a mask: `X_mask`, `mask_X`, `mask`, or a name of Label Studio's."""
    name = last_part(stem)
    return (
        without_mask_words(name) != name
        or MASK_WORD.fullmatch(name) is not None
        or LABEL_STUDIO_MASK.fullmatch(f"{name}.png") is not None
    )


def lies_among_masks(path: Path) -> bool:
    """True if the name of a file, or of a folder above it, says mask; the path is one below the source."""
    return any(map(names_a_mask, (*path.parts[:-1], stem_of(path))))


def _last(name: Name) -> Name:
    return lambda stem: last_part(name(stem))


# The common part of an image's and a mask's name, the strictest rule first: the whole path; a mask's without its word;
# an image's without its word too; and the same three where the folders differ.
_RULES: tuple[tuple[Name, Name], ...] = (
    (str, str),
    (str, without_mask_words),
    (partial(_without, IMAGE_NAME), without_mask_words),
)
RULES = (*_RULES, *((_last(image), _last(mask)) for image, mask in _RULES))


def match_masks(images: Collection[str], masks: Collection[str]) -> dict[str, list[str]] | None:
    """The masks of each image that has some, in the order of their names, by the first rule under which every mask has
    one image; None if there is no such rule.

    The rules: equal names, names without the words of masks and images, masks in a folder with the image's name, a
    mask's name that begins with the image's (`X.ah`, `X_liver`), and equal numbers in names that are alike but for
    these (`match_by_numbers`). Raises InputError if the numbers in the names allow two different pairings, or a mask
    whose name begins with an image's may be that of an image which is missing.
    """
    rules = (*RULES, (last_part, _folder), (last_part, _beginning(images)))
    for rule, (image_name, mask_name) in enumerate(rules, 1):
        keys = {image: image_name(image) for image in images}, {mask: mask_name(mask) for mask in masks}
        if (paired := pair_by_key(*keys)) is not None:
            if rule == len(rules):
                _refuse_lost_images(paired, set(map(last_part, images)))
            return by_image(paired)
    return match_by_numbers(images, masks)


def _refuse_lost_images(paired: Mapping[str, str], names: Collection[str]) -> None:
    """Raise InputError for a mask X_a of an image X, where Y and Y_a are images of their own, or where X has a mask of
    its own name too and no other image has one with this ending.
    """
    endings = {mask: last_part(mask).removeprefix(last_part(image)) for mask, image in paired.items()}
    of_images = {name[at:] for name in names for at in _ends_of_words(name) if name[:at] in names}
    own = {
        mask for mask, image in paired.items() if any(of_image(image) == of_mask(mask) for of_image, of_mask in RULES)
    }
    with_own, times = {paired[mask] for mask in own}, Counter(endings.values())
    for mask, image in paired.items():
        ending = endings[mask]
        is_odd = mask not in own and image in with_own and times[ending] == 1
        if is_odd or any(ending[:at] in of_images for at in (*_ends_of_words(ending), len(ending))):
            advice = "add the image, leave the mask out, or put each case's masks into a folder of its image's name"
            raise InputError(f"{mask}: may be a mask of {image}, or of an image that is missing: {advice}")


def _ends_of_words(name: str) -> list[int]:
    return [at for at in range(1, len(name)) if not name[at].isalnum()]


def _folder(stem: str) -> str:
    """The name of the folder that a mask lies in."""
    return last_part(stem.rpartition("/")[0])


def _beginning(images: Collection[str]) -> Name:
    """The rule for masks named X and an ending: the longest image's name X that fits."""
    names = set(map(last_part, images))

    def image_of(stem: str) -> str:
        last = last_part(stem)
        return next((last[:at] for at in reversed(_ends_of_words(last)) if last[:at] in names), last)

    return image_of


def first_orphan(images: Collection[str], masks: Collection[str]) -> str | None:
    """An unmatched mask under the best-matching rule; None if no rule matches any mask."""
    alone = []
    for image_name, mask_name in RULES:
        names = set(map(image_name, images))
        alone.append([mask for mask in sorted(masks) if mask_name(mask) not in names])
    if (rows := row_keys(images, masks)) is not None:
        keys = set(rows[0].values())
        alone.append([mask for mask in sorted(masks) if rows[1][mask] not in keys])
    fewest = min(alone, key=len)
    return fewest[0] if fewest and len(fewest) < len(masks) else None


def by_stem(folder: Path, files: Iterable[Path]) -> dict[str, Path]:
    """Files of an image or mask each, by their path below a folder without ending; raises InputError for two alike."""
    inside = (path for path in files if is_single_file(path) and path.is_relative_to(folder))
    stems = (((path.parent / stem_of(path)).relative_to(folder).as_posix(), path) for path in inside)
    # Archives of macOS decompose letters with accents
    return once_each((unicodedata.normalize("NFC", stem), path) for stem, path in stems)


def once_each(files: Iterable[tuple[Key, Path]]) -> dict[Key, Path]:
    """Files by key. Raises InputError where two have the same."""
    unique: dict[Key, Path] = {}
    for key, path in files:
        if key in unique:
            raise InputError(f"{path}: the same image or mask is there twice, also as {unique[key]}: leave one out")
        unique[key] = path
    return unique


def channels_of(images: Mapping[str, Path], masks: Collection[str]) -> dict[str, list[Path]]:
    """Image files by case: `X_0000`, `X_0001`, ... are channels of X if the masks' names show it."""
    numbered = {stem: match[1] for stem in images if (match := CHANNEL.fullmatch(stem))}
    known = {*masks, *map(without_mask_words, masks)}
    if not known.isdisjoint(images) or known.isdisjoint(numbered.values()):
        return {stem: [path] for stem, path in sorted(images.items())}
    groups: defaultdict[str, dict[str, Path]] = defaultdict(dict)  # by the numbers of their channels
    for stem, path in sorted(images.items()):
        case = numbered.get(stem, stem)
        groups[case][stem.removeprefix(case)] = path
    ((usual, _),) = Counter(map(frozenset, groups.values())).most_common(1)
    if odd := [case for case, paths in groups.items() if paths.keys() != usual]:
        others, own = (", ".join(sorted(endings)) or "none" for endings in (usual, groups[odd[0]]))
        rule = f"its channels must be those of other cases ({others}), got {own}; is a file missing?"
        raise InputError(f"{next(iter(groups[odd[0]].values()))}: {rule}")
    return {case: list(paths.values()) for case, paths in groups.items()}


def names_one_of(parts: Sequence[str], name: str) -> bool:
    """True if a name contains one of the user's texts (`--masks`, `--images`), in capitals or not."""
    return any(part.lower() in name.lower() for part in parts)


def case_names(paths: Sequence[Path]) -> list[str]:
    """The names of cases with these paths below the source: the last parts where these differ, else whole paths."""
    names = [path.name for path in paths]
    return names if len(set(names)) == len(names) else [flat(path) for path in paths]


def flat(path: Path) -> str:
    """A path below a folder as one name."""
    return "_".join(path.parts)
