"""`/v2`: the Open Inference Protocol, so that its clients, Triton's among them, work unchanged."""

import gzip
import hashlib
import zlib
from functools import partial

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import Headers

from attunet.errors import InputError, TooLarge
from attunet.export.artefact.graph_tensors import INPUT, LABELS, SPACING, VOLUME, Tensor
from attunet.export.serve.refusal import TOO_LARGE, Refusal
from attunet.export.serve.routes.context import audit_of, receive_and_run, service_of
from attunet.export.serve.routes.description import BINARY, ERRORS, JSON, TEXT, ModelName, json_object
from attunet.export.serve.routes.tensors import DTYPES, InferenceRequest, inflate, read_request, write_answer
from attunet.export.serve.scans.needs import BATCH, check_oriented, feature_bytes
from attunet.export.serve.scans.segment import recorded
from attunet.export.serve.scans.upload import Upload
from attunet.export.serve.settings import MB, Settings
from attunet.export.serve.work.queue import Ticket
from attunet.export.serve.work.served_model import ServedModel
from attunet.version import __version__
from attunet.volumes.predict import MAX_BATCH_PIXELS, MAX_PIXELS, slices_in_batch

router = APIRouter(tags=["Open Inference Protocol"], responses=ERRORS)

VERSION = "1"
JSON_BYTES = "Inference-Header-Content-Length"
BYTES = "application/octet-stream"
PARAMETERS = {"type": "object"}
TENSOR = json_object(
    ("name", "shape", "datatype"),
    name=TEXT,
    shape={"type": "array", "items": {"type": "integer", "minimum": 1}},
    datatype={**TEXT, "enum": list(DTYPES)},
    parameters=PARAMETERS,
    data={"type": "array", "items": {}},
)
OUTPUT = json_object(("name",), name=TEXT, parameters=PARAMETERS)
REQUEST = json_object(
    ("inputs",),
    id=TEXT,
    inputs={"type": "array", "items": TENSOR},
    outputs={"type": "array", "items": OUTPUT},
    parameters=PARAMETERS,
)
BODY: dict[str, object] = {
    "requestBody": {
        "required": True,
        "description": f"JSON; with tensors as bytes behind it, its length is in the header {JSON_BYTES}.",
        "content": {JSON: {"schema": REQUEST}, BYTES: {"schema": BINARY}},
    }
}


@router.get("/v2", summary="The server")
def server() -> JSONResponse:
    extensions = ["binary_tensor_data", "model_configuration"]
    return JSONResponse({"name": "attunet", "version": __version__, "extensions": extensions})


@router.get("/v2/health/live", summary="State of the server: does it run")
def live() -> JSONResponse:
    return JSONResponse({"live": True})


@router.get("/v2/health/ready", summary="State of the server: does it take scans")
def ready(request: Request) -> JSONResponse:
    service_of(request).check_running()
    return JSONResponse({"ready": True})


@router.get("/v2/models/{name}", summary="A model's tensors")
@router.get("/v2/models/{name}/versions/{version}", include_in_schema=False)
def model_metadata(name: ModelName, request: Request, version: str = VERSION) -> JSONResponse:
    about = _model(request, name, version).segmenter.metadata

    def rows(tensors: list[Tensor]) -> list[dict[str, object]]:
        return [{"name": one.name, "datatype": one.datatype, "shape": list(one.shape)} for one in tensors]

    tensors = {"inputs": rows(about.inputs), "outputs": rows(about.output_tensors)}
    return JSONResponse({"name": name, "versions": [VERSION], "platform": "attunet_onnx", **tensors})


@router.get("/v2/models/{name}/ready", summary="State of a model: does it take slices")
@router.get("/v2/models/{name}/versions/{version}/ready", include_in_schema=False)
def model_ready(name: ModelName, request: Request, version: str = VERSION) -> JSONResponse:
    _model(request, name, version)
    service_of(request).check_running()
    return JSONResponse({"name": name, "ready": True})


@router.get("/v2/models/{name}/config", summary="A model's configuration, as Triton gives it")
@router.get("/v2/models/{name}/versions/{version}/config", include_in_schema=False)
def model_config(name: ModelName, request: Request, version: str = VERSION) -> JSONResponse:
    about = _model(request, name, version).segmenter.metadata

    def rows(tensors: list[Tensor]) -> list[dict[str, object]]:
        return [{"name": one.name, "data_type": f"TYPE_{one.datatype}", "dims": list(one.shape)} for one in tensors]

    tensors = {"input": rows(about.inputs), "output": rows(about.output_tensors)}
    general = {"name": name, "platform": "attunet_onnx", "backend": "attunet", "max_batch_size": 0}
    return JSONResponse({**general, **tensors})


