"""A PyTorch network as a function of NumPy arrays, on a device."""

from collections.abc import Callable

import numpy as np
import torch

from attunet.errors import InputError
from attunet.models.network import SegmentationNetwork


class TorchNetwork:
    """Slices float32 `(N, C, H, W)` to logits float32 `(N, K, H, W)` with PyTorch in inference mode.

    Args:
        network: is moved to the device.
        device: `cpu`, `cuda` or one GPU such as `cuda:1`.
        num_threads: CPU threads of the whole process; PyTorch's own choice by default.
        channels_last: memory format of the activations.
        dtype: of weights and arithmetic.
        compile_mode: of torch.compile; None for eager execution.

    Raises:
        InputError: there is no such device.
    """

    def __init__(
        self,
        network: SegmentationNetwork,
        device: str,
        *,
        num_threads: int | None = None,
        channels_last: bool = True,
        dtype: torch.dtype = torch.float32,
        compile_mode: str | None = None,
    ) -> None:
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise InputError("--device: cuda needs a CUDA device, and PyTorch finds none")
        try:
            self.device = torch.device(device)
        except RuntimeError:
            raise InputError(f"device: must be cpu, cuda or one GPU such as cuda:1, got {device[:80]!r}") from None
        if num_threads is not None:
            torch.set_num_threads(num_threads)
        self.dtype, self.compile_mode = dtype, compile_mode
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        network = network.to(self.device, dtype).eval()
        # Torch's stubs lack it
        self.network = network.to(memory_format=self.memory_format)  # type: ignore[call-overload]
        # Not dynamic: torch would compile the second batch size for all others too
        self._run = torch.compile(self.network, mode=compile_mode, dynamic=False) if compile_mode else self.network

    def __call__(self, slices: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(self._run(self._tensor(slices)).float().cpu())

    def timed_call(self, slices: np.ndarray) -> Callable[[], object]:
        """Return a call that runs one pass with input and output on the device, and returns when it is finished."""
        tensor = self._tensor(slices)

        def call() -> None:
            with torch.inference_mode():
                self._run(tensor)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)

        return call

    def attention(self, slices: np.ndarray) -> tuple[np.ndarray, ...]:
        """Compute the map `(N, h, w)` of every gate, the deepest first."""
        with torch.inference_mode():
            _, maps = self.network.with_attention(self._tensor(slices))
        return tuple(one[:, 0].float().cpu().numpy() for one in maps)

    def with_disagreement(self, slices: np.ndarray) -> np.ndarray:
        """Compute an ensemble's logits followed by the disagreement of its members, `(N, K + 1, H, W)`."""
        with torch.inference_mode():
            logits, disagreement, _ = self.network.with_disagreement(self._tensor(slices))
            return np.asarray(torch.cat([logits, disagreement], dim=1).float().cpu())

    @property
    def options(self) -> dict[str, object]:
        """Device, precision and threads that were used."""
        memory_format = str(self.memory_format).removeprefix("torch.")
        options = {"memory_format": memory_format, "compiled": self.compile_mode or "no"}
        if self.device.type == "cuda":
            return {**options, "tf32_convolutions": torch.backends.cudnn.allow_tf32}
        return {**options, "threads": torch.get_num_threads()}

    @property
    def weights_mb(self) -> float:
        """Size of the weights and statistics in 10^6 bytes."""
        return float(sum(t.nbytes for t in self.network.state_dict().values())) / 1e6

    def _tensor(self, slices: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(slices)).to(
            device=self.device, dtype=self.dtype, memory_format=self.memory_format
        )
