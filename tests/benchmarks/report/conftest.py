"""An evaluation whose label maps are known, its report, and a browser without a network."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attunet.benchmarks.evaluation import evaluate as evaluation_module
from attunet.benchmarks.evaluation.models import EvaluatedModel
from attunet.benchmarks.report.write_report import write_report
from attunet.config import DataConfig
from attunet.preparation.prepare import prepare
from attunet.store import Store
from attunet.volumes.model import NetworkModel

CASES = ("01-T2", "02-T2", "03-T2", "04-T2", "05-T2")
WINDOW = (0.0, 1100.0)
PATIENT = "DOE_JANE_19560803"  # of a folder of the source, which must not reach a report
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
GRAPHICS = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist")


def by_brightness(slices: np.ndarray) -> np.ndarray:
    """Logits of the class that a pixel's brightness belongs to; the cases paint class k with 400 + 150 k."""
    intensity = (slices[:, 0] + 1) * WINDOW[1] / 2
    labels = np.clip(np.rint((intensity - 400) / 150), 0, 4).astype(int)
    return np.moveaxis(np.eye(5, dtype=np.float32)[labels], -1, 1)


def without_liver(slices: np.ndarray) -> np.ndarray:
    logits = by_brightness(slices)
    logits[:, 1] = -1
    return logits


def gates(slices: np.ndarray) -> tuple[np.ndarray, ...]:
    """Two maps of which the finer is open where the picture is bright."""
    fine = np.clip((slices[:, 0] + 1) / 2, 0, 1)
    return fine[:, ::2, ::2], fine


def evaluated(name: str, network: Callable[[np.ndarray], np.ndarray], store: Store, **gated: Any) -> EvaluatedModel:
    return EvaluatedModel(
        model=NetworkModel(
            name=name, network=network, spec=store.spec, classes=store.classes, num_parameters=7, **gated
        ),
        name=name,
        path=Path(name),
        backend="numpy",
        provider="cpu",
        precision="fp32",
        file_mb=0.5,
        timed_call=lambda slices: lambda: network(slices),
        options={},
    )


@pytest.fixture(scope="session")
def evaluation(tmp_path_factory: pytest.TempPathFactory, write_case: Callable[..., Any]) -> Path:
    """The folder of an evaluation of a network that is right and of one that never finds the liver."""
    folder = tmp_path_factory.mktemp("report")
    for number, name in enumerate(CASES):
        write_case(folder / PATIENT, name, seed=number)
    store = prepare(
        folder / PATIENT, folder / "abdomen", DataConfig(normalization="ct", window=WINDOW, size=64), folds=3
    )
    made = [
        evaluated("right", by_brightness, store, num_gates=2, maps=gates),
        evaluated("no liver", without_liver, store),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation_module, "load_models", lambda models, **_: made)
        patch.setattr(evaluation_module, "peak_memory_mb", lambda *_, **__: None)
        patch.setattr(evaluation_module, "draw_evaluation", lambda *_, **__: None)
        evaluation_module.evaluate(store.path, [], folder / "evaluation", latency_seconds=0.01)
    return folder / "evaluation"


@pytest.fixture(scope="session")
def report(evaluation: Path) -> Path:
    return write_report(evaluation)


@pytest.fixture(scope="session")
def first_case(evaluation: Path) -> str:
    cases: list[str] = json.loads((evaluation / "results.json").read_text())["store"]["cases"]
    return cases[0]


@pytest.fixture(scope="session")
def report_of_one(evaluation: Path, report: Path, first_case: str) -> Path:
    """A report that has the first case alone to look at."""
    return write_report(evaluation, report.with_name("one.html"), cases=first_case)


@pytest.fixture(scope="module")  # while it runs, nothing else in this process may start an event loop
def browser() -> Iterator[Any]:
    """Headless Chromium; tests are skipped where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=[*sandbox, *GRAPHICS])
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens files with the network off; at the end no request has left and no error was said on the console."""
    said: list[str] = []
    contexts = []

    def open_one(path: Path, address: str = "", *, size: tuple[int, int] = (960, 640), scheme: str = "light") -> Any:
        viewport = {"width": size[0], "height": size[1]}
        context = browser.new_context(viewport=viewport, color_scheme=scheme, offline=True, reduced_motion="reduce")
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        allowed = (path.as_uri(), "data:", "blob:")
        page.on("request", lambda request: None if request.url.startswith(allowed) else said.append(request.url))
        page.goto(path.as_uri() + address)
        if "case=" in address:
            page.wait_for_selector("#stage[data-case]")
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert said == []
