"""Prediction with an artefact; needs neither torch nor accelerate."""

from attunet.export.runtime.input_checks import UntrainedInputWarning
from attunet.export.runtime.segmenter import Segmenter

__all__ = ["Segmenter", "UntrainedInputWarning"]
