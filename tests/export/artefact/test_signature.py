"""Signatures without a network: an artefact that is unsigned, altered or of another key is refused."""

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from attunet import load_model
from attunet.errors import InputError, RunError
from attunet.export.artefact.signature import sign_artefact, signature_of, verify_signature
from attunet.export.runtime import Segmenter
from attunet.export.runtime.self_test import make_self_test

pytest.importorskip("model_signing")
serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
ec = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ec")
ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")


def write_key(folder: Path, name: str) -> tuple[Path, Path]:
    """A private and a public key."""
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


@pytest.fixture
def signed(artefact, tmp_path) -> tuple[Path, Path]:
    """A signed artefact and the key that verifies it."""
    model = Path(shutil.copy(artefact, tmp_path / "model.onnx"))
    private, public = write_key(tmp_path, "own")
    assert sign_artefact(model, private) == signature_of(model)
    return model, public


def test_a_signed_artefact_is_loaded(signed):
    model, public = signed
    segmenter = Segmenter(model, num_threads=1, public_key=public)
    assert segmenter.signature == verify_signature(model, public)
    assert segmenter.logits(np.zeros((1, 1, 32, 32), np.float32)).shape == (1, 5, 32, 32)
    renamed = Path(shutil.copy(model, model.with_name("renamed.onnx")))
    shutil.copy(signature_of(model), signature_of(renamed))
    assert load_model(renamed, num_threads=1, public_key=public).name == "small"  # the name is not what was signed


def test_a_signature_is_written_whole_or_not_at_all(signed, tmp_path):
    model, public = signed
    before = signature_of(model).read_bytes()
    full = f"ulimit -f 0; exec {sys.executable} -m attunet.launch.cli sign {model} --key {tmp_path / 'own.pem'}"
    done = subprocess.run(["bash", "-c", full], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, f"error: {signature_of(model)}: cannot be written: File too large\n")
    assert signature_of(model).read_bytes() == before
    victim = tmp_path / "victim"
    victim.write_text("of somebody else")
    signature_of(model).unlink()
    signature_of(model).symlink_to(victim)
    sign_artefact(model, tmp_path / "own.pem")
    assert victim.read_text() == "of somebody else"
    assert verify_signature(model, public)


def test_what_is_unsigned_altered_or_of_another_key_is_refused(signed, artefact, save_artefact, tmp_path):
    model, public = signed
    with pytest.raises(InputError, match="is not signed"):
        Segmenter(artefact, public_key=public)
    with pytest.raises(InputError, match="does not verify"):
        Segmenter(model, public_key=write_key(tmp_path, "other")[1])
    with pytest.raises(InputError, match="no such file"):
        Segmenter(model, public_key=tmp_path / "none.pub")
    signature = json.loads(signature_of(model).read_text())
    # A whole artefact with a right hash of its own, which somebody else made.
    shutil.copy(save_artefact(name="other"), model)
    assert Segmenter(model, num_threads=1).name == "other"
    with pytest.raises(InputError, match="does not verify"):
        Segmenter(model, public_key=public)
    other_hash, no_envelope = json.dumps(signature).replace("sha256", "sha255"), {**signature, "dsseEnvelope": 1}
    for broken in ("", "{}", other_hash, json.dumps(no_envelope)):
        signature_of(model).write_text(broken)
        with pytest.raises(InputError, match="does not verify"):
            verify_signature(model, public)
    with pytest.raises(InputError, match="cannot be signed"):
        sign_artefact(model, public)


def test_a_full_disk_is_no_bad_signature(signed, monkeypatch):
    model, public = signed

    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RunError, match=r"model\.onnx: cannot be written: No space left on device"):
        verify_signature(model, public)


def test_bytes_that_were_exchanged_after_the_check_do_not_run(signed):
    model, public = signed
    with pytest.raises(InputError, match="does not verify"):
        verify_signature(model, public, data=model.read_bytes() + b"x")


@pytest.mark.parametrize("exchanged", ["both", "signature", "model"])
def test_files_that_are_exchanged_between_two_reads_do_not_run(signed, tmp_path, save_artefact, monkeypatch, exchanged):
    """An artefact with another signature, which becomes the genuine pair as soon as it was read."""
    genuine, public = signed
    other = save_artefact("other.onnx", name="evil")
    sign_artefact(other, write_key(tmp_path, "evil")[0])
    read = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        data = read(path)
        if path.name == signature_of(other).name:
            if exchanged != "signature":
                shutil.copy(genuine, other)
            if exchanged != "model":
                shutil.copy(signature_of(genuine), signature_of(other))
        return data

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    with pytest.raises(InputError, match="does not verify"):
        Segmenter(other, num_threads=1, public_key=public)


