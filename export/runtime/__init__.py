"""Prediction with an artefact; needs neither torch nor accelerate."""

from attunet.export.runtime.segmenter import Segmenter, UntrainedInputWarning

__all__ = ["Segmenter", "UntrainedInputWarning"]
