"""A prepared data set on disk: opening it, its cases, its folds, and the way back to the user's own files."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from attunet.classes import Classes
from attunet.config import Config, DataConfig
from attunet.errors import InputError
from attunet.sources.codings import to_indices
from attunet.sources.read_case import content_hash, joined_hash, read_image, read_labels
from attunet.splits import Splits, read_splits
from attunet.volumes.geometry import orientation_transform, oriented_spacing
from attunet.volumes.spec import PreprocessSpec
from attunet.volumes.training_ranges import TrainingRanges
from attunet.volumes.volume import Volume

SCHEMA = 1
MANIFEST, SPLITS, CASES = "manifest.json", "splits.json", "cases"
IMAGE, LABEL = "image.npy", "label.npy"


@dataclass(frozen=True, eq=False)
class Case:
    """One volume of a store. image_files and label_files are relative to the source; spacing is along the native axes."""

    name: str
    patient: str
    labelled: bool
    num_slices: int
    native_shape: tuple[int, int, int]
    affine: np.ndarray
    spacing: tuple[float, float, float]
    image_sha256: str
    label_sha256: str | None
    image_files: tuple[str, ...]
    label_files: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Store:
    """An opened store; `open_store` makes it."""

    path: Path
    manifest: dict[str, Any]
    spec: PreprocessSpec
    classes: Classes
    data_config: DataConfig
    cases: tuple[Case, ...]
    splits: Splits

    @property
    def name(self) -> str:
        return str(self.manifest["name"])

    @property
    def source_root(self) -> Path:
        """Where the source was when the store was made; relative ones lie in the store itself."""
        return self.path / self.manifest["source"]

    @property
    def frames(self) -> bool:
        """Whether the fourth axis of a file holds channels."""
        return bool(self.manifest.get("frames"))

    @property
    def ranges(self) -> TrainingRanges | None:
        """What the cases span, None in a store that was made before this was noted."""
        found = self.manifest.get("ranges")
        return None if found is None else TrainingRanges.from_json(found, str(self.path / MANIFEST))

    def spacing(self, name: str) -> tuple[float, float, float]:
        """Of the voxels of `image` and `label`, along `(Z, H, W)`: in mm, or in pixels where the source has no physical spacing."""
        case = self.case(name)
        native = oriented_spacing(case.spacing, orientation_transform(case.affine, self.spec.orientation))
        columns, rows = (native[axis] for axis in range(3) if axis != self.spec.slice_axis)
        plane = (rows, columns) if self.spec.spacing_mm is None else (self.spec.spacing_mm, self.spec.spacing_mm)
        return native[self.spec.slice_axis], *plane

    @property
    def num_folds(self) -> int:
        return len(self.splits.folds)

    def case(self, name: str) -> Case:
        found = self._by_name.get(name)
        if found is None:
            raise InputError(f"{self.path}: has no case {name!r}")
        return found

    @cached_property
    def _by_name(self) -> dict[str, Case]:
        return {case.name: case for case in self.cases}

    def image(self, name: str) -> np.ndarray:
        """Memory-mapped float16 `(Z, C, H, W)`, C without context slices."""
        case = self.case(name)
        return self._shard(name, IMAGE, np.float16, (case.num_slices, self.spec.num_channels, *self.spec.size))

    def label(self, name: str) -> np.ndarray:
        """Memory-mapped class indices uint8 `(Z, H, W)`."""
        case = self.case(name)
        if not case.labelled:
            raise InputError(f"{self.path}: the case {name!r} has no labels")
        return self._shard(name, LABEL, np.uint8, (case.num_slices, *self.spec.size))

    def _shard(self, name: str, file: str, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
        path = self.path / CASES / name / file
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{path}: cannot be read as an array of the store: {error}") from None
        if array.dtype != dtype or array.shape != shape:
            raise InputError(f"{path}: must be {np.dtype(dtype).name} of shape {shape}, got {array.dtype} {array.shape}")
        return array

    def split(self, fold: int | Literal["all"]) -> tuple[list[str], list[str]]:
        """Labelled cases to train on, and those left out: fold `fold`'s, or with "all" the test set. Test cases are never trained on."""
        if fold != "all" and not (type(fold) is int and 0 <= fold < self.num_folds):
            raise InputError(f"fold: must be 0 to {self.num_folds - 1} or all for {self.path}, got {fold!r}")
        held_out = set(self.splits.test if fold == "all" else self.splits.folds[fold])
        labelled = [c for c in self.cases if c.labelled]
        train = [c.name for c in labelled if c.patient not in held_out | set(self.splits.test)]
        return train, [c.name for c in labelled if c.patient in held_out]

    def read_source(self, name: str, source_root: Path | None = None) -> tuple[Volume, np.ndarray | None]:
        """The user's own volume, and its class indices uint8 `(X, Y, Z)` on the native grid (None where unlabelled).

        Raises InputError where a file is missing or is not the one that the store was made of.
        """
        case, root = self.case(name), source_root or self.source_root
        entry = next(c for c in self.manifest["cases"] if c["case"] == name)
        for file in (*entry["image_files"], *label_files(entry)):
            path = root / file["file"]
            if not path.exists():
                raise InputError(f"{path}: no such file; where the source has moved, name its folder with --source")
            if content_hash(path) != file["sha256"]:
                raise InputError(f"{path}: is not the file that {self.path} was made of (its SHA-256 differs)")
        images = tuple(root / file for file in case.image_files)
        volume = read_image(images, frames=self.frames)
        if not case.labelled:
            return volume, None
        masks = tuple(root / file for file in case.label_files)
        labels, _ = read_labels(masks, volume, images[0])
        return volume, to_indices(labels, {int(v): i for v, i in entry["label_mapping"].items()}, masks[0])


