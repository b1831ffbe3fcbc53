"""A client of the server, with httpx (the extra `client`)."""

import logging
import re
import socket
import ssl
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from attunet.errors import InputError, RunError, one_line
from attunet.export.runtime.case_output import CaseOutput
from attunet.export.runtime.origin import Origin, check_place, hash_of_files
from attunet.export.serve.answer import MAX_LINE, Answer, Response, answer_of, description_of, reason_of, write_labels
from attunet.export.serve.formats import MEDIA_TYPES, SUMMARY, ModelDescription
from attunet.export.serve.settings import MB
from attunet.fields import Fields, parse_json
from attunet.io.dicom.series import series_files
from attunet.sources.channel_files import in_order
from attunet.system.atomic_files import write_error
from attunet.system.private_folder import PrivateFolder

logger = logging.getLogger(__name__)

MAX_ANSWER_MB = 1024  # label maps are compressed, or as large as the scan
MAX_JSON_MB = 4  # parsed, JSON takes up to twenty times its bytes
ONE_USE = httpx.Limits(max_keepalive_connections=0)  # each request has a socket of its own, which its time limit closes


class Client:
    """A connection to a server; may be used from several threads, and as a context that closes it.

    Args:
        url: of the server, as it prints it.
        token: content of the server's token file.
        timeout_s: for one request. retry_s: time for further tries while the server's queue is full.
    """

    def __init__(self, url: str, *, token: str | None = None, timeout_s: float = 600.0, retry_s: float = 600.0) -> None:
        headers = {"Authorization": f"Bearer {token.strip()}"} if token else {}
        self.url, self._timeout_s, self._retry_s = url.rstrip("/"), timeout_s, retry_s
        self._closed, self._running = threading.Event(), set[Callable[[], None]]()  # that end the requests
        if not self.url.startswith(("http://", "https://")):
            raise InputError(f"{url}: a server's address must begin with http:// or https://")
        tls = _tls() if self.url.startswith("https://") else True
        try:
            self._http = httpx.Client(
                base_url=self.url,
                headers=headers,
                timeout=timeout_s,
                trust_env=False,  # no proxy of the environment sees a scan
                verify=tls,
                limits=ONE_USE,
            )
        except (httpx.InvalidURL, ValueError, UnicodeError) as error:
            raise InputError(f"{url}: is no address of a server: {error}") from None

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End what is running in other threads too, with a RunError there."""
        self._closed.set()
        for end in list(self._running):
            end()
        self._http.close()

    def models(self) -> list[ModelDescription]:
        """The served models: name, hash, precision, provider, classes."""
        response = self._send("GET", "/v1/models")
        with self._no_server():
            answer = Fields(parse_json(response.content), self.url)
            return [description_of(row) for row in answer.rows("models")]

    def model(self, name: str | None = None) -> ModelDescription:
        """A served model, or the only one. Raises InputError for an unknown name, or without one for several models."""
        models = self.models()
        chosen = [model for model in models if name in (None, model["name"])]
        if len(chosen) != 1:
            names = ", ".join(model["name"] for model in models)
            wrong = "say which model is meant" if name is None else f"not {name!r}"
            raise InputError(f"{self.url}: serves {names[:MAX_LINE]}; {wrong}")
        return chosen[0]

    def segment(
        self,
        scan: str | Path | Sequence[str | Path],
        out: str | Path | None = None,
        *,
        model: str | None = None,
        model_sha256: str | None = None,
    ) -> Answer:
        """Segment a scan, and write the label map to `out`, with the hidden file of its origin.

        Args:
            scan: a file in a format that the server reads, the folder of a DICOM series, or one file for each channel:
                in the model's order, or in any if the files' names end in those of the channels.
            out: its ending chooses the format; without it only the answer has the label map, in the scan's format.
            model: name of a served model; needed where several are served. model_sha256: hash that it must have.

        Raises:
            InputError: for a scan that the server refuses (its line), a wrong token, an unknown model, or an `out` that
                cannot be written.
            RunError: the server cannot be reached, fails, stays busy, or serves another model than `model_sha256`; the
                disk is full.
        """
        files = [Path(one) for one in ([scan] if isinstance(scan, str | Path) else scan)]
        accept = _accept(Path(out), files) if out is not None else "*/*"
        if not model or len(files) > 1:
            described = self.model(model)
            model, files = described["name"], in_order(files, described["channel_names"])
        with self._no_server():
            address = f"/v1/models/{quote(model, safe='')}/segment"
        scan_sha256 = hash_of_files(files)  # before a series is zipped: what changes meanwhile is seen at the end
        with _sendable(files) as sendable:
            try:
                response = self._send("POST", address, sendable, accept)
            except InputError as error:
                raise InputError(f"{files[0]}: {error}") from None
        with self._no_server():
            answer = answer_of(response, self.url, accept)
        if model_sha256 not in (None, answer.model_sha256):
            raise RunError(f"{self.url}: its model {model} is another one now, SHA-256 {answer.model_sha256[:64]}")
        if out is not None:
            origin = Origin(answer.model_sha256, scan_sha256)
            origin.check_scan(files)
            with CaseOutput(Path(out)) as output, output.errors_by_name():
                with self._no_server():
                    write_labels(answer.content, output.draft)
                output.publish(origin)
        return answer

    def _send(self, method: str, address: str, files: Sequence[Path] = (), accept: str = SUMMARY) -> Response:
        """The response of status 200; while the server is busy, further tries at the time that it names."""
        until = time.monotonic() + self._retry_s
        while not self._closed.is_set():
            response = self._exchange(method, address, files, accept)
            if response.status == 200:
                return response
            wait = response.headers.get("retry-after", "")
            pause = max(1, int(wait)) if re.fullmatch(r"[0-9]{1,6}", wait) else None
            if response.status != 503 or pause is None or time.monotonic() + pause >= until:
                kind = RunError if response.status >= 500 else InputError
                raise kind(f"{reason_of(response.content)} (status {response.status} of {self.url})")
            logger.info(f"{self.url}: busy, trying again in {pause} s")
            self._closed.wait(pause)
        raise RunError(f"{self.url}: the connection was closed")

    def _exchange(self, method: str, address: str, files: Sequence[Path], accept: str) -> Response:
        """One request: a file as the body, several as a form."""
        headers = {"Accept": accept, "Accept-Encoding": "identity"}  # what is inflated has no bound
        with ExitStack() as stack:
            opened = [stack.enter_context(file.open("rb")) for file in files]
            body: dict[str, Any] = {}
            if len(opened) == 1:
                body["content"] = opened[0]
            elif opened:
                body["files"] = [("scan", (f"channel-{n}", file)) for n, file in enumerate(opened)]
            body["extensions"] = stack.enter_context(self._time_limit())
            response = stack.enter_context(self._http.stream(method, address, headers=headers, **body))
            content = bytearray()
            max_mb = MAX_JSON_MB if accept == SUMMARY or response.status_code != 200 else MAX_ANSWER_MB
            for chunk in response.iter_raw():
                content += chunk
                if len(content) > max_mb * MB:
                    raise RunError(f"{self.url}: its answer is larger than {max_mb} MB")
            return Response(response.status_code, response.headers, bytes(content))

    @contextmanager
    def _time_limit(self) -> Iterator[dict[str, object]]:
        """Context of a request, with its extensions of httpx, whose own limit is of each read: a server may send bytes
        for ever. Raises RunError for errors of httpx.
        """
        sockets: list[socket.socket] = []
        over = threading.Event()

        def note(event: str, about: Mapping[str, Any]) -> None:
            if event.endswith(("connect_tcp.complete", "start_tls.complete")):
                sockets.append(about["return_value"].get_extra_info("socket"))
                if over.is_set():
                    end()

        def end() -> None:
            over.set()
            for one in sockets:
                with suppress(OSError):  # the one below TLS is closed already
                    one.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(self._timeout_s, end)
        timer.daemon = True
        timer.start()
        self._running.add(end)
        try:
            yield {"trace": note}
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = f"{type(error).__name__}: {error or 'no answer'}"
            late = f"its answer was not whole within {self._timeout_s:g} s"
            ended = "the connection was closed" if self._closed.is_set() else late
            raise RunError(f"{self.url}: {ended if over.is_set() else reason}") from None
        finally:
            timer.cancel()
            self._running.discard(end)

    @contextmanager
    def _no_server(self) -> Iterator[None]:
        """Raises RunError for an answer that is not as the server writes it."""
        try:
            yield
        except (KeyError, ValueError, TypeError) as error:
            raise RunError(f"{self.url}: is no server of attunet: {one_line(error)}") from None


def _tls() -> ssl.SSLContext:
    """TLS by the authorities that SSL_CERT_FILE or SSL_CERT_DIR names, as a hospital's own, or by the usual ones."""
    try:
        return httpx.create_ssl_context()
    except OSError as error:
        raise InputError(f"SSL_CERT_FILE or SSL_CERT_DIR: the authorities cannot be read: {one_line(error)}") from None


