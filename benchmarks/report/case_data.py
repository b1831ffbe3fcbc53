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
from attunet.fields import parse_whole


@dataclass(frozen=True, eq=False)
class CaseData:
    about: Mapping[str, object]  # JSON values
    volumes: Mapping[str, str]  # identity of a script element -> bytes, gzip and base64, X fastest


def choose_cases(contents: Contents, wanted: str) -> list[str]:
    """Names of the cases to show. wanted: `worst:N`, `all` or names joined by commas.
    Raises InputError for anything else.
    """
    kept = [case for case in contents.cases if (contents.case_folder(case) / IMAGE).is_file()]
    kind, _, number = wanted.partition(":")
    if wanted == "all":
        return kept
    if kind == "worst" and number:
        if (count := parse_whole(number)) is None:
            raise InputError(f"--cases: worst: must be followed by a number, got {wanted[:80]!r}")
        return kept[:count]
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
    volumes = {f"v{number}-image": pack(_bytes(saved.image)), f"v{number}-truth": pack(_bytes(saved.truth))}
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
            is_wrong = (saved.comparable(labels) != saved.truth) & (saved.truth != IGNORE_LABEL)
            per_slice = _per_slice(is_wrong, saved.slice_axis)
            dice = dict(model.scores["dice"]["per_case"].get(name, {}))
            layers.append({"name": model.label, "index": index, "wrong": per_slice, "dice": dice})
            wrong += is_wrong
        gates = load_arrays(model.attention[name]) if name in model.attention else {}
        for gate, values in gates.items():
            key = f"v{number}-{gate}-{index}"
            volumes[key] = pack(_bytes(values))
            low, high = _spread(values, 2, 98)
            title = f"{model.label}: {_place(gate, len(gates))}"
            attention.append({"id": key, "name": title, "shape": list(values.shape), "low": low, "high": high})
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
        "window": (0.0, 255.0) if saved.unit == "pixel" else _spread(saved.image, 1, 99.5),
        "undrawn": list(saved.undrawn),
        "layers": layers,
        "attention": attention,
        "worst": _worst_place(wrong, saved),
    }
    return CaseData(about, volumes)


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


def _spread(values: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """Percentiles of 8-bit values, at least 1 apart."""
    bottom, top = (float(v) for v in np.percentile(values, (low, high)))
    return bottom, max(top, bottom + 1)


def _bytes(array: np.ndarray) -> bytes:
    """Colours of a voxel beside each other, then X fastest."""
    return array.astype(np.uint8).tobytes(order="F")


def _place(gate: str, num_gates: int) -> str:
    number = int(gate.removeprefix("gate_"))
    return f"gate {number}" + (" (deepest)" if number == 1 else " (finest)" if number == num_gates else "")
