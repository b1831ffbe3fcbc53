"""A prepared data set on disk: its cases, its folds, and the user's own files that it was made of."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from attunet.channels import telling_channels
from attunet.classes import Classes
from attunet.config import DataConfig
from attunet.errors import Finding, InputError, one_line
from attunet.fields import MAX_PATH, Rule
from attunet.manifest import (
    CASES,
    IMAGE,
    LABEL,
    MANIFEST,
    SPLITS,
    Case,
    cases_of,
    check_request,
    finding_of,
    read_manifest,
    require_store,
)
from attunet.privacy.pseudonyms import Pseudonyms
from attunet.sources.case_files import content_hash, find_by_hash, without_names
from attunet.sources.pseudonymise import unless_in_paths
from attunet.sources.read_case import MaskOptions, read_case
from attunet.sources.splits import Splits, read_splits
from attunet.system.atomic_files import require_regular, sha256
from attunet.volumes.geometry import orientation_transform, oriented_spacing
from attunet.volumes.spec import Preprocessing, PreprocessSpec
from attunet.volumes.training_ranges import TrainingRanges
from attunet.volumes.volume import Volume


@dataclass(frozen=True, eq=False)
class Store:
    """An opened store, see `open_store`."""

    path: Path
    manifest: dict[str, object]
    preprocessing: Preprocessing
    classes: Classes
    ranges: TrainingRanges
    cases: tuple[Case, ...]
    splits: Splits
    choices: dict[str, str]
    grey_levels: tuple[int, ...]  # the greys that are classes in masks with smoothed edges
    findings: tuple[Finding, ...]  # of the preparation
    channels: tuple[str, ...] = ()  # names of the images' channels; empty where the source does not say them
    moved_source: Path | None = None  # folder of the source's files now, if they moved
    numbers: Mapping[str, str] = field(default_factory=dict)  # of names in the manifest, if this call gave any

    @property
    def sha256(self) -> str:
        """SHA-256 of the manifest, which has those of all arrays and source files: the store's name in a lineage."""
        return sha256(self.path / MANIFEST)

    @property
    def spec(self) -> PreprocessSpec:
        return self.preprocessing.spec

    @property
    def data_config(self) -> DataConfig:
        """The resolved preprocessing as the section `[data]` of a run's configuration."""
        return DataConfig.of(self.preprocessing)

    @property
    def name(self) -> str:
        return str(self.manifest["name"])

    @property
    def is_pseudonymised(self) -> bool:
        """True if the preparation gave cases and files numbers instead of names."""
        return bool(self.manifest.get("pseudonymised"))

    @property
    def hides_names(self) -> bool:
        """True if nothing that is printed or written may have a name: the preparation or this call gave numbers."""
        return self.is_pseudonymised or bool(self.numbers)

    @property
    def source_root(self) -> Path:
        """Folder of the source's files; if they did not move, that of the preparation, where relative paths are inside
        the store.
        """
        return self.moved_source or self.path / str(self.manifest["source"])

    @property
    def channels_not_of_files(self) -> tuple[str, ...]:
        """The names of the channels; none if one is part of a file's name."""
        return unless_in_paths(self.channels, [PurePosixPath(f) for case in self.cases for f in case.image_files])

    def spacing(self, name: str) -> tuple[float, float, float]:
        """Voxel size of `image` and `label` along `(Z, H, W)`, in mm, or in pixels without physical spacing."""
        case = self.case(name)
        native = oriented_spacing(case.spacing, orientation_transform(case.affine, self.spec.orientation))
        columns, rows = (native[axis] for axis in range(3) if axis != self.spec.slice_axis)
        plane = (rows, columns) if self.spec.spacing_mm is None else (self.spec.spacing_mm, self.spec.spacing_mm)
        return native[self.spec.slice_axis], *plane

    def pseudonymised(self, names: Pseudonyms) -> "Store":
        """The store with numbers in place of the names of cases and patients, in the order of the numbers; after the
        call, `names` hides these names and those of the source's files. Channels that are called as files lose their
        names. Raises InputError if the cases have numbers already.
        """
        if self.is_pseudonymised:
            raise InputError(f"{self.path}: its cases have numbers already; leave out --pseudonymise")
        numbers = names.numbers_of(name for case in self.cases for name in (case.name, case.patient))
        for case in self.cases:
            for file in case.source_sha256:
                names.remember_file(self.source_root / file, self.source_root, numbers[case.name])
        cases = [replace(case, name=numbers[case.name], patient=numbers[case.patient]) for case in self.cases]
        ordered = tuple(sorted(cases, key=lambda case: case.name))  # the order of names would tell something about them
        splits, channels = self.splits.renamed(numbers), self.channels_not_of_files
        return replace(self, cases=ordered, splits=splits, channels=channels, findings=(), numbers=numbers)

    @property
    def num_folds(self) -> int:
        return len(self.splits.folds)

    def case(self, name: str) -> Case:
        case = self._by_name.get(name)
        if case is None:
            raise InputError(f"{self.path}: has no case {name!r}")
        return case

    @cached_property
    def _by_name(self) -> dict[str, Case]:
        return {case.name: case for case in self.cases}

    def drawn_classes(self, name: str) -> np.ndarray:
        """Bool `(K,)`: True for the background and for the classes that were drawn in a case."""
        drawn = self.case(name).drawn
        return np.array([True, *(drawn is None or label in drawn for label in self.classes.foreground)])

    def classes_without_voxels(self, cases: Iterable[str]) -> tuple[str, ...]:
        """The foreground classes that the masks of these cases nowhere have."""
        counts = [self.case(name).voxels_per_class for name in cases]
        return tuple(name for index, name in enumerate(self.classes.foreground, 1) if not any(c[index] for c in counts))

    def reading_sha256(self, name: str) -> str:
        """SHA-256 of how a case's files are read; other labels or images may come of the same files."""
        case = self.case(name)
        labels = sorted(case.label_mapping.items()) if case.label_mapping else None
        reading = [sorted(self.choices.items()), self.grey_levels, case.label_values, labels, case.drawn]
        return hashlib.sha256(json.dumps(reading).encode()).hexdigest()

    def folder(self, name: str) -> Path:
        """The folder of a case's arrays."""
        return self.path / CASES / self.case(name).folder

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
        path = self.folder(name) / file
        try:
            require_regular(path)
            array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError, MemoryError, RecursionError) as error:  # Python's parser of the header
            raise InputError(f"{path}: cannot be read as an array of the store: {one_line(error)}") from None
        if array.dtype != dtype or array.shape != shape:
            raise InputError(
                f"{path}: must be {np.dtype(dtype).name} of shape {shape}, got {array.dtype} {array.shape}"
            )
        return array

    def split(self, fold: int | Literal["all"]) -> tuple[list[str], list[str]]:
        """Labelled cases to train on, and those left out: of a fold, or with "all" the test set (never trained on)."""
        if fold != "all" and not (type(fold) is int and 0 <= fold < self.num_folds):
            raise InputError(f"fold: must be 0 to {self.num_folds - 1} or all for {self.path}, got {fold!r}")
        held_out = set(self.splits.test if fold == "all" else self.splits.folds[fold])
        left_out = held_out | set(self.splits.test)
        labelled = [c for c in self.cases if c.labelled]
        train = [c.name for c in labelled if c.patient not in left_out]
        return train, [c.name for c in labelled if c.patient in held_out]

    def seen_cases(self, hashes: Iterable[str]) -> set[str]:
        """Cases of the patients of whom a model has seen an image, or one of several channels that tells the scan.
        hashes: of the files or voxels of what it has seen.
        """
        known = frozenset(hashes)
        channels = known & telling_channels((case.patient, case.channel_sha256) for case in self.cases)

        def is_seen(case: Case) -> bool:
            is_known = not known.isdisjoint((case.image_sha256, case.content_sha256))
            return is_known or not channels.isdisjoint(case.channel_sha256)

        seen = {case.patient for case in self.cases if is_seen(case)}
        return {case.name for case in self.cases if case.patient in seen}

    def files_of(self, name: str) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
        """The image files and the mask files of a case; a pseudonymised store finds them by their SHA-256.

        Raises InputError where a file is missing or is not the one that the store was made of.
        """
        case = self.case(name)
        if self.is_pseudonymised:
            if self.moved_source is None:
                raise InputError(
                    f"{self.path}: is pseudonymised and does not say where its source is; name the folder with --source"
                )
            paths = find_by_hash(self.moved_source, case.source_sha256)
        else:
            paths = {file: self.source_root / file for file in case.source_sha256}
            for file, path in paths.items():
                if not path.exists():
                    raise InputError(f"{path}: no such file; where the source has moved, name its folder with --source")
                if content_hash(path) != case.source_sha256[file]:
                    raise InputError(f"{path}: is not the file that {self.path} was made of (its SHA-256 differs)")
        return tuple(paths[file] for file in case.image_files), tuple(paths[file] for file in case.label_files)

    def read_source(self, name: str) -> tuple[Volume, np.ndarray | None]:
        """The user's own volume, and its class indices uint8 `(X, Y, Z)` on the native grid (None where unlabelled).

        Raises InputError where a file is missing or is not the one that the store was made of.
        """
        images, masks = self.files_of(name)
        case = self.case(name)
        options = MaskOptions(case.label_values, self.grey_levels, self.choices)
        with without_names(f"{self.path}: {name}", self.hides_names):
            return read_case(images, masks, case.label_mapping, options)


