"""How Prometheus is reached: what does not fit together is refused, and no secret is shown."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from couchestor_domain import errors
from couchestor_operator.adapters import http_access, prometheus_access

SECRET = "not-to-be-shown"
FILE = pathlib.Path("/nowhere")
HTTPS = "https://prometheus:9090"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"url": ""}, "the Prometheus URL is not one"),
        ({"url": "prometheus:9090"}, "the Prometheus URL is not one"),
        ({"url": "ftp://prometheus"}, "the Prometheus URL is not one"),
        ({"url": f"http://{SECRET}:99999"}, "the Prometheus URL is not one"),
        ({"url": f"http://[{SECRET}"}, "the Prometheus URL is not one"),
        ({"url": f"http://user:{SECRET}@prometheus"}, "carries credentials"),
        ({"url": f"http://prometheus/?token={SECRET}"}, "leave out what follows"),
        ({"url": f"http://prometheus/#{SECRET}"}, "leave out what follows"),
        ({"bearer_token": f"{SECRET}\n"}, "must be one printable word"),
        ({"bearer_token": f"{SECRET} twice"}, "must be one printable word"),
        ({"bearer_token": ""}, "must be one printable word"),
        ({"bearer_token": SECRET, "bearer_token_file": FILE}, "one of"),
        ({"bearer_token": SECRET, "username": "u", "password": SECRET}, "one of"),
        ({"bearer_token_file": FILE, "username": "u", "password": SECRET}, "one of"),
        ({"username": "u"}, "needs a user name and a password"),
        ({"password": SECRET}, "needs a user name and a password"),
        ({"username": f"u:{SECRET}", "password": SECRET}, "cannot contain a colon"),
        ({"url": HTTPS, "client_certificate_file": FILE}, "needs its key file"),
        ({"url": HTTPS, "client_key_file": FILE}, "needs its key file"),
        ({"ca_file": FILE}, "its URL says http"),
        ({"insecure": True}, "its URL says http"),
        ({"deadline_seconds": 0.0}, "must be above 0"),
        ({"answer_bytes_max": 0}, "must be above 0"),
    ],
)
def test_what_does_not_fit_together_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(errors.ConfigurationError, match=words) as raised:
        prometheus_access.Access(**({"url": "http://prometheus:9090"} | settings))
    assert SECRET not in str(raised.value)


def test_settings_print_without_their_secrets() -> None:
    for credentials in ({"bearer_token": SECRET}, {"username": SECRET, "password": SECRET}):
        access = prometheus_access.Access(url=HTTPS, **credentials)  # type: ignore[arg-type]
        assert SECRET not in repr(access)
        assert HTTPS in repr(access)


def test_the_header_of_each_way() -> None:
    header = http_access.authorization
    assert header(prometheus_access.Access(url=HTTPS)) is None
    assert header(prometheus_access.Access(url=HTTPS, bearer_token="t")) == "Bearer t"
    access = prometheus_access.Access(url=HTTPS, username="Jürgen", password="")
    assert header(access) == "Basic SsO8cmdlbjo="


def test_a_scheme_in_capitals_is_encrypted_too() -> None:
    access = prometheus_access.Access(url="HTTPS://prometheus", insecure=True)
    assert http_access.ssl_context(access) is not None
    plain = prometheus_access.Access(url="HTTP://prometheus")
    assert http_access.ssl_context(plain) is None
