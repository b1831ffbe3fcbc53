"""Layouts in which images lie in one folder and their masks in another beside it."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from attunet.errors import InputError
from attunet.io.readers import is_single_file
from attunet.sources.case_files import CaseFiles, Source
from attunet.sources.layouts.matching import by_stem, channels_of, first_orphan, flat, masks_of, match_masks

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "photos", "jpegimages", "original")
# Parts of a folder's name, the most telling first: a folder mask beside manual or groundtruth says where the camera sees anything at all.
LABEL_FOLDERS = ("label(?!l?ed)", "segmentationclass", "segment", "groundtruth", "annot", "manual", "trimap", "^gt|gt$", "mask")


@dataclass(frozen=True)
class _Pair:
    """A folder of images and one of masks that fit together. rank: the lower, the more likely these are the masks that are meant."""

    rank: int
    images: Path
    labels: Path
    cases: tuple[CaseFiles, ...]


def find_folders(root: Path, files: list[Path]) -> Source | None:
    """`images/X` with `labels/X` (or masks/X_mask, ...), here or in several places below: `train/images`, `train/labels`, `val/images`, ...

    Where several folders of masks fit, the one whose name says most is taken, the same in all places, and a note says so.
    """
    below = _below(root, files)
    beside: defaultdict[Path, list[Path]] = defaultdict(list)
    for folder in sorted(below):
        beside[folder.parent].append(folder)
    pairs: list[_Pair] = []
    places: set[Path] = set()
    for place, folders in beside.items():
        if place in below and places.isdisjoint((place, *place.parents)) and (found := list(_pairs(root, place, folders, below))):
            places.add(place)
            pairs.extend(found)
    if not pairs:
        return None
    best = min(pairs, key=lambda pair: pair.rank)
    taken = [pair for pair in pairs if _plain(pair.labels) == _plain(best.labels)]
    left = sorted({pair.labels.relative_to(root).as_posix() for pair in pairs if _plain(pair.labels) != _plain(best.labels)})
    notes = (f"masks are taken from {best.labels.name}/; left out: {', '.join(left)}",) if left else ()
    reason = f"it has {best.images.relative_to(root).as_posix()}/ and {best.labels.relative_to(root).as_posix()}/"
    if len(taken) > 1:
        reason = f"{len(taken)} of its folders have one for images and one for labels"
    return Source(root, "images-labels", reason, (), tuple(case for pair in taken for case in pair.cases), notes=notes)


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
        fitting = [(folder, cases) for folder in images if (cases := matched(folder, labels, below, prefix, only=len(images) == 1))]
        if len(fitting) > 1:
            raise InputError(f"{labels}: these masks fit the images of several folders: {', '.join(f.name for f, _ in fitting)}")
        if fitting:
            yield _Pair(rank, fitting[0][0], labels, fitting[0][1])


def _plain(folder: Path) -> str:
    return re.sub(r"[^a-z0-9]", "", folder.name.lower())


def _rank(folder: Path) -> int | None:
    return next((rank for rank, part in enumerate(LABEL_FOLDERS) if re.search(part, _plain(folder))), None)


def matched(images: Path, labels: Path, below: dict[Path, list[Path]], prefix: str = "", *, only: bool = False) -> tuple[CaseFiles, ...]:
    """The cases of a folder of images and one of masks; none where no mask fits.

    prefix: of the cases' names; only: the masks can be of these images alone: of a single image, whatever their names.
    Raises InputError where some masks fit and one does not.
    """
    pictures, masks = by_stem(images, below.get(images, [])), by_stem(labels, below.get(labels, []))
    groups = channels_of(pictures, masks)
    found = match_masks(groups, masks)
    if found is None and only and len(groups) == 1:
        ((stem, paths),) = groups.items()
        return (CaseFiles(prefix + flat(Path(stem)), prefix + flat(Path(stem)), tuple(paths), tuple(masks[m] for m in sorted(masks))),)
    if found is None:
        if orphan := first_orphan(groups, masks):
            raise InputError(f"{masks[orphan]}: this mask has no image of its name in {images.name}/")
        return ()
    named = ((prefix + flat(Path(stem)), paths, [masks[m] for m in found.get(stem, [])]) for stem, paths in groups.items())
    return tuple(CaseFiles(name, name, tuple(paths), masks_of(name, labels)) for name, paths, labels in named)
