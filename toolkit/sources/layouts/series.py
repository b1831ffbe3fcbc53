"""DICOM series in folders of their own, with one mask file for each, elsewhere in the tree."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from attunet.errors import InputError
from attunet.io.dicom.file import DICOM_SUFFIXES, dataset_of, may_be_slice
from attunet.io.readers import is_readable, is_single_file, stem_of
from attunet.sources.case_files import CaseFiles, Source, SourceOptions, files_in
from attunet.sources.layouts.matching import match_masks, once_each

MAX_LOOKED_INTO_BYTES = 2**24  # of a folder's first file: a slice, not a whole volume


def series_folders(files: Iterable[Path]) -> list[Path]:
    """The folders that hold DICOM files, sorted; other files may lie among them."""
    folders: set[Path] = set()
    for path in files:
        named = path.name.lower().endswith(DICOM_SUFFIXES)
        if named or (path.parent not in folders and not is_readable(path) and may_be_slice(path)):
            folders.add(path.parent)
    return sorted(folders)


def series_in_parts(root: Path, folders: Sequence[Path]) -> str | None:
    """A clause about folders whose first files are of one series, each of which becomes a volume; None for none."""
    first_of: dict[str, Path] = {}
    for folder in folders:
        file = next(filter(may_be_slice, files_in(folder)), None)
        if file is None or file.stat().st_size > MAX_LOOKED_INTO_BYTES:
            continue
        with suppress(InputError):  # reading the series gives the reason
            with dataset_of(file, len(folders)) as dataset:
                uid = str(dataset.get("SeriesInstanceUID") or "")
            other = first_of.setdefault(uid, folder)
            if uid and other != folder:
                both = f"{str(other.relative_to(root))!r} and {str(folder.relative_to(root))!r}"
                advice = "if they are no phases, put all slices into one folder"
                return f"{both} hold slices of one DICOM series, and become a volume each: {advice}"
    return None


def find_series_with_masks(root: Path, files: list[Path], _: SourceOptions) -> Source | None:
    """Cases of a DICOM series in a folder and a mask file with the name or the number of a folder above the series."""
    folders = {folder: folder.relative_to(root).parts for folder in series_folders(files)}
    stems = [(stem_of(path), path) for path in files if is_single_file(path)]
    masks = dict(stems)
    for depth in range(max(map(len, folders.values()), default=0)):
        named = {parts[depth]: folder for folder, parts in folders.items() if len(parts) > depth}
        matched = match_masks(named, masks) if masks and len(named) == len(folders) else None
        if matched is not None:
            once_each(stems)
            cases = tuple(
                CaseFiles(name, name, (folder,), tuple(masks[mask] for mask in matched.get(name, [])))
                for name, folder in named.items()
            )
            reason = f"{len(folders)} DICOM series have mask files of their names"
            return Source(root, "series-masks", reason, (), cases)
    return None
