"""Inputs of a model: one volume or a folder of volumes, in any supported format and layout."""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from attunet.decisions import Choices
from attunet.errors import InputError
from attunet.io.dicom.file import may_be_slice
from attunet.io.readers import FORMAT_NAMES, NOTHING, is_readable, is_single_file, read_volume, stem_of
from attunet.io.refusal import refuse_unending
from attunet.sources.case_files import Source, SourceOptions, files_in, regular_files, without_names
from attunet.sources.channel_files import SEPARATORS, Unfit, Volumes, described_channels, named, ordered
from attunet.sources.find_cases import find_cases
from attunet.sources.layouts.matching import CHANNEL, names_a_mask
from attunet.sources.layouts.no_layout import links_left_out
from attunet.sources.layouts.series import series_folders, series_in_parts
from attunet.sources.read_case import read_image
from attunet.volumes.volume import Volume

# Layouts whose images and masks differ in their names; in others the layout is needed
NAMES_ARE_ENOUGH = ("src-mask", "suffix")

Cases = dict[Path, str]


@dataclass(frozen=True)
class Input:
    """One volume.

    Args:
        name: path below the input folder, without ending (`site/scan`).
        files: one file, or one for each channel.
        choices: the user's interpretations (`--read RULE=VALUE`), by rule.
        case: name of the case that a store has of these files, as far as they tell; empty if it is `name`.
        namesake: another volume of the folder whose name differs in capitals or the coding of accents at most; both are
            refused when they are read, because both would have one label map.
        unfit: the rule that its channels break, with which it is refused when it is read.
        hidden: True if no text in the files may be quoted, since it may have names.
    """

    name: str
    files: tuple[Path, ...]
    choices: Choices = field(default_factory=dict)
    case: str = ""
    namesake: Path | None = None
    unfit: str = ""
    hidden: bool = False

    @property
    def is_refused(self) -> bool:
        """True if `check` raises."""
        return bool(self.namesake or self.unfit)

    def check(self) -> None:
        """Raise InputError if another volume has the same name, or the channels are not the model's."""
        if self.namesake:
            raise InputError(
                f"{self.files[0]}: must differ from {self.namesake} in more than ending, capitals or channel number, "
                "for a label map of its own: rename one, or take one away"
            )

        with without_names(self.name, self.hidden):
            if self.unfit:
                raise InputError(f"{self.files[0]}: {self.unfit}")

    def read(self, num_channels: int, channels: Sequence[str] = ()) -> Volume:
        """Read the volume for a model with `num_channels` channels of these names, if they are known.

        Raises:
            InputError: as `read_volume` does, for two volumes of one name, and for other channels than the model's.
        """
        self.check()
        with without_names(self.name, self.hidden):
            return self._read(num_channels, channels)

    def _read(self, num_channels: int, channels: Sequence[str]) -> Volume:
        if len(self.files) == 1:
            volume = read_volume(self.files[0], channels=num_channels, choices=self.choices)
            if len(channels) > 1 and volume.unit == "mm" and len(volume.data) != num_channels:
                raise InputError(
                    f"{self.files[0]}: must have {num_channels} channels ({', '.join(channels)}), got "
                    f"{len(volume.data)}; in one file, or a file for each that is called as the channel"
                )
            return volume
        got = len(self.files)  # of one channel each at least
        if got <= num_channels:
            volume = read_image(self.files, choices=self.choices)
            got = len(volume.data)
        if got != num_channels:
            raise InputError(
                f"{self.files[0]}: must have {num_channels} channels with the {len(self.files) - 1} files beside "
                f"it that are of one case, got {got}"
            )
        return volume


