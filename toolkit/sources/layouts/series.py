"""DICOM series in folders of their own, with one mask file for each, elsewhere in the tree."""

from collections.abc import Iterable
from pathlib import Path

from attunet.io.dicom.file import DICOM_SUFFIXES, is_dicom
from attunet.io.readers import is_readable, is_single_file, stem_of
from attunet.sources.case_files import CaseFiles, Source, SourceOptions
from attunet.sources.layouts.matching import match_masks


def series_folders(files: Iterable[Path]) -> list[Path]:
    """The folders that hold DICOM files, sorted. Of files without an ending, the first of a folder is looked into."""
    folders: set[Path] = set()
    looked: set[Path] = set()
    for path in files:
        if path.name.lower().endswith(DICOM_SUFFIXES):
            folders.add(path.parent)
        elif not is_readable(path) and path.parent not in looked and path.name.upper() != "DICOMDIR":
            looked.add(path.parent)
            if is_dicom(path):
                folders.add(path.parent)
    return sorted(folders)


def find_series_with_masks(root: Path, files: list[Path], _: SourceOptions) -> Source | None:
    """Cases of a DICOM series in a folder and a mask file with the name or the number of a folder above the series."""
    folders = {folder: folder.relative_to(root).parts for folder in series_folders(files)}
    masks = {stem_of(path): path for path in files if is_single_file(path)}
    if not masks:
        return None
    for depth in range(max(map(len, folders.values()), default=0)):
        named = {parts[depth]: folder for folder, parts in folders.items() if len(parts) > depth}
        matched = match_masks(named, masks) if len(named) == len(folders) else None
        if matched is not None:
            cases = tuple(
                CaseFiles(name, name, (folder,), tuple(masks[mask] for mask in matched.get(name, [])))
                for name, folder in named.items()
            )
            reason = f"{len(folders)} DICOM series have mask files of their names"
            return Source(root, "series-masks", reason, (), cases)
    return None
