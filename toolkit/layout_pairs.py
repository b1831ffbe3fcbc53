"""Layouts in which an image and its mask are told by their names: pairs, two folders, Decathlon and nnU-Net."""

import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from attunet.cases import CaseFiles, Source
from attunet.classes import Classes
from attunet.codings import CHAOS_CODINGS
from attunet.errors import InputError
from attunet.readers import is_single_file, stem_of

CHANNEL = re.compile(r"(.+)_\d{4}")  # nnU-Net's case_0000, case_0001
MASK_ENDING = re.compile(r"(.+?)[-_ ](mask|seg|segmentation|label|labels|gt|groundtruth)", re.IGNORECASE)
IMAGE_FOLDERS = ("images", "image", "imgs", "img", "photos", "jpegimages")
LABEL_FOLDERS = (
    *("labels", "masks", "label", "mask", "segmentations", "annotations", "gt", "groundtruth", "ground_truth"),
    *("segmentation", "annotation", "segmentationclass"),
)
MAX_DATASET_JSON = 16 * 2**20


def find_src_mask(root: Path, files: list[Path]) -> Source | None:
    """`X-src.nii.gz` with `X-mask.nii.gz` beside it; in CHAOS' names, `NN-SEQUENCE`, the number is the patient."""
    images = _named(files, "src")
    if not images:
        return None
    masks = _named(files, "mask")
    if orphans := sorted(set(masks) - set(images)):
        raise InputError(f"{masks[orphans[0]]}: this mask has no image {orphans[0].name}-src beside it")
    cases = []
    for stem, image in images.items():
        chaos = re.match(r"(\d+)-", stem.name)
        cases.append(CaseFiles(stem.name, chaos[1] if chaos else stem.name, (image,), masks.get(stem)))
    return Source(root, "src-mask", f"{len(images)} files are called X-src", CHAOS_CODINGS, tuple(cases))


def _named(files: Iterable[Path], ending: str) -> dict[Path, Path]:
    """Files called X-ENDING, by the path of X."""
    found: dict[Path, Path] = {}
    for path in files:
        stem = stem_of(path)
        if is_single_file(path) and stem.lower().endswith(f"-{ending}") and len(stem) > len(ending) + 1:
            key = path.parent / stem[: -len(ending) - 1]
            if key in found:
                raise InputError(f"{path}: the same image or mask is there twice, also as {found[key].name}")
            found[key] = path
    return found


def find_suffixes(root: Path, files: list[Path]) -> Source | None:
    """`X.png` with `X_mask.png` (or _seg, _label, _gt) beside it."""
    readable = {path.parent / stem_of(path): path for path in files if is_single_file(path)}
    pairs: dict[Path, Path] = {}
    for key, path in readable.items():
        if (match := MASK_ENDING.fullmatch(key.name)) and (stem := key.parent / match[1]) in readable:
            if stem in pairs:
                raise InputError(f"{path}: {readable[stem].name} has a second mask, {pairs[stem].name}; one mask per image is read")
            pairs[stem] = path
    if not pairs:
        return None
    masks = set(pairs.values())
    cases = tuple(
        CaseFiles(_flat(stem.relative_to(root)), _flat(stem.relative_to(root)), (path,), pairs.get(stem))
        for stem, path in readable.items()
        if path not in masks
    )
    return Source(root, "suffix", f"{len(pairs)} images have a file with _mask or the like beside them", (), cases)


def find_folders(root: Path, files: list[Path]) -> Source | None:
    """`images/X` with `labels/X` (or masks/X), here or in several places below: `train/images`, `train/labels`, `val/images`, ..."""
    cases: list[CaseFiles] = []
    places: list[Path] = []
    for place in sorted({parent for path in files for parent in path.parents if parent.is_relative_to(root)}):
        folders = {p.name.lower(): p for p in sorted(place.iterdir()) if p.is_dir()}
        images = next((folders[name] for name in IMAGE_FOLDERS if name in folders), None)
        labels = next((folders[name] for name in LABEL_FOLDERS if name in folders), None)
        if images is None or labels is None or any(place.is_relative_to(outer) for outer in places):
            continue
        if found := _matched(images, labels, files, "" if place == root else f"{_flat(place.relative_to(root))}_"):
            places.append(place)
            cases.extend(found)
            reason = f"it has {images.relative_to(root).as_posix()}/ and {labels.relative_to(root).as_posix()}/"
    if not cases:
        return None
    if len(places) > 1:
        reason = f"{len(places)} of its folders have one for images and one for labels"
    return Source(root, "images-labels", reason, (), tuple(cases))


