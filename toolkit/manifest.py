"""The manifest of a store, `manifest.json`: its cases and the findings of its preparation."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from attunet.classes import IGNORE_LABEL
from attunet.errors import Finding, InputError
from attunet.fields import MAX_PATH, Fields, Rule, is_file_name, read_json, shown
from attunet.sources.case_files import joined_hash

SCHEMA = 2
MANIFEST, SPLITS, CASES = "manifest.json", "splits.json", "cases"
IMAGE, LABEL = "image.npy", "label.npy"


@dataclass(frozen=True, eq=False)
class Case:
    """One volume of a store.

    Args:
        native_shape: `(X, Y, Z)` of the user's own file.
        affine: `(4, 4)` float64, voxel index to mm in RAS+.
        spacing: voxel size along the native axes, in mm or pixels.
        image_sha256, label_sha256: one hash over the files of the image, and of the mask.
        image_files, label_files: paths relative to the source.
        source_sha256: path -> SHA-256 of each of these files.
        drawn: names of the classes that were drawn; None for all.
        label_mapping: value in the mask -> class index; None without labels.
        label_values: the label value of each mask file's foreground; empty where the masks' own values count.
        folder: of its arrays in the store.
    """

    name: str
    patient: str
    num_slices: int
    native_shape: tuple[int, int, int]
    affine: np.ndarray
    spacing: tuple[float, float, float]
    image_sha256: str
    label_sha256: str | None
    image_files: tuple[str, ...]
    label_files: tuple[str, ...]
    source_sha256: dict[str, str]
    label_mapping: dict[int, int] | None
    label_values: tuple[int, ...] = ()
    drawn: tuple[str, ...] | None = None
    folder: str = ""

    @property
    def labelled(self) -> bool:
        return self.label_mapping is not None


def read_manifest(path: Path) -> Fields:
    """The manifest of a store, of this version. Raises InputError as `open_store`."""
    file = path / MANIFEST
    if not path.is_dir() or not file.is_file():
        raise InputError(f"{path}: is no store (a folder with {MANIFEST}; `attunet prepare` makes one)")
    at = read_json(file)
    if (schema := at.data.get("schema")) != SCHEMA:
        raise InputError(f"{file}: the store's version must be {SCHEMA}, got {shown(schema)}; prepare it again")
    return at


def case_of(at: Fields) -> Case:
    """A case from its row of the manifest. Raises InputError naming the field that is wrong."""
    images, labels = (list(at.rows(key)) for key in ("image_files", "label_files"))
    rule = Rule(float, -1e9, 1e9, length=4)
    name = at.require("case", is_file_name, "a plain file name")
    drawn = at.require("drawn", lambda v: v is None or isinstance(v, list), "a list or null")
    return Case(
        name=name,
        folder=name,
        patient=at.text("patient", MAX_PATH),
        num_slices=at.whole("num_slices", 1),
        native_shape=at.get("native_shape", Rule(int, 1, 2**31, length=3)),
        affine=np.array([rule.check(at.name("affine"), row) for row in at.values("affine", 4)]),
        spacing=at.get("spacing", Rule(float, 0, 1e9, length=3)),
        image_sha256=at.text("image_sha256"),
        label_sha256=joined_hash([f.text("sha256") for f in labels]) if labels else None,
        image_files=tuple(f.text("file", MAX_PATH) for f in images),
        label_files=tuple(f.text("file", MAX_PATH) for f in labels),
        source_sha256={f.text("file", MAX_PATH): f.text("sha256") for f in (*images, *labels)},
        label_mapping=_mapping(at) if labels else None,
        drawn=None if drawn is None else tuple(at.text_list("drawn")),
        label_values=tuple(f.whole("value", 1) for f in labels if "value" in f),
    )


def finding_of(at: Fields) -> Finding:
    """A finding from its row of the manifest."""
    return Finding(
        case=at.get("case", Rule(str, null=True)),
        rule=at.text("rule"),
        figure=at.get("figure", Rule(float)),
        level=at.get("level", Rule(str, choices=("decided", "warning", "error"))),
        text=at.text("text", MAX_PATH),
    )


def _mapping(at: Fields) -> dict[int, int]:
    mapping = at.inner("label_mapping")
    index = Rule(int, 0, IGNORE_LABEL)
    try:
        return {int(value): mapping.get(value, index) for value in mapping.data}
    except ValueError as error:
        raise InputError(f"{at.name('label_mapping')}: must map label values to class indices: {error}") from None
