"""`couchestor bench` as a person runs it, against the real daemon."""

from __future__ import annotations

import pathlib
import re
import signal
import subprocess
import sys
import time
import typing
from collections.abc import Iterator

import pytest
from tests.functional import daemon_process

from couchestor_bench import server_process
from couchestor_bench.reports import document

_SHORT: typing.Final = ("--duration", "1", "--warm-up", "0.5", "--objects", "60")
_REFERENCE: typing.Final = re.compile(r"(?:src|href|url|@import)\s*[=(:]|https?://")
_SECONDS_MAX: typing.Final = 200.0

# Each command starts processes of its own, some also a node: slow where others have the CPUs.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[server_process.ServerProcess]:
    folder: pathlib.Path = tmp_path_factory.mktemp("bench") / "node"
    with daemon_process.running(folder, options={"workers": "2"}) as running:
        yield running


def begin(server: server_process.ServerProcess, *words: str, **environment: str) -> typing.Any:
    keys = daemon_process.client_environment(server)
    # Who runs tests in the background of a shell ignores interrupts, and so would what they start.
    interruptible = ["env", "--default-signal=INT"]
    return subprocess.Popen(
        [*interruptible, sys.executable, "-m", "couchestor_daemon.app.command", "bench", *words],
        env={
            **{name: value for name, value in keys.items() if not name.startswith("COUCHESTOR_")},
            **environment,
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def bench(
    server: server_process.ServerProcess, *words: str, **environment: str
) -> tuple[int, str, str]:
    with begin(server, *words, **environment) as running:
        said, complained = running.communicate(timeout=_SECONDS_MAX)
    return running.returncode, said, complained


def keys_of(server: server_process.ServerProcess, bucket: str) -> list[str]:
    client = daemon_process.boto_client(server)
    if bucket not in [each["Name"] for each in client.list_buckets()["Buckets"]]:
        return []
    return [each["Key"] for each in client.list_objects_v2(Bucket=bucket).get("Contents", [])]


def buckets_of(server: server_process.ServerProcess) -> list[str]:
    return [each["Name"] for each in daemon_process.boto_client(server).list_buckets()["Buckets"]]


def test_two_workloads_give_a_table_a_document_and_a_page(
    server: server_process.ServerProcess, tmp_path: pathlib.Path
) -> None:
    for workload in ("put", "get"):
        result, page = tmp_path / f"{workload}.json", tmp_path / f"{workload}.html"
        status, said, complained = bench(
            server, workload, *_SHORT, "--json", str(result), "--html", str(page)
        )
        assert (status, complained) == (0, "")
        assert f"| {workload} " in said
        found = document.read(result)
        figures = found["measured"]["operations"][workload]
        assert figures["error_count"] == 0
        assert figures["good_count"] == document.histogram_of(figures).count > 0
        latency = figures["latency_ms"]
        assert 0 < latency["min"] <= latency["p50"] <= latency["p99"] <= latency["max"]
        assert found["measured"]["seconds"] == pytest.approx(1.0)
        within = [each for each in found["seconds"] if each["at"] >= 0]
        ended = sum(each["operations"][workload]["count"] for each in within)
        assert ended == pytest.approx(figures["per_second"])
        assert figures["bytes_per_second"] == pytest.approx(ended * 4096)
        assert found["server"]["sampled"] == {"pid": server.pid, "name": "couchestor"}
        assert max(each["rss_bytes"] for each in found["usage"]) > 1 << 20
        assert 0 < found["generator"]["cpus"][0] < 1.5
        # The endpoint is told; a name of SVG is no address.
        shown = page.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not _REFERENCE.search(shown.replace(server.endpoint, ""))
    assert "couchestor-bench" not in buckets_of(server)


@pytest.mark.parametrize(
    ("words", "operations"),
    [
        (("mixed", "--mix", "get=4,head=2,put=3,list=1,delete=2"), {"get", "put", "delete"}),
        (("list", "--page", "10"), {"list"}),
        (("delete", "--processes", "2"), {"delete"}),
        (("multipart", "--size", "6MiB", "--part-size", "5MiB"), {"multipart", "multipart part"}),
        (("put", "--size", "lognormal:8KiB,1.5,1MiB", "--keys", "zipf:1.1"), {"put"}),
        (("get", "--rate", "200", "--arrivals", "constant"), {"get"}),
    ],
)
def test_every_workload_measures_the_count_that_was_asked_for(
    server: server_process.ServerProcess,
    tmp_path: pathlib.Path,
    words: tuple[str, ...],
    operations: set[str],
) -> None:
    result = tmp_path / "r.json"
    told = (*words, "--count", "40", "--warm-up", "0", "--objects", "60", "--json", str(result))
    status, said, complained = bench(server, *told)
    assert (status, complained) == (0, ""), said
    found = document.read(result)
    total = found["measured"]["total"]
    assert (total["good_count"], total["error_count"]) == (40, 0)
    assert operations <= found["measured"]["operations"].keys()
    assert "couchestor-bench" not in buckets_of(server)


def test_a_bucket_that_was_there_keeps_what_was_in_it(
    server: server_process.ServerProcess,
) -> None:
    client = daemon_process.boto_client(server)
    client.create_bucket(Bucket="theirs")
    client.put_object(Bucket="theirs", Key="bench-of-mine", Body=b"x")
    status, said, _ = bench(server, "delete", "--bucket", "theirs", "--count", "20", *_SHORT)
    assert status == 0, said
    assert keys_of(server, "theirs") == ["bench-of-mine"]
    status, said, _ = bench(server, "put", "--bucket", "theirs", "--count", "20", "--keep", *_SHORT)
    assert status == 0, said
    assert len(keys_of(server, "theirs")) > 1


def test_an_interrupted_run_cleans_up(server: server_process.ServerProcess) -> None:
    with begin(server, "put", "--bucket", "cut-short", "--duration", "600") as running:
        deadline = time.monotonic() + _SECONDS_MAX
        while not keys_of(server, "cut-short"):
            assert running.poll() is None
            assert time.monotonic() < deadline
        running.send_signal(signal.SIGINT)
        _, complained = running.communicate(timeout=_SECONDS_MAX)
    assert (running.returncode, complained) == (130, "")
    assert "cut-short" not in buckets_of(server)


@pytest.mark.parametrize(
    ("words", "environment", "status", "said"),
    [
        (("get", "--size", "3x"), {}, 2, "--size 3x has a size that cannot be read"),
        (("get", "--rate", "none"), {}, 2, "--rate none is not a rate"),
        (("gett",), {}, 2, "did you mean get"),
        (("get",), {"AWS_SECRET_ACCESS_KEY": "wrong"}, 1, "SignatureDoesNotMatch"),
        (("get",), {"AWS_ACCESS_KEY_ID": ""}, 2, "set AWS_ACCESS_KEY_ID"),
        (("get", "--endpoint", "http://127.0.0.1:1"), {}, 1, "no answer from http://127.0.0.1:1"),
        (("get", "--server-pid", "4194304"), {}, 1, "there is no such process"),
        (("compare", "/absent.json", "/absent.json"), {}, 1, "cannot read /absent.json"),
    ],
)
def test_a_mistake_is_one_line(
    server: server_process.ServerProcess,
    words: tuple[str, ...],
    environment: dict[str, str],
    status: int,
    said: str,
) -> None:
    found, _, complained = bench(server, *words, **environment)
    assert found == status
    assert said in complained
    assert complained.count("\n") == 1


def test_two_results_are_compared(
    server: server_process.ServerProcess, tmp_path: pathlib.Path
) -> None:
    for name, more in (("a", ()), ("b", ()), ("c", ("--connections", "4"))):
        told = ("get", *_SHORT, *more, "--label", name, "--json", str(tmp_path / f"{name}.json"))
        assert bench(server, *told)[0] == 0
    a, b, c = (str(tmp_path / f"{name}.json") for name in "abc")
    page = tmp_path / "ab.html"
    status, said, complained = bench(server, "compare", a, b, "--html", str(page))
    assert (status, complained) == (0, ""), said
    assert "| get good/s" in said
    assert "</html>" in page.read_text()
    status, said, _ = bench(server, "compare", a, c)
    assert status == 1
    assert "connections was 16 and 4" in said


def test_reads_with_devices_taken_away_stand_beside_those_with_all(
    server: server_process.ServerProcess, tmp_path: pathlib.Path
) -> None:
    result, first = tmp_path / "away.json", tmp_path / "all.json"
    words = ("degraded", "--coding", "2+1", "--objects", "8", "--duration", "1", "--warm-up", "0")
    paths = ("--json", str(result), "--json-healthy", str(first), "--folder", str(tmp_path))
    status, said, complained = bench(server, *words, *paths)
    assert (status, complained) == (0, ""), said
    healthy, wounded = document.read(first), document.read(result)
    assert (healthy["server"]["devices_away"], wounded["server"]["devices_away"]) == (0, 1)
    assert all(each["measured"]["total"]["good_count"] > 0 for each in (healthy, wounded))
    assert "Not comparable" not in said
    assert sorted(each.name for each in tmp_path.iterdir()) == ["all.json", "away.json"]


def test_layers_are_measured_by_the_command(
    server: server_process.ServerProcess, tmp_path: pathlib.Path
) -> None:
    result, page = tmp_path / "r.json", tmp_path / "r.html"
    output = ("--seconds", "0.01", "--json", str(result), "--html", str(page))
    for words in (
        ("codec", "--coding", "2+1", "--stripe", "64KiB"),
        ("devices", str(tmp_path), "--size", "64KiB", "--depth", "1", "--space", "64MiB"),
    ):
        status, said, complained = bench(server, *words, *output)
        assert (status, complained) == (0, ""), said
        found = document.read(result)
        assert found["kind"] == words[0]
        assert found["rows"]
        shown = page.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not _REFERENCE.search(shown)
        assert bench(server, "compare", str(result), str(result))[0] == 0
