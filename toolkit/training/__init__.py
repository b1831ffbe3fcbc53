"""Training: the loop, its step, its checkpoints; `train` starts or continues one, `load_run` reads the result."""

from attunet.training.loop import train
from attunet.training.run import TrainedRun, load_run

__all__ = ["TrainedRun", "load_run", "train"]