def test_verify_runs_the_bytes_whose_signature_it_verified(attunet, artefact, save_artefact, tmp_path, monkeypatch):
    """An artefact that is exchanged as soon as its signature was verified; the other one has no self test."""
    model = save_artefact("model.onnx", self_test=make_self_test(Segmenter(artefact, num_threads=1)))
    private, public = write_key(tmp_path, "own")
    sign_artefact(model, private)
    read = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        if path == public:
            shutil.copy(artefact, model)
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    done = attunet("verify", model, "--key", public)
    assert (done.code, "signed with" in done.out, "same class in 100.00%" in done.out) == (0, True, True), done.err
    assert model.read_bytes() == artefact.read_bytes()


def test_an_authority_vouches_for_the_signer(artefact, tmp_path):
    """Certificates: root -> signer; verified with the root alone."""
    model = Path(shutil.copy(artefact, tmp_path / "model.onnx"))
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")

    def run(words: str) -> None:
        subprocess.run([openssl, *words.split()], cwd=tmp_path, check=True, capture_output=True)

    request = "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
    usage = "keyUsage=critical,digitalSignature\nextendedKeyUsage=codeSigning\nbasicConstraints=CA:FALSE\n"
    (tmp_path / "usage").write_text(usage)
    run(f"{request} -x509 -keyout root.pem -out root.crt -subj /CN=root -days 2")
    run(f"{request} -keyout signer.pem -out signer.csr -subj /CN=signer")
    run("x509 -req -in signer.csr -CA root.crt -CAkey root.pem -CAcreateserial -days 1 -extfile usage -out signer.crt")
    sign_artefact(model, tmp_path / "signer.pem", certificate=tmp_path / "signer.crt", chain=(tmp_path / "root.crt",))
    assert len(verify_signature(model, tmp_path / "root.crt")) == 64
    sign_artefact(model, tmp_path / "signer.pem", certificate=tmp_path / "signer.crt")
    assert len(verify_signature(model, tmp_path / "root.crt")) == 64, "nothing stands between both"
    run(f"{request} -x509 -keyout o.pem -out other.crt -subj /CN=other -days 2")
    with pytest.raises(InputError, match="does not verify"):
        verify_signature(model, tmp_path / "other.crt")
    run("pkey -in signer.pem -pubout -out signer.pub")
    with pytest.raises(InputError, match=r"signer\.pub: is of a certificate where this is a key"):
        verify_signature(model, tmp_path / "signer.pub")
    sign_artefact(model, tmp_path / "signer.pem")
    with pytest.raises(InputError, match=r"root\.crt: is of a certificate where this is a key, or the reverse"):
        verify_signature(model, tmp_path / "root.crt")


def test_a_key_of_another_kind_is_refused(artefact, tmp_path):
    model, key = Path(shutil.copy(artefact, tmp_path / "model.onnx")), tmp_path / "key.pem"
    private = ed25519.Ed25519PrivateKey.generate()
    pem = serialization.Encoding.PEM
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    key.write_bytes(private.private_bytes(pem, *plain))
    with pytest.raises(InputError, match=r"key\.pem: .* must be an elliptic-curve key"):
        sign_artefact(model, key)
    sign_artefact(model, write_key(tmp_path, "own")[0])
    key.write_bytes(private.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(InputError, match="must be an elliptic-curve key"):
        verify_signature(model, key)


def test_the_commands(attunet, artefact, write_scan, tmp_path):
    model, labels = Path(shutil.copy(artefact, tmp_path / "model.onnx")), tmp_path / "labels.nii"
    private, public = write_key(tmp_path, "own")
    scan = write_scan(tmp_path / "scan.nii")
    for command in (("predict", model, scan, labels), ("serve", model, "--port", 0)):
        done = attunet(*command, "--require-signature", public)
        assert (done.code, "is not signed" in done.err) == (2, True)
    assert attunet("sign", model, "--key", private).code == 0
    assert attunet("predict", model, scan, labels, "--require-signature", public).code == 0
    done = attunet("verify", model, "--key", write_key(tmp_path, "other")[1])
    assert (done.code, "does not verify" in done.err) == (2, True)
