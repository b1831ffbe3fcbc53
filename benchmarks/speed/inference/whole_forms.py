"""One network as an ordinary and as a whole artefact, and a scan for both."""

from pathlib import Path

import numpy as np
import torch

from attunet.benchmarks.speed.inference.forms import CALIBRATION_SLICES
from attunet.classes import CHAOS_MR
from attunet.export.artefact.artefact import Artefact
from attunet.export.artefact.artefact_file import write_artefact
from attunet.export.build.graph_of_run import graph_of
from attunet.models import SegmentationNetwork
from attunet.volumes.slices import VolumeSlices
from attunet.volumes.spec import Preprocessing, PreprocessSpec
from attunet.volumes.volume import Volume

PIXEL_MM, SLICE_MM = 1.0, 6.0  # of the scan


def spec_of(scan: Volume, size: int) -> PreprocessSpec:
    """Pre-processing that makes `size` × `size` pixels of the scan's slices."""
    return PreprocessSpec("LPS", 2, spacing_mm=PIXEL_MM * scan.shape[0] / size, size=(size, size))


def generated_scan(side: int, slices: int) -> Volume:
    """Smooth spots and noise, int16, with slices of `side` × `side` pixels."""
    random = np.random.default_rng(0)
    coarse = random.normal(300, 120, (-(-side // 24), -(-side // 24), slices))
    data = np.kron(coarse, np.ones((24, 24, 1)))[:side, :side] + random.normal(0, 15, (side, side, slices))
    return Volume(data.astype(np.int16)[None], np.diag([-PIXEL_MM, -PIXEL_MM, SLICE_MM, 1.0]))


def balance_head(network: SegmentationNetwork, scan: Volume, spec: PreprocessSpec) -> None:
    """Moves the biases of the head, so that every class is predicted somewhere:
    a map of one class would compare nothing.
    """
    with torch.no_grad():
        logits = network(torch.from_numpy(VolumeSlices(scan, spec).batch(0, 1)))
        network.get_parameter("head.bias").sub_(logits.mean(dim=(0, 2, 3)))


def write_pair(
    network: SegmentationNetwork, precision: str, size: int, scan: Volume, folder: Path
) -> tuple[Path, Path]:
    """The ordinary and the whole artefact of a network, as `attunet export` builds them.

    Example:
        >>> sliced, whole = write_pair(network, "fp32", 192, scan, Path("artefacts"))  # doctest: +SKIP
    """
    spec = spec_of(scan, size)
    calibration = VolumeSlices(scan, spec).batch(0, min(CALIBRATION_SLICES, scan.shape[2]))
    count = sum(p.numel() for p in network.parameters())
    paths = []
    for whole in (False, True):
        about = Artefact(
            name="timed",
            precision=precision,
            preprocessing=Preprocessing(spec),
            classes=CHAOS_MR,
            num_parameters=count,
            outputs=("labels",) if whole else ("logits",),
            whole=whole,
        )
        graph = graph_of(network, about, lambda _: calibration)
        paths.append(folder / f"{precision}-{size}{'-whole' if whole else ''}.onnx")
        paths[-1].write_bytes(write_artefact(graph.SerializeToString(), about))
    return paths[0], paths[1]
