"""Layouts with image and mask in one folder, distinguished by their names."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from attunet.errors import InputError
from attunet.io.nifti import nifti_shape
from attunet.io.readers import is_single_file, stem_of
from attunet.sources.case_files import CaseFiles, Source, SourceOptions
from attunet.sources.labels.codings import CHAOS_CODINGS
from attunet.sources.layouts.matching import by_stem, flat, match_masks, names_a_mask, once_each, without_mask_words


def find_src_mask(root: Path, files: list[Path], _: SourceOptions) -> Source | None:
    """Cases of `X-src.nii.gz` with `X-mask.nii.gz` beside it; the number of CHAOS' `NN-SEQUENCE` is the patient."""
    images = once_each(_named(files, "-src"))
    if not images:
        return None
    masks = once_each(_named(files, "-mask"))
    if orphans := sorted(set(masks) - set(images)):
        raise InputError(f"{masks[orphans[0]]}: this mask has no image {orphans[0].name}-src beside it")
    cases = []
    for stem, image in images.items():
        chaos = re.match(r"(\d+)-", stem.name)
        label = (masks[stem],) if stem in masks else ()
        cases.append(CaseFiles(stem.name, chaos[1] if chaos else stem.name, (image,), label))
    return Source(root, "src-mask", f"{len(images)} files are called X-src", CHAOS_CODINGS, tuple(cases))


def _named(files: Iterable[Path], ending: str) -> Iterator[tuple[Path, Path]]:
    """Files whose names have an ending, and their paths without it."""
    for path in files:
        stem = stem_of(path)
        if is_single_file(path) and stem.lower().endswith(ending) and len(stem) > len(ending):
            yield path.parent / stem[: -len(ending)], path


def find_suffixes(root: Path, files: list[Path], _: SourceOptions) -> Source | None:
    """Cases of `X.png` with `X_mask.png` (or _seg, _label, _gt) beside it, or `image_X.png` with `mask_X.png`.

    A mask's ending may differ. Files of several moments beside frames with masks, as cine MR has them, are left out.
    """
    folders: defaultdict[Path, list[Path]] = defaultdict(list)
    for path in files:
        folders[path.parent].append(path)
    cases = [case for folder, inside in folders.items() for case in _beside(root, folder, inside)]
    labelled = sum(bool(case.labels) for case in cases)
    if not labelled:
        return None
    called_masks = [case for case in cases if names_a_mask(stem_of(case.images[0]))]
    if called_masks and not any(case.labels for case in called_masks):
        raise InputError(f"{called_masks[0].images[0]}: this mask has no image of its name beside it")
    series = [case for case in cases if not case.labels and nifti_shape(case.images[0])[3:4] > (1,)]  # 4D
    reason = f"{labelled} images have a file with _mask or the like beside them"
    source = Source(root, "suffix", reason, (), tuple(case for case in cases if case not in series))
    if not series:
        return source
    note = (
        f"{len(series)} of {len(cases)} images have several moments and no mask and are left out, first "
        f"{series[0].images[0].name}"
    )
    return replace(source, notes=(note,), left_out=frozenset(case.images[0] for case in series))


def _beside(root: Path, folder: Path, files: Iterable[Path]) -> list[CaseFiles]:
    """Pair the images of a folder with their masks; a file that is named like a mask but has no image is an image."""
    readable = by_stem(folder, files)
    masks = {stem for stem in readable if names_a_mask(stem)}
    matched = match_masks(set(readable) - masks, masks)
    if matched is None:
        masks = {stem for stem in masks if without_mask_words(stem) in readable}
        matched = match_masks(set(readable) - masks, masks) or {}
    pictures = {stem: path for stem, path in readable.items() if stem not in masks}
    names = {stem: flat(folder.relative_to(root) / stem) for stem in pictures}
    return [
        CaseFiles(names[stem], names[stem], (path,), tuple(readable[mask] for mask in matched.get(stem, [])))
        for stem, path in pictures.items()
    ]
