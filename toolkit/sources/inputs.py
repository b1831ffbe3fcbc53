"""Inputs of a model: one volume or a folder of volumes, in any supported format and layout."""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from attunet.decisions import Choices
from attunet.errors import InputError
from attunet.io.dicom.file import may_be_slice
from attunet.io.readers import FORMAT_NAMES, NOTHING, is_readable, is_single_file, stem_of
from attunet.io.refusal import refuse_unending
from attunet.sources.case_files import Source, SourceOptions, files_in, regular_files
from attunet.sources.channel_files import SEPARATORS, described_channels, named, ordered
from attunet.sources.find_cases import NoLayout, find_cases
from attunet.sources.input import Input
from attunet.sources.layouts.matching import CHANNEL, lies_among_masks, names_a_mask
from attunet.sources.layouts.no_layout import links_left_out
from attunet.sources.layouts.series import series_folders, series_in_parts

# Layouts whose images and masks differ in their names; in others the layout is needed
NAMES_ARE_ENOUGH = ("src-mask", "suffix")


def find_inputs(
    path: Path,
    num_channels: int = 1,
    choices: Choices = NOTHING,
    *,
    channels: Sequence[str] = (),
    note: Callable[[str], object] = lambda text: None,
    layouts: bool = True,
) -> list[Input]:
    """Find the volumes at a path, without masks (`X-mask`, `X_seg`, `segmentations/`, ...).

    Where the files or a `dataset.json` tell the names of the channels, and the model's are known, the files of a volume
    are in the model's order, and a volume of other channels is refused when it is read.

    Args:
        path: a file, the folder of a DICOM series, a data set in a known layout (its images alone), or any folder.
        num_channels: channels of the model; if there are several, `X_0000.nii.gz`, `X_0001.nii.gz`, ... are one volume.
        choices: the user's interpretations, by rule.
        channels: names of the model's channels; empty if they are not known.
        note: called with each clause about files of the folder that are left out.
        layouts: False takes the files of a folder by their names and kinds alone, without looking for a data set.

    Raises InputError if there is nothing to read.

    Example:
        >>> model = load_model("model.onnx")  # doctest: +SKIP
        >>> find_inputs(Path("scans"), model.spec.num_channels, channels=model.channels)  # doctest: +SKIP
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    refuse_unending(path)
    if path.is_file():
        inputs = ordered([Input(stem_of(path), _channels(path, num_channels))], described_channels(path), channels)
    elif any(may_be_slice(file) for file in files_in(path)):
        inputs = [Input(path.name, (path,))]
        if below := [folder for folder in series_folders(regular_files(path)) if folder != path]:
            note(f"DICOM below its own files is left out, first in {str(below[0].relative_to(path))!r}")
    else:
        source = _by_layout(path, channels, note) if layouts else None
        inputs = _in_folder(path, source, num_channels, channels, note)
    if not inputs:
        raise InputError(f"{path}: the folder has no volume; the formats are {FORMAT_NAMES}")
    alike = defaultdict(list)
    for one in inputs:
        alike[_as_others_see(one.name)].append(one.files[0])
    return [
        replace(
            one,
            choices=choices,
            namesake=next((file for file in alike[_as_others_see(one.name)] if file != one.files[0]), None),
        )
        for one in inputs
    ]


def _as_others_see(name: str) -> str:
    """The name on file systems that do not tell capitals, or composed letters and accents, apart."""
    return unicodedata.normalize("NFC", name).casefold()


def _in_folder(
    path: Path, source: Source | None, num_channels: int, channels: Sequence[str], note: Callable[[str], object]
) -> list[Input]:
    """The volumes of a folder, with the cases of its layout, `source`, that their first files belong to."""
    is_known = source is not None and source.layout not in NAMES_ARE_ENOUGH
    cases = [Input(case.case, case.images, case=case.case) for case in source.cases] if source else []
    cases = ordered(cases, source.channels if source else (), channels)
    masks = {label for case in source.cases for label in case.labels} if source else set()
    by_name = [] if is_known and not any(case.unfit for case in cases) else named(path, channels, masks, note)
    if source and is_known and not by_name:
        for text in (*source.notes, *_unnamed_masks(source)):
            note(text)
        return cases
    inputs = by_name or _one_case(path, num_channels, channels)
    if not inputs:
        inputs = ordered(_any_folder(path, num_channels, masks, note), described_channels(path), channels)
    series = [one.files[0] for one in inputs if one.files[0].is_dir()]
    for clause in filter(None, (links_left_out(path), series_in_parts(path, series))):
        note(clause)
    case_of = {case.files[0]: case.case for case in cases}
    return [replace(one, case=case_of.get(one.files[0], "")) for one in inputs]


def _by_layout(path: Path, channels: Sequence[str], note: Callable[[str], object]) -> Source | None:
    """The cases of the layout that fits, with the images that are called as the model's channels, if there are any."""
    if len(channels) > 1:
        with suppress(InputError):  # the files may be called otherwise
            return find_cases(path, SourceOptions(images=tuple(channels)))
    try:
        return find_cases(path)
    except NoLayout:
        return None
    except InputError as error:
        note(f"its images and masks are no cases, and its files are taken by their names alone: {error}")
        return None


