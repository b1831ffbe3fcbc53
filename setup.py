"""Packaging. The folders of the repository are installed under one import name, `attunet`."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOMS = {
    "attunet": "toolkit",
    "attunet.launch": "launch",
    "attunet.export": "export",
    "attunet.benchmarks": "benchmarks",
}
HERE = Path(__file__).parent


def packages() -> list[str]:
    inner = [f"{name}.{inside}" for name, folder in ROOMS.items() for inside in find_packages(str(HERE / folder))]
    return [*ROOMS, *inner]


setup(
    name="attunet",
    version=re.search(r'__version__ = "(.+)"', (HERE / "toolkit/version.py").read_text()).group(1),
    description="U-Net and Attention U-Net for slices of medical volumes: from scans to an evaluated ONNX file",
    long_description=(HERE / "README.md").read_text(encoding="utf-8") if (HERE / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    package_dir=ROOMS,
    packages=packages(),
    package_data={
        "attunet": ["py.typed", "__init__.pyi", "presets/*.toml"],
        "attunet.export.serve": ["pages/*"],
        "attunet.benchmarks": ["report/templates/*"],
        "attunet.export.web": ["page/*"],  # built by make web; absent where there was no npm
        "attunet.launch": ["configs/*.yaml", "slurm/*", "container/*"],
    },
    install_requires=[
        "numpy>=2.0",  # arrays
        "scipy>=1.14",  # distances and components in the metrics and in post-processing
        "nibabel>=5.3",  # NIfTI as its authors read it
        "click>=8.1",  # the command line
        # inference; the GPU build has the CPU provider too, and exists for Linux on x86-64 alone
        "onnxruntime-gpu>=1.27; sys_platform == 'linux' and platform_machine == 'x86_64'",
        "onnxruntime>=1.27; sys_platform != 'linux' or platform_machine != 'x86_64'",
    ],
    extras_require={
        "train": [
            "torch>=2.10,<2.15",  # the networks
            "accelerate>=1.10",  # one process or many, mixed precision
            "safetensors>=0.5",  # checkpoints without pickle
            "onnx>=1.21",  # the artefact; below 1.21 external data can leave its folder
            "onnxscript>=0.5",  # torch's exporter needs it
            "psutil>=5.9",  # free memory of the host
            "matplotlib>=3.9",  # pictures
            "tqdm>=4.66",  # progress bar
        ],
        "dicom": [
            "pydicom>=3.0.2",  # DICOM series; below 3.0.2 a DICOMDIR can lead out of its folder
            # Decodes compressed series (JPEG, JPEG-LS, JPEG 2000); BSD, where pylibjpeg's decoder is GPL
            "python-gdcm>=3.0.24",
        ],
        "dicom-seg": ["highdicom>=0.27"],  # label maps as DICOM Segmentation objects; brings pydicom
        "images": ["pillow>=11"],  # PNG and TIFF, and the masks of the official CHAOS archive
        "wandb": ["wandb>=0.19"],  # trackers of training runs, one extra each
        "tensorboard": ["tensorboard>=2.18"],
        "mlflow": ["mlflow>=3.1"],
        "openvino": ["openvino>=2025.0"],  # a second CPU runtime
        # TensorRT provider: ONNX Runtime up to 1.31 links to libnvinfer 10, for CUDA 13
        "tensorrt": ["tensorrt-cu13>=10.13,<11; sys_platform == 'linux' and platform_machine == 'x86_64'"],
        "docs": ["mkdocs-material>=9.5", "mkdocstrings[python]>=0.26"],  # the documentation site and its API reference
        "serve": [
            "fastapi>=0.115",  # addresses and their OpenAPI description
            *["uvicorn>=0.34", "h11>=0.14"],  # HTTP, and its parser
            "prometheus-client>=0.21",  # /metrics
            "python-multipart>=0.0.20",  # forms, parsed while they come in
            "ipyniivue>=2.4",  # carries NiiVue, by which the page shows a scan with its label map
        ],
        "report": [
            "jinja2>=3.1",  # the page
            "plotly>=6.0",  # its charts; the JavaScript lies in the package
            "ipyniivue>=2.4",  # carries NiiVue, which shows volumes
        ],
        "client": ["httpx>=0.27"],  # attunet predict --server
        # signatures of artefacts; model-signing imports pyOpenSSL without requiring it
        "sign": ["model-signing>=1.1", "pyopenssl>=25"],
        "dev": [
            *["pytest-xdist", "pre-commit"],  # the quick check and the linters at a commit
            *["pytest>=8", "pytest-timeout", "hypothesis>=6", "ruff", "mypy", "scipy-stubs"],
            *["types-setuptools", "types-tqdm", "types-psutil"],
            # fuzzing guided by coverage, in make soak; 3.1 has no build for Python 3.11
            "atheris>=3,<3.1; sys_platform == 'linux' and platform_machine == 'x86_64'",
            *["cyclonedx-python-lib>=9", "pip-audit>=2.7"],  # bills of materials, and known vulnerabilities
            "setuptools>=77",  # a test builds the wheel without isolation
            # Tests write DICOM and PNG sources, and read segmentations
            *["pydicom>=3.0.2", "pillow>=11", "highdicom>=0.27"],
            # And compressed DICOM; NRRD and MHA as ITK reads and writes them
            *["python-gdcm>=3.0.24", "SimpleITK>=2.4", "pylibjpeg>=2.1", "pylibjpeg-openjpeg>=2.5"],
            "openvino>=2025.0",  # its provider is tested like the others
            # The server
            *["fastapi>=0.115", "uvicorn>=0.34", "h11>=0.14", "prometheus-client>=0.21"],
            *["python-multipart>=0.0.20", "httpx>=0.27"],
            *["model-signing>=1.1", "pyopenssl>=25"],  # signatures are made and verified
            "tritonclient[http]>=2.50",  # a client of the Open Inference Protocol that others wrote
            "schemathesis>=4",  # requests made from the server's own description
            *["jinja2>=3.1", "plotly>=6.0", "ipyniivue>=2.4"],  # reports
            # Pages in a browser, where one is installed, and who can read them
            *["playwright>=1.50", "axe-playwright-python>=0.1.4"],
            *["wandb>=0.19", "tensorboard>=2.18", "mlflow>=3.1"],  # each tracker is tested with the real package
            "surface-distance>=0.1",  # the oracle of surface Dice
            "monai>=1.5",  # an oracle for the metrics; pure Python on top of torch and numpy
            # kernels are interpreted and compiled without a GPU; on one, torch brings the very version it wants, within
            # these
            "triton>=3.6,<3.8; sys_platform == 'linux'",
        ],
    },
    entry_points={"console_scripts": ["attunet = attunet.launch.cli:main"]},
)