def open_store(path: str | Path, names: Pseudonyms | None = None, *, source: str | Path | None = None) -> Store:
    """Open a prepared data set.

    Args:
        path: the folder that `attunet prepare` wrote.
        names: gives its cases and patients numbers, see `Store.pseudonymised`.
        source: folder of the source's files now, if they moved.

    Returns:
        The cases, classes, folds and pre-processing; arrays are read when they are used.

    Raises:
        InputError: the folder is no store, was written by another version, or is damaged; with `names`, the message
            quotes nothing of it.
    """
    path = require_store(path)
    words = "cannot be opened; `attunet inspect` on it says why, with its names"
    with without_names(path, names is not None, words):  # the names are not known before all of it is read
        store = _read_store(path, source)
    return store.pseudonymised(names) if names else store


def _read_store(path: Path, source: str | Path | None) -> Store:
    at = read_manifest(path)
    for key in ("name", "source"):
        at.text(key, MAX_PATH)
    check_request(at)
    preprocessing = Preprocessing.from_json(at.inner("preprocessing"))
    classes = Classes.from_json(at.rows("classes"))
    cases = cases_of(at, classes, preprocessing.spec.sha256)
    return Store(
        path=path,
        manifest=at.data,
        preprocessing=preprocessing,
        classes=classes,
        channels=tuple(at.text_list("channels")),
        ranges=TrainingRanges.from_json(at.inner("ranges")),
        cases=cases,
        splits=read_splits(path / SPLITS, {c.patient for c in cases if c.labelled}),
        choices=at.texts("choices"),
        grey_levels=at.each("grey_levels", Rule(int)),
        findings=tuple(map(finding_of, at.rows("findings"))),
        moved_source=Path(source) if source is not None else None,
    )
