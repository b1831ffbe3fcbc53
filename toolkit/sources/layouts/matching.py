"""Pairs of image and mask, by their names alone."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

from attunet.errors import InputError
from attunet.io.readers import is_single_file, stem_of
from attunet.sources.layouts.numbers import match_by_numbers, row_keys

CHANNEL = re.compile(r"(.+)_\d{4}")  # nnU-Net's case_0000, case_0001

MASK_WORDS = "masks?|msk|d?segm?|segmentations?|labels?|gt|ground[-_ ]?truth|truth|anno|annotations?|manual"
IMAGE_WORDS = "images?|imgs?|src|volume|photo|orig|original|input|train|training|test"
# A mask's name is an image's with one of these words before or after it; a number may follow: X_mask_1 is a second
# mask.
BEHIND = re.compile(rf"(.+?)[-_ .]({MASK_WORDS})(?:[-_ .]?\d{{1,3}})?", re.IGNORECASE)
BEFORE = re.compile(rf"({MASK_WORDS})[-_ .](.+)", re.IGNORECASE)
IMAGE_BEHIND = re.compile(rf"(.+?)[-_ .]({IMAGE_WORDS})", re.IGNORECASE)
IMAGE_BEFORE = re.compile(rf"({IMAGE_WORDS})[-_ .](.+)", re.IGNORECASE)
MASK_WORD = re.compile(rf"({MASK_WORDS})\d{{0,3}}", re.IGNORECASE)
# Of files in a folder for each case
MASK_ROLE = re.compile(rf"({MASK_WORDS}|lesions?|delineations?)\d{{0,3}}", re.IGNORECASE)

LABEL_STUDIO_MASK = re.compile(
    r"task-(\d+)-annotation-(\d+)-by-[^-]*-([^-]+?)(?:-(.+))?-\d+\.(?:png|npy)", re.IGNORECASE
)

Name = Callable[[str], str]


def _same(stem: str) -> str:
    return stem


def without_mask_words(stem: str) -> str:
    """`X` of `X_mask`, `X_mask_1` or `mask_X`; anything else as it is. The folders before the name stay."""
    return _without(stem, BEHIND, BEFORE)


def names_a_mask(stem: str) -> bool:
    """True where a file's name says that it is a mask: `X_mask`, `mask_X`, `mask`, or a name of Label Studio's."""
    name = stem.rpartition("/")[2]
    if LABEL_STUDIO_MASK.fullmatch(f"{name}.png"):
        return True
    return without_mask_words(stem) != stem or MASK_WORD.fullmatch(name) is not None


def _without_image_words(stem: str) -> str:
    return _without(stem, IMAGE_BEHIND, IMAGE_BEFORE)


def _without(stem: str, behind: re.Pattern[str], before: re.Pattern[str]) -> str:
    folder, slash, name = stem.rpartition("/")
    if match := behind.fullmatch(name):
        return folder + slash + match[1]
    if match := before.fullmatch(name):
        return folder + slash + match[2]
    return stem


def _last(name: Name) -> Name:
    return lambda stem: name(stem).rpartition("/")[2]


# The common part of an image's and a mask's name, the strictest rule first: the whole path; a mask's without its word;
# an image's without its word too; and the same three where the folders differ.
_RULES: tuple[tuple[Name, Name], ...] = (
    (_same, _same),
    (_same, without_mask_words),
    (_without_image_words, without_mask_words),
)
RULES = (*_RULES, *((_last(image), _last(mask)) for image, mask in _RULES))


def match_masks(images: Collection[str], masks: Collection[str]) -> dict[str, list[str]] | None:
    """Masks by image, by the first rule under which every mask has one image.

    The rules: equal names, names without the words of masks and images, masks in a folder with the image's name, a
    mask's name that begins with the image's (`X.ah`, `X_liver`), and equal numbers in names that are alike but for
    these (`match_by_numbers`).

    Args:
        images, masks: stems, below their folders.

    Returns:
        For each image that has a mask, its masks in the order of their names; None if no rule pairs every mask.

    Raises:
        InputError: the numbers in the names allow two different pairings.
    """
    for image_name, mask_name in (*RULES, (_last(_same), _folder), _beginning(images)):
        named: dict[str, str] = {image_name(stem): stem for stem in images}
        if len(named) == len(images) and all(mask_name(stem) in named for stem in masks):
            matched: defaultdict[str, list[str]] = defaultdict(list)
            for stem in sorted(masks):
                matched[named[mask_name(stem)]].append(stem)
            return dict(matched)
    return match_by_numbers(images, masks)


def _folder(stem: str) -> str:
    """The name of the folder that a mask lies in."""
    return stem.rpartition("/")[0].rpartition("/")[2]


def _beginning(images: Collection[str]) -> tuple[Name, Name]:
    """The rule for masks named X and an ending, where X is the longest image's name that fits."""
    names = sorted(map(_last(_same), images), key=len, reverse=True)

    def image_of(stem: str) -> str:
        last = stem.rpartition("/")[2]
        fitting = (name for name in names if last.startswith(name) and last != name and not last[len(name)].isalnum())
        return next(fitting, last)

    return _last(_same), image_of


def first_orphan(images: Collection[str], masks: Collection[str]) -> str | None:
    """An unmatched mask under the best-matching rule; None if no rule matches any mask."""
    alone = [
        [m for m in sorted(masks) if mask_name(m) not in {image_name(i) for i in images}]
        for image_name, mask_name in RULES
    ]
    if (rows := row_keys(images, masks)) is not None:
        alone.append([mask for mask in sorted(masks) if rows[1][mask] not in rows[0].values()])
    fewest = min(alone, key=len)
    return fewest[0] if fewest and len(fewest) < len(masks) else None


def by_stem(folder: Path, files: Iterable[Path]) -> dict[str, Path]:
    """Files of one image or mask below a folder, by their path below it without ending.
    Raises InputError where two have the same.
    """
    stems: dict[str, Path] = {}
    for path in files:
        if is_single_file(path) and path.is_relative_to(folder):
            stem = (path.parent / stem_of(path)).relative_to(folder).as_posix()
            stem = unicodedata.normalize("NFC", stem)  # archives of macOS decompose letters with accents
            if stem in stems:
                raise InputError(
                    f"{path}: the same image or mask is there twice, also as {stems[stem].name}: leave one out"
                )
            stems[stem] = path
    return stems


def channels_of(images: Mapping[str, Path], masks: Collection[str]) -> dict[str, list[Path]]:
    """Image files by case: `X_0000`, `X_0001`, ... are the channels of X where the masks' names show that the numbers
    are no cases.
    """
    numbered = {stem: match[1] for stem in images if (match := CHANNEL.fullmatch(stem))}
    known = {*masks, *(without_mask_words(stem) for stem in masks)}
    channels = not known & set(images) and any(case in known for case in numbered.values())
    groups: defaultdict[str, list[Path]] = defaultdict(list)
    for stem, path in sorted(images.items()):
        groups[numbered.get(stem, stem) if channels else stem].append(path)
    return dict(groups)


def flat(path: Path) -> str:
    """A path below a folder as one name."""
    return "_".join(path.parts)
