"""`attunet serve`: artefacts behind an HTTP server."""

from contextlib import nullcontext
from pathlib import Path

import click

from attunet.launch.exit_codes import debug_option
from attunet.launch.options import PATH, signature_option

PROVIDERS = ("cpu", "cuda", "tensorrt", "openvino")


@click.command("serve", short_help="An HTTP server for artefacts.")
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Where to listen; another one than this machine needs a token.",
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one and prints it."
)
@click.option("--provider", type=click.Choice(PROVIDERS), default="cpu", show_default=True)
@click.option("--threads", type=click.IntRange(1, 4096), help="CPU threads of a network.  [default: one per core]")
@click.option(
    "--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Networks that run at the same time."
)
@click.option(
    "--max-queue",
    type=click.IntRange(0),
    default=16,
    show_default=True,
    help="Scans that wait; more get 503 and Retry-After.",
)
@click.option("--max-mb", type=click.IntRange(1), default=512, show_default=True, help="Size of a body.")
@click.option(
    "--max-unpacked-mb",
    type=click.IntRange(1),
    default=2048,
    show_default=True,
    help="Size of what a zip archive holds.",
)
@click.option(
    "--max-memory-mb",
    type=click.IntRange(1),
    default=8192,
    show_default=True,
    help="That a scan may need, by its header.",
)
@click.option(
    "--max-megapixels", type=click.IntRange(1), default=512, show_default=True, help="Of a scan, on the network's grid."
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=300.0,
    show_default=True,
    metavar="S",
    help="Of a request, in seconds.",
)
@click.option(
    "--token-file", type=PATH, metavar="FILE", help="Clients must send its content as Authorization: Bearer TOKEN."
)
@click.option("--insecure", is_flag=True, help="Let other machines in without a token.")
@click.option("--temp", type=PATH, metavar="DIR", help="For uploads.  [default: the system's folder]")
@click.option("--log-json", is_flag=True, help="Lines of JSON instead of plain lines.")
@signature_option
@click.option(
    "--audit", type=PATH, metavar="LOG", help="Record every scan in this log; clients name a user as X-Attunet-User."
)
@debug_option
def serve_command(
    models: tuple[str, ...],
    host: str,
    port: int,
    provider: str,
    threads: int | None,
    workers: int,
    max_queue: int,
    max_mb: int,
    max_unpacked_mb: int,
    max_memory_mb: int,
    max_megapixels: int,
    timeout: float,
    token_file: Path | None,
    insecure: bool,
    temp: Path | None,
    log_json: bool,
    public_key: Path | None,
    audit: Path | None,
) -> None:
    """Serve each MODEL, an .onnx under its file's name or NAME=FILE:
    whole scans in and label maps out, and the Open Inference Protocol.

    http://HOST:PORT/ is a page to try it, /docs describes it, /metrics is for Prometheus. It takes uploads into a
    private folder that is emptied on any end. SIGTERM lets running requests finish.
    """
    from attunet.export.serve.logs import json_log
    from attunet.export.serve.server import serve
    from attunet.export.serve.settings import Settings, check_reachable, read_token

    settings = Settings(
        host=host,
        port=port,
        token=read_token(token_file) if token_file else None,
        max_mb=max_mb,
        max_unpacked_mb=max_unpacked_mb,
        max_memory_mb=max_memory_mb,
        max_megapixels=max_megapixels,
        max_queue=max_queue,
        workers=workers,
        timeout_s=timeout,
        temp=temp,
    )
    check_reachable(settings, insecure=insecure)
    with json_log() if log_json else nullcontext():
        serve(models, settings, provider=provider, num_threads=threads, public_key=public_key, audit=audit)
