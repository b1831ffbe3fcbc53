"""The manifest of a store, `manifest.json`: its cases and the findings of its preparation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from attunet.classes import IGNORE_LABEL, Classes
from attunet.errors import Finding, InputError
from attunet.fields import MAX_PATH, MAX_WHOLE, Fields, Rule, is_file_name, is_text_list, read_json, shown
from attunet.io.reading import MAX_VOXELS, checked_affine
from attunet.system.atomic_files import joined_hash

SCHEMA = 4
MANIFEST, SPLITS, CASES = "manifest.json", "splits.json", "cases"
IMAGE, LABEL = "image.npy", "label.npy"


@dataclass(frozen=True, eq=False)
class Case:
    """One volume of a store."""

    name: str
    patient: str
    num_slices: int
    native_shape: tuple[int, int, int]  # `(X, Y, Z)` of the user's own file
    affine: np.ndarray  # `(4, 4)` float64, voxel index to mm in RAS+
    image_sha256: str  # one hash over the files of the image
    label_sha256: str | None  # and over those of the mask
    image_files: tuple[str, ...]  # paths relative to the source
    label_files: tuple[str, ...]
    source_sha256: dict[str, str]  # path -> SHA-256 of each of these files
    content_sha256: str  # hash of the image's voxels, the same in any file format and order of the channels
    channel_sha256: tuple[str, ...]  # and of each of several channels that does not have a single value
    label_mapping: dict[int, int] | None  # value in the mask -> class index; None without labels
    # The label value of each mask file's foreground; empty where the masks' own values count
    label_values: tuple[int, ...] = ()
    drawn: tuple[str, ...] | None = None  # names of the classes that were drawn; None for all
    voxels_per_class: tuple[int, ...] = ()  # voxels of each class in the mask; empty without labels
    arrays_sha256: dict[str, str] = field(default_factory=dict)  # name of each of its arrays -> SHA-256 of the file
    folder: str = ""  # of its arrays in the store

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size along the native axes, in mm or pixels."""
        x, y, z = (float(v) for v in np.linalg.norm(self.affine[:3, :3], axis=0))
        return x, y, z

    @property
    def labelled(self) -> bool:
        return self.label_mapping is not None


def require_store(path: str | Path) -> Path:
    """The path of a folder with a manifest. Raises InputError for any other."""
    path = Path(path)
    if not path.is_dir() or not (path / MANIFEST).is_file():
        raise InputError(f"{path}: is no store (a folder with {MANIFEST}; `attunet prepare` makes one)")
    return path


def read_manifest(path: Path) -> Fields:
    """The manifest of a store, of this version. Raises InputError as `open_store`."""
    file = require_store(path) / MANIFEST
    at = read_json(file)
    if "sha256" in at.data and "cases" not in at.data:  # as `write_folder` makes it
        raise InputError(f"{path}: is no store, but a checkpoint of a run or a page of `attunet web`")
    if (schema := at.data.get("schema")) != SCHEMA:
        raise InputError(f"{file}: the store's version must be {SCHEMA}, got {shown(schema)}; prepare it again")
    return at


def check_request(at: Fields) -> None:
    """Raise InputError where the choices of who prepared a store have other types than `prepare` writes."""
    request = at.inner("request")
    request.text("layout")
    request.require("case_pattern", lambda value: value is None or isinstance(value, str), "a text or null")
    for key in ("images", "masks"):  # a text in a store that hides names
        request.require(key, lambda value: is_text_list(value) or isinstance(value, str), "a list of texts")
    request.texts("choices")
    request.inner("data")
    request.inner("labelled")
    if isinstance(request.data.get("splits"), list):
        request.get("splits", Rule(int, 0, MAX_WHOLE, length=2))
    else:
        request.inner("splits")
    if request.data.get("classes") is not None:
        rows, ignored = request.values("classes", 2)
        Classes.from_json(Fields({"classes": rows}, at.where, "request.").rows("classes"))
        Rule(int, null=True).check(request.name("classes"), ignored)


def cases_of(at: Fields, classes: Classes, spec_sha256: str) -> tuple[Case, ...]:
    """The cases of a manifest, whose arrays were prepared with the settings of this hash.
    Raises InputError naming the field that is wrong.
    """
    cases = {}
    for row in at.rows("cases"):
        if row.text("spec_sha256") != spec_sha256:
            raise InputError(
                f"{row.name('spec_sha256')}: the arrays of {row.text('case')} were prepared with other settings; "
                "prepare the store again"
            )
        case = _case(row, classes)
        if case.name in cases:
            raise InputError(f"{row.name('case')}: must be of one case alone, {case.name!r} is there twice")
        cases[case.name] = case
    return tuple(cases.values())


