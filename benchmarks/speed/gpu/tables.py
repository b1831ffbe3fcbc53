"""The GPU tables of the pages, from benchmarks/results: `python -m attunet.benchmarks.speed.gpu.tables` writes them
again.

A page marks each table by `<!-- gpu: NAME -->` before and `<!-- end -->` behind it. A test holds that pages and results
agree, so figures are changed by putting another JSON into benchmarks/results, as `attunet.benchmarks.speed.gpu` writes
it.
"""

import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / "benchmarks" / "results"
GPU = "h200"
PAGES = ("README.md", "docs/gate.md", "docs/training-speed.md", "docs/inference-speed.md")
MARKED = re.compile(r"<!-- gpu: (\w+) -->\n(.*?)<!-- end -->", re.DOTALL)


def _read(name: str) -> Any:
    return json.loads((RESULTS / f"{name}-{GPU}.json").read_text(encoding="utf-8"))


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines).replace("%", " %")


def gate_table() -> str:
    """Speed of single gates, eager = 1, and share of a copy's bandwidth."""
    results = _read("gate")["gates"]
    found = {(row["mode"], row["by"], row["level"]): row for row in results}
    rows = []
    for mode, name in (("inference", "inference"), ("training", "forward and backward")):
        for level in range(4):
            fused, compiled = found[mode, "fused", level], found[mode, "compile", level]
            ms = [f"{row['ms_p50']:.3f}" for row in (found[mode, "eager", level], compiled, fused)]
            ratios = [f"{compiled['times_as_fast_as_eager']:.2f}", f"{fused['times_as_fast_as_eager']:.2f}"]
            rows.append(
                [f"{fused['channels']} at {fused['shape'][-1]}²", name, *ms, *ratios, f"{fused['share_of_copy']:.0%}"]
            )
    return _markdown(
        ["gate", "mode", "eager ms", "compiled ms", "fused ms", "compiled × eager", "fused × eager", "fused, of copy"],
        rows,
    )


def training_rows(name: str = "training-sweep") -> list[dict[str, Any]]:
    """The trainings of a sweep that were measured."""
    return [row for row in _read(name)["rows"] if "error" not in row]


def training_table(name: str = "training-sweep") -> str:
    """Trainings of a sweep."""
    rows = []
    for row in training_rows(name):
        graph, compiled = ("yes" if row[key] else "no" for key in ("cuda_graph", "compile"))
        figures = [
            f"{row['slices_per_s']:,.0f}",
            f"{row['step_ms']:.1f}",
            f"{row['host_ms']:.1f}",
            f"{row['matmul_share']:.0%}",
        ]
        about = [row["model"], str(row["width"]), str(row["batch_size"]), graph, compiled]
        rows.append([*about, *figures, f"{row['peak_memory_mb'] / 1000:.1f}"])
    head = [
        "network",
        "wide",
        "batch",
        "CUDA graph",
        "compiled",
        "slices/s",
        "ms a step",
        "ms to queue it",
        "of the matmul rate",
        "memory GB",
    ]
    return _markdown(head, rows)


def kinds_table() -> str:
    """Milliseconds of one step on the device, by kind of kernel."""
    rows = training_rows()
    kinds = sorted(
        {kind for row in rows for kind in row["kinds_ms"]},
        key=lambda kind: -max(row["kinds_ms"].get(kind, 0.0) for row in rows),
    )
    cells = [[kind, *(f"{row['kinds_ms'].get(kind, 0.0):.1f}" for row in rows)] for kind in kinds]
    return _markdown(["ms of a step", *(f"{row['model']}, batch {row['batch_size']}" for row in rows)], cells)


def inference_table() -> str:
    """Every form of the network, by batch."""
    rows = _read("inference")["rows"]
    by = {(row["name"], row["shape"][0]): row for row in rows}
    batches = list(dict.fromkeys(row["shape"][0] for row in rows))
    cells = []
    for name in dict.fromkeys(row["name"] for row in rows):
        options = by[name, batches[0]]["options"]
        search = options.get("cudnn_conv_algo_search", "")
        figures = [
            f"{by[name, batches[0]]['p50_ms']:.2f}",
            *(f"{by[name, batch]['slices_per_s']:,.0f}" for batch in batches),
        ]
        cells.append([name, search, *figures])
    return _markdown(
        ["form", "search", f"p50 ms, batch {batches[0]}", *(f"slices/s, batch {batch}" for batch in batches)], cells
    )


def summary_table() -> str:
    """The figures of the README."""
    gates = {(row["mode"], row["by"], row["level"]): row for row in _read("gate")["gates"]}
    fused, compiled = gates["inference", "fused", 0], gates["inference", "compile", 0]
    both, both_compiled = gates["training", "fused", 0], gates["training", "compile", 0]
    trainings = [
        row for row in training_rows() if (row["model"], row["width"], row["batch_size"]) == ("attention_unet", 64, 64)
    ]
    default = next(row for row in trainings if not row["compile"])
    small = next(
        row for row in training_rows() if (row["model"], row["width"], row["batch_size"]) == ("attention_unet", 64, 16)
    )
    uncaptured = next(
        row for row in training_rows("training-sweep-graph") if row["batch_size"] == 16 and not row["cuda_graph"]
    )
    forms = {row["name"]: row for row in _read("inference")["rows"] if row["shape"][0] == 32}
    onnx = max(
        (row for name, row in forms.items() if name.startswith("cuda fp16")), key=lambda row: float(row["slices_per_s"])
    )
    torch_form = forms["PyTorch compiled fp16 NHWC"]
    return _markdown(
        ["what", "figure", "beside"],
        [
            [
                "the fused gate, finest level, inference",
                f"{fused['times_as_fast_as_eager']:.2f} times eager, {fused['share_of_copy']:.0%} of copy bandwidth",
                f"compiled {compiled['times_as_fast_as_eager']:.2f} times",
            ],
            [
                "the fused gate, finest level, forward and backward",
                f"{both['times_as_fast_as_eager']:.2f} times eager",
                f"compiled {both_compiled['times_as_fast_as_eager']:.2f} times",
            ],
            [
                "training, batch 16",
                f"{small['slices_per_s']:,.0f} slices/s",
                f"without the CUDA graph {uncaptured['slices_per_s']:,.0f}",
            ],
            [
                "training, batch 64",
                f"{default['slices_per_s']:,.0f} slices/s",
                f"{default['matmul_share']:.0%} of the matmul rate",
            ],
            [
                "inference, ONNX Runtime CUDA, fp16, batch 32",
                f"{onnx['slices_per_s']:,.0f} slices/s",
                f"PyTorch compiled {torch_form['slices_per_s']:,.0f}",
            ],
        ],
    )


TABLES: dict[str, Callable[[], str]] = {
    "gate": gate_table,
    "training": training_table,
    "graph": partial(training_table, "training-sweep-graph"),
    "kinds": kinds_table,
    "inference": inference_table,
    "summary": summary_table,
}


def with_tables(text: str) -> str:
    """A page with every marked table made again."""
    return MARKED.sub(lambda match: f"<!-- gpu: {match[1]} -->\n{TABLES[match[1]]()}<!-- end -->", text)


def main() -> None:
    for name in PAGES:
        path = ROOT / name
        path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
