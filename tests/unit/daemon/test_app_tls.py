"""Certificates are exchanged in place; bad ones leave the old in force."""

from __future__ import annotations

import pathlib
import ssl
import subprocess

import pytest

from couchestor_daemon.app import tls
from couchestor_domain import errors


def _make(folder: pathlib.Path, name: str) -> None:
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    out = ["-keyout", str(folder / "key"), "-out", str(folder / "cert")]
    words = ["openssl", "req", "-x509", *key, *out, "-days", "1", "-subj", f"/CN={name}"]
    subprocess.run(words, check=True, capture_output=True)


def _served(context: ssl.SSLContext) -> bytes | None:
    """The certificate a client is shown, through memory instead of a network."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    asking.check_hostname, asking.verify_mode = False, ssl.CERT_NONE
    client = asking.wrap_bio(to_client, to_server)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(3):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return client.getpeercert(binary_form=True)


def test_exchanged_in_place_and_bad_files_are_refused(tmp_path: pathlib.Path) -> None:
    _make(tmp_path, "one")
    certificate = tls.ReloadingCertificate(cert=tmp_path / "cert", key=tmp_path / "key")
    first = _served(certificate.context)
    assert not certificate.reload_if_changed()
    _make(tmp_path, "two")
    assert certificate.reload_if_changed()
    second = _served(certificate.context)
    assert None not in (first, second)
    assert first != second
    (tmp_path / "key").write_text("not a key")
    assert not certificate.reload_if_changed()
    assert _served(certificate.context) == second
    tls.reload_all()
    assert _served(certificate.context) == second


def test_a_bad_first_certificate_is_one_line(tmp_path: pathlib.Path) -> None:
    (tmp_path / "cert").write_text("no")
    with pytest.raises(errors.ConfigurationError, match="cert holds no certificate in PEM"):
        tls.ReloadingCertificate(cert=tmp_path / "cert", key=tmp_path / "cert")


def test_what_does_not_load_is_named(tmp_path: pathlib.Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    _make(tmp_path, "one")
    _make(other, "two")
    cert, key = tmp_path / "cert", tmp_path / "key"
    with pytest.raises(errors.ConfigurationError, match="cert holds no private key in PEM"):
        tls.ReloadingCertificate(cert=cert, key=cert)
    with pytest.raises(errors.ConfigurationError, match="key holds no certificate in PEM"):
        tls.ReloadingCertificate(cert=key, key=key)
    with pytest.raises(errors.ConfigurationError, match="does not belong to the certificate"):
        tls.ReloadingCertificate(cert=cert, key=other / "key")
    key.write_text(key.read_text().replace("M", "!"))
    with pytest.raises(errors.ConfigurationError, match="one of them is damaged"):
        tls.ReloadingCertificate(cert=cert, key=key)
    with pytest.raises(errors.ConfigurationError, match="No such file"):
        tls.ReloadingCertificate(cert=cert, key=tmp_path / "absent")
