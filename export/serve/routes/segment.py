"""`/v1`: scans in, label maps on their own grid out."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from attunet.export.serve.formats import MEDIA_TYPES, SUMMARY
from attunet.export.serve.refusal import Refusal
from attunet.export.serve.routes.context import receive_and_run, service_of
from attunet.export.serve.routes.description import ERRORS, ModelName
from attunet.export.serve.scans.segment import ending_for, segment

router = APIRouter(tags=["Scans"])

BINARY = {"schema": {"type": "string", "format": "binary"}}
BODY: dict[str, object] = {
    "requestBody": {
        "required": True,
        "description": (
            "A NIfTI file (.nii, .nii.gz), a DICOM file, a zip of one DICOM series, or a picture; or a form with one "
            "file, or with one "
            "file per channel in order. The file's beginning tells its format, not its name."
        ),
        "content": {
            "application/octet-stream": BINARY,
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["scan"],
                    "properties": {"scan": {"type": "string", "format": "binary"}},
                }
            },
        },
    }
}
ANSWER: dict[int | str, dict[str, object]] = {
    200: {
        "description": "The label map, or with `answer=summary` its volumes and the scan's findings.",
        "content": {
            **dict.fromkeys(MEDIA_TYPES.values(), BINARY),
            SUMMARY: {"schema": {"type": "object"}},
        },
        "headers": {
            "X-Attunet-Volumes": {"description": "Amount of every class, as JSON", "schema": {"type": "string"}},
            "X-Attunet-Findings": {
                "description": "Differences from the training, as JSON",
                "schema": {"type": "string"},
            },
            "X-Attunet-Confidence": {
                "description": (
                    "As JSON, of an artefact with an estimator: review, and each organ's estimated Dice with a range"
                ),
                "schema": {"type": "string"},
            },
            "X-Attunet-Model-SHA256": {"description": "Hash of the artefact", "schema": {"type": "string"}},
        },
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
    model, ending = service.model(name), ending_for(request.headers.get("accept", ""))
    if answer == "summary":
        ending = SUMMARY
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(415, "Content-Encoding: must be identity; a scan may be gzipped itself (.nii.gz)")
    user = "".join(c for c in request.headers.get("x-attunet-user", "") if c.isprintable())[:128] or None
    result, ticket = await receive_and_run(
        request,
        model,
        lambda upload, folder, ticket: segment(model, upload.files, folder, ending, ticket, service.settings, user),
    )
    headers = result.headers(model)
    if ending == SUMMARY:
        return JSONResponse(result.summary(model, ticket.seconds), headers=headers)
    return Response(result.content, media_type=result.media_type, headers=headers)
