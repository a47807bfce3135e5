"""Stripes larger than the usual memory: a node takes the memory they need, and serves."""

from __future__ import annotations

import pathlib
import random

import pytest
from tests.functional import daemon_process

pytestmark = pytest.mark.skipif(daemon_process.is_peer(), reason="our stripes")


def test_a_body_of_several_large_stripes_goes_up_and_comes_down(tmp_path: pathlib.Path) -> None:
    options = {"stripe-bytes": "32MiB", "workers": "1"}
    body = random.Random(1).randbytes(72 << 20)
    with daemon_process.running(tmp_path / "node", options=options) as server:
        client = daemon_process.boto_client(server)
        client.put_object(Bucket=daemon_process.BUCKET, Key="large", Body=body)
        read = client.get_object(Bucket=daemon_process.BUCKET, Key="large")["Body"].read()
    assert read == body
