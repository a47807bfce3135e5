"""Bucket and key out of a request's target and Host."""

from __future__ import annotations

import pytest

from couchestor_gateway.edge import addressing
from couchestor_gateway.protocol import s3_error

DOMAIN = "s3.example.com"


@pytest.mark.parametrize("name", ["b\udcff", "\udcc3\udca9", "b\u00e9"])
def test_a_host_that_names_no_bucket_in_ascii_is_refused(name: str) -> None:
    with pytest.raises(s3_error.S3Error) as caught:
        addressing.resolve("/k", f"{name}.{DOMAIN}", DOMAIN)
    assert (caught.value.code, caught.value.status) == ("InvalidURI", 400)
    # Where buckets are named by path alone the host says nothing.
    assert addressing.resolve("/b/k", f"{name}.{DOMAIN}", None).bucket == "b"


def test_a_host_names_a_bucket_below_the_domain() -> None:
    for host in (f"b.{DOMAIN}", f"B.{DOMAIN.upper()}:9000"):
        found = addressing.resolve("/k/l?uploads", host, DOMAIN)
        assert (found.bucket, found.key, found.raw_query) == ("b", "k/l", "uploads")
    assert addressing.resolve("/k/l", f"x{DOMAIN}", DOMAIN).bucket == "k"
