"""The cases of a report as the page reads them: 8-bit images and labels, compressed, with what is known of each."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from attunet.benchmarks.evaluation.saved_cases import IMAGE, SavedCase, load_arrays, load_case
from attunet.benchmarks.report.bundles import pack
from attunet.benchmarks.report.contents import Contents
from attunet.classes import IGNORE_LABEL
from attunet.errors import InputError
from attunet.metrics.results import PerClass


@dataclass(frozen=True, eq=False)
class CaseData:
    """A case for the page. about: JSON values.

    volumes: identity of a script element -> bytes, gzip and base64, X fastest.
    """

    about: Mapping[str, object]
    volumes: Mapping[str, str]


def choose_cases(contents: Contents, wanted: str) -> list[str]:
    """Names of the cases to show. wanted: `worst:N`, `all` or names joined by commas.
    Raises InputError for anything else.
    """
    kept = [case for case in contents.cases if (contents.case_folder(case) / IMAGE).is_file()]
    kind, _, number = wanted.partition(":")
    if wanted == "all":
        return kept
    if kind == "worst" and number:
        if not number.isdecimal():
            raise InputError(f"--cases: worst: must be followed by a number, got {wanted!r}")
        return kept[: int(number)]
    names = list(dict.fromkeys(name.strip() for name in wanted.split(",") if name.strip()))
    if not names:
        raise InputError(f"--cases: must be worst:N, all, or names of cases joined by commas, got {wanted!r}")
    for name in names:
        if name not in contents.cases:
            raise InputError(
                f"--cases: {contents.folder} has no case {name!r}; it has {', '.join(sorted(contents.cases))}"
            )
        if name not in kept:
            raise InputError(f"--cases: {contents.folder} keeps no image of the case {name!r}")
    return names


def case_data(contents: Contents, name: str, number: int) -> CaseData:
    """One case. number: of the case in the page, which identities begin with."""
    saved = load_case(contents.case_folder(name))
    assert saved is not None, name
    volumes = {f"v{number}-image": pack(_image_bytes(saved)), f"v{number}-truth": pack(_bytes(saved.truth))}
    layers, attention, wrong = [], [], np.zeros(saved.truth.shape, dtype=np.int32)
    for index, model in enumerate(contents.models):
        labels = load_arrays(model.predictions[name]).get("prediction") if name in model.predictions else None
        if labels is not None:
            if labels.shape != saved.truth.shape:
                raise InputError(
                    f"{model.predictions[name]}: must have the truth's shape {saved.truth.shape}, got {labels.shape}; "
                    "evaluate again"
                )
            volumes[f"v{number}-labels-{index}"] = pack(_bytes(labels))
            layers.append(_layer(model.label, index, labels, saved, model.scores["dice"]["per_case"].get(name, {})))
            wrong += _wrong(labels, saved.truth)
        gates = load_arrays(model.attention[name]) if name in model.attention else {}
        for gate, values in gates.items():
            key = f"v{number}-{gate}-{index}"
            volumes[key] = pack(_bytes(values))
            low, high = (float(v) for v in np.percentile(values, (2, 98)))
            place = _place(gate, len(gates))
            attention.append(
                {
                    "id": key,
                    "name": f"{model.label}: {place}",
                    "shape": list(values.shape),
                    "low": low,
                    "high": max(high, low + 1),
                }
            )
    about = {
        "name": name,
        "prefix": f"v{number}",
        "shape": list(saved.truth.shape),
        "channels": len(saved.image),
        "spacing": list(saved.spacing),
        "unit": saved.unit,
        "sliceAxis": saved.slice_axis,
        "oriented": saved.oriented,
        "range": [saved.low, saved.high],
        "window": _window(saved),
        "layers": layers,
        "attention": attention,
        "worst": _worst_place(wrong, saved),
    }
    return CaseData(about, volumes)


def _layer(label: str, index: int, labels: np.ndarray, saved: SavedCase, dice: PerClass) -> dict[str, object]:
    """A model's label map: with the number of wrong voxels in every slice."""
    return {
        "name": label,
        "index": index,
        "wrong": _per_slice(_wrong(labels, saved.truth), saved.slice_axis),
        "dice": dict(dice),
    }


def _wrong(labels: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return (labels != truth) & (truth != IGNORE_LABEL)


def _per_slice(mask: np.ndarray, slice_axis: int) -> list[int]:
    other = tuple(axis for axis in range(3) if axis != slice_axis)
    counts: list[int] = mask.sum(axis=other, dtype=np.int64).tolist()
    return counts


def _worst_place(wrong: np.ndarray, saved: SavedCase) -> list[int]:
    """A voxel in the slice with the most wrong voxels: the one deepest inside of what is wrong there.

    wrong: how many models are wrong in every voxel. Where none is, the slice with the most labels counts.
    """
    marked = wrong > 0 if wrong.any() else (saved.truth > 0) & (saved.truth != IGNORE_LABEL)
    weights = wrong if wrong.any() else marked
    number = int(np.argmax(_per_slice(weights, saved.slice_axis)))
    plane = np.take(marked, number, axis=saved.slice_axis)
    depth = ndimage.distance_transform_edt(np.pad(plane, 1))[1:-1, 1:-1]
    place = [int(i) for i in np.unravel_index(int(np.argmax(depth)), plane.shape)]
    return [*place[: saved.slice_axis], number, *place[saved.slice_axis :]]


def _window(saved: SavedCase) -> list[float]:
    """8-bit values that are shown black and white."""
    if saved.unit == "pixel":
        return [0.0, 255.0]
    low, high = (float(v) for v in np.percentile(saved.image, (1, 99.5)))
    return [low, max(high, low + 1)]


def _image_bytes(saved: SavedCase) -> bytes:
    """Grey voxel by voxel; of colour, red, green and blue of each."""
    return (
        _bytes(saved.image[0])
        if len(saved.image) == 1
        else np.ascontiguousarray(saved.image.transpose(3, 2, 1, 0)).tobytes()
    )


def _bytes(array: np.ndarray) -> bytes:
    return array.astype(np.uint8).tobytes(order="F")


def _place(gate: str, num_gates: int) -> str:
    number = int(gate.removeprefix("gate_"))
    return f"gate {number}" + (" (deepest)" if number == 1 else " (finest)" if number == num_gates else "")
