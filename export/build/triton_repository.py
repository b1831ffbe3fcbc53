"""A model repository for NVIDIA's Triton Inference Server: `NAME/config.pbtxt` and `NAME/1/model.onnx`.

Sources: Triton's model_config.proto, and the options of its ONNX Runtime backend.
"""

import re
from functools import partial
from pathlib import Path

from attunet.errors import InputError
from attunet.export.artefact.artefact import Artefact
from attunet.export.artefact.graph_tensors import Tensor
from attunet.export.runtime.backends.cuda_options import cuda_options
from attunet.system.atomic_files import sync, write_file
from attunet.system.outputs import require_own_folder
from attunet.system.private_folder import PrivateFolder

MAX_BATCH_SIZE = 64
PREFERRED_BATCH_SIZES = (8, 16, 32)
MAX_QUEUE_DELAY_US = 2000


def check_triton_call(repository: Path, name: str) -> None:
    """Refuse a model name that Triton or a file system does not accept, and a repository with a model of that name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", name):
        raise InputError(f"--triton: must be letters, digits, underscores, dots and hyphens, got {name!r}")
    require_own_folder(repository, "a model repository")
    if (repository / name).exists():
        raise InputError(f"{repository / name}: exists already; choose another name or remove it")


def write_triton_repository(artefact: bytes, about: Artefact, repository: Path, name: str) -> Path:
    """Write an `.onnx` file's content into a repository, which may hold other models; gives the model's folder."""
    check_triton_call(repository, name)
    is_new = not repository.exists()
    files = {"1/model.onnx": artefact, "config.pbtxt": triton_config(about, name).encode()}
    try:
        with PrivateFolder(repository, is_brief=True) as folder:
            for file, content in files.items():
                path = folder.path / name / file
                path.parent.mkdir(parents=True, exist_ok=True)
                write_file(path, partial(Path.write_bytes, data=content))
            (folder.path / name).rename(repository / name)
            sync(repository)
    finally:
        if is_new and repository.is_dir() and not any(repository.iterdir()):
            repository.rmdir()
    return repository / name


def triton_config(about: Artefact, name: str) -> str:
    """Model configuration in protobuf text format: slices of several requests in one batch, or for a whole artefact one
    volume per request; int8 on CPUs, fp32 and fp16 on GPUs.
    """
    on_gpu = about.precision != "int8"
    parts = [
        f'name: "{name}"',
        'backend: "onnxruntime"',
        f"max_batch_size: {0 if about.whole else MAX_BATCH_SIZE}",
        *(_tensor("input", tensor, about) for tensor in about.inputs),
        *(_tensor("output", tensor, about) for tensor in about.output_tensors),
        f"instance_group [ {{ count: 1 kind: {'KIND_GPU' if on_gpu else 'KIND_CPU'} }} ]",
    ]
    if not about.whole:
        sizes = ", ".join(map(str, PREFERRED_BATCH_SIZES))
        delay = f"max_queue_delay_microseconds: {MAX_QUEUE_DELAY_US}"
        parts.append(f"dynamic_batching {{ preferred_batch_size: [ {sizes} ] {delay} }}")
    if on_gpu:
        settings = cuda_options(about.precision).items()
        options = [f'    parameters {{ key: "{key}" value: "{value}" }}' for key, value in settings]
        accelerator = "\n".join(['  gpu_execution_accelerator [ {\n    name: "cuda"', *options, "  } ]"])
        parts.append(f"optimization {{ execution_accelerators {{\n{accelerator}\n}} }}")
    return "\n".join(parts) + "\n"


def _tensor(kind: str, tensor: Tensor, about: Artefact) -> str:
    """A tensor without the batch, which Triton adds."""
    dims = ", ".join(map(str, tensor.shape if about.whole else tensor.shape[1:]))
    return f'{kind} [ {{ name: "{tensor.name}" data_type: TYPE_{tensor.datatype} dims: [ {dims} ] }} ]'
