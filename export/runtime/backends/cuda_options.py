"""Default options of ONNX Runtime's CUDA and TensorRT providers, and the figures that chose them."""

import hashlib
import os
from pathlib import Path

# Measured on an H200 with onnxruntime-gpu 1.31 (64-wide attention U-Net at 256²;
# benchmarks/results/inference-h200.json): p50 ms at batch 1, and slices per second at batch 32.
#   fp16: EXHAUSTIVE NCHW 2.84, 737; EXHAUSTIVE NHWC 3.14, 227; HEURISTIC NHWC 1.04, 2,146
#   fp32: EXHAUSTIVE NCHW 4.31, 365; EXHAUSTIVE NHWC 4.93, 335; EXHAUSTIVE NCHW with TF32 1.75, 1,215
# Since ONNX Runtime 1.20 EXHAUSTIVE asks cuDNN's front end for its heuristic mode B, HEURISTIC for mode A (its issue
# 22705). In fp32 HEURISTIC is not measured: attunet.benchmarks.speed.inference.sweep has a row for each.
_CUDA: dict[str, str | int] = {
    "cudnn_conv_algo_search": "HEURISTIC",
    "cudnn_conv_use_max_workspace": 1,
    "fuse_conv_bias": 0,  # with 1 transposed convolutions and channels-first ones fail, and the others are not faster
    # Full float32, as in the parity check at export; with 1, convolutions round their inputs to 10 bits of mantissa
    "use_tf32": 0,
}


def cuda_options(precision: str) -> dict[str, str | int]:
    """Options of the CUDA provider for an artefact of a precision."""
    return {**_CUDA, "prefer_nhwc": int(precision == "fp16")}  # tensor cores compute channels-last convolutions


def tensorrt_options(precision: str, data: bytes) -> dict[str, object]:
    """Options of the TensorRT provider. The engine is kept in one folder per artefact, since TensorRT names engines by
    the graph's names, which are equal for networks of one shape; where there is no home folder, it is made each time.
    """
    options: dict[str, object] = {"trt_fp16_enable": int(precision == "fp16")}
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if root.startswith("~"):  # there is no home folder
        return options
    cache = Path(root, "attunet", "tensorrt", hashlib.sha256(data).hexdigest())
    cache.mkdir(parents=True, exist_ok=True)
    return {**options, "trt_engine_cache_enable": 1, "trt_engine_cache_path": cache}
