"""`/v1`: scans in, label maps on their own grid out."""

from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from attunet.export.serve.formats import MEDIA_TYPES, SUMMARY
from attunet.export.serve.refusal import Refusal
from attunet.export.serve.routes.context import audit_of, receive_and_run, service_of
from attunet.export.serve.routes.description import BINARY, ERRORS, TEXT, ModelName, json_object
from attunet.export.serve.scans.segment import Answer, ending_for, recorded, segment
from attunet.export.serve.scans.upload import Upload
from attunet.export.serve.work.queue import Ticket

router = APIRouter(tags=["Scans"])

BODY: dict[str, object] = {
    "requestBody": {
        "required": True,
        "description": (
            "A NIfTI file (.nii, .nii.gz), an NRRD, MHA or MGZ file, a DICOM file, a zip of one DICOM series, or a "
            "picture; or a form with one file, or with one file per channel in order. The file's beginning tells its "
            "format, not its name."
        ),
        "content": {
            "application/octet-stream": {"schema": BINARY},
            "multipart/form-data": {"schema": json_object(("scan",), scan=BINARY)},
        },
    }
}
HEADERS = {
    "X-Attunet-Volumes": "As JSON: unit, and in volumes the amount of every class",
    "X-Attunet-Findings": "Differences from the training, as JSON",
    "X-Attunet-Decisions": "How the scan was read where another program could read it otherwise, as JSON; if it was",
    "X-Attunet-Confidence": (
        "As JSON, of an artefact with an estimator: review, and each organ's estimated Dice with a range"
    ),
    "X-Attunet-Model-SHA256": "Hash of the artefact",
}
ANSWER: dict[int | str, dict[str, object]] = {
    200: {
        "description": "The label map, or with `answer=summary` its volumes and the scan's findings.",
        "content": {
            **{media_type: {"schema": BINARY} for media_type in MEDIA_TYPES.values()},
            SUMMARY: {"schema": {"type": "object"}},
        },
        "headers": {name: {"description": text, "schema": TEXT} for name, text in HEADERS.items()},
    }
}


@router.get("/v1/models", summary="The models that are served", responses=ERRORS)
def models(request: Request) -> JSONResponse:
    return JSONResponse({"models": [model.describe() for model in service_of(request).models.values()]})


@router.post(
    "/v1/models/{name}/segment",
    summary="Segment a scan",
    response_class=Response,
    responses={**ANSWER, **ERRORS},
    openapi_extra=BODY,
)
async def segment_scan(
    name: ModelName,
    request: Request,
    answer: Annotated[
        Literal["labels", "summary"], Query(description="The label map, or volumes and findings alone")
    ] = "labels",
) -> Response:
    service = service_of(request)
    model = service.model(name)
    accepted = ending_for(request.headers.get("accept", ""))
    ending = SUMMARY if answer == "summary" else accepted
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(415, "Content-Encoding: must be identity; a scan may be gzipped itself (.nii.gz)")
    audit = audit_of(request, model)

    def work(upload: Upload, ticket: Ticket) -> tuple[Answer, int]:
        segmented = partial(segment, model, upload, ending, ticket, service.settings)
        result = recorded(audit, upload.files, segmented, lambda one: one.facts)
        return result, len(result.content)

    result, ticket = await receive_and_run(request, model, work)
    headers = result.headers(model)
    if ending == SUMMARY:
        return JSONResponse(result.summary(model, ticket.seconds), headers=headers)
    return Response(result.content, media_type=result.media_type, headers=headers)
