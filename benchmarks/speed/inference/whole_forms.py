"""One network as an ordinary and as a whole artefact, a scan for both, and the nodes of a whole graph by provider."""

import json
from pathlib import Path

import numpy as np
import torch

from attunet.benchmarks.speed.inference.forms import CALIBRATION_SLICES
from attunet.classes import CHAOS_MR
from attunet.export.artefact.artefact import Artefact
from attunet.export.artefact.artefact_file import load_artefact, write_artefact
from attunet.export.artefact.graph_tensors import LABELS, SPACING, VOLUME
from attunet.export.build.graph_of_run import graph_of
from attunet.export.runtime.backends.cpu import NOT_WHILE_LOADING, session_options
from attunet.export.runtime.backends.cuda_options import cuda_options
from attunet.export.runtime.backends.gpu import DISABLED_OPTIMIZERS
from attunet.export.runtime.segmenter import Segmenter
from attunet.models import SegmentationNetwork
from attunet.system.private_folder import PrivateFolder
from attunet.volumes.oriented_volume import OrientedVolume
from attunet.volumes.slices import VolumeSlices
from attunet.volumes.spec import Preprocessing, PreprocessSpec
from attunet.volumes.volume import Volume

PIXEL_MM, SLICE_MM = 1.0, 6.0  # of the scan
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


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


def count_nodes(
    path: Path, segmenter: Segmenter, scan: Volume, num_threads: int | None
) -> dict[str, dict[str, list[float]]]:
    """Provider -> operator -> [runs, ms] of one segmentation. On a GPU, ms is the host's time;
    a node outside it makes the host wait.
    """
    import onnxruntime

    prepared = segmenter.prepare(scan)
    assert isinstance(prepared, OrientedVolume)
    with PrivateFolder() as folder:
        options = session_options()
        options.enable_profiling, options.profile_file_prefix = True, str(folder.path / "profile")
        options.intra_op_num_threads = num_threads or 0
        settings = (
            {k: str(v) for k, v in cuda_options(segmenter.metadata.precision).items()}
            if segmenter.provider == "cuda"
            else {}
        )
        providers = [(PROVIDERS[segmenter.provider], settings)]
        session = onnxruntime.InferenceSession(
            load_artefact(path)[1],
            options,
            providers=providers,
            enable_fallback=0,
            disabled_optimizers=DISABLED_OPTIMIZERS.get(segmenter.provider, NOT_WHILE_LOADING),
        )
        for _ in range(2):
            session.run([LABELS], {VOLUME: prepared.data, SPACING: prepared.spacing})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    last = max(event["ts"] for event in events if event["name"] == "model_run")
    counts: dict[str, dict[str, list[float]]] = {}
    for event in events:
        if event["ts"] >= last and event["name"].endswith("_kernel_time"):
            row = counts.setdefault(event["args"]["provider"], {}).setdefault(event["args"]["op_name"], [0, 0.0])
            row[0] += 1
            row[1] += event["dur"] / 1000
    return counts
