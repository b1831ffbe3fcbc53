"""An operation at every level of a network: settings, options, and rows beside a copy of as many bytes."""

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from attunet.benchmarks.evaluation.results_table import Json
from attunet.benchmarks.speed.operations.measures import Call, call_cells, measure_calls
from attunet.benchmarks.speed.program import add_device, program_parser
from attunet.errors import InputError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MODES = ("inference", "training")
HEAD = ["mode", "by", "ms p20", "p50", "p80", "x eager", "peak MB", "GB/s", "of copy"]


@dataclass(frozen=True)
class Settings:
    """The network is `width` wide at its finest level; `seconds` is the time for each measurement."""

    device: str
    width: int
    size: int
    batch_size: int
    dtype: str
    seconds: float

    def shape(self, level: int) -> tuple[int, int, int, int]:
        """Features `(N, C, H, W)` of a level."""
        side = self.size // 2**level
        return self.batch_size, self.width * 2**level, side, side

    def noise(self, level: int) -> Tensor:
        """Features of a level, channels last."""
        features = torch.randn(self.shape(level), device=self.device, dtype=DTYPES[self.dtype])
        return features.to(memory_format=torch.channels_last)


def settings_parser(description: str | None, *, plot: bool = False) -> argparse.ArgumentParser:
    """The options of `Settings`, and --no-compile."""
    parser = program_parser(description, plot=plot)
    add_device(parser)
    parser.add_argument("--width", type=int, default=64, help="channels of the first level")
    parser.add_argument("--size", type=int, default=256, help="height and width of a slice, a multiple of 16")
    parser.add_argument("--batch-size", type=int, help="slices; 16 on a GPU, 2 on the CPU")
    parser.add_argument("--dtype", choices=DTYPES, help="of the pixels; bfloat16 on a GPU, float32 on the CPU")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each measurement")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    return parser


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Raises InputError for a size that does not fit the network, and for a device that is not there."""
    if arguments.size % 16 or arguments.size < 16:
        raise InputError(f"--size: must be a multiple of 16, got {arguments.size}")
    on_gpu = arguments.device == "cuda"
    if on_gpu and not torch.cuda.is_available():
        raise InputError("--device: must be cpu where torch finds no CUDA device, got cuda")
    return Settings(
        device=arguments.device,
        width=arguments.width,
        size=arguments.size,
        batch_size=arguments.batch_size or (16 if on_gpu else 2),
        dtype=arguments.dtype or ("bfloat16" if on_gpu else "float32"),
        seconds=arguments.seconds,
    )


def measure_level(calls: Mapping[str, Call], settings: Settings, level: int, mode: str, moved: int) -> list[Json]:
    """Rows of the calls and of a copy that reads and writes `moved` bytes, as the operation must.

    Example:
        >>> measure_level({"triton": call}, settings, 0, "inference", 2 * x.nbytes)  # doctest: +SKIP
    """
    beside = {**calls, "copy": _copy_call(moved, settings.device)}
    rows = measure_calls(beside, settings.device, settings.seconds)
    copy_ms = rows[-1]["ms_p50"]
    shape = settings.shape(level)
    about = {"level": level, "channels": shape[1], "shape": list(shape), "mode": mode, "bytes": moved}
    return [
        {**about, **row, "gb_per_s": moved / 1e6 / row["ms_p50"], "share_of_copy": copy_ms / row["ms_p50"]}
        for row in rows
    ]


def level_cells(rows: Iterable[Json]) -> list[list[str]]:
    """Cells of the rows of `measure_level`, below a header that begins with a name and goes on with `HEAD`."""
    return [
        [
            f"{row['channels']} at {row['shape'][-1]}²",
            *call_cells(row),
            f"{row['gb_per_s']:.1f}",
            f"{row['share_of_copy']:.0%}",
        ]
        for row in rows
    ]


def _copy_call(moved: int, device: str) -> Call:
    """A call that copies half of `moved` bytes, so that it reads and writes `moved` in all."""
    source = torch.ones(moved // 2, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    return lambda: target.copy_(source)
