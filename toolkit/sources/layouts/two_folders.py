"""Layouts with images in one folder and their masks in another."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from attunet.errors import InputError
from attunet.io.readers import is_single_file
from attunet.sources.case_files import CaseFiles, Source, SourceOptions
from attunet.sources.labels.codings import read_label_maps
from attunet.sources.layouts.matching import (
    CHANNEL,
    by_stem,
    case_names,
    channels_of,
    first_orphan,
    flat,
    match_masks,
    names_a_mask,
    names_one_of,
)
from attunet.sources.layouts.numbers import other_number

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "photos", "jpegimages", "original")
# Parts of a folder's name, the most telling first: a folder mask beside manual or groundtruth holds the camera's field
# of view.
LABEL_FOLDERS = (
    *("label(?!l?ed)", "segmentationclass", "segment", "groundtruth", "annot"),
    *("manual", "trimap", "^gt|gt$", "mask"),
)
LABEL_MAP = "labelmap.txt"  # CVAT's names of colours
MAX_PAIRS = 10**6  # of folders in one place

Below = Mapping[Path, Sequence[Path]]  # the files below each folder


@dataclass(frozen=True)
class _Pair:
    """A folder of images and one of masks that fit together. rank: of the masks' folder in `LABEL_FOLDERS`."""

    rank: int
    images: Path
    labels: Path
    cases: tuple[CaseFiles, ...]


def find_folders(root: Path, files: list[Path], options: SourceOptions) -> Source | None:
    """Cases of `images/X` with `labels/X` (or masks/X_mask, ...), here or in places below: `train/images`, ...

    If several folders of masks fit, the one whose name says most is used, the same in all places, and a decision says
    so. With `options.masks`, only folders with such a name hold masks, if there are any.
    """
    pairs = _all_pairs(root, _below(root, files))
    if not pairs:
        return None
    chosen = [pair for pair in pairs if names_one_of(options.masks, pair.labels.name)]
    best = min(chosen or pairs, key=lambda pair: pair.rank)
    name = _plain(best.labels)
    taken = [pair for pair in pairs if _plain(pair.labels) == name]
    left = sorted({pair.labels.relative_to(root).as_posix() for pair in pairs if _plain(pair.labels) != name})
    reason = f"it has {best.images.relative_to(root).as_posix()}/ and {best.labels.relative_to(root).as_posix()}/"
    if len(taken) > 1:
        reason = f"{len(taken)} of its folders have one for images and one for labels"
    codings = read_label_maps([path for path in files if path.name == LABEL_MAP])
    source = Source(root, "images-labels", reason, codings, tuple(case for pair in taken for case in pair.cases))
    if not left:
        return source
    return source.with_decision("mask-folder", f"masks are those of {best.labels.name}/, not of {', '.join(left)}")


def find_anywhere(root: Path, files: list[Path], _: SourceOptions) -> Source | None:
    """Cases of images and masks in unlike folders: `part1/volume-0.nii` with `segmentations/segmentation-0.nii`.

    It is the last layout to try: a mask is any file of which the name, or the name of a folder above, says so.
    """
    readable = by_stem(root, files)
    masks = {stem for stem in readable if any(map(names_a_mask, stem.split("/")))}
    images = sorted(set(readable) - masks)
    matched_masks = match_masks(images, masks) if masks and images else None
    if matched_masks is None:
        return None
    cases = tuple(
        CaseFiles(name, name, (readable[stem],), tuple(readable[mask] for mask in matched_masks.get(stem, [])))
        for stem, name in zip(images, case_names([Path(stem) for stem in images]), strict=True)
    )
    return Source(root, "anywhere", f"{len(masks)} masks have the name of an image", (), cases)


def _below(root: Path, files: Iterable[Path]) -> Below:
    """Every folder with the files anywhere below it that are an image or a mask."""
    below: defaultdict[Path, list[Path]] = defaultdict(list)
    for path in filter(is_single_file, files):
        for folder in path.parents:
            below[folder].append(path)
            if folder == root:
                break
    return dict(below)


