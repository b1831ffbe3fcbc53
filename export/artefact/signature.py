"""Signatures of artefacts in the format of OpenSSF, through `model-signing` (the extra `sign`), without a network.

It lies beside the artefact, `model.onnx.sig`. The hash inside says that an artefact is whole, not who vouches for it.
"""

import hashlib
import importlib
import logging
from pathlib import Path
from types import ModuleType

from attunet.errors import InputError, one_line
from attunet.system.atomic_files import write_error, write_file
from attunet.system.private_folder import PrivateFolder

ENDING = ".sig"
MAX_SIGNATURE = 2**24  # bytes; those with a chain of certificates have some thousands


def signature_of(path: Path) -> Path:
    """The file of an artefact's signature, beside it."""
    return path.with_name(path.name + ENDING)


def sign_artefact(
    path: str | Path, key: str | Path, *, certificate: Path | None = None, chain: tuple[Path, ...] = ()
) -> Path:
    """Sign an artefact; gives the signature's file, beside it. Raises InputError for a file or key that cannot be read.

    Args:
        key: a private elliptic-curve key, PEM without a password.
        certificate: of the key, and `chain` those above it, to verify with an authority instead of a public key.
    """
    path, out = Path(path), signature_of(Path(path))
    _check_files(path, Path(key), *([certificate] if certificate else []), *chain)
    signing = _library("signing")
    try:
        config = signing.Config()
        if certificate is None:
            config.use_elliptic_key_signer(private_key=key)
        else:
            above = chain or (certificate,)  # the library reads no empty chain
            config.use_certificate_signer(private_key=key, signing_certificate=certificate, certificate_chain=above)
        write_file(out, lambda temporary: config.sign(path, temporary))
    except OSError as error:
        raise write_error(out, error) from None
    except Exception as error:  # of several libraries, without a base of their own
        raise InputError(f"{key}: {path} cannot be signed with it: {_reason(error)}") from None
    return out


def verify_signature(path: str | Path, key: str | Path, *, data: bytes | None = None) -> str:
    """Verify the signature beside an artefact; gives the SHA-256 of its file. Raises InputError where there is none, it
    is of another key, or the artefact is not the one that was signed.

    Args:
        key: the signer's public key, or the certificate of the authority that vouches for the signer, PEM.
        data: the bytes that were read from `path` and will run, in case the file was exchanged meanwhile.
    """
    path, key, signature = Path(path), Path(key), signature_of(Path(path))
    if not signature.is_file():
        raise InputError(f"{path}: is not signed: there is no {signature.name} beside it")
    _check_files(path, key)
    verifying = _library("verifying")
    if (size := signature.stat().st_size) > MAX_SIGNATURE:
        raise InputError(f"{signature}: a signature has at most {MAX_SIGNATURE:,} bytes, got {size:,}")
    content = signature.read_bytes()
    data = path.read_bytes() if data is None else data
    with PrivateFolder() as folder:  # copies that nobody else can exchange
        model, own = folder.path / path.name, folder.path / signature.name
        try:
            model.write_bytes(data)
            own.write_bytes(content)
        except OSError as error:  # a full disk is no bad signature
            raise write_error(model, error) from None
        try:
            config = verifying.Config()
            if b"BEGIN CERTIFICATE" in key.read_bytes():
                config.use_certificate_verifier(certificate_chain=[key])
            else:
                config.use_elliptic_key_verifier(public_key=key)
            config.verify(model, own)
        except Exception as error:  # of several libraries, without a base of their own
            raise InputError(f"{path}: its signature does not verify with {key}: {_reason(error)}") from None
    return hashlib.sha256(content).hexdigest()


def _check_files(*paths: Path) -> None:
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path}: no such file")


def _reason(error: Exception) -> str:
    """The library takes the curve of any key, and of a signature what the other kind of signature lacks."""
    if not isinstance(error, AttributeError):
        return one_line(error)
    is_key = error.name == "curve"
    return "must be an elliptic-curve key" if is_key else "is of a certificate where this is a key, or the reverse"


def _library(name: str) -> ModuleType:
    logging.getLogger("model_signing").setLevel(logging.CRITICAL)  # its errors say enough
    try:
        return importlib.import_module(f"model_signing.{name}")
    except ImportError as error:
        needed = "signatures need model-signing, which is not installed: pip install 'attunet[sign]'"
        raise InputError(f"{needed} ({error.name})") from None