def find_inputs(
    path: Path,
    num_channels: int = 1,
    choices: Choices = NOTHING,
    *,
    channels: Sequence[str] = (),
    note: Callable[[str], object] = lambda text: None,
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

    Raises:
        InputError: there is nothing to read.

    Example:
        >>> model = load_model("model.onnx")  # doctest: +SKIP
        >>> find_inputs(Path("scans"), model.spec.num_channels, channels=model.channels)  # doctest: +SKIP
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    refuse_unending(path)
    cases: Cases = {}
    wrong: Unfit = {}
    if path.is_file():
        numbered = [(stem_of(path), _channels(path, num_channels))]
        volumes, wrong = ordered(numbered, described_channels(path), channels)
    elif any(may_be_slice(file) for file in files_in(path)):
        volumes = [(path.name, (path,))]
        if below := [folder for folder in series_folders(regular_files(path)) if folder != path]:
            note(f"DICOM below its own files is left out, first in {str(below[0].relative_to(path))!r}")
    else:
        volumes, cases, wrong = _in_folder(path, num_channels, channels, note)
    alike = defaultdict(list)
    for name, files in volumes:
        alike[_as_others_see(name)].append(files[0])
    return [
        Input(
            name,
            files,
            choices,
            cases.get(files[0], _case_of(name)),
            next((file for file in alike[_as_others_see(name)] if file != files[0]), None),
            wrong.get(files[0], ""),
        )
        for name, files in volumes
    ]


def _as_others_see(name: str) -> str:
    """The name on file systems that do not tell capitals, or composed letters and accents, apart."""
    return unicodedata.normalize("NFC", name).casefold()


def _case_of(name: str) -> str:
    """`X` of `X-src` and of nnU-Net's `X_0000`, which name one volume; the folders before the name stay."""
    return unicodedata.normalize("NFC", re.sub(r"(?i)(?<=[^/])(-src|_0000)$", "", name))


def _in_folder(
    path: Path, num_channels: int, channels: Sequence[str], note: Callable[[str], object]
) -> tuple[Volumes, Cases, Unfit]:
    """The volumes, the names of the cases that their first files belong to, where the layout tells them, and the rules
    that their channels break.
    """
    source = _by_layout(path, channels)
    files_of = [(case.case, case.images) for case in source.cases] if source else []
    volumes, wrong = ordered(files_of, source.channels if source else (), channels)
    cases = {files[0]: name for name, files in volumes}
    masks = {label for case in source.cases for label in case.labels} if source else set()
    is_known = source is not None and source.layout not in NAMES_ARE_ENOUGH
    by_name = named(path, channels, masks, note) if wrong or not is_known else ([], {})
    if by_name[0]:
        volumes, wrong = by_name
    elif source and is_known:
        for text in (*source.notes, *_unnamed_masks(source)):
            note(text)
        return volumes, cases, wrong
    else:
        one, there = _one_case(path, num_channels)
        volumes, wrong = ordered(one, there, channels) if one else (_any_folder(path, num_channels, masks, note), {})
        if not one:
            volumes, wrong = ordered(volumes, described_channels(path), channels)
    series = [files[0] for _, files in volumes if files[0].is_dir()]
    for clause in filter(None, (links_left_out(path), series_in_parts(path, series))):
        note(clause)
    if not volumes:
        raise InputError(f"{path}: the folder has no volume; the formats are {FORMAT_NAMES}")
    return volumes, cases, wrong


def _by_layout(path: Path, channels: Sequence[str]) -> Source | None:
    """The cases of the layout that fits, with the images that are called as the model's channels, if there are any."""
    for images in dict.fromkeys([tuple(channels) if len(channels) > 1 else (), ()]):
        with suppress(InputError):  # no layout fits
            return find_cases(path, SourceOptions(images=images))
    return None


def _unnamed_masks(source: Source) -> Iterator[str]:
    """A clause about files that nothing but the name of a series makes masks; they may be conversions of it."""
    if source.layout == "series-masks":
        labels = [path.relative_to(source.root) for case in source.cases for path in case.labels]
        unnamed = [path for path in labels if not any(map(names_a_mask, (*path.parts[:-1], stem_of(path))))]
        if unnamed:
            text = f"{len(unnamed)} files have the names of series and are taken as their masks"
            yield f"{text}, first {str(unnamed[0])!r}"


def _one_case(folder: Path, num_channels: int) -> tuple[Volumes, list[str]]:
    """Find one case in a folder: a file for each channel of the model, by name (X-t1c, X-t1n, ...), beside X-seg.

    Returns:
        The case, and the names of its channels.
    """
    files = [path for path in regular_files(folder) if is_readable(path) and not names_a_mask(stem_of(path))]
    if len(files) != num_channels or num_channels == 1 or stem_of(files[0]).endswith("_0000"):
        return [], []
    stems = [stem_of(path) for path in files]
    start = os.path.commonprefix(stems).rstrip("0123456789")  # noqa: RUF071 (names, not paths)
    are_numbered = all(stem.removeprefix(start).isdecimal() for stem in stems) and start.endswith(("-", "_", " ", "."))
    is_one = re.search(r"\d", start) and not are_numbered and all(path.parent == folder for path in files)
    there = [stem[max(map(start.rfind, SEPARATORS)) + 1 :] for stem in stems]
    return ([(folder.name, tuple(files))], there) if is_one else ([], [])


def _channels(path: Path, num_channels: int) -> tuple[Path, ...]:
    """The file, with the others of its volume where its name says that it is the first channel."""
    stem = stem_of(path)
    if num_channels == 1 or not re.fullmatch(r".+_0000", stem):
        return (path,)
    names = [f"{stem[:-4]}{channel:04d}{path.name[len(stem) :]}" for channel in range(num_channels)]
    siblings = tuple(map(path.with_name, names))
    return siblings if all(sibling.is_file() for sibling in siblings) else (path,)


def _any_folder(root: Path, num_channels: int, masks: Collection[Path], note: Callable[[str], object]) -> Volumes:
    """Names and files of every volume below a folder that no layout describes, in the order of the names."""
    files = regular_files(root)
    series = [
        (root.name if folder == root else folder.relative_to(root).as_posix(), (folder,))
        for folder in series_folders(files)
    ]
    images: list[tuple[str, Path]] = []
    called_masks: list[tuple[str, Path]] = []
    for path in files:
        if is_single_file(path) and path not in masks:
            parts = (*path.relative_to(root).parts[:-1], stem_of(path))
            (called_masks if any(map(names_a_mask, parts)) else images).append(("/".join(parts), path))
    if not images and not series:  # if all files are named like masks, the names mean nothing
        images, called_masks = called_masks, []
    if called_masks:
        first = called_masks[0][1].relative_to(root)
        note(f"{len(called_masks)} files are called as masks and are left out, first {str(first)!r}")
    return sorted([*series, *_joined(images, num_channels)])


def _joined(images: Sequence[tuple[str, Path]], num_channels: int) -> Volumes:
    """Group files by volume: nnU-Net's X_0000, X_0001, ... if these are the model's channels or all end in _0000."""
    volumes: defaultdict[str, defaultdict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for stem, path in images:
        match = CHANNEL.fullmatch(stem)
        volumes[match[1] if match else stem][stem].append(path)
    all_first = all(stem.endswith("_0000") for stem, _ in images)
    joined: Volumes = []
    for volume, files in volumes.items():
        channels = {stem: paths for stem, paths in files.items() if stem != volume}
        whole = sorted(channels) == [f"{volume}_{channel:04d}" for channel in range(num_channels)]
        if whole or (all_first and channels):
            joined.append((volume, tuple(channels[stem].pop(0) for stem in sorted(channels))))
        for stem, paths in files.items():
            name = volume if stem in channels and (whole or all_first) else stem
            joined += [(name, (path,)) for path in paths]  # the others of a name, where files were joined
    return joined
