"""The command line of the benchmark, and what a terminal shows of a run."""

from __future__ import annotations

import argparse
import io

import pytest

from couchestor_bench import command, flags, options, progress, signing
from couchestor_bench.engine import server_usage
from couchestor_bench.reports import document, tally
from couchestor_bench.workload import plan as plans
from couchestor_domain import errors, geometry

KEYS = signing.Credentials(access_key="a", secret_key="s")


def told(*words: str) -> argparse.Namespace:
    return command.build_parser().parse_args(words)


def plan(*words: str) -> plans.Plan:
    return options.plan_of(
        told(*words), endpoint=plans.Endpoint("127.0.0.1", 9000, False), credentials=KEYS
    )


def test_a_workload_alone_is_enough() -> None:
    for workload in flags.WORKLOADS:
        made = plan(workload)
        assert made.mix
        assert (made.connections, made.per_second, made.count) == (16, None, None)
        assert made.duration_seconds == 10
        assert made.sizes.largest_bytes >= 0


def test_an_open_loop_has_more_connections_and_a_count_more_time() -> None:
    made = plan("get", "--rate", "500", "--count", "100")
    assert (made.per_second, made.connections, made.arrivals) == (500, 64, "poisson")
    assert (made.count, made.duration_seconds) == (100, 3600)
    assert plan("get", "--count", "5", "--duration", "7").duration_seconds == 7


def test_runs_have_prefixes_of_their_own() -> None:
    assert plan("put").prefix != plan("put").prefix


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("put", "--size", "1GiB"), "use `couchestor bench multipart`"),
        (("get", "--processes", "20"), "--processes 20 is more than"),
        (("get", "--size", "huge"), "--size huge has a size"),
        (("get", "--keys", "gauss"), "--keys gauss is no distribution"),
        (("mixed", "--mix", "put=1,delete=2"), "--mix put=1,delete=2 deletes more"),
        (("get", "--duration", "0"), "--duration 0 has to be more than none"),
        (("get", "--rate", "-1"), "--rate -1 is not a rate"),
        (("degraded", "--coding", "4x2"), "--coding 4x2 is no coding"),
        (("codec", "--coding", "0+2"), "--coding 0+2 cannot be"),
        (("devices", ".", "--size", "1000"), "--size 1000 is below"),
    ],
)
def test_a_mistake_names_its_flag(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(errors.ConfigurationError) as caught:
        plan(*words)
    assert said in caught.value.message


def test_more_devices_cannot_be_taken_away_than_may_be_lost() -> None:
    with pytest.raises(errors.ConfigurationError, match="can lose, 1"):
        command.main(["degraded", "--coding", "2+1", "--away", "2"])


@pytest.mark.parametrize(
    ("url", "host", "port", "secure", "shown"),
    [
        ("http://127.0.0.1:9000", "127.0.0.1", 9000, False, "127.0.0.1:9000"),
        ("https://s3.example.net/", "s3.example.net", 443, True, "s3.example.net"),
        ("http://[::1]:80", "::1", 80, False, "[::1]"),
    ],
)
def test_an_endpoint_is_an_url(url: str, host: str, port: int, secure: bool, shown: str) -> None:
    found = options.parse_endpoint(url)
    assert found == (host, port, secure)
    assert found.host_header == shown


@pytest.mark.parametrize("url", ["127.0.0.1:9000", "ftp://x", "http://", "http://x/bucket",
                                 "http://x:port"])  # fmt: skip
def test_what_is_no_endpoint_is_refused(url: str) -> None:
    with pytest.raises(errors.ConfigurationError, match="--endpoint"):
        options.parse_endpoint(url)


def test_the_endpoint_and_the_keys_come_from_the_environment() -> None:
    environment = {"AWS_ENDPOINT_URL": "http://h:1", "AWS_REGION": "eu-west-1"}
    assert options.endpoint_of(told("get"), environment).url == "http://h:1"
    assert options.endpoint_of(told("get", "--endpoint", "http://i:2"), environment).port == 2
    with pytest.raises(errors.ConfigurationError, match="set AWS_ACCESS_KEY_ID"):
        options.credentials_of(environment)
    environment |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s"}
    assert options.credentials_of(environment).region == "eu-west-1"


def test_a_coding_is_two_numbers() -> None:
    assert flags.parse_coding("8+3") == geometry.StripeGeometry(8, 3)


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("::1", True), ("LocalHost", True), ("10.0.0.1", False), ("h", False)],
)
def test_a_server_on_this_machine_is_known_by_its_address(host: str, local: bool) -> None:
    assert server_usage.is_local(host) is local
    if not local:
        assert server_usage.find(host, 80) is None


def test_a_terminal_shows_how_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    stream = io.StringIO()
    terminal = progress.Terminal(stream)
    terminal.phase("putting 10 objects")
    terminal.step(4, 10)
    found = tally.Tally(size_bytes=3 << 20)
    found.latencies.record_seconds([0.001, 0.002, 0.2])
    found.errors["SlowDown"] += 2
    terminal.second(-1, found, None)
    terminal.second(4, found, document.Sample(at=4.0, cpus=1.5, rss_bytes=7 << 20))
    terminal.warn("something is still there")
    shown = [line.lstrip("\x1b[2K") for line in stream.getvalue().split("\r")]
    assert shown[2] == "putting 10 objects: 4 of 10"
    assert shown[3].startswith("warm-up")
    assert all(each in shown[4] for each in ("5 s", "3/s", "p99    200 ms", "errors 2"))
    assert shown[4].endswith("server 1.50 CPUs 7 MiB")
    assert stream.getvalue().endswith("couchestor: something is still there\n")
