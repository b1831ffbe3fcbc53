"""Fixtures of the steps between a volume and its label map."""

import gzip
from dataclasses import replace
from typing import Any

import numpy as np
from fixture_inputs import affines, flat, image, packed

from attunet.volumes.geometry import orientation_transform, resize_linear
from attunet.volumes.intensity import channel_statistics
from attunet.volumes.postprocess import postprocess
from attunet.volumes.slices import VolumeSlices, assemble, restore
from attunet.volumes.spec import Postprocessing, PreprocessSpec
from attunet.volumes.training_ranges import TrainingRanges, check_input
from attunet.volumes.volume import Volume

SPEC = PreprocessSpec(orientation="LPS", slice_axis=2, spacing_mm=1.6, size=(16, 32))


def resizes() -> list[dict[str, Any]]:
    rows = []
    for shape, to in (((5, 7), (8, 3)), ((9, 4), (3, 11)), ((6, 6), (6, 6)), ((1, 5), (2, 2))):
        plane = image(shape, "float32", seed=shape[0]) / 7
        result = resize_linear(plane, to).ravel().tolist()
        rows.append({"plane": plane.ravel().tolist(), "from": shape, "to": to, "result": result})
    return rows


def orientations() -> list[dict[str, Any]]:
    rows = []
    for name, affine in affines().items():
        for code in ("LPS", "RAS", "SLA", None):
            row = {"name": f"{name} to {code}", "affine": affine.tolist(), "orientation": code}
            rows.append({**row, "transform": orientation_transform(affine, code)})
    return rows


def scalings() -> list[dict[str, Any]]:
    rows = []
    for dtype in ("int16", "uint8", "uint16", "int32", "float32"):
        channel = image((4, 5, 6), dtype, seed=1)
        for how in ("zscore", "ct", "none"):
            spec = replace(SPEC, normalization=how, clip_percentiles=(2.0, 97.0))
            scale = channel_statistics(channel, spec)
            row = {"dtype": dtype, "how": how, "values": flat(channel)}
            rows.append({**row, "scaling": [scale.low, scale.high, scale.shift, scale.scale]})
    return rows


def preparations() -> list[dict[str, Any]]:
    """Volumes to slices, and random logits of those slices back to labels."""
    rows = []
    specs = {
        "one slice": SPEC,
        "with neighbours": replace(SPEC, context_slices=3, slice_axis=1, orientation="RAS"),
        "two channels": replace(SPEC, num_channels=2, context_slices=3, normalization="ct"),
        "native pixels": replace(SPEC, spacing_mm=None, normalization="none", slice_axis=0),
    }
    for (name, spec), (code, affine) in zip(specs.items(), affines().items(), strict=True):
        data = np.stack([image((9, 7, 3), "int16", seed=channel) for channel in range(spec.num_channels)])
        prepared = VolumeSlices(Volume(data, affine), spec)
        context = prepared.batch(0, len(prepared))
        logits = np.random.default_rng(2).normal(0, 1, (len(context), 3, *context.shape[2:])).astype(np.float32)
        logits = np.clip(np.round(logits * 32), -127, 127) / 32  # a byte each
        rows.append(
            {
                "name": f"{name}, {code}",
                "spec": spec.to_json(),
                "affine": affine.tolist(),
                "shape": data.shape[1:],
                "channels": [flat(channel) for channel in data],
                "window": context.shape[2:],
                "input_base64": packed(gzip.compress(context.astype("<f4").tobytes(), mtime=0)),
                "logits_base64": packed((logits * 32).astype("i1").tobytes()),
                "labels": flat(assemble(restore(logits, prepared.grid), prepared.grid)),
            }
        )
    return rows


def finishings() -> list[dict[str, Any]]:
    """Blobs joined by necks, some voxels of them equally far from two pieces."""
    labels = np.zeros((26, 14, 5), np.uint8)
    labels[1:11, 2:12, :4], labels[11:18, 3:5, 1:4], labels[18:25, 3:11, 1:] = 1, 1, 1
    labels[0:4, 12:14], labels[20:24, 12:14] = 2, 2  # two parts of one size
    labels[13:15, 8:10, :2] = 3
    rows = []
    for *spacing, erosion in ((1.0, 1.0, 1.0, 0.0), (1.0, 1.0, 1.0, 1.0), (0.7, 0.7, 5.0, 1.4), (1.0, 1.2, 1.0, 2.4)):
        result = postprocess(labels, 4, tuple(spacing), Postprocessing(True, erosion))
        row = {"shape": labels.shape, "spacing": spacing, "erosion_mm": erosion}
        rows.append({**row, "labels": flat(labels), "result": flat(result)})
    return rows


def warnings() -> list[dict[str, Any]]:
    ranges = TrainingRanges("mm", ((1, 2),) * 3, ((100, 300),) * 3, ((20, 60),), ((50, 90),))
    near, far = np.diag([1.5, 1.5, 4, 1]), np.diag([20.0, 20, 60, 1])
    rows = []
    for affine, scale, shift in ((near, 1, 0), (far, 0.01, 0), (far, 0.2, 12345)):
        data = (image((9, 8, 3), "float32") * np.float32(scale) + np.float32(shift))[None]
        lines = [f"{finding.text} [{finding.rule}]" for finding in check_input(Volume(data, affine), ranges, "LPS")]
        rows.append({"affine": affine.tolist(), "shape": data.shape[1:], "values": flat(data[0]), "lines": lines})
    return [{"ranges": ranges.to_json(), **row} for row in rows]
