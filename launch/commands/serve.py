"""`attunet serve`: artefacts behind an HTTP server."""

from contextlib import nullcontext
from functools import partial
from pathlib import Path

import click
from click import option

from attunet.launch.exit_codes import debug_option
from attunet.launch.options import PATH, PROVIDER, Number, Value, signature_option


@click.command("serve", short_help="An HTTP server for artefacts.")
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@option("--host", default="127.0.0.1", help="Address to listen on; another one than this machine's own needs a token.")
@option("--port", type=click.IntRange(0, 65535), default=8000, help="0 takes a free one and prints it.")
@option("--provider", type=PROVIDER, default="cpu")
@option(
    "--threads",
    "num_threads",
    type=click.IntRange(1, 4096),
    help="CPU threads of a network.  [default: one per core for all WORKERS together]",
)
@option("--workers", type=click.IntRange(1, 64), default=1, help="Networks that run at the same time.")
@option("--max-queue", type=click.IntRange(0), default=16, help="Scans that wait; more get 503 and Retry-After.")
@option("--max-mb", type=click.IntRange(1), default=512, help="Size of a body.")
@option("--max-unpacked-mb", type=click.IntRange(1), default=2048, help="Size of what a zip archive holds.")
@option("--max-memory-mb", type=click.IntRange(1), default=8192, help="That a scan may need, by its header.")
@option("--max-megapixels", type=click.IntRange(1), default=512, help="Of a scan, on the network's grid.")
@option("--timeout", "timeout_s", type=Number(1, 86_400), default=300.0, metavar="S", help="Of a request, in seconds.")
@option("--token-file", type=PATH, metavar="FILE", help="Clients must send its content as Authorization: Bearer TOKEN.")
@option("--insecure", is_flag=True, help="Let other machines in without a token.")
@option("--temp", type=PATH, metavar="DIR", help="For uploads.  [default: the system's folder]")
@option("--log-json", is_flag=True, help="Lines of JSON instead of plain lines.")
@signature_option
@option(
    "--audit", type=PATH, metavar="LOG", help="Record every scan in this log; clients name a user as X-Attunet-User."
)
@debug_option
def serve_command(
    models: tuple[str, ...],
    provider: str,
    num_threads: int | None,
    token_file: Path | None,
    insecure: bool,
    log_json: bool,
    public_key: Path | None,
    audit: Path | None,
    **limits: Value,
) -> None:
    """Serve each MODEL, an .onnx under its file's name or NAME=FILE:
    whole scans in and label maps out, and the Open Inference Protocol.

    http://HOST:PORT/ is a page to try it, /docs describes it, /metrics is for Prometheus. It takes uploads into a
    private folder that is emptied on any end. SIGTERM lets running requests finish.
    """
    from attunet.export.serve.logs import json_log
    from attunet.export.serve.server import serve
    from attunet.export.serve.settings import Settings, check_reachable, read_token
    from attunet.export.serve.work.served_model import load_models
    from attunet.privacy.audit_log import AuditLog

    limits["token"] = read_token(token_file) if token_file else None
    settings = Settings(**limits)
    check_reachable(settings, insecure=insecure)
    load = partial(
        load_models,
        models,
        provider=provider,
        workers=settings.workers,
        num_threads=num_threads,
        public_key=public_key,
        audit_log=AuditLog(audit) if audit else None,
    )
    with json_log() if log_json else nullcontext():
        serve(settings, load)
