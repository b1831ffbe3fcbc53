"""Images and label maps of evaluated cases, kept beside the scores so that a report can show them.

A case is a folder `cases/NAME`: `image.npz` with the scan in 8 bits and the truth, for each model `prediction-N.npz`
and, for the worst cases, `attention-N.npz`. All arrays are in viewing axes: of scans RAS, without their place in the
room; of pictures X along a row and Y from the bottom up.
"""

import logging
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from attunet.errors import InputError
from attunet.evaluate_case import LabelledCase
from attunet.metrics.aggregate import mean
from attunet.system.atomic_files import require_regular, write_file
from attunet.system.outputs import is_evaluated
from attunet.volumes.geometry import Transform, orient, orientation_transform, oriented_spacing, resize_linear
from attunet.volumes.model import Model
from attunet.volumes.predict import attention_volumes
from attunet.volumes.slices import VolumeSlices
from attunet.volumes.spec import PreprocessSpec
from attunet.volumes.volume import Volume

logger = logging.getLogger(__name__)

FOLDER = "cases"
IMAGE = "image.npz"
# Folders of a cross-validation's run, with CASE.npz of cases that it left out: label maps, and maps of gates
HELD_OUT, ATTENTION = "held_out", "held_out_attention"
PICTURE: Transform = ((0, 1), (1, -1), (2, 1))  # Y down the rows becomes Y up
PERCENTILES = (0.0, 99.9)  # of the intensities that 8 bits span
ATTENTION_CASES = 3  # the worst ones, whose attention maps are kept
ATTENTION_SIDE = 128  # pixels of the longer side of a kept map: gates are coarse, and a report is to be mailed
MAX_SIDE = 2048  # voxels, what WebGL 2 promises for a side of a volume; of larger ones every second, third, ... is kept
MAX_UNPACKED_MB = 2000  # of one file
MAX_FACT_BYTES = 4096  # of an array besides image and label maps: classes that were not drawn, range, spacing
MAX_IMAGES_MB = 500  # of a whole evaluation; the worst cases keep theirs


@dataclass(frozen=True, eq=False)
class SavedCase:
    image: np.ndarray  # uint8 `(C, X, Y, Z)`, C is 3 for a colour picture and else 1
    truth: np.ndarray  # class indices uint8 `(X, Y, Z)`
    undrawn: tuple[int, ...]  # indices of the classes that were not drawn in it, of whose predictions nothing is known
    low: float  # intensities that the image's 0 and 255 stand for
    high: float
    spacing: tuple[float, float, float]  # of the voxels along X, Y, Z in `unit`
    unit: str
    slice_axis: int  # that slices are stacked along
    oriented: bool  # R, L, A, P, S and I are known

    def comparable(self, labels: np.ndarray) -> np.ndarray:
        """A prediction, with background for classes that were not drawn."""
        return np.where(np.isin(labels, self.undrawn), 0, labels)


def require_own_cases(out: Path) -> None:
    """Raises InputError where `out/cases` has files that no evaluation wrote, such as a user's scans: all where there
    are no scores. Hidden files, which file managers write, are no reason.
    """
    own = r"(image|(prediction|attention)-\d+)\.npz|\..+" if is_evaluated(out) else r"\..+"
    files = (path for path in (out / FOLDER).rglob("*") if not path.is_dir())
    if foreign := next((file for file in files if not re.fullmatch(own, file.name)), None):
        raise InputError(f"{foreign}: is of no evaluation, which would replace it; name another folder than {out}")


def worst_first(dice: Mapping[str, Sequence[npt.ArrayLike]]) -> list[str]:
    """Cases by their mean Dice; one without a Dice comes last. dice: of every model, per class, NaN for none."""
    means = {
        case: mean(mean(np.asarray(scores, dtype=np.float64)) for scores in models) for case, models in dice.items()
    }
    return sorted(means, key=lambda case: (np.isnan(means[case]), means[case]))


def limit_images(folder: Path, worst_first: Sequence[str], max_mb: float = MAX_IMAGES_MB) -> None:
    """Deletes the images of the best cases if all of them together are larger than `max_mb`."""
    images = [folder / case / IMAGE for case in worst_first]
    total, dropped = 0.0, 0
    for image in images:
        total += image.stat().st_size / 1e6
        if total > max_mb:
            image.unlink()
            dropped += 1
    if dropped:
        logger.info(
            f"images of the {len(images) - dropped} worst of {len(images)} cases are kept for the report: "
            f"all would be over {max_mb:g} MB"
        )


def save_case(folder: Path, case: LabelledCase, spec: PreprocessSpec) -> None:
    """Writes `image.npz` of one case."""
    volume, truth = case.volume, case.truth
    transform = _viewing_transform(volume, spec)
    channels = volume.data if len(volume.data) == 3 and volume.unit == "pixel" else volume.data[:1]
    low, high = _range(channels, volume, spec)
    scaled = np.clip((channels.astype(np.float32) - low) * (255 / max(high - low, 1e-12)), 0, 255)
    arrays = {
        "image": _thinned(orient(np.rint(scaled).astype(np.uint8), transform)),
        "truth": _thinned(orient(truth.astype(np.uint8), transform)),
        "undrawn": np.flatnonzero(~case.drawn),
        "range": np.array([low, high]),
        "spacing": np.array(oriented_spacing(volume.spacing, transform)) * _steps(orient(truth, transform)),
        "unit": np.array(volume.unit),
        "slice_axis": np.array(spec.slice_axis),
        "oriented": np.array(spec.orientation is not None),
    }
    _write(folder / IMAGE, arrays)


