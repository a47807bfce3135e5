"""The operator's Prometheus adapter against a real HTTP server that may answer anything."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import email.utils
import gzip
import pathlib
import shutil
import ssl
import subprocess
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import lying_prometheus
import pytest
import set_clock
from aiohttp import web

from couchestor_bench import server_process
from couchestor_domain import errors, units
from couchestor_operator.adapters import prometheus, prometheus_access, prometheus_query
from couchestor_operator.control import heat
from couchestor_operator.ports import metrics_provider

NOW = 1_800_000_000
WINDOW_SECONDS = 3600.0
TOKEN = "a-token-that-nobody-may-see"
GOOD = [(NOW - 120 * step, "750") for step in range(30, -1, -1)]


def _one(points: lying_prometheus.Points = GOOD, **more: object) -> bytes:
    return lying_prometheus.matrix(({"volume": "pvc-1"}, points), **more)


@contextlib.asynccontextmanager
async def _asking(
    url: str, template: prometheus_query.QueryTemplate = prometheus_query.OPENEBS, **access: Any
) -> AsyncIterator[prometheus.Prometheus]:
    async with prometheus.opened(
        prometheus_access.Access(url=url, **access),
        template,
        trust=heat.Trust(),
        clock=set_clock.SetClock(now=NOW + 0.25),
    ) as source:
        yield source


async def _reading(answer: lying_prometheus.Answer) -> metrics_provider.HeatReading:
    async with lying_prometheus.served(answer) as server, _asking(server.url) as source:
        return await source.measure(WINDOW_SECONDS)


async def _fault(answer: lying_prometheus.Answer, **access: Any) -> errors.ControlPlaneError:
    """The error that an answer leads to; it must name the server and no credential."""
    async with lying_prometheus.served(answer) as server, _asking(server.url, **access) as source:
        with pytest.raises(errors.ControlPlaneError) as raised:
            await source.measure(WINDOW_SECONDS)
        message = str(raised.value)
        assert server.url in message
        assert TOKEN not in message
        assert len(server.asked) == 1
        return raised.value


async def test_all_volumes_come_from_one_range_query() -> None:
    body = lying_prometheus.matrix(
        ({"volume": "pvc-1", "node": "a"}, GOOD),
        ({"volume": "2"}, [(at, "3.5") for at, _ in GOOD]),
    )
    async with (
        lying_prometheus.served(lying_prometheus.sending(body)) as server,
        _asking(f"{server.url}/under/") as source,
    ):
        reading = await source.measure(WINDOW_SECONDS)
    (asked,) = server.asked
    assert asked.path == "/under/api/v1/query_range"
    assert asked.form == {
        "query": (
            "(rate(openebs_volume_iops[1h])) and on (volume) openebs_volume_iops"
            " and on (volume) openebs_volume_iops offset 1h"
        ),
        "start": f"{NOW - 3600}.000",
        "end": f"{NOW}.000",
        "step": "120.000",
        "timeout": "30s",
    }
    assert "Authorization" not in asked.headers
    assert reading.measured_at_seconds == NOW
    expected = heat.HeatScore(iops=750, covered_ratio=1, newest_age_seconds=0)
    # Whether by the name of the PersistentVolume or by the volume's own.
    assert reading.of("1") == reading.of("pvc-1") == expected
    assert reading.of("pvc-2") == dataclasses.replace(expected, iops=3.5)
    assert reading.of("3") is heat.Unknown.NO_DATA


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        ([*GOOD, (NOW - 1, "NaN")], heat.Unknown.NOT_A_NUMBER),
        ([*GOOD, (NOW - 1, "+Inf")], heat.Unknown.NOT_A_NUMBER),
        ([*GOOD, (NOW - 1, "-Inf")], heat.Unknown.NOT_A_NUMBER),
        ([*GOOD, (NOW - 1, "-0.5")], heat.Unknown.NOT_A_NUMBER),
        ([(at - 301, value) for at, value in GOOD], heat.Unknown.STALE),
        ([*GOOD, (NOW + 61, "1")], heat.Unknown.FROM_THE_FUTURE),
        (GOOD[-3:], heat.Unknown.TOO_FEW),
        ([], heat.Unknown.NO_DATA),
    ],
)
async def test_a_series_that_lies_makes_its_volume_unknown_and_no_other(
    points: lying_prometheus.Points, reason: heat.Unknown
) -> None:
    body = lying_prometheus.matrix(({"volume": "liar"}, points), ({"volume": "honest"}, GOOD))
    scores = (await _reading(lying_prometheus.sending(body))).scores
    assert scores["liar"] is reason
    assert isinstance(scores["honest"], heat.HeatScore)


async def test_a_sample_of_a_long_window_speaks_until_the_next() -> None:
    week_seconds = 7 * 86_400
    points = [(NOW - step * week_seconds / 30, "750") for step in range(31)]
    answer = lying_prometheus.sending(_one(points))
    async with lying_prometheus.served(answer) as server, _asking(server.url) as source:
        reading = await source.measure(float(week_seconds))
    assert reading.of("1") == heat.HeatScore(iops=750, covered_ratio=1, newest_age_seconds=0)


async def test_two_series_of_one_volume_count_as_the_busier() -> None:
    idle = [(at, "0") for at, _ in GOOD]
    body = lying_prometheus.matrix(
        ({"volume": "pvc-1", "job": "a"}, GOOD), ({"volume": "1", "job": "b"}, idle)
    )
    score = (await _reading(lying_prometheus.sending(body))).of("1")
    assert isinstance(score, heat.HeatScore)
    assert score.iops == 750


async def test_a_series_without_the_label_is_counted_and_nothing_else() -> None:
    body = lying_prometheus.matrix(
        ({"volume": "1"}, GOOD), ({}, GOOD), ({"volume": ""}, GOOD), ({"volume": "x" * 254}, GOOD)
    )
    reading = await _reading(lying_prometheus.sending(body))
    assert (set(reading.scores), reading.unnamed_series_count) == ({"1"}, 3)


async def test_no_series_with_the_label_is_a_fault_of_the_query() -> None:
    body = lying_prometheus.matrix(({"pv_name": "1"}, GOOD))
    fault = await _fault(lying_prometheus.sending(body))
    assert isinstance(fault, errors.PrometheusQueryError)
    assert "1 series, none with the label volume" in str(fault)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        _one()[:-40],
        b"<html>It works!</html>",
        b"null",
        b"[]",
        b"\xff\xfe",
        b'{"status":"success","data":' + b"[" * 100_000,
        b'{"status":"success","data":{"resultType":"vector","result":[]}}',
        b'{"status":"success","data":{"resultType":"scalar","result":[1,"2"]}}',
        b'{"status":"success","data":{"resultType":"matrix","result":{}}}',
        b'{"status":"success","data":{"resultType":"matrix","result":[{"values":[]}]}}',
        b'{"status":"success","data":{"resultType":"matrix"}}',
        lying_prometheus.matrix(({"volume": 1}, GOOD)),
        _one([(NOW, 5)]),
        _one([(str(NOW), "5")]),
        _one([(NOW, "5 per second")]),
        _one([(NOW, None)]),
        _one().replace(b'"750"]', b'"750", 1]'),
    ],
)
async def test_what_is_no_answer_is_refused(body: bytes) -> None:
    fault = await _fault(lying_prometheus.sending(body))
    assert isinstance(fault, errors.PrometheusParseError), fault


async def test_an_error_with_status_200_is_one() -> None:
    fault = await _fault(lying_prometheus.complaining(200, "execution", "too many samples"))
    assert isinstance(fault, errors.PrometheusQueryError)
    assert "execution: too many samples" in str(fault)


async def test_an_answer_in_part_is_none() -> None:
    body = _one(warnings=["remote read: store-2 is gone"])
    fault = await _fault(lying_prometheus.sending(body))
    assert isinstance(fault, errors.PrometheusConnectionError)
    assert "store-2 is gone" in str(fault)


async def test_remarks_on_the_query_are_not_held_against_the_answer() -> None:
    info = "PromQL info: metric might not be a counter"
    reading = await _reading(lying_prometheus.sending(_one(warnings=[info], infos=[info])))
    assert isinstance(reading.of("1"), heat.HeatScore)


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (400, errors.PrometheusQueryError, "bad_data: parse error at char 3"),
        (401, errors.PrometheusQueryError, "give the token or password"),
        (403, errors.PrometheusQueryError, "give the token or password"),
        (404, errors.PrometheusQueryError, "set the URL that its API is under"),
        (405, errors.PrometheusQueryError, "set the URL that its API is under"),
        (422, errors.PrometheusQueryError, "correct the query"),
        (429, errors.PrometheusConnectionError, "cannot answer now"),
        (500, errors.PrometheusConnectionError, "cannot answer now"),
        (503, errors.PrometheusConnectionError, "cannot answer now"),
    ],
)
async def test_a_status_says_whose_fault_it_is(
    status: int, kind: type[errors.ControlPlaneError], words: str
) -> None:
    answer = lying_prometheus.complaining(status, "bad_data", "parse error at char 3")
    fault = await _fault(answer)
    assert type(fault) is kind
    assert words in str(fault)
    assert "parse error at char 3" in str(fault)
    assert fault.context["status"] == status


@pytest.mark.parametrize(
    ("header", "wait_seconds"),
    [
        ("120", 120),
        ("9" * 400, 300),
        (email.utils.format_datetime(datetime.datetime.fromtimestamp(NOW + 90, datetime.UTC)), 90),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("soon", 5),
        ("-5", 5),
    ],
)
async def test_an_answer_says_when_to_come_back(header: str, wait_seconds: float) -> None:
    fault = await _fault(lying_prometheus.complaining(503, "", "", Retry_After=header))
    assert isinstance(fault, errors.PrometheusConnectionError)
    assert fault.retry_after_seconds == pytest.approx(wait_seconds, abs=1)


async def test_a_redirect_is_not_followed() -> None:
    async with lying_prometheus.served(lying_prometheus.sending(_one())) as elsewhere:
        leads_to = f"{elsewhere.url}/login?state={TOKEN}"
        answer = lying_prometheus.sending(b"", 307, Location=leads_to)
        fault = await _fault(answer, bearer_token=TOKEN)
        assert elsewhere.asked == []
        assert isinstance(fault, errors.PrometheusQueryError)
        assert f"{elsewhere.url}/login" in str(fault)


@pytest.mark.parametrize("status", [200, 301, 400, 401, 503])
async def test_credentials_that_are_sent_back_are_not_shown(status: int) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        secret = request.headers["Authorization"]
        assert secret == f"Bearer {TOKEN}"
        return await lying_prometheus.complaining(
            status, secret, f"you sent {secret}", Location=f"http://{TOKEN}@127.0.0.1/{TOKEN}"
        )(request)

    await _fault(answer, bearer_token=TOKEN)


async def test_a_server_that_does_not_answer_is_not_waited_for() -> None:
    async def answer(_request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        raise AssertionError("the client waited")

    fault = await _fault(answer, deadline_seconds=0.2)
    assert isinstance(fault, errors.PrometheusConnectionError)
    assert "within 0.2 s" in str(fault)


async def test_a_server_that_trickles_is_not_waited_for() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.02)

    fault = await _fault(answer, deadline_seconds=0.3)
    assert isinstance(fault, errors.PrometheusConnectionError)
    assert "within 0.3 s" in str(fault)


async def test_a_server_that_is_down() -> None:
    (port,) = server_process.free_ports(1)
    async with _asking(f"http://127.0.0.1:{port}") as source:
        with pytest.raises(errors.PrometheusConnectionError, match=f"127.0.0.1:{port} cannot be"):
            await source.measure(WINDOW_SECONDS)


async def test_a_body_that_breaks_off() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100000"})
        await response.prepare(request)
        await response.write(_one())
        assert request.transport is not None
        request.transport.abort()
        return response

    fault = await _fault(answer)
    assert isinstance(fault, errors.PrometheusConnectionError)
    assert "broke off" in str(fault)


async def test_a_body_of_50_mb_is_not_taken_in() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        # A client that has enough closes the connection.
        with contextlib.suppress(ConnectionError):
            for _ in range(50):
                await response.write(b" " * 1_000_000)
        return response

    fault = await _fault(answer)
    assert isinstance(fault, errors.PrometheusParseError)
    assert f"more than {32 * units.MIB} bytes" in str(fault)


async def test_a_small_body_that_grows_is_not_taken_in() -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    assert len(bomb) < units.MIB
    tracemalloc.start()
    try:
        fault = await _fault(
            lying_prometheus.sending(bomb, Content_Encoding="gzip"),
            answer_bytes_max=units.MIB,
        )
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(fault, errors.PrometheusParseError)
    assert f"more than {units.MIB} bytes" in str(fault)
    assert peak_bytes < 8 * units.MIB


async def test_gzip_is_asked_for_and_understood() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.headers["Accept-Encoding"] == "gzip"
        body = gzip.compress(_one())
        return await lying_prometheus.sending(body, Content_Encoding="gzip")(request)

    assert isinstance((await _reading(answer)).of("1"), heat.HeatScore)


@pytest.mark.parametrize(
    ("body", "encoding", "words"),
    [
        (gzip.compress(_one())[:-4], "gzip", "broke off in the middle of its gzip answer"),
        (_one(), "gzip", "something else than the gzip it announced"),
        (_one(), "br", "in a way that it was not asked for"),
    ],
)
async def test_a_body_that_is_not_compressed_as_it_says(
    body: bytes, encoding: str, words: str
) -> None:
    fault = await _fault(lying_prometheus.sending(body, Content_Encoding=encoding))
    assert isinstance(fault, errors.PrometheusParseError)
    assert words in str(fault)


async def test_a_token_file_is_read_again_for_each_query(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "token"
    async with (
        lying_prometheus.served(lying_prometheus.sending(_one())) as server,
        _asking(server.url, bearer_token_file=path) as source,
    ):
        with pytest.raises(errors.PrometheusConnectionError, match="No such file"):
            await source.measure(WINDOW_SECONDS)
        for token in ("first\n", "second"):
            path.write_text(token)
            await source.measure(WINDOW_SECONDS)
        path.write_bytes(b"\xff" + TOKEN.encode())
        with pytest.raises(errors.PrometheusConnectionError, match="holds no token") as raised:
            await source.measure(WINDOW_SECONDS)
        assert TOKEN not in str(raised.value)
    assert [asked.headers["Authorization"] for asked in server.asked] == [
        "Bearer first",
        "Bearer second",
    ]


async def test_a_user_name_and_password() -> None:
    async with (
        lying_prometheus.served(lying_prometheus.sending(_one())) as server,
        _asking(server.url, username="Aladdin", password="open sesame") as source,
    ):
        await source.measure(WINDOW_SECONDS)
    (asked,) = server.asked
    assert asked.headers["Authorization"] == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="


def _certificate(folder: pathlib.Path, name: str) -> tuple[pathlib.Path, pathlib.Path]:
    """A self-signed certificate for loopback and its key."""
    cert, key = folder / f"{name}.crt", folder / f"{name}.key"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    words += ["-nodes", "-days", "2", "-subj", f"/CN={name}"]
    words += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(words, check=True, capture_output=True)
    return cert, key


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")
async def test_certificates_are_checked_unless_told_otherwise(tmp_path: pathlib.Path) -> None:
    cert, key = _certificate(tmp_path, "server")
    client_cert, client_key = _certificate(tmp_path, "client")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(client_cert))
    tls.load_cert_chain(cert, key)
    async with lying_prometheus.served(lying_prometheus.sending(_one()), tls=tls) as server:
        async with _asking(server.url) as source:
            with pytest.raises(errors.PrometheusConnectionError, match="not trusted"):
                await source.measure(WINDOW_SECONDS)
        async with _asking(server.url, insecure=True) as source:
            assert isinstance((await source.measure(WINDOW_SECONDS)).of("1"), heat.HeatScore)
        tls.verify_mode = ssl.CERT_REQUIRED
        async with _asking(server.url, ca_file=cert) as source:
            with pytest.raises(errors.PrometheusConnectionError, match="cannot be reached"):
                await source.measure(WINDOW_SECONDS)
        async with _asking(
            server.url,
            ca_file=cert,
            client_certificate_file=client_cert,
            client_key_file=client_key,
        ) as source:
            assert isinstance((await source.measure(WINDOW_SECONDS)).of("1"), heat.HeatScore)


async def test_certificate_files_are_checked_at_the_start(tmp_path: pathlib.Path) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("no certificate")
    settings: list[dict[str, Any]] = [
        {"ca_file": wrong},
        {"ca_file": tmp_path / "missing.pem"},
        {"client_certificate_file": wrong, "client_key_file": wrong},
    ]
    for access in settings:
        with pytest.raises(errors.ConfigurationError, match=r"(wrong|missing)\.pem"):
            async with _asking("https://127.0.0.1:1", **access):
                pass
