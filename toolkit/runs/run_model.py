"""A trained run as a `Model` that PyTorch computes."""

from pathlib import Path

from attunet.models.torch_network import TorchNetwork
from attunet.runs.ensemble import EnsembleNetwork, load_runs
from attunet.runs.load_run import TrainedRun
from attunet.system.atomic_files import joined_hash
from attunet.volumes.model import NetworkModel


def run_model(run: TrainedRun, device: str = "cpu", *, num_threads: int | None = None) -> NetworkModel:
    """The averaged weights of a run, ready to predict; its `network` is a `TorchNetwork` with these arguments. Raises
    InputError where torch has no such device.
    """
    network = TorchNetwork(run.network, device, num_threads=num_threads)
    return NetworkModel(
        name=run.name,
        spec=run.spec,
        classes=run.classes,
        network=network,
        postprocessing=run.postprocessing,
        channels=tuple(run.channels),
        ranges=run.ranges,
        training_cases=run.training_cases,
        training_voxels=run.training_voxels,
        num_parameters=run.num_parameters,
        num_gates=run.num_gates,
        maps=network.attention,
        sha256=joined_hash(run.checkpoint_sha256),
        with_disagreement=network.with_disagreement if isinstance(run.network, EnsembleNetwork) else None,
    )


def open_run(path: str | Path, device: str = "cpu", *, num_threads: int | None = None) -> NetworkModel:
    """Loads a run, or a folder of runs as one ensemble, as `run_model` does. Raises InputError for any other path."""
    return run_model(load_runs(Path(path)), device, num_threads=num_threads)
