"""The artefact: an ONNX file with metadata."""
