"""Exports of programs for drawing masks: pictures with annotations in COCO's, CVAT's or Label Studio's form."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from attunet.classes import Classes
from attunet.decisions import Decision
from attunet.errors import InputError
from attunet.io.pictures.annotations import ANNOTATION_SUFFIXES, BACKGROUND, load_annotations
from attunet.io.pictures.images import IMAGE_SUFFIXES
from attunet.io.pictures.regions import Annotations, NotAnnotations
from attunet.io.readers import stem_of
from attunet.sources.case_files import CaseFiles, Source, SourceOptions
from attunet.sources.layouts.matching import flat

MAX_FILES = 50  # of JSON or XML that are looked into


def find_annotated(root: Path, files: list[Path], _: SourceOptions) -> Source | None:
    """Cases of the pictures that an annotation file names."""
    candidates = [p for p in files if p.name.lower().endswith(ANNOTATION_SUFFIXES) and p.name != "dataset.json"]
    pictures = [p for p in files if p.name.lower().endswith(IMAGE_SUFFIXES)]
    if not pictures or not 0 < len(candidates) <= MAX_FILES:
        return None
    cases: dict[Path, CaseFiles] = {}
    values: dict[str, int] = {}
    notes: list[str] = []
    decisions: list[Decision] = []
    for path in candidates:
        try:
            annotations = load_annotations(path)
        except NotAnnotations:
            continue  # another program's JSON or XML
        named = _pictures_of(path, annotations, pictures)
        notes += _left_out(path, annotations, named)
        if tasks := annotations.repeated:
            text = f"of several annotations of a task the first counts; {path.name} has {tasks} such tasks"
            decisions.append(Decision("label-studio-annotations", text))
        for picture in named.values():
            if picture in cases:
                other = cases[picture].labels[0].name
                raise InputError(f"{path}: names {picture.name}, which {other} names too: leave one of both files out")
            name = flat(picture.parent.relative_to(root) / stem_of(picture))
            cases[picture] = CaseFiles(name, name, (picture,), (path,))
        if any(values.setdefault(name, value) != value for name, value in annotations.values.items()):
            raise InputError(
                f"{path}: gives classes other numbers than another annotation file here does; prepare them one by one"
            )
    if not cases or not any(values.values()):
        return None
    values = {BACKGROUND: 0} | values
    codings = (Classes(tuple(values), tuple(values.values())),)
    made = tuple(cases.values())
    reason = f"{made[0].labels[0].name} annotates its pictures"
    return Source(root, "annotations", reason, codings, made, notes=tuple(notes), decisions=tuple(decisions))


def _pictures_of(path: Path, annotations: Annotations, pictures: Sequence[Path]) -> dict[str, Path]:
    """The picture of each name in a file; raises InputError where several may be meant. Where the folder of a name is
    there, pictures of other folders are others, and have no annotations.
    """
    named: dict[str, Path] = {}
    for picture in [p for p in pictures if p.is_relative_to(path.parent)] or pictures:
        try:
            name = annotations.name_of(picture)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        if name is not None and (other := named.setdefault(name, picture)) != picture:
            raise InputError(f"{path}: names {name}, and there are {other} and {picture}: leave one out")
    elsewhere = {name for name, picture in named.items() if _is_elsewhere(name, picture)}
    keeps_folders = any(len(PurePosixPath(name).parts) > 1 for name in named.keys() - elsewhere)
    return {name: picture for name, picture in named.items() if not (keeps_folders and name in elsewhere)}


def _is_elsewhere(name: str, picture: Path) -> bool:
    """True for a name with folders that are not the picture's."""
    parts = PurePosixPath(name).parts
    return len(parts) > 1 and picture.parts[-len(parts) :] != parts


def _left_out(path: Path, annotations: Annotations, named: Mapping[str, Path]) -> Iterator[str]:
    """Lines about annotations without outlines, pictures that are not there, and those in a folder that the file does
    not name; raises InputError for boxes alone.
    """
    undrawn, drawn = annotations.undrawn, sum(map(len, annotations.pictures.values()))
    if undrawn and not drawn:
        raise InputError(f"{path}: has {undrawn} boxes or points and no outlines: annotate with polygons or brushes")
    if undrawn:
        yield f"{undrawn} of {undrawn + drawn} annotations of {path.name} have no outline and are left out"
    if annotations.empty:
        yield f"pictures of {path.name} that nobody annotated, which are left out: {annotations.empty}"
    absent = sorted(set(annotations.pictures) - set(named))
    if absent:
        yield f"{len(absent)} of {len(annotations.pictures)} pictures of {path.name} are not here, first {absent[0]}"
    moved = sorted(name for name in named if _is_elsewhere(name, named[name]) and named[name].parent != path.parent)
    if moved:
        text = f"{len(moved)} of {len(named)} pictures of {path.name} are found by the last part of their names alone"
        yield f"{text}, first {moved[0]} in the folder {named[moved[0]].parent.name}"
