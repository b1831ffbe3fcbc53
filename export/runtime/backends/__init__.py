"""Computation of a graph: ONNX Runtime on a CPU, on a GPU or with TensorRT, and OpenVINO."""
