"""The graph of a run in the precision that was chosen, with calibration on training slices for int8."""

from collections.abc import Callable

import numpy as np
import onnx

from attunet.export.artefact.artefact import Artefact
from attunet.export.build.graph import export_graph, tidy
from attunet.export.build.precision import to_half, to_int8
from attunet.export.build.upsampling import upsample_by_pixel_shuffle
from attunet.export.build.whole.graph import whole_graph
from attunet.models import SegmentationNetwork
from attunet.runs.load_run import TrainedRun
from attunet.store import Store
from attunet.store_damage import verify_case
from attunet.volumes.geometry import place, window_offset
from attunet.volumes.slices import gather_context

CALIBRATION_SLICES = 48


def graph_of(
    network: SegmentationNetwork, about: Artefact, calibration_slices: Callable[[tuple[int, int] | None], np.ndarray]
) -> onnx.ModelProto:
    """A network as the graph that the metadata describe. calibration_slices: for int8, of the size that they fix."""
    size = (about.height, about.width) if about.height and about.width else None
    temperature = about.confidence.temperature if about.confidence else 1.0
    outputs = ("logits",) if about.whole else about.outputs
    model = export_graph(network, about.spec.in_channels, outputs, size, temperature=temperature)
    if about.precision == "fp16":
        model = to_half(model)
    elif about.precision == "int8":
        upsample_by_pixel_shuffle(model)
        model = to_int8(model, calibration_slices(size))
    tidy(model)
    if not about.whole:
        return model
    return whole_graph(model, about.spec, about.classes, full_batches=about.precision == "fp16")


def calibration_slices_of(run: TrainedRun, store: Store, size: tuple[int, int] | None) -> np.ndarray:
    """Training slices float32 (N, C, H, W), evenly spread over the cases, those with the greatest contrast first."""
    for case in run.training_cases:
        verify_case(store, case)
    images = [store.image(case) for case in sorted(run.training_cases)]
    places = [(image, z) for image in images for z in range(len(image))]
    chosen = np.linspace(0, len(places) - 1, min(len(places), CALIBRATION_SLICES)).round().astype(int)
    slices = np.stack([gather_context(places[i][0], [places[i][1]], run.spec.context_slices)[0] for i in chosen])
    slices = slices.astype(np.float32)
    if size is not None:
        slices = place(slices, size, window_offset(slices.shape, size), float(slices.min()))
    return slices[np.argsort(-slices.std(axis=(1, 2, 3)), kind="stable")]