def _accept(out: Path, scan: Sequence[Path]) -> str:
    """The media type of a label map, whose folder is made. Raises InputError for a file that cannot be written."""
    media_type = next((MEDIA_TYPES[ending] for ending in MEDIA_TYPES if out.name.lower().endswith(ending)), None)
    if media_type is None:
        raise InputError(f"{out}: the label map's name must end in {', '.join(MEDIA_TYPES)}")
    if out.is_dir():
        raise InputError(f"{out}: must be the name of a file, and is a folder")
    check_place(out, scan)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(out, error) from None
    return media_type


@contextmanager
def _sendable(scan: Sequence[Path]) -> Iterator[Sequence[Path]]:
    """The scan as files: the DICOM files of a folder are zipped under numbers for names."""
    if all(path.is_file() for path in scan):
        yield scan
        return
    folder = scan[0]
    slices = series_files(folder) if folder.is_dir() else []
    if not slices or len(scan) > 1:
        raise InputError(f"{folder}: must be a file, or the folder of a DICOM series")
    with PrivateFolder() as temporary:
        archive = temporary.path / "series.zip"
        try:
            with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as zipped:
                for number, path in enumerate(slices):
                    zipped.write(path, f"{number:05d}.dcm")
        except OSError as error:
            raise write_error(archive, error) from None
        yield [archive]
