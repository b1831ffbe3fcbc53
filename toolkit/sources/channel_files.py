"""The files of a case by the names of a model's channels, in the model's order."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from attunet.channels import order_of
from attunet.errors import InputError
from attunet.io.readers import is_single_file, stem_of
from attunet.sources.case_files import regular_files
from attunet.sources.input import Input
from attunet.sources.layouts.decathlon import DESCRIPTION, channels_of_description
from attunet.sources.layouts.matching import lies_among_masks
from attunet.sources.layouts.series import series_folders

SEPARATORS = "-_ ./"


def ordered(inputs: Iterable[Input], there: Sequence[str], needed: Sequence[str]) -> list[Input]:
    """Inputs with their files in the order of a model's channels, or with the rule that their channels break.

    Where a side has no names, files keep their order.

    Args:
        inputs: with one file for each channel, or one with all channels.
        there: names of the inputs' channels; empty where nothing tells them.
        needed: names of the model's channels; empty where they are not known.
    """
    order = order_of(there, needed)

    def in_place(one: Input) -> Input:
        if len(needed) < 2 or not there or len(one.files) not in (1, len(there)):
            return one
        if order is None or (len(one.files) == 1 and order != list(range(len(there)))):
            return replace(one, unfit=_unfit(there, needed))
        return one if len(one.files) == 1 else replace(one, files=tuple(one.files[index] for index in order))

    return list(map(in_place, inputs))


def named(root: Path, needed: Sequence[str], masks: Collection[Path], note: Callable[[str], object]) -> list[Input]:
    """Inputs with a file for each of a model's channels, by the files' names; none if no volume has all of them. `note`
    is called with a clause about files that are left out.
    """
    if len(needed) < 2:
        return []
    files = [path for path in regular_files(root) if is_single_file(path) and path not in masks]
    images = [path for path in files if not lies_among_masks(path.relative_to(root))]
    images += series_folders(regular_files(root))
    groups = {name: group for name, group in by_channel(root, images, needed).items() if group}
    if not any(len(group) == len(needed) for group in groups.values()):
        return []
    inputs = []
    for name, group in sorted(groups.items()):
        unfit = "" if len(group) == len(needed) else _unfit(sorted(group), needed)
        inputs.append(Input(name, tuple(group[one] for one in needed if one in group), unfit=unfit))
    used = {path for one in inputs for path in one.files}
    if left := [path for path in images if path not in used]:
        text = f"{len(left)} of {len(images)} files are none of the model's channels ({', '.join(needed)})"
        note(f"{text} and are left out, first {str(left[0].relative_to(root))!r}")
    return inputs


def by_channel(root: Path, paths: Iterable[Path], needed: Sequence[str]) -> dict[str, dict[str, Path]]:
    """Files whose paths below `root` end in a channel's name, by channel, of each volume.

    `case/t1.nii.gz`, `case/case_t1.nii.gz` and `case/t1/` are the channel t1 of the volume `case`, `sub-1_t1.nii.gz` is
    that of `sub-1`. A channel that several files may be is left out.
    """
    volumes: defaultdict[str, defaultdict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path in paths:
        if parts := _parts((path.parent / stem_of(path)).relative_to(root).as_posix(), needed):
            volumes[_volume(parts[0], root)][parts[1]].append(path)
    return {
        volume: {name: files[0] for name, files in channels.items() if len(files) == 1}
        for volume, channels in volumes.items()
    }


def described_channels(path: Path) -> tuple[str, ...]:
    """Names of the channels by the `dataset.json` of a folder of volumes, or of a file's; empty without one."""
    folder = path if path.is_dir() else path.parent
    beside = [folder, *([folder.parent] if folder.name.lower().startswith("images") else [])]
    for file in (place / DESCRIPTION for place in beside):
        if file.is_file():
            with suppress(InputError):  # it is no description of a data set
                return channels_of_description(file)
    return ()


def in_order(files: Sequence[Path], needed: Sequence[str]) -> list[Path]:
    """A volume's files in the order of a model's channels; as they are if no name tells a channel. Raises InputError if
    the names tell other channels than the model's.
    """
    named = {parts[1]: path for path in files if (parts := _parts(stem_of(path), needed))}
    if len(files) == 1 or not named:
        return list(files)
    if len(files) != len(named) or len(named) != len(needed):
        raise InputError(f"{files[0]}: {_unfit([stem_of(path) for path in files], needed)}")
    return [named[name] for name in needed]


def _parts(stem: str, needed: Sequence[str]) -> tuple[str, str] | None:
    """A path without ending as what stands before a channel's name, and the channel; None without such a name."""
    for name in sorted(needed, key=len, reverse=True):
        before = stem[: len(stem) - len(name)]
        if stem[len(before) :].casefold() == name.casefold() and (not before or before[-1] in SEPARATORS):
            return before, name
    return None


def _unfit(there: Sequence[str], needed: Sequence[str]) -> str:
    return (
        f"the model needs the channels {', '.join(needed)}, and this case has {', '.join(there)}; if these are the "
        "same, call the files as the model's channels, or CASE_0000, CASE_0001, ... in the model's order"
    )


def _volume(text: str, root: Path) -> str:
    """The volume's name: of the folder, or what stands before the channel's name; `p/p` is `p`."""
    *folders, name = text.rstrip(SEPARATORS).split("/")
    if folders and folders[-1] == name:
        folders.pop()
    return "/".join([*folders, name]) or root.name
