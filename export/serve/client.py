"""A client of the server, with httpx (the extra `client`)."""

import logging
import re
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from attunet.errors import InputError, RunError
from attunet.export.serve.formats import MEDIA_TYPES, ModelDescription
from attunet.fields import JsonObject, parse_json
from attunet.io.dicom.file import is_dicom
from attunet.system.atomic_files import write_file

logger = logging.getLogger(__name__)

CHUNK = 2**20


@dataclass(frozen=True)
class Answer:
    """The result of a scan. volumes: amount of every foreground class in `unit`, ml or voxels.

    findings: warnings of the server.

    content: the label map's file; nothing for a summary. model_sha256: of the artefact that gave it.
    confidence: `{"review": true where a person should look, "organs": {name: [estimated Dice, low, high]}}`; None where
    the artefact has no estimator.
    """

    content: bytes
    unit: str
    volumes: Mapping[str, float]
    findings: tuple[Mapping[str, str | float], ...]
    model_sha256: str
    confidence: JsonObject | None = None


class Client:
    """A connection to a server; may be used from several threads, and as a context that closes it.

    Example:
        >>> with Client("http://localhost:8000", token="...") as client:  # doctest: +SKIP
        ...     answer = client.segment("scan.nii.gz", "labels.nii.gz")
        ...     answer.volumes["liver"]

    Args:
        url: Of the server, as it prints it.
        token: The content of the server's token file.
        timeout_s: For one request. retry_s: How long to try again while the server's queue is full.
    """

    def __init__(self, url: str, *, token: str | None = None, timeout_s: float = 600.0, retry_s: float = 600.0) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.url, self._retry_s = url.rstrip("/"), retry_s
        if not self.url.startswith(("http://", "https://")):
            raise InputError(f"{url}: a server's address must begin with http:// or https://")
        try:
            self._http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout_s, trust_env=False)
        except (httpx.InvalidURL, ValueError, UnicodeError) as error:
            raise InputError(f"{url}: is no address of a server: {error}") from None

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def models(self) -> list[ModelDescription]:
        """The served models: name, hash, precision, provider, classes."""
        response = self._send(lambda: self._http.get("/v1/models"))
        return list(parse_json(response.content)["models"])

    def model(self, name: str | None = None) -> ModelDescription:
        """A served model's description; without a name the only one's.
        Raises InputError for an unknown name, or several models.
        """
        models = self.models()
        chosen = [model for model in models if name in (None, model["name"])]
        if len(chosen) != 1:
            names = ", ".join(model["name"] for model in models)
            raise InputError(
                f"{self.url}: serves {names}; {'say which model is meant' if name is None else f'not {name!r}'}"
            )
        return chosen[0]

    def segment(
        self, scan: str | Path | Sequence[Path], out: str | Path | None = None, *, model: str | None = None
    ) -> Answer:
        """Sends a scan; writes the label map to `out`, beside it first and renamed when it is whole.

        Args:
            scan: A file in a format that the server reads, the folder of a DICOM series, or one file for each channel.
            out: Its ending chooses the format; without it the answer alone has the label map, in the scan's usual
                format.
            model: A served model's name; may be left out where one is served.

        Raises:
            InputError: For a scan that the server refuses (its line), a wrong token, or an unknown model.
            RunError: Where the server cannot be reached, fails, or stays busy.
        """
        response = self._post(scan, model, "labels", _accept(Path(out)) if out is not None else "*/*")
        answer = _answer(response)
        if out is not None:
            content = answer.content
            write_file(Path(out), lambda temporary: temporary.write_bytes(content))
        return answer

    def summarize(self, scan: str | Path | Sequence[Path], *, model: str | None = None) -> Answer:
        """Volumes and findings of a scan, without its label map."""
        return _answer(self._post(scan, model, "summary", "application/json"))

    def _post(self, scan: str | Path | Sequence[Path], model: str | None, answer: str, accept: str) -> httpx.Response:
        name = model or self.model()["name"]
        with _sendable([Path(scan)] if isinstance(scan, str | Path) else list(scan)) as files:

            def post() -> httpx.Response:
                headers, url = {"Accept": accept}, f"/v1/models/{name}/segment"
                if len(files) == 1:
                    headers["Content-Length"] = str(files[0].stat().st_size)
                    return self._http.post(url, params={"answer": answer}, content=_chunks(files[0]), headers=headers)
                with ExitStack() as stack:
                    parts = [
                        ("scan", (f"channel-{n}", stack.enter_context(file.open("rb")))) for n, file in enumerate(files)
                    ]
                    return self._http.post(url, params={"answer": answer}, files=parts, headers=headers)

            try:
                return self._send(post)
            except InputError as error:
                raise InputError(f"{scan}: {error}") from None

    def _send(self, request: Callable[[], httpx.Response]) -> httpx.Response:
        """The response of status 200; while the server is busy, tries again when it says."""
        until = time.monotonic() + self._retry_s
        while True:
            try:
                response = request()
            except httpx.HTTPError as error:
                raise RunError(f"{self.url}: {type(error).__name__}: {error or 'no answer'}") from None
            wait = response.headers.get("retry-after", "")
            if (
                response.status_code == 503
                and re.fullmatch(r"[0-9]{1,6}", wait)
                and time.monotonic() + int(wait) < until
            ):
                logger.info("%s: busy, trying again in %s s", self.url, wait)
                time.sleep(int(wait))
                continue
            if response.status_code == 200:
                return response
            kind = RunError if response.status_code >= 500 else InputError
            raise kind(f"{_line(response)} (status {response.status_code} of {self.url})")


def _line(response: httpx.Response) -> str:
    try:
        return " ".join(str(parse_json(response.content)["error"]).split())
    except (ValueError, KeyError, TypeError):
        return "no reason given"


def _accept(out: Path) -> str:
    for ending, media_type in MEDIA_TYPES.items():
        if out.name.lower().endswith(ending):
            return media_type
    raise InputError(f"{out}: the label map's name must end in {', '.join(MEDIA_TYPES)}")


@contextmanager
def _sendable(scan: Sequence[Path]) -> Iterator[Sequence[Path]]:
    """The scan as files: the DICOM files of a folder are zipped under numbers for names."""
    if all(path.is_file() for path in scan):
        yield scan
        return
    folder = scan[0]
    slices = sorted(path for path in folder.iterdir() if path.is_file() and is_dicom(path)) if folder.is_dir() else []
    if not slices or len(scan) > 1:
        raise InputError(f"{folder}: must be a file, or the folder of a DICOM series")
    with TemporaryDirectory(prefix="attunet-client-") as temporary:
        archive = Path(temporary) / "series.zip"
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as zipped:
            for number, path in enumerate(slices):
                zipped.write(path, f"{number:05d}.dcm")
        yield [archive]


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _answer(response: httpx.Response) -> Answer:
    headers = response.headers
    try:
        amounts = dict(parse_json(headers["x-attunet-volumes"]))
        findings = tuple(parse_json(headers["x-attunet-findings"]))
        is_summary = headers["content-type"] == "application/json"
        return Answer(
            content=b"" if is_summary else response.content,
            unit=amounts.pop("unit"),
            volumes=amounts,
            findings=findings,
            model_sha256=headers["x-attunet-model-sha256"],
            confidence=dict(parse_json(headers["x-attunet-confidence"])) if "x-attunet-confidence" in headers else None,
        )
    except (KeyError, ValueError, TypeError) as error:
        raise RunError(f"{response.url.host}: is no server of attunet: {type(error).__name__}: {error}") from None