def find_decathlon(root: Path, files: list[Path]) -> Source | None:
    """imagesTr/ and labelsTr/, with classes from dataset.json: the Medical Segmentation Decathlon and nnU-Net's raw data."""
    images, labels, description = root / "imagesTr", root / "labelsTr", root / "dataset.json"
    if not (images.is_dir() and labels.is_dir()):
        return None
    cases = _matched(images, labels, files)
    if not cases:
        return None
    if description not in files:
        return Source(root, "decathlon", "it has imagesTr/ and labelsTr/, without dataset.json", (), cases, frames=True)
    classes, ignored = _described_classes(description)
    return Source(root, "decathlon", "it has imagesTr/, labelsTr/ and dataset.json", (classes,), cases, ignored=ignored, frames=True)


def _matched(images: Path, labels: Path, files: list[Path], prefix: str = "") -> tuple[CaseFiles, ...]:
    """Images and masks of two folders by their names; `_0000` endings are channels where the masks do not have them.

    prefix: of the cases' names, where several such pairs of folders are one source.
    """
    found = {folder: _by_stem(folder, files) for folder in (images, labels)}
    masks = {stem: paths[0] for stem, paths in found[labels].items()}
    if twice := next((paths for group in found.values() for paths in group.values() if len(paths) > 1), None):
        raise InputError(f"{twice[1]}: the same image or mask is there twice, also as {twice[0].name}")
    singles = {stem: paths[0] for stem, paths in found[images].items()}
    for rename in _renamings(singles, masks):
        masks = {rename(stem): path for stem, path in masks.items()}
    channelled = {stem for stem in singles if stem not in masks and (match := CHANNEL.fullmatch(stem)) and match[1] in masks}
    groups: defaultdict[str, list[Path]] = defaultdict(list)
    for stem, path in sorted(singles.items()):
        match = CHANNEL.fullmatch(stem) if channelled and stem not in masks else None
        groups[match[1] if match else stem].append(path)
    if orphans := sorted(set(masks) - set(groups)):
        raise InputError(f"{masks[orphans[0]]}: this mask has no image of its name in {images.name}/")
    named = ((prefix + _flat(Path(stem)), stem, paths) for stem, paths in groups.items())
    return tuple(CaseFiles(name, name, tuple(paths), masks.get(stem)) for name, stem, paths in named)


def _renamings(images: dict[str, Path], masks: dict[str, Path]) -> list[Callable[[str], str]]:
    """Where no mask has an image's name, but masks end in _mask or the like."""
    if not masks or set(images) & set(masks) or not all(MASK_ENDING.fullmatch(stem) for stem in masks):
        return []
    return [lambda stem: MASK_ENDING.sub(r"\1", stem)]


def _by_stem(folder: Path, files: list[Path]) -> dict[str, list[Path]]:
    """Readable files below a folder by their path without its ending."""
    found: defaultdict[str, list[Path]] = defaultdict(list)
    for path in files:
        if path.is_relative_to(folder) and is_single_file(path):
            stem = (path.parent / stem_of(path)).relative_to(folder).as_posix()
            found[unicodedata.normalize("NFC", stem)].append(path)  # archives of macOS decompose letters with accents
    return dict(found)


def _flat(path: Path) -> str:
    return "_".join(path.parts)


def _described_classes(path: Path) -> tuple[Classes, int | None]:
    """Names and values of `labels` in dataset.json, either way round, and the value of `ignore`."""
    if path.stat().st_size > MAX_DATASET_JSON:
        raise InputError(f"{path}: must be at most {MAX_DATASET_JSON:,} bytes, got {path.stat().st_size:,}")
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from None
    labels = data.get("labels") if isinstance(data, dict) else None
    if not isinstance(labels, dict) or not labels:
        raise InputError(f'{path}: "labels" must give the name and value of every class')
    values: dict[str, int] = {}
    for left, right in labels.items():
        name, value = (right, left) if isinstance(right, str) and not _is_whole(right) else (left, right)
        if not _is_whole(value):
            raise InputError(
                f'{path}: "labels" must give one whole number per class (regions are not supported), got {value!r} for {name!r}'
            )
        values[str(name)] = int(value)
    ignored = values.pop("ignore", None)
    background = next((name for name, value in values.items() if value == 0), None)
    if background is None:
        raise InputError(f'{path}: "labels" must have the value 0, which is the background')
    ordered = sorted(values.items(), key=lambda item: (item[1] != 0, item[1]))
    return Classes(tuple(n for n, _ in ordered), tuple(v for _, v in ordered)), ignored


def _is_whole(value: object) -> bool:
    return type(value) is int or (isinstance(value, str) and re.fullmatch(r"-?\d{1,9}", value, re.ASCII) is not None)
