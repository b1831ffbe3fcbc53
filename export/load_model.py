"""Loading of an artefact, a run or an ensemble as one kind of model."""

from collections.abc import Mapping
from pathlib import Path

from attunet.errors import InputError
from attunet.export.runtime.segmenter import Segmenter
from attunet.volumes.model import Model


def load_model(
    path: str | Path,
    *,
    provider: str = "cpu",
    device: str = "cpu",
    num_threads: int | None = None,
    provider_options: Mapping[str, object] | None = None,
    public_key: str | Path | None = None,
) -> Model:
    """Loads an artefact, a run, or a folder of runs as one ensemble.

    Args:
        path: an `.onnx` file, or a folder.
        provider: computes an artefact: `cpu`, `cuda`, `tensorrt` or `openvino`.
        device: computes a run with PyTorch: `cpu`, `cuda` or one GPU such as `cuda:1`.
        num_threads: CPU threads; the library's own choice by default.
        provider_options: options of ONNX Runtime or OpenVINO for an artefact, which replace those that attunet sets.
        public_key: refuses what is not an artefact signed with this key.

    Returns:
        A `Model`: its `logits`, `attention` and `predict_prepared` are the same functions for all three.

    Raises:
        InputError: for any other path, for a model that is damaged, and for a provider that cannot run this artefact.
        RunError: for a provider that does not load on this machine.

    Example:
        >>> model = load_model("model.onnx", provider="cuda")  # doctest: +SKIP
        >>> model.classes.names  # doctest: +SKIP
    """
    path = Path(path)
    if path.is_dir():
        if public_key is not None:
            raise InputError(f"{path}: a run cannot be signed; export and sign an artefact")
        try:
            from attunet.runs.run_model import open_run
        except ModuleNotFoundError as error:
            raise InputError(
                f"{path}: a run needs the extra 'train' ({error.name} is not installed); an .onnx does not"
            ) from None
        return open_run(path, device, num_threads=num_threads)
    if path.suffix != ".onnx":
        missing = "" if path.exists() else "; there is no such file"
        raise InputError(f"{path}: must be a run (a folder) or an artefact (.onnx){missing}")
    return Segmenter(
        path, provider=provider, num_threads=num_threads, provider_options=provider_options, public_key=public_key
    )
