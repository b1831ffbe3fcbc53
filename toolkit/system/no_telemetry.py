"""Switches off what libraries report to their makers; most decide when they are loaded, so `attunet` itself does it.

ONNX Runtime (from 1.29 on Linux too) would keep a device id and a queue of events in the home folder and send model
names, hashes and timings; openvino would look up and tell a host at its import. A user who sets one of the variables
keeps that value.
"""

import os
import sys

VARIABLES = {
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_ERROR_REPORTING": "false",
    "DO_NOT_TRACK": "1",
}


def switch_off_telemetry() -> None:
    """Sets the variables that libraries read; openvino reads none, so its reporting cannot be imported."""
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    if "openvino_telemetry" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
