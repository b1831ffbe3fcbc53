"""The loop, its step, its checkpoints: `train` starts or continues one, `load_run` reads the result, `load_model` also several as one."""

from attunet.training.ensemble import load_model
from attunet.training.loop import train
from attunet.training.run import TrainedRun, load_run

__all__ = ["TrainedRun", "load_model", "load_run", "train"]