def _case(at: Fields, classes: Classes) -> Case:
    images, labels = _files(at, "image_files"), _files(at, "label_files")
    if not images:
        raise InputError(f"{at.name('image_files')}: must have at least one file")
    name = at.require("case", is_file_name, "a plain file name")
    shape = at.get("native_shape", Rule(int, 1, MAX_VOXELS, length=3))
    if math.prod(shape) > MAX_VOXELS:
        raise InputError(f"{at.name('native_shape')}: must be at most {MAX_VOXELS:,} voxels, got {shown(shape)}")
    return Case(
        name=name,
        folder=name,
        patient=at.text("patient", MAX_PATH),
        num_slices=at.whole("num_slices", 1),
        native_shape=shape,
        affine=_affine(at),
        image_sha256=joined_hash([f.text("sha256") for f in images]),
        label_sha256=joined_hash([f.text("sha256") for f in labels]) if labels else None,
        image_files=tuple(f.text("file", MAX_PATH) for f in images),
        label_files=tuple(f.text("file", MAX_PATH) for f in labels),
        source_sha256={f.text("file", MAX_PATH): f.text("sha256") for f in (*images, *labels)},
        content_sha256=at.text("content_sha256"),
        channel_sha256=tuple(at.text_list("channel_sha256")),
        label_mapping=_mapping(at, len(classes)) if labels else None,
        drawn=_drawn(at, classes),
        voxels_per_class=at.get("voxels_per_class", Rule(int, 0, MAX_VOXELS, length=len(classes))) if labels else (),
        label_values=tuple(f.whole("value", 1) for f in labels if "value" in f),
        arrays_sha256=_arrays(at, (IMAGE, LABEL) if labels else (IMAGE,)),
    )


def _files(at: Fields, key: str) -> list[Fields]:
    """The rows of the files of a case, whose paths stay below the source."""
    rows = list(at.rows(key))
    for row in rows:
        path = PurePosixPath(row.text("file", MAX_PATH))
        if path.is_absolute() or ".." in path.parts or "\0" in str(path):
            raise InputError(f"{row.name('file')}: must be a path inside the source, got {shown(str(path))}")
    return rows


def _affine(at: Fields) -> np.ndarray:
    affine = np.array(at.each("affine", Rule(float, -1e9, 1e9, length=4), 4))
    if affine[3].tolist() != [0, 0, 0, 1]:
        raise InputError(f"{at.name('affine')}: its last row must be [0, 0, 0, 1], got {shown(affine[3].tolist())}")
    return checked_affine(at.name("affine"), affine)


def _drawn(at: Fields, classes: Classes) -> tuple[str, ...] | None:
    names = at.require("drawn", lambda v: v is None or isinstance(v, list), "a list or null")
    if unknown := [name for name in names or () if name not in classes.foreground]:
        raise InputError(f"{at.name('drawn')}: must be of {', '.join(classes.foreground)}, got {shown(unknown[0])}")
    return None if names is None else tuple(names)


def _arrays(at: Fields, names: Sequence[str]) -> dict[str, str]:
    hashes = at.texts("arrays_sha256")
    if sorted(hashes) != sorted(names):
        raise InputError(
            f"{at.name('arrays_sha256')}: must be of {' and '.join(names)}, got {shown(', '.join(hashes))}"
        )
    return hashes


def finding_of(at: Fields) -> Finding:
    """A finding from its row of the manifest."""
    return Finding(
        case=at.get("case", Rule(str, null=True)),
        rule=at.text("rule"),
        figure=at.get("figure", Rule(float)),
        level=at.get("level", Rule(str, choices=("decided", "warning", "error"))),
        text=at.text("text", MAX_PATH),
    )


def _mapping(at: Fields, num_classes: int) -> dict[int, int]:
    mapping = at.inner("label_mapping")
    index = Rule(int, 0, IGNORE_LABEL)
    try:
        indices = {int(value): mapping.get(value, index) for value in mapping.data}
    except ValueError as error:
        raise InputError(f"{at.name('label_mapping')}: must map label values to class indices: {error}") from None
    if unknown := [index for index in indices.values() if num_classes <= index < IGNORE_LABEL]:
        raise InputError(
            f"{at.name('label_mapping')}: must map to {num_classes} classes or to {IGNORE_LABEL}, got {unknown[0]}"
        )
    return indices
