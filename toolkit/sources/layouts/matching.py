"""Which mask belongs to which image, by their names alone."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from attunet.errors import InputError
from attunet.io.readers import is_single_file, stem_of

CHANNEL = re.compile(r"(.+)_\d{4}")  # nnU-Net's case_0000, case_0001
MASK_ENDING = re.compile(r"(.+?)[-_ ](mask|seg|segmentation|label|labels|gt|groundtruth)", re.IGNORECASE)

MASK_WORDS = "masks?|seg|segmentations?|labels?|gt|ground[-_ ]?truth|anno|annotations?|manual"
IMAGE_WORDS = "images?|imgs?|src|volume|photo|orig|original|input|train|training|test"
# A mask's name is an image's with such a word behind or before it; behind a number may follow: X_mask_1 is a second mask of X.
BEHIND = re.compile(rf"(.+?)[-_ .]({MASK_WORDS})(?:[-_ .]?\d{{1,3}})?", re.IGNORECASE)
BEFORE = re.compile(rf"({MASK_WORDS})[-_ .](.+)", re.IGNORECASE)
IMAGE_BEHIND = re.compile(rf"(.+?)[-_ .]({IMAGE_WORDS})", re.IGNORECASE)
IMAGE_BEFORE = re.compile(rf"({IMAGE_WORDS})[-_ .](.+)", re.IGNORECASE)

Name = Callable[[str], str]


def _same(stem: str) -> str:
    return stem


def without_mask_words(stem: str) -> str:
    """`X` of `X_mask`, `X_mask_1` or `mask_X`; anything else as it is. The folders before the name stay."""
    return _without(stem, BEHIND, BEFORE)


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


# What an image's and a mask's name have in common, the strictest first: the whole path; a mask that says what it is; an image that does
# too; and the same three where the folders differ.
_RULES: tuple[tuple[Name, Name], ...] = (
    (_same, _same),
    (_same, without_mask_words),
    (_without_image_words, without_mask_words),
)
RULES = (*_RULES, *((_last(image), _last(mask)) for image, mask in _RULES))


def match_masks(images: Collection[str], masks: Collection[str]) -> dict[str, list[str]] | None:
    """The masks of every image that has any, by the first rule under which every mask finds one image; None where no rule does.

    images, masks: stems, below their folders. Several masks of one image are in the order of their names.
    """
    for image_name, mask_name in RULES:
        named: dict[str, str] = {image_name(stem): stem for stem in images}
        if len(named) == len(images) and all(mask_name(stem) in named for stem in masks):
            found: defaultdict[str, list[str]] = defaultdict(list)
            for stem in sorted(masks):
                found[named[mask_name(stem)]].append(stem)
            return dict(found)
    return None


def first_orphan(images: Collection[str], masks: Collection[str]) -> str | None:
    """A mask without an image, by the rule under which the fewest are; None where every rule leaves all of them alone."""
    alone = [[m for m in sorted(masks) if mask_name(m) not in {image_name(i) for i in images}] for image_name, mask_name in RULES]
    fewest = min(alone, key=len)
    return fewest[0] if fewest and len(fewest) < len(masks) else None


def by_stem(folder: Path, files: Iterable[Path]) -> dict[str, Path]:
    """Files of one image or mask below a folder, by their path below it without ending. Raises InputError where two have the same."""
    found: dict[str, Path] = {}
    for path in files:
        if is_single_file(path) and path.is_relative_to(folder):
            stem = (path.parent / stem_of(path)).relative_to(folder).as_posix()
            stem = unicodedata.normalize("NFC", stem)  # archives of macOS decompose letters with accents
            if stem in found:
                raise InputError(f"{path}: the same image or mask is there twice, also as {found[stem].name}")
            found[stem] = path
    return found


def masks_of(image: str, masks: Sequence[Path]) -> tuple[Path, ...]:
    """Several masks of an image, as one mask per object: numbered, in one folder. Raises InputError for what may be a second opinion."""
    kinds = {(mask.parent, re.sub(r"[-_ .]?\d{1,3}$", "", stem_of(mask))) for mask in masks}
    if len(kinds) > 1:
        raise InputError(f"{masks[1]}: {image} has a second mask, {masks[0].parent.name}/{masks[0].name}; which one counts?")
    return tuple(masks)


def channels_of(images: Mapping[str, Path], masks: Collection[str]) -> dict[str, list[Path]]:
    """Image files by case: `X_0000`, `X_0001`, ... are the channels of X where the masks' names show that the numbers are no cases."""
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
