"""Layouts with images in one folder and their masks in another beside it."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from attunet.decisions import Decision
from attunet.errors import InputError
from attunet.io.readers import is_single_file
from attunet.sources.case_files import CaseFiles, Source
from attunet.sources.codings import read_label_map
from attunet.sources.layouts.matching import by_stem, channels_of, first_orphan, flat, match_masks

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "photos", "jpegimages", "original")
# Parts of a folder's name, the most telling first: a folder mask beside manual or groundtruth holds the camera's field
# of view.
LABEL_FOLDERS = (
    "label(?!l?ed)",
    "segmentationclass",
    "segment",
    "groundtruth",
    "annot",
    "manual",
    "trimap",
    "^gt|gt$",
    "mask",
)
LABEL_MAP = "labelmap.txt"  # CVAT's names of colours


@dataclass(frozen=True)
class _Pair:
    """A folder of images and one of masks that fit together. rank: of the masks' folder in `LABEL_FOLDERS`."""

    rank: int
    images: Path
    labels: Path
    cases: tuple[CaseFiles, ...]


def find_folders(root: Path, files: list[Path], masks: Sequence[str] = ()) -> Source | None:
    """Cases of `images/X` with `labels/X` (or masks/X_mask, ...), here or in several places below:
    `train/images`, `val/images`, ...

    Where several folders of masks fit, the one whose name says most is used, the same in all places, and a decision
    says so.

    Args:
        root: the folder.
        files: its files.
        masks: parts of names of mask folders; if any folder has one of them, only such folders hold masks (`--masks`).
    """
    below = _below(root, files)
    beside: defaultdict[Path, list[Path]] = defaultdict(list)
    for folder in sorted(below):
        beside[folder.parent].append(folder)
    pairs: list[_Pair] = []
    places: set[Path] = set()
    for place, folders in beside.items():
        if (
            place in below
            and places.isdisjoint((place, *place.parents))
            and (fitting := list(_pairs(root, place, folders, below)))
        ):
            places.add(place)
            pairs.extend(fitting)
    if not pairs:
        return None
    chosen = [pair for pair in pairs if any(text.lower() in pair.labels.name.lower() for text in masks)]
    best = min(chosen or pairs, key=lambda pair: pair.rank)
    taken = [pair for pair in pairs if _plain(pair.labels) == _plain(best.labels)]
    left = sorted(
        {pair.labels.relative_to(root).as_posix() for pair in pairs if _plain(pair.labels) != _plain(best.labels)}
    )
    decisions = (
        [Decision("mask-folder", f"masks are those of {best.labels.name}/, not of {', '.join(left)}")] if left else []
    )
    reason = f"it has {best.images.relative_to(root).as_posix()}/ and {best.labels.relative_to(root).as_posix()}/"
    if len(taken) > 1:
        reason = f"{len(taken)} of its folders have one for images and one for labels"
    cases = tuple(case for pair in taken for case in pair.cases)
    labels = [path for path in files if path.name == LABEL_MAP]
    codings = (read_label_map(labels[0]),) if labels else ()
    return Source(root, "images-labels", reason, codings, cases, decisions=tuple(decisions))


def _below(root: Path, files: Iterable[Path]) -> dict[Path, list[Path]]:
    """Every folder with the files anywhere below it that are an image or a mask."""
    below: defaultdict[Path, list[Path]] = defaultdict(list)
    for path in files:
        if is_single_file(path):
            for folder in path.parents:
                below[folder].append(path)
                if folder == root:
                    break
    return dict(below)


def _pairs(root: Path, place: Path, folders: Sequence[Path], below: dict[Path, list[Path]]) -> Iterator[_Pair]:
    """For every folder of masks in a place, the folder of images that it fits."""
    ranks = {folder: rank for folder in folders if (rank := _rank(folder)) is not None}
    prefix = "" if place == root else f"{flat(place.relative_to(root))}_"
    for labels, rank in ranks.items():
        images = [folder for folder in folders if folder not in ranks]
        images = [folder for folder in images if folder.name.lower() in IMAGE_FOLDERS] or images
        fitting = [
            (folder, cases)
            for folder in images
            if (cases := matched(folder, labels, below, prefix, only=len(images) == 1))
        ]
        if len(fitting) > 1:
            raise InputError(
                f"{labels}: these masks fit the images of several folders: {', '.join(f.name for f, _ in fitting)}"
            )
        if fitting:
            yield _Pair(rank, fitting[0][0], labels, fitting[0][1])


def _plain(folder: Path) -> str:
    return re.sub(r"[^a-z0-9]", "", folder.name.lower())


def _rank(folder: Path) -> int | None:
    return next((rank for rank, part in enumerate(LABEL_FOLDERS) if re.search(part, _plain(folder))), None)


def matched(
    images: Path, labels: Path, below: dict[Path, list[Path]], prefix: str = "", *, only: bool = False
) -> tuple[CaseFiles, ...]:
    """Make the cases of a folder of images and one of masks; none if no mask fits.

    Args:
        images, labels: the folders.
        below: the files below each folder.
        prefix: of the cases' names.
        only: no other image folder exists, so all masks of a single image are accepted whatever their names.

    Raises:
        InputError: some masks fit and one does not.
    """
    pictures, masks = by_stem(images, below.get(images, [])), by_stem(labels, below.get(labels, []))
    groups = channels_of(pictures, masks)
    pairs = match_masks(groups, masks)
    if pairs is None and only and len(groups) == 1:
        pairs = {next(iter(groups)): sorted(masks)}
    if pairs is None:
        if orphan := first_orphan(groups, masks):
            raise InputError(f"{masks[orphan]}: this mask has no image of its name or number in {images.name}/")
        return ()
    named = (
        (prefix + flat(Path(stem)), paths, [masks[m] for m in pairs.get(stem, [])]) for stem, paths in groups.items()
    )
    return tuple(CaseFiles(name, name, tuple(paths), tuple(labels)) for name, paths, labels in named)
