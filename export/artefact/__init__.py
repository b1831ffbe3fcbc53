"""The artefact: an ONNX file with metadata that describe its pre- and post-processing."""
