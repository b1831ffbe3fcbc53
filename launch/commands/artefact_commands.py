"""Commands about artefacts: web, card, sign, verify. Each imports what it needs when it runs."""

from pathlib import Path

import click
from click import option

from attunet.launch.exit_codes import debug_option
from attunet.launch.options import PATH, PROVIDER


@click.command(short_help="Write the page that runs an artefact in a browser.")
@click.argument("model", type=PATH)
@click.argument("out", type=PATH, metavar="FOLDER")
@debug_option
def web(model: Path, out: Path) -> None:
    """Write the static files of a page that segments scans with the artefact MODEL in a browser,
    to any web server's FOLDER.

    A name that ends in .html becomes one file with everything inside, for small networks. Scans never leave the
    browser.
    """
    from attunet.export.web.write_page import write_page

    write_page(model, out)


@click.command(short_help="Write a model card for the Hugging Face Hub.")
@click.argument("model", type=PATH)
@option(
    "-o",
    "--out",
    type=PATH,
    metavar="FILE.md",
    help="File for the card, README.md in a repository; standard output by default.",
)
@debug_option
def card(model: Path, out: Path | None) -> None:
    """Write a Hugging Face model card of the artefact MODEL: metadata, use, data, Dice with interval, limits."""
    from attunet.export.artefact.hub_card import hub_card
    from attunet.system.atomic_files import write_text
    from attunet.system.outputs import require_ending

    if out is not None:
        require_ending(out, ".md")
    text = hub_card(model)
    if out is None:
        click.echo(text, nl=False)
    else:
        write_text(out, text)


@click.command(short_help="Sign an artefact.")
@click.argument("model", type=PATH)
@option("--key", type=PATH, required=True, metavar="FILE", help="A private elliptic-curve key, PEM without a password.")
@option(
    "--certificate", type=PATH, metavar="FILE", help="The key's certificate: verified with an authority's certificate."
)
@option("--chain", type=PATH, multiple=True, metavar="FILE", help="Certificates above it; may be repeated.")
@debug_option
def sign(model: Path, key: Path, certificate: Path | None, chain: tuple[Path, ...]) -> None:
    """Sign the artefact MODEL in the format of OpenSSF Model Signing, without a network; the signature is MODEL.sig."""
    from attunet.export.artefact.signature import sign_artefact

    click.echo(f"written to {sign_artefact(model, key, certificate=certificate, chain=chain)}")


@click.command(short_help="Try an artefact, or check a log or a signature.")
@click.argument("model", type=PATH, required=False)
@option("--provider", type=PROVIDER, default="cpu")
@option(
    "--key",
    type=PATH,
    metavar="FILE",
    help="Verify the signature beside MODEL with this public key, or authority's certificate.",
)
@option("--audit", type=PATH, metavar="LOG", help="Follow the chain of an audit log instead.")
@debug_option
def verify(model: Path | None, provider: str, key: Path | None, audit: Path | None) -> None:
    """Run the small generated input that the artefact MODEL carries, and compare with the answer it got at export."""
    from attunet.export.runtime.segmenter import Segmenter
    from attunet.export.runtime.self_test import verify as run
    from attunet.privacy.audit_log import verify_audit

    if (model is None) == (audit is None):
        raise click.UsageError("needs either MODEL or --audit LOG")
    if audit is not None:
        click.echo(f"{audit}: {verify_audit(audit)}")
    if model is not None:
        segmenter = Segmenter(model, provider=provider, public_key=key)
        if key is not None:
            click.echo(f"{model}: signed with {key}, signature {segmenter.signature}")
        click.echo(run(segmenter))