@router.post("/v2/repository/index", summary="The models that are served, as Triton gives them")
def index(request: Request) -> JSONResponse:
    return JSONResponse([{"name": name, "version": VERSION, "state": "READY"} for name in service_of(request).models])


@router.post("/v2/models/{name}/infer", summary="Run a model's graph", response_class=Response, openapi_extra=BODY)
@router.post("/v2/models/{name}/versions/{version}/infer", include_in_schema=False)
async def infer(name: ModelName, request: Request, version: str = VERSION) -> Response:
    model, settings = _model(request, name, version), service_of(request).settings
    audit, headers = audit_of(request, model), request.headers

    def work(upload: Upload, ticket: Ticket) -> tuple[Response, int]:
        inferred = partial(_infer, model, headers, settings, upload, ticket)
        answer = recorded(audit, upload.files, inferred, lambda one: (hashlib.sha256(one.body).hexdigest(), (), None))
        return answer, len(answer.body)

    response, _ = await receive_and_run(request, model, work)
    return response


def _model(request: Request, name: str, version: str) -> ServedModel:
    if version != VERSION:
        raise Refusal(404, f"version: a model has the version {VERSION} alone, got {version[:40]!r}")
    return service_of(request).model(name)


def _infer(model: ServedModel, headers: Headers, settings: Settings, upload: Upload, ticket: Ticket) -> Response:
    if len(upload.files) != 1:
        raise Refusal(400, "body: must be one request, not a form")
    try:
        with ticket.stage("read"):
            body = inflate(upload.files[0], headers.get("content-encoding", "").lower(), settings.max_mb)
            request = read_request(body, headers.get(JSON_BYTES), model.segmenter.metadata)
        with ticket.stage("network"):
            results = _run(model, request, settings, ticket)
    except TooLarge:
        raise
    except InputError as error:
        raise Refusal(400, str(error).replace(f"{model.segmenter.path}: ", "inputs: ")) from None
    with ticket.stage("write"):
        return _response(*write_answer(model.name, request, results), headers.get("accept-encoding", ""))


def _response(content: bytes, json_bytes: int | None, accepted: str) -> Response:
    headers, accepted = {} if json_bytes is None else {JSON_BYTES: str(json_bytes)}, accepted.strip().lower()
    if accepted in ("gzip", "deflate"):  # Triton's client names one where it wants one; browsers name several
        content = gzip.compress(content, 1) if accepted == "gzip" else zlib.compress(content, 1)
        headers["Content-Encoding"] = accepted
    return Response(content, media_type=JSON if json_bytes is None else BYTES, headers=headers)


def _run(model: ServedModel, request: InferenceRequest, settings: Settings, ticket: Ticket) -> dict[str, np.ndarray]:
    if model.segmenter.metadata.whole:
        volume, spacing = request.inputs[VOLUME], request.inputs[SPACING]
        if spacing.min() <= 0:
            raise Refusal(400, "inputs: spacing must be three numbers above 0")
        check_oriented(volume.shape[1:], spacing.tolist(), model.segmenter.metadata, settings)
        with ticket.stopping(), model.turns:
            return {LABELS: model.segmenter.segment_oriented(volume, spacing, stop=ticket.stop)}
    _check_slices(model, request, settings)
    return _run_slices(model, request, ticket)


def _check_slices(model: ServedModel, request: InferenceRequest, settings: Settings) -> None:
    slices = request.inputs[INPUT]
    num, channels, height, width = slices.shape
    numbers = sum(len(model.segmenter.classes) if name != "labels" else 1 for name in request.outputs) + channels
    pixels, batch = num * height * width, min(num * height * width, max(MAX_BATCH_PIXELS, height * width))
    memory = 2 * 4 * numbers * pixels + feature_bytes(model.segmenter.metadata) * batch
    if height * width > MAX_PIXELS or pixels > settings.max_megapixels * MB or memory > settings.max_memory_mb * MB:
        raise Refusal(
            TOO_LARGE,
            f"inputs: {num} slices of {height} × {width} are too large: at most {MAX_PIXELS:,} pixels a slice, "
            f"{settings.max_megapixels:,} megapixels and {settings.max_memory_mb:,} MB of memory are accepted",
        )


def _run_slices(model: ServedModel, request: InferenceRequest, ticket: Ticket) -> dict[str, np.ndarray]:
    """The requested outputs, computed batch by batch to bound the memory beyond the tensors themselves."""
    slices, names = request.inputs[INPUT], tuple(request.outputs)
    batch = slices_in_batch(slices.shape[2:], BATCH)
    parts = []
    for start in range(0, len(slices), batch):
        ticket.check()
        parts.append(model.run(names, slices[start : start + batch]))
    results = {name: np.concatenate([part[index] for part in parts]) for index, name in enumerate(names)}
    if not all(np.isfinite(array).all() for array in results.values()):
        raise Refusal(422, "inputs: the network's answer is not finite for these slices")
    return results
