"""Limits on the rate of requests, over the real daemon with several workers."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Iterator

import pytest
from tests.functional import administrator, daemon_process, node_command
from tests.functional.administrator import Administrator, Keys

from couchestor_bench import server_process

pytestmark = pytest.mark.may_block

WORKERS = 3


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[server_process.ServerProcess]:
    if daemon_process.is_peer():
        pytest.skip("rates are ours")
    folder = tmp_path_factory.mktemp("rates")
    with daemon_process.running(folder / "data", options={"workers": str(WORKERS)}) as running:
        yield running


@pytest.fixture
def root(server: server_process.ServerProcess) -> Administrator:
    return Administrator(server)


def _many(server: server_process.ServerProcess, keys: Keys, count: int) -> list[int]:
    """Statuses of requests at once, each on a connection of its own: any worker answers."""
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        return list(pool.map(lambda _: administrator.status(server, keys, "/"), range(count)))


def test_workers_grant_together_what_a_tenant_may_send(
    server: server_process.ServerProcess, root: Administrator
) -> None:
    for name in ("limited", "free"):
        root.tenant(name)
    limited = root.user("limited", "owner", is_root=True)
    second = root.user("limited", "second", is_root=True)
    free = root.user("free", "owner", is_root=True)
    rate, burst = 5, 20
    root.ask("PUT", "tenants", "limited", "rate", requests_per_second=rate, burst=burst)
    begin = time.monotonic()
    statuses = _many(server, limited, 60) + _many(server, second, 60)
    most = rate * (time.monotonic() - begin) + burst
    granted = statuses.count(200)
    assert set(statuses) == {200, 503}
    assert burst <= granted <= most
    assert set(_many(server, free, 30)) == {200}
    for _ in range(burst):
        status, headers, body = administrator.response(server, limited, "/")
        if status == 503:
            break
    assert status == 503
    assert headers["Retry-After"] == "1"
    assert b"<Code>SlowDown</Code>" in body
    # Nobody's failure: a line for each would let a client fill the log.
    assert " 503" not in server.log_path.read_text()
    # What is not signed by the tenant takes nothing from it.
    forged = Keys(limited.access_key, "another-secret")
    assert administrator.status(server, forged, "/") == 403
    root.ask("DELETE", "tenants", "limited", "rate")
    assert set(_many(server, limited, 30)) == {200}


def test_a_limited_user_leaves_the_rest_to_the_tenant(
    server: server_process.ServerProcess, root: Administrator
) -> None:
    root.tenant("shared")
    busy = root.user("shared", "busy", is_root=True)
    calm = root.user("shared", "calm", is_root=True)
    root.ask("PUT", "tenants", "shared", "rate", requests_per_second=1, burst=30)
    root.ask("PUT", "tenants", "shared", "users", "busy", "rate", requests_per_second=1, burst=3)
    begin = time.monotonic()
    granted = _many(server, busy, 40).count(200)
    assert 3 <= granted <= 3 + (time.monotonic() - begin)
    assert _many(server, calm, 25).count(200) == 25


def test_the_command(server: server_process.ServerProcess, root: Administrator) -> None:
    root.tenant("told")
    root.user("told", "bob")

    def run(*words: str) -> str:
        done = node_command.run(*words, data_dir=server.data_dir)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    assert run("rate", "set", "told", "--requests-per-second", "7") == (
        "told may send 7 requests a second, 7 at once\n"
    )
    run("rate", "set", "told/bob", "--requests-per-second", "2", "--burst", "9")
    assert "rate     7 requests a second, 7 at once" in run("tenant", "show", "told")
    assert "rate     2 requests a second, 9 at once" in run("user", "show", "told/bob")
    run("rate", "remove", "told/bob")
    assert "rate" not in run("user", "show", "told/bob")
    for words, said in (
        (("set", "told", "--requests-per-second", "0"), "1 to 1000000 requests a second"),
        (("set", "told", "--requests-per-second", "few"), "few is no whole number"),
        (("set", "none", "--requests-per-second", "1"), "there is no tenant none"),
        (("set", "told/eve", "--requests-per-second", "1"), "has no user eve"),
    ):
        done = node_command.run("rate", *words, data_dir=server.data_dir)
        assert said in node_command.only_complaint(done)
