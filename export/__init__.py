"""From a checkpoint to one self-describing ONNX file, and the runtime that needs nothing but that file."""
