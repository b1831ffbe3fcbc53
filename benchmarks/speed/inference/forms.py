"""The forms of one network that `attunet.benchmarks.speed.inference.sweep` times:
PyTorch, a bare ONNX Runtime session, `Segmenter`.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from attunet.benchmarks.evaluation.models import segmenter_call
from attunet.classes import Classes
from attunet.config import ModelConfig
from attunet.export.artefact.artefact import Artefact
from attunet.export.artefact.artefact_file import write_artefact
from attunet.export.build.graph import export_graph
from attunet.export.build.precision import to_half, to_int8
from attunet.export.build.upsampling import upsample_by_pixel_shuffle
from attunet.export.runtime.segmenter import Segmenter
from attunet.models import SegmentationNetwork, build_model
from attunet.models.torch_network import TorchNetwork
from attunet.volumes.spec import Preprocessing, PreprocessSpec

OUTPUTS = ("labels", "logits")
IN_CHANNELS, NUM_CLASSES = 1, 5  # of a fresh network
CALIBRATION_SLICES = 4  # the scales do not change the time


@dataclass(frozen=True, eq=False)
class Form:
    """A form of a network, to be timed. Slices are float32 (N, C, H, W)."""

    timed_call: Callable[[np.ndarray], Callable[[], object]]  # slices -> a call that is one finished pass
    slices: Callable[[int], np.ndarray]  # batch size -> noise
    logits: Callable[[np.ndarray], np.ndarray] | None = None  # from and to the host; None: they are not compared
    options: Mapping[str, Any] = field(default_factory=dict)


Make = Callable[[], Form]


@dataclass(frozen=True, eq=False)
class Subject:
    """The network that is timed, in eval mode, and the artefacts made of it in a folder."""

    network: SegmentationNetwork
    size: tuple[int, int]
    folder: Path
    in_channels: int = IN_CHANNELS
    num_classes: int = NUM_CLASSES

    @property
    def num_parameters(self) -> int:
        return sum(p.numel() for p in self.network.parameters())

    def slices(self, batch_size: int) -> np.ndarray:
        """Noise float32 (N, C, H, W)."""
        return np.random.default_rng(0).standard_normal((batch_size, self.in_channels, *self.size), dtype=np.float32)

    def artefact(self, precision: str, *, pixel_shuffle: bool) -> Path:
        """The file, written at the first call."""
        path = self.folder / f"{precision}-{'shuffle' if pixel_shuffle else 'transposed'}.onnx"
        if not path.exists():
            model = self._graph()
            if pixel_shuffle:
                upsample_by_pixel_shuffle(model)
            if precision == "int8":
                model = to_int8(model, self.slices(CALIBRATION_SLICES))
            elif precision == "fp16":
                model = to_half(model)
            path.write_bytes(write_artefact(model.SerializeToString(), self._metadata(precision)))
        return path

    def _graph(self) -> onnx.ModelProto:
        path = self.folder / "graph.onnx"
        if not path.exists():
            onnx.save(export_graph(self.network, self.in_channels, OUTPUTS), path)
        return onnx.load(path)

    def _metadata(self, precision: str) -> Artefact:
        names = ("background", *(f"class {index}" for index in range(1, self.num_classes)))
        return Artefact(
            name="timed",
            precision=precision,
            preprocessing=Preprocessing(
                PreprocessSpec(None, 2, spacing_mm=None, size=self.size, num_channels=self.in_channels)
            ),
            classes=Classes(names, tuple(range(self.num_classes))),
            num_parameters=self.num_parameters,
            outputs=OUTPUTS,
        )


def fresh_network(name: str, *, width: int) -> SegmentationNetwork:
    """Random weights and biases (the exporter drops biases of 0), with the batch-norm statistics of noise: activations
    have the sizes that they have after a training.
    """
    torch.manual_seed(0)
    network = build_model(ModelConfig(name=name, base_width=width), IN_CHANNELS, NUM_CLASSES)
    for parameter in network.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, mean=float(parameter.detach().mean()), std=0.05)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network(torch.randn(4, IN_CHANNELS, 64, 64))
    return network.eval()


def on_cpu(subject: Subject, *, num_threads: int) -> dict[str, Make]:
    """Functions that make the forms, by name; PyTorch eager, the baseline, is first."""
    torch.set_num_threads(num_threads)
    makers: dict[str, Make] = {
        "PyTorch eager fp32": partial(_torch, subject, "cpu", channels_last=False),
        "PyTorch eager fp32 NHWC": partial(_torch, subject, "cpu"),
    }
    for precision in ("fp32", "int8"):
        for shuffle in (False, True):
            name = f"session {precision}, {'pixel shuffle' if shuffle else 'transposed'}"
            makers[name] = partial(_bare, subject, precision, shuffle, num_threads)
        for provider in ("cpu", "openvino"):
            makers[f"Segmenter {precision} {provider}"] = partial(
                _segmenter, subject, precision, provider, num_threads=num_threads
            )
    return makers


def on_gpu(subject: Subject) -> dict[str, Make]:
    """PyTorch eager fp32 first, then the CUDA provider with its defaults and with each option changed."""
    exhaustive = {"cudnn_conv_algo_search": "EXHAUSTIVE"}
    cuda = partial(partial, _segmenter, subject)
    return {
        "PyTorch eager fp32": partial(_torch, subject, "cuda", channels_last=False),
        "PyTorch eager fp16 NHWC": partial(_torch, subject, "cuda", dtype=torch.float16),
        "PyTorch compiled fp16 NHWC": partial(_torch, subject, "cuda", dtype=torch.float16, compile_mode="default"),
        "PyTorch compiled fp16 NHWC, CUDA graph": partial(
            _torch, subject, "cuda", dtype=torch.float16, compile_mode="reduce-overhead"
        ),
        "cuda fp32": cuda("fp32", "cuda"),
        "cuda fp32, TF32": cuda("fp32", "cuda", provider_options={"use_tf32": 1}),
        "cuda fp32, exhaustive search": cuda("fp32", "cuda", provider_options=exhaustive),
        "cuda fp32 NHWC": cuda("fp32", "cuda", provider_options={"prefer_nhwc": 1}),
        "cuda fp16": cuda("fp16", "cuda"),
        "cuda fp16, CUDA graph": cuda("fp16", "cuda", cuda_graph=True),
        "cuda fp16, exhaustive search": cuda("fp16", "cuda", provider_options=exhaustive),
        "cuda fp16, default search": cuda("fp16", "cuda", provider_options={"cudnn_conv_algo_search": "DEFAULT"}),
        "cuda fp16 NCHW": cuda("fp16", "cuda", provider_options={"prefer_nhwc": 0}),
        "tensorrt fp32": partial(_segmenter, subject, "fp32", "tensorrt"),
        "tensorrt fp16": partial(_segmenter, subject, "fp16", "tensorrt"),
    }


def _torch(subject: Subject, device: str, **settings: Any) -> Form:
    network = TorchNetwork(copy.deepcopy(subject.network), device, **settings)
    return Form(network.timed_call, subject.slices, network, network.options)


def _bare(subject: Subject, precision: str, pixel_shuffle: bool, num_threads: int) -> Form:
    """Plain ONNX Runtime, without attunet."""
    path = subject.artefact(precision, pixel_shuffle=pixel_shuffle)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def logits(slices: np.ndarray) -> np.ndarray:
        return np.asarray(session.run(["logits"], {"slices": slices})[0])

    return Form(lambda slices: lambda: logits(slices), subject.slices, logits, {"intra_op_num_threads": num_threads})


def _segmenter(subject: Subject, precision: str, provider: str, **settings: Any) -> Form:
    """The up-sampling is the one that `attunet export` chooses for the precision."""
    segmenter = Segmenter(subject.artefact(precision, pixel_shuffle=precision == "int8"), provider=provider, **settings)
    return Form(partial(segmenter_call, segmenter), subject.slices, segmenter.logits, segmenter.backend.options)
