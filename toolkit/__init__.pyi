from attunet.benchmarks.evaluation.evaluate import evaluate
from attunet.config import Config, DataConfig
from attunet.errors import InputError, RunError
from attunet.export.build.export_run import export_run as export
from attunet.export.load_model import load_model
from attunet.export.runtime.segmenter import Segmenter
from attunet.models.attention_unet import AttentionUNet
from attunet.models.unet import UNet
from attunet.ops.attention_gate import attention_gate
from attunet.preparation.prepare import prepare
from attunet.presets import read_config
from attunet.store import open_store
from attunet.training.loop import train
from attunet.version import __version__

__all__ = [
    "AttentionUNet",
    "Config",
    "DataConfig",
    "InputError",
    "RunError",
    "Segmenter",
    "UNet",
    "__version__",
    "attention_gate",
    "evaluate",
    "export",
    "load_model",
    "open_store",
    "prepare",
    "read_config",
    "train",
]
