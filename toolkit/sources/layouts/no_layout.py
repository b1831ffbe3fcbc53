"""The message for a folder without cases: its contents instead of images and masks, and advice."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from attunet.errors import InputError
from attunet.io.dicom.file import is_dicom, modality_of
from attunet.io.readers import FORMAT_NAMES, PACKED, is_readable, is_single_file, stem_of
from attunet.sources.case_files import walk
from attunet.sources.layouts.matching import names_a_mask

ARCHIVES = (*PACKED, ".gz", ".bz2", ".xz")
MAX_ARCHIVES = 100  # more are compressed files of one kind
MAX_LOOKED_INTO = 50  # number of folders with DICOM of which a file is read
START_BYTES = 4096


def why_no_layout(root: Path, files: Sequence[Path], known: Mapping[str, str]) -> str:
    """The line for a folder that fits no layout; `known` has an example of each layout that was tried."""
    readable = [path for path in files if is_readable(path)]
    packed = [path for path in files if path.name.lower().endswith(ARCHIVES) and not is_readable(path)]
    if 0 < len(packed) < MAX_ARCHIVES:
        archive = packed[0].relative_to(root)
        return f"{root}: holds the archive {archive}, in which nothing is looked for: unpack it, and prepare the folder"
    if not readable:
        kinds = ", ".join(sorted({path.suffix.lower() or path.name for path in files})[:5])
        first = files[0].relative_to(root)
        return f"{root}: {kinds} files are not read (the first is {first}); the formats are {FORMAT_NAMES}"
    if other := next(filter(None, map(_other_annotations, files)), None) or _dicom_masks(readable):
        return other
    layouts = "; ".join(f"{name}: {example}" for name, example in known.items())
    if len(known) == 1 or any(names_a_mask(part) for path in readable for part in _parts(path.relative_to(root))):
        return f"{root}: fits no known layout (its first file is {readable[0].relative_to(root)}). Known are {layouts}"
    return (
        f"{root}: has {len(readable)} file{'s' if len(readable) > 1 else ''} to read, and none of them or of their "
        "folders is called a mask; put masks of the images' names into masks/ beside images/, or call them NAME_mask. "
        f"Known are {layouts}"
    )


def _parts(relative: Path) -> tuple[str, ...]:
    name = stem_of(relative) if is_single_file(relative) else relative.name
    return (*relative.parts[:-1], name)


def _other_annotations(path: Path) -> str | None:
    """The line for annotations in a form that is not read; None for any other file."""
    suffix = path.suffix.lower()
    if suffix not in (".json", ".xml", ".txt"):
        return None
    try:
        with path.open("rb") as file:
            start = file.read(START_BYTES).decode("utf-8", "replace")
    except OSError:
        return None
    if suffix == ".json" and '"shapes"' in start and ('"imagePath"' in start or '"shape_type"' in start):
        kind = "is labelme's annotation of a picture, which is not read"
    elif suffix == ".json" and ("_via_" in start or '"shape_attributes"' in start):
        kind = "is an annotation of VGG's VIA, which is not read"
    elif suffix == ".xml" and "<annotation" in start and "<bndbox>" in start:
        kind = "has boxes of Pascal VOC and no outlines"
    elif suffix == ".txt" and re.fullmatch(r"\d+( [01](\.\d+)?){4,}\s*", start.partition("\n")[0]):
        kind = "has a picture's labels in YOLO's form, which is not read"
    else:
        return None
    return f"{path}: {kind}: export masks as PNG, or the annotations as COCO (JSON) or CVAT (XML)"


def _dicom_masks(readable: Sequence[Path]) -> str | None:
    """The line for segmentations or contours in DICOM; of each folder the first file is looked into."""
    firsts = {path.parent: path for path in reversed(readable)}
    kinds = {"RTSTRUCT": "contours (RTSTRUCT)", "SEG": "a segmentation (SEG)"}
    looked_into = list(firsts.values())[:MAX_LOOKED_INTO]
    for path in looked_into:
        try:
            kind = kinds.get(modality_of(path, len(looked_into))) if is_dicom(path) else None
        except InputError:
            continue
        if kind:
            return f"{path}: is DICOM with {kind}, which is not read as a mask: save it as NIfTI, e.g. with 3D Slicer"
    return None


def links_left_out(root: Path) -> str | None:
    """A clause about links to nothing or out of the folder, which are left out; None where there are none."""
    inside = root.resolve()
    dead, outside = list[Path](), list[Path]()
    for folder, folders, names in walk(root):
        for path in map(folder.joinpath, (*folders, *names)):
            if path.is_symlink():
                if not path.exists():
                    dead.append(path)
                elif path.is_dir() or not path.resolve().is_relative_to(inside):
                    outside.append(path)
    clauses = []
    if dead:
        fetch = "; fetch them with datalad get or git annex get" if "annex" in os.readlink(dead[0]) else ""
        clauses.append(f"{len(dead)} links lead to nothing and are left out, first {dead[0].relative_to(root)}{fetch}")
    if outside:
        first = outside[0].relative_to(root)
        clauses.append(
            f"{len(outside)} links to folders or out of the folder are left out, first {first}; copy what they lead to"
        )
    return "; ".join(clauses) or None