def _unnamed_masks(source: Source) -> Iterator[str]:
    """A clause about files that nothing but the name of a series makes masks; they may be conversions of it."""
    if source.layout == "series-masks":
        labels = [path.relative_to(source.root) for case in source.cases for path in case.labels]
        if unnamed := [path for path in labels if not lies_among_masks(path)]:
            text = f"{len(unnamed)} files have the names of series and are taken as their masks"
            yield f"{text}, first {str(unnamed[0])!r}"


def _one_case(folder: Path, num_channels: int, channels: Sequence[str]) -> list[Input]:
    """Find one case in a folder: a file for each channel of the model, by name (X-t1c, X-t1n, ...), beside X-seg."""
    files = [path for path in regular_files(folder) if is_readable(path) and not names_a_mask(stem_of(path))]
    stems = [stem_of(path) for path in files]
    if len(files) != num_channels or num_channels == 1 or stems[0].endswith("_0000"):
        return []
    start = os.path.commonprefix(stems).rstrip("0123456789")  # noqa: RUF071 (names, not paths)
    are_numbered = all(stem.removeprefix(start).isdecimal() for stem in stems) and start.endswith(("-", "_", " ", "."))
    if are_numbered or not re.search(r"\d", start) or any(path.parent != folder for path in files):
        return []
    there = [stem[max(map(start.rfind, SEPARATORS)) + 1 :] for stem in stems]
    return ordered([Input(folder.name, tuple(files))], there, channels)


def _channels(path: Path, num_channels: int) -> tuple[Path, ...]:
    """The file, with the others of its volume where its name says that it is the first channel."""
    stem = stem_of(path)
    if num_channels == 1 or not re.fullmatch(r".+_0000", stem):
        return (path,)
    names = [f"{stem[:-4]}{channel:04d}{path.name[len(stem) :]}" for channel in range(num_channels)]
    siblings = tuple(map(path.with_name, names))
    return siblings if all(sibling.is_file() for sibling in siblings) else (path,)


def _any_folder(root: Path, num_channels: int, masks: Collection[Path], note: Callable[[str], object]) -> list[Input]:
    """Every volume below a folder that no layout describes, in the order of the names."""
    files = regular_files(root)
    series = [
        (root.name if folder == root else folder.relative_to(root).as_posix(), (folder,))
        for folder in series_folders(files)
    ]
    images: list[tuple[str, Path]] = []
    called_masks: list[tuple[str, Path]] = []
    for path in files:
        if is_single_file(path) and path not in masks:
            relative = path.relative_to(root)
            name = (relative.parent / stem_of(path)).as_posix()
            (called_masks if lies_among_masks(relative) else images).append((name, path))
    if not images and not series:  # if all files are named like masks, the names mean nothing
        images, called_masks = called_masks, []
    if called_masks:
        first = called_masks[0][1].relative_to(root)
        note(f"{len(called_masks)} files are called as masks and are left out, first {str(first)!r}")
    return [Input(name, own) for name, own in sorted([*series, *_joined(images, num_channels)])]


def _joined(images: Sequence[tuple[str, Path]], num_channels: int) -> list[tuple[str, tuple[Path, ...]]]:
    """Group files by volume: nnU-Net's X_0000, X_0001, ... if these are the model's channels or all end in _0000."""
    volumes: defaultdict[str, defaultdict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for stem, path in images:
        match = CHANNEL.fullmatch(stem)
        volumes[match[1] if match else stem][stem].append(path)
    all_first = all(stem.endswith("_0000") for stem, _ in images)
    joined = list[tuple[str, tuple[Path, ...]]]()
    for volume, files in volumes.items():
        channels = {stem: paths for stem, paths in files.items() if stem != volume}
        whole = sorted(channels) == [f"{volume}_{channel:04d}" for channel in range(num_channels)]
        if whole or (all_first and channels):
            joined.append((volume, tuple(channels[stem].pop(0) for stem in sorted(channels))))
        for stem, paths in files.items():
            name = volume if stem in channels and (whole or all_first) else stem
            joined += [(name, (path,)) for path in paths]  # the others of a name, where files were joined
    return joined