def _all_pairs(root: Path, below: Below) -> list[_Pair]:
    """The pairs of folders in every place that is not below another place with pairs."""
    beside: defaultdict[Path, list[Path]] = defaultdict(list)
    for folder in sorted(below):
        beside[folder.parent].append(folder)
    pairs: dict[Path, list[_Pair]] = {}
    for place, folders in beside.items():
        if place not in below or not pairs.keys().isdisjoint((place, *place.parents)):
            continue
        if fitting := list(_pairs(root, place, folders, below)):
            pairs[place] = fitting
    return [pair for fitting in pairs.values() for pair in fitting]


def _pairs(root: Path, place: Path, folders: Sequence[Path], below: Below) -> Iterator[_Pair]:
    """For every folder of masks in a place, the folder of images that it fits."""
    ranks = {folder: rank for folder in folders if (rank := _rank(folder)) is not None}
    images = [folder for folder in folders if folder not in ranks]
    images = [folder for folder in images if folder.name.lower() in IMAGE_FOLDERS] or images
    if len(ranks) * len(images) > MAX_PAIRS:
        numbers = f"got {len(images):,} folders with images and {len(ranks):,} with masks"
        raise InputError(f"{place}: at most {MAX_PAIRS:,} pairs of folders are compared, {numbers}: join them")
    here, compared = place.relative_to(root), (*ranks, *images) if ranks else ()
    stems = {folder: by_stem(folder, below.get(folder, ())) for folder in compared}
    for labels, rank in ranks.items():
        cases_of = {
            folder: matched(folder, labels, stems[folder], stems[labels], here, only=len(images) == 1)
            for folder in images
        }
        fitting = [folder for folder, cases in cases_of.items() if cases]
        if len(fitting) > 1:
            names = ", ".join(folder.name for folder in fitting)
            raise InputError(f"{labels}: these masks fit the images of several folders: {names}")
        if fitting:
            yield _Pair(rank, fitting[0], labels, cases_of[fitting[0]])


def names_images_or_masks(folder: Path) -> bool:
    """True for a folder called images, labels or the like."""
    return folder.name.lower() in IMAGE_FOLDERS or _rank(folder) is not None


def _plain(folder: Path) -> str:
    return re.sub(r"[^a-z0-9]", "", folder.name.lower())


def _rank(folder: Path) -> int | None:
    return next((rank for rank, part in enumerate(LABEL_FOLDERS) if re.search(part, _plain(folder))), None)


def matched(
    images: Path,
    labels: Path,
    pictures: Mapping[str, Path],
    masks: Mapping[str, Path],
    place: Path = Path(),
    *,
    only: bool = False,
) -> tuple[CaseFiles, ...]:
    """Make the cases of a folder of images and one of masks at a place of the source; none if no mask fits.

    pictures, masks: their files `by_stem`.

    With `only`, no other folder has images, so that all masks of a single image are accepted whatever their names, but
    for those with the number of another image. Raises InputError if some masks fit and one does not.

    Example:
        >>> folders = root / "images", root / "labels"  # doctest: +SKIP
        >>> matched(*folders, *(by_stem(one, below[one]) for one in folders), only=True)  # doctest: +SKIP
    """
    groups = channels_of(pictures, masks)
    pairs = match_masks(groups, masks)
    if pairs is None:
        orphan = first_orphan(groups, masks)
        if only and len(groups) == 1:
            (image,) = groups
            channel = CHANNEL.fullmatch(image)  # or a case's number of four digits
            orphan = orphan or other_number(image, masks) or (other_number(channel[1], masks) if channel else None)
            pairs = {image: sorted(masks)}
        if orphan:
            raise InputError(f"{masks[orphan]}: this mask has no image of its name or number in {images.name}/")
    if pairs is None:
        return ()
    return tuple(
        CaseFiles(name, name, tuple(paths), tuple(masks[mask] for mask in pairs.get(stem, [])))
        for stem, paths in groups.items()
        for name in [flat(place / stem)]
    )
