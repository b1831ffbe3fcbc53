"""The interface of a loaded graph for every provider."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np

from attunet.errors import RunError, one_line
from attunet.export.artefact.graph_tensors import INPUT
from attunet.export.runtime.stop import Stop

# Shapes of a graph's inputs or outputs by name; an axis of any length is a text or -1
Shapes = dict[str, tuple[int | str, ...]]


class Backend(ABC):
    """One loaded graph, which several threads may run. options: settings of the library, for a measurement's record."""

    provider: str
    options: dict[str, object]
    inputs: Shapes
    outputs: Shapes

    def run(self, outputs: Sequence[str], slices: np.ndarray) -> list[np.ndarray]:
        """The named outputs for slices float32 `(N, C, H, W)`."""
        return self.run_inputs(outputs, {INPUT: slices})

    def run_inputs(
        self, outputs: Sequence[str], inputs: Mapping[str, np.ndarray], stop: Stop | None = None
    ) -> list[np.ndarray]:
        """The named outputs for inputs by name; RunError where the library fails or `stop` ends the run."""
        try:
            return self._compute(outputs, inputs, stop)
        except Exception as error:  # the libraries' exceptions share no other base
            raise self._failure(error) from error

    @abstractmethod
    def _compute(
        self, outputs: Sequence[str], inputs: Mapping[str, np.ndarray], stop: Stop | None
    ) -> list[np.ndarray]: ...

    def _failure(self, error: Exception) -> RunError:
        return RunError(f"provider: {self.provider} failed while running: {one_line(error)}")
