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

from attunet.benchmarks.speed.training.sweep import COLUMNS, shown
from attunet.system.plain_text import markdown_table

ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / "benchmarks" / "results"
GPU = "h200"
PAGES = ("README.md", "docs/gate.md", "docs/training-speed.md", "docs/inference-speed.md")
MARKED = re.compile(r"<!-- gpu: (\w+) -->\n(.*?)<!-- end -->", re.DOTALL)


def _read(name: str) -> Any:
    return json.loads((RESULTS / f"{name}-{GPU}.json").read_text(encoding="utf-8"))


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return markdown_table(head, rows).replace("%", " %") + "\n"


def _one(rows: Sequence[dict[str, Any]], **wanted: object) -> dict[str, Any]:
    """The first row with these values."""
    return next(row for row in rows if all(row[name] == value for name, value in wanted.items()))


def gate_table() -> str:
    """Speed of single gates, eager = 1, and share of a copy's bandwidth."""
    results = _read("gate")["gates"]
    rows = []
    for mode, name in (("inference", "inference"), ("training", "forward and backward")):
        for level in range(4):
            eager, compiled, fused = (
                _one(results, mode=mode, level=level, by=by) for by in ("eager", "compile", "fused")
            )
            figures = [f"{row['ms_p50']:.3f}" for row in (eager, compiled, fused)]
            figures += [f"{row['times_as_fast_as_eager']:.2f}" for row in (compiled, fused)]
            size = f"{fused['channels']} at {fused['shape'][-1]}²"
            rows.append([size, name, *figures, f"{fused['share_of_copy']:.0%}"])
    times = ["eager ms", "compiled ms", "fused ms", "compiled × eager", "fused × eager"]
    return _markdown(["gate", "mode", *times, "fused, of copy"], rows)


def training_rows(name: str = "training-sweep") -> list[dict[str, Any]]:
    """The trainings of a sweep that were measured."""
    return [row for row in _read(name)["rows"] if "error" not in row]


def training_table(name: str = "training-sweep") -> str:
    rows = [[cell.format_map(shown(row)) for cell in COLUMNS.values()] for row in training_rows(name)]
    return _markdown(list(COLUMNS), rows)


def kinds_table() -> str:
    """Milliseconds of one step on the device, by kind of kernel."""
    rows = [row for row in training_rows() if row["graph_captured"] and not row["compile"]]
    largest = {
        kind: max(row["kinds_ms"].get(kind, 0.0) for row in rows)
        for kind in sorted({kind for row in rows for kind in row["kinds_ms"]})
    }
    kinds = sorted(largest, key=lambda kind: -largest[kind])
    cells = [[kind, *(f"{row['kinds_ms'].get(kind, 0.0):.1f}" for row in rows)] for kind in kinds]
    return _markdown(["ms of a step", *(f"{row['model']}, batch {row['batch_size']}" for row in rows)], cells)


def inference_table() -> str:
    """Every form of the network, by batch."""
    by = {(row["name"], row["shape"][0]): row for row in _read("inference")["rows"]}
    names, batches = (list(dict.fromkeys(column)) for column in zip(*by, strict=True))
    cells = []
    for name in names:
        rows = [by.get((name, batch)) for batch in batches]  # a form may have failed at one of them
        search = next(row for row in rows if row)["options"].get("cudnn_conv_algo_search", "")
        rates = [f"{row['slices_per_s']:,.0f}" if row else "–" for row in rows]
        cells.append([name, search, f"{rows[0]['p50_ms']:.2f}" if rows[0] else "–", *rates])
    rates = [f"slices/s, batch {batch}" for batch in batches]
    return _markdown(["form", "search", f"p50 ms, batch {batches[0]}", *rates], cells)


def summary_table() -> str:
    """The figures of the README."""

    def times(mode: str, by: str) -> str:
        return f"{_one(gates, mode=mode, by=by, level=0)['times_as_fast_as_eager']:.2f} times"

    def rate(row: dict[str, Any]) -> str:
        return f"{row['slices_per_s']:,.0f}"

    gates, wide = _read("gate")["gates"], {"model": "attention_unet", "width": 64}
    copied = f"{_one(gates, mode='inference', by='fused', level=0)['share_of_copy']:.0%} of copy bandwidth"
    trainings = training_rows()
    small, large = _one(trainings, **wide, batch_size=16), _one(trainings, **wide, batch_size=64, compile=False)
    uncaptured = _one(training_rows("training-sweep-graph"), batch_size=16, cuda_graph=False)
    forms = {row["name"]: row for row in _read("inference")["rows"] if row["shape"][0] == 32}
    onnx = max(row["slices_per_s"] for name, row in forms.items() if name.startswith("cuda fp16"))
    alone, both = "the fused gate, finest level, inference", "the fused gate, finest level, forward and backward"
    rows = [
        [alone, f"{times('inference', 'fused')} eager, {copied}", f"compiled {times('inference', 'compile')}"],
        [both, f"{times('training', 'fused')} eager", f"compiled {times('training', 'compile')}"],
        ["training, batch 16", f"{rate(small)} slices/s", f"without the CUDA graph {rate(uncaptured)}"],
        ["training, batch 64", f"{rate(large)} slices/s", f"{large['matmul_share']:.0%} of the matmul rate"],
        [
            "inference, ONNX Runtime CUDA, fp16, batch 32",
            f"{onnx:,.0f} slices/s",
            f"PyTorch compiled {rate(forms['PyTorch compiled fp16 NHWC'])}",
        ],
    ]
    return _markdown(["what", "figure", "beside"], rows)


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
