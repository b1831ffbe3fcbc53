"""attunet: U-Net and Attention U-Net for slices of medical volumes, from a folder of scans to an evaluated ONNX file."""

__version__ = "0.1.0"
