"""Who is let in to administer a node."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import pytest
from botocore import auth, awsrequest
from botocore import credentials as boto_credentials

from couchestor_gateway.protocol import admin_signature, timestamps

KEY, SECRET = "ROOTKEY", "root-secret"
NOW = 1_800_000_000
PATH = "/v1/tenants/a%40b"


def _refusal(
    headers: Mapping[str, str], *, method: str = "POST", path: str = PATH, now: float = NOW
) -> str | None:
    return admin_signature.refusal(
        method, path, headers, access_key=KEY, secret_key=SECRET, now_seconds=now
    )


def _headers(*, access_key: str = KEY, secret_key: str = SECRET) -> dict[str, str]:
    return admin_signature.headers_for(
        "POST",
        PATH,
        b"body",
        host="127.0.0.1:8082",
        access_key=access_key,
        secret_key=secret_key,
        now_seconds=NOW,
    )


def test_what_is_signed_by_root_is_let_in() -> None:
    headers = _headers()
    assert _refusal(headers) is None
    assert headers["x-amz-content-sha256"] == hashlib.sha256(b"body").hexdigest()
    for skew in (-300, 300):
        assert _refusal(headers, now=NOW + skew) is None


@pytest.mark.parametrize("name", ["host", "x-amz-content-sha256", "x-amz-date", "authorization"])
def test_every_header_counts(name: str) -> None:
    headers = _headers()
    assert _refusal({key: value for key, value in headers.items() if key != name}) is not None
    changed = headers[name][:-1] + ("1" if headers[name][-1] != "1" else "2")
    assert _refusal({**headers, name: changed}) is not None


@pytest.mark.parametrize(
    ("method", "path"), [("DELETE", PATH), ("POST", "/v1/tenants/b"), ("POST", PATH + "/users")]
)
def test_it_is_good_for_one_request(method: str, path: str) -> None:
    refusal = _refusal(_headers(), method=method, path=path)
    assert refusal is not None
    assert "another request" in refusal


def test_nobody_else_is_let_in() -> None:
    assert "must be root's" in str(_refusal(_headers(access_key="OTHER")))
    assert "not root's" in str(_refusal(_headers(secret_key="other-secret")))
    assert "not signed" in str(_refusal({}))
    assert "not signed" in str(_refusal({"authorization": "Bearer x"}))
    assert "not signed" in str(_refusal({**_headers(), "x-amz-date": "today"}))


@pytest.mark.parametrize("skew", [-301, 301])
def test_it_is_good_for_a_while(skew: int) -> None:
    assert "from the node's clock" in str(_refusal(_headers(), now=NOW + skew))


@pytest.mark.parametrize("service", [admin_signature.SERVICE, "s3"])
def test_signed_by_botocore(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As another implementation signs it; for S3 it opens nothing."""
    request = awsrequest.AWSRequest("POST", f"http://127.0.0.1:8082{PATH}", data=b"body")
    signer = auth.S3SigV4Auth(boto_credentials.Credentials(KEY, SECRET), service, "local")
    signer.add_auth(request)
    headers = {name.lower(): value for name, value in request.headers.items()}
    headers["host"] = "127.0.0.1:8082"
    now = timestamps.parse_amz_date(headers["x-amz-date"])
    assert now is not None
    refusal = _refusal(headers, now=now)
    assert refusal is None if service == admin_signature.SERVICE else refusal is not None