def save_prediction(path: Path, prediction: np.ndarray, volume: Volume, spec: PreprocessSpec) -> None:
    """Saves a prediction: class indices `(X, Y, Z)` on the volume's grid."""
    _write(path, {"prediction": _thinned(orient(prediction.astype(np.uint8), _viewing_transform(volume, spec)))})


def save_attention(path: Path, model: Model, volume: Volume) -> None:
    """Writes the attention map of every gate of a model in 8 bits, on a grid that may be coarser than the scan's."""
    transform = _viewing_transform(volume, model.spec)
    gates = attention_volumes(model.attention, VolumeSlices(volume, model.spec))
    axis = model.spec.slice_axis
    _write(path, {f"gate_{n}": _coarse(orient(gate, transform), axis) for n, gate in enumerate(gates, start=1)})


def load_case(folder: Path) -> SavedCase | None:
    """None where nothing was kept of the case. Raises InputError for a damaged file."""
    path = folder / IMAGE
    kept = load_arrays(path)
    if not kept:
        return None
    try:
        x, y, z = (float(v) for v in kept["spacing"])
        case = SavedCase(
            image=kept["image"],
            truth=kept["truth"],
            undrawn=tuple(int(index) for index in kept["undrawn"]),
            low=float(kept["range"][0]),
            high=float(kept["range"][1]),
            spacing=(x, y, z),
            unit=str(kept["unit"].item()),
            slice_axis=int(kept["slice_axis"].item()),
            oriented=bool(kept["oriented"].item()),
        )
    except (KeyError, IndexError, ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{path}: is damaged: {type(error).__name__} {error}; evaluate again") from None
    if case.truth.ndim != 3 or case.image.shape[1:] != case.truth.shape or case.slice_axis not in range(3):
        raise InputError(f"{path}: is damaged: image {case.image.shape}, truth {case.truth.shape}; evaluate again")
    return case


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a prediction or of attention maps by name; empty where there is no such file.
    Raises InputError for a damaged file, and for one that would take more than `MAX_UNPACKED_MB` of memory.
    """
    if not path.exists():
        return {}
    try:
        require_regular(path)
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MAX_UNPACKED_MB * 1e6:
            raise InputError(f"{path}: has {size / 1e6:,.0f} MB, at most {MAX_UNPACKED_MB:,} are read; evaluate again")
        with np.load(path, allow_pickle=False) as kept:
            return {name: _checked(name, kept[name]) for name in kept.files}
    except (OSError, ValueError, EOFError, MemoryError, RecursionError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: is damaged: {type(error).__name__} {error}; evaluate again") from None


def _checked(name: str, array: np.ndarray) -> np.ndarray:
    gate = name.removeprefix("gate_")
    axes = {"image": 4, "truth": 3, "prediction": 3}.get(name, 3 if gate != name else None)
    if axes is not None and (array.dtype != np.uint8 or array.ndim != axes or not array.size):
        raise ValueError(f"{name} must be uint8 with {axes} axes, got {array.dtype} {array.shape}")
    if axes is None and array.nbytes > MAX_FACT_BYTES:
        raise ValueError(f"{name[:20]!r} must have at most {MAX_FACT_BYTES:,} bytes, got {array.nbytes:,}")
    if gate != name and not (gate.isdecimal() and len(gate) < 3):
        raise ValueError(f"{name[:20]!r} is no map of a gate")
    return array


def _viewing_transform(volume: Volume, spec: PreprocessSpec) -> Transform:
    """The transform from the volume's own axes to those of the kept cases."""
    return PICTURE if spec.orientation is None else orientation_transform(volume.affine, "RAS")


def _range(channels: np.ndarray, volume: Volume, spec: PreprocessSpec) -> tuple[float, float]:
    """The intensities that become 0 and 255."""
    if spec.normalization == "ct":  # the window that was trained with, and half of it again on both sides
        low, high = spec.window
        return low - (high - low) / 2, high + (high - low) / 2
    if volume.unit == "pixel" and channels.min() >= 0 and channels.max() <= 255:
        return 0.0, 255.0
    low, high = (float(v) for v in np.percentile(channels, PERCENTILES))
    return low, max(high, low + 1e-6)


def _steps(array: np.ndarray) -> tuple[int, int, int]:
    """Every how many voxels along each spatial axis are kept."""
    x, y, z = (-(-side // MAX_SIDE) for side in array.shape[-3:])
    return x, y, z


def _thinned(array: np.ndarray) -> np.ndarray:
    x, y, z = _steps(array)
    return array[..., ::x, ::y, ::z]


def _coarse(gate: np.ndarray, slice_axis: int) -> np.ndarray:
    slices = np.moveaxis(gate, slice_axis, 0)
    factor = min(1.0, ATTENTION_SIDE / max(slices.shape[1:]))
    rows, columns = (max(1, round(side * factor)) for side in slices.shape[1:])
    resized = np.clip(resize_linear(slices, (rows, columns)), 0, 1)
    return np.ascontiguousarray(np.moveaxis(np.rint(255 * resized).astype(np.uint8), 0, slice_axis))


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    write_file(path, lambda partial: np.savez_compressed(partial, **contiguous))  # type: ignore[arg-type]