def open_store(path: Path | str) -> Store:
    """Raises InputError for what is no store, a store of another version, or one that is damaged."""
    path = Path(path)
    manifest = read_manifest(path)
    try:
        cases = tuple(_case(entry, path) for entry in manifest["cases"])
        return Store(
            path=path,
            manifest=manifest,
            spec=PreprocessSpec.from_json(manifest["spec"]),
            classes=Classes.from_json(manifest["classes"]),
            data_config=Config.from_json({"data": manifest["data_config"]}, str(path / MANIFEST)).data,
            cases=cases,
            splits=read_splits(path / SPLITS, {c.patient for c in cases if c.labelled}),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path / MANIFEST}: is damaged: {type(error).__name__} {error}") from None


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a store, of this version."""
    file = path / MANIFEST
    if not path.is_dir() or not file.is_file():
        raise InputError(f"{path}: is no store (a folder with {MANIFEST}; `attunet prepare` makes one)")
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read as JSON: {error}") from None
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        found = manifest.get("schema") if isinstance(manifest, dict) else None
        raise InputError(f"{file}: the store's version must be {SCHEMA}, got {found!r}; prepare it again")
    return manifest


def label_files(entry: Mapping[str, Any]) -> list[dict[str, str]]:
    """The label files of a case in the manifest, as {"file", "sha256"}; stores of earlier versions have one or none."""
    one: dict[str, str] | None = entry.get("label_file")
    found: list[dict[str, str]] = entry.get("label_files", [one] if one else [])
    return found


def _case(entry: dict[str, Any], path: Path) -> Case:
    name = str(entry["case"])
    if Path(name).name != name:
        raise InputError(f"{path / MANIFEST}: a case's name must be a plain file name, got {name!r}")
    x, y, z = entry["native_shape"]
    a, b, c = entry["spacing"]
    labels = label_files(entry)
    return Case(
        name=name,
        patient=str(entry["patient"]),
        labelled=bool(entry["labelled"]),
        num_slices=int(entry["num_slices"]),
        native_shape=(int(x), int(y), int(z)),
        affine=np.array(entry["affine"], dtype=np.float64),
        spacing=(float(a), float(b), float(c)),
        image_sha256=str(entry["image_sha256"]),
        label_sha256=joined_hash([str(f["sha256"]) for f in labels]) if labels else None,
        image_files=tuple(str(f["file"]) for f in entry["image_files"]),
        label_files=tuple(str(f["file"]) for f in labels),
    )
