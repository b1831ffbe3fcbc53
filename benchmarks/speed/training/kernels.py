"""Time of one training step on the device, summed by kind of kernel."""

import re

from torch.profiler import ProfilerActivity, profile

from attunet.device.memory import synchronize
from attunet.training.trainer import Trainer

# Kind of kernel: pattern of its name; the first that matches counts.
KINDS = {
    "batch norm and ReLU": r"norm_statistics|norm_finish|norm_apply|norm_gradient|batch_?norm|bn_fw|bn_bw",
    "gates": r"gate_forward|gate_backward|gate_weight|streamed_|epilogue_forward|epilogue_backward|attention_gate",
    "pooling": r"pool",
    "convolutions": r"conv|xmma|cutlass|wgrad|dgrad|gemm|cudnn|sm\d+_|nvjet|addmm|::mm|bmm",
    "optimizer and average": r"multi_tensor|foreach|adam|lerp|lpnorm|clip",
    "augmentation": r"grid_sample|upsample|interpolat|index_select|gather",
    "loss": r"softmax|nll|cross_entropy|logsumexp",
    "copies and fills": r"memcpy|memset|copy|fill|cat",
    "elementwise and reductions": r"elementwise|reduce|triton_|add|mul|where|sum",
}


def profile_step(trainer: Trainer, number: int) -> dict[str, float]:
    """Milliseconds of one step by kind of kernel: on a GPU of the device, otherwise of the processor."""
    on_gpu = trainer.accelerator.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as recorded:
        trainer.step(number)
        synchronize(trainer.accelerator.device)
    kinds = dict.fromkeys([*KINDS, "other"], 0.0)
    for event in recorded.key_averages():
        microseconds = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        kinds[kind_of(event.key)] += microseconds / 1000
    return {kind: ms for kind, ms in kinds.items() if ms}


def kind_of(kernel: str) -> str:
    """The kind of a kernel or operator, by its name."""
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, kernel, re.IGNORECASE)), "other")
