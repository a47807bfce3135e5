"""Back-off, health, notification, logs and metrics, each without a process."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import os
import pathlib
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import lmdb
import prometheus_client
import pytest

from couchestor_daemon.adapters import lmdb_index, log_events
from couchestor_daemon.app import (
    child_status,
    command,
    data_dir_lock,
    health_server,
    logs,
    metrics,
    serve_command,
    service_manager,
    settings,
    supervisor,
    version,
)
from couchestor_domain import errors, events, ids
from couchestor_gateway.ports import caller_context


def _child(name: str, state: str, streak: int = 0) -> child_status.ChildStatus:
    return child_status.ChildStatus(
        name=name,
        state=state,
        pid=1,
        restart_count=streak,
        failure_streak=streak,
        last_exit="SIGKILL",
    )


def test_backoff_doubles_up_to_its_limit() -> None:
    waits = [supervisor.backoff_seconds(streak) for streak in range(1, 9)]
    assert waits == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
    assert supervisor.backoff_seconds(10**6) == 10.0


@pytest.mark.parametrize("name", ["/notify", "@couchestor-test-"])
def test_notification_reaches_path_and_abstract_sockets(tmp_path: pathlib.Path, name: str) -> None:
    address = f"{name}{tmp_path.name}" if name.startswith("@") else f"{tmp_path}{name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("\0" + address[1:] if address.startswith("@") else address)
        receiver.settimeout(2)
        manager = service_manager.ServiceManager(
            {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "7"}, pid=7
        )
        assert manager.ready("fine")
        assert receiver.recv(4096).decode().split("\n")[:2] == ["READY=1", "STATUS=fine"]
        assert manager.feed_watchdog()
        assert receiver.recv(4096) == b"WATCHDOG=1"
    assert manager.watchdog_seconds == 3.0
    assert not manager.feed_watchdog()


def test_no_manager_no_watchdog() -> None:
    assert not service_manager.ServiceManager({}).stopping()
    other = service_manager.ServiceManager({"WATCHDOG_USEC": "5", "WATCHDOG_PID": "1"}, pid=2)
    assert other.watchdog_seconds is None


def test_readiness_follows_the_board() -> None:
    board = child_status.Board()
    server = health_server.PageServer(
        host="127.0.0.1", port=0, name="health", pages=health_server.health_pages(board)
    )
    server.start()

    def get(path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}") as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, exc.read().decode()

    try:
        assert get("/readyz")[0] == 503
        assert get("/livez")[0] == 200
        board.update(
            phase="serving",
            children=[_child("worker-0", "ready"), _child("worker-1", "waiting", streak=5)],
        )
        code, text = get("/readyz?x=1")
        assert code == 200
        assert "worker-1 keeps crashing (5 times" in json.loads(text)["warnings"][0]
        board.describe({"departed": {"d1": "its folder was deleted"}})
        warned = json.loads(get("/readyz")[1])["warnings"]
        assert warned[0] == "device d1 is out of service: its folder was deleted"
        away = {"members": 1, "in_service": 0, "taking_writes": 0}
        board.describe({"device_counts": {**away, "writes_need": 1, "losses_survived": 1}})
        code, text = get("/readyz")
        assert code == 503
        assert json.loads(text)["reasons"] == ["none of the node's 1 devices is in service"]
        board.update(phase="serving", children=[_child("worker-0", "waiting", streak=1)])
        assert json.loads(get("/readyz")[1])["reasons"] == ["no worker is ready"]
        assert get("/nope")[0] == 404
    finally:
        server.close()


def test_a_taken_port_is_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(errors.ConfigurationError, match=r"in use; choose another with --host"):
            serve_command.reserve_port("127.0.0.1", port)
        with pytest.raises(errors.ConfigurationError, match="--health-port"):
            health_server.PageServer(host="127.0.0.1", port=port, name="health", pages={})


@pytest.fixture
def root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)


@dataclasses.dataclass(frozen=True)
class DegradedRead:
    """Stands for any event."""

    name: str
    missing_count: int


@pytest.mark.usefixtures("root_logger")
def test_a_refusal_is_a_line_of_the_log_where_that_is_json(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stream = io.StringIO()
    logs.configure(json_lines=True, level="error", stream=stream)
    logs.complain("100 % of it is wrong")
    assert json.loads(stream.getvalue())["message"] == "100 % of it is wrong"
    assert capsys.readouterr().err == ""
    logs.configure(json_lines=False, level="error", stream=stream)
    logs.complain("100 % of it is wrong")
    assert capsys.readouterr().err == "couchestor: 100 % of it is wrong\n"


@pytest.mark.usefixtures("root_logger")
def test_json_line_has_the_event_the_request_and_stays_one_line() -> None:
    stream = io.StringIO()
    logs.configure(json_lines=True, level="info", stream=stream)
    token = caller_context.REQUEST_ID.set("R1")
    try:
        log_events.LogEventPublisher().publish(DegradedRead(name="a\nb", missing_count=2))
    finally:
        caller_context.REQUEST_ID.reset(token)
    entry = json.loads(stream.getvalue())
    assert stream.getvalue().count("\n") == 1
    assert entry["message"] == "degraded read"
    assert (entry["event_name"], entry["event_missing_count"]) == ("a\nb", 2)
    assert (entry["logger"], entry["request_id"]) == ("couchestor.events", "R1")


@pytest.mark.usefixtures("root_logger")
def test_human_line_cannot_be_forged() -> None:
    stream = io.StringIO()
    logs.configure(json_lines=False, level="warning", stream=stream)
    log = logging.getLogger("couchestor.test")
    log.info("not written")
    log.warning("bad\nkey", extra={"key": 'a "b"\n00:00:00 ERROR forged'})
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().split()[1] == "WARNING"


def test_events_are_counted_and_handed_on() -> None:
    class Kept:
        def __init__(self) -> None:
            self.events: list[events.DomainEvent] = []

        def publish(self, event: events.DomainEvent) -> None:
            self.events.append(event)

    target = prometheus_client.CollectorRegistry()
    kept = Kept()
    publisher = metrics.CountingPublisher(metrics.NodeMetrics(target), kept)
    published: list[events.DomainEvent] = [
        events.WriteJournaled(
            segment_id=ids.SegmentId(1), sequence=ids.Sequence(2), payload_bytes=3, writes_count=4
        ),
        events.DegradedRead(group_id=ids.GroupId(1), stripe_offset_bytes=4096, missing_shards=(0,)),
        events.HealthChanged(subject="device d1", healthy=False, reason="gone"),
    ]
    for event in published:
        publisher.publish(event)
    assert kept.events == published
    assert target.get_sample_value("couchestor_commits_total") == 1
    assert target.get_sample_value("couchestor_committed_writes_total") == 4
    assert target.get_sample_value("couchestor_degraded_reads_total") == 1
    assert target.get_sample_value("couchestor_device_healthy", {"device": "d1"}) == 0


def test_metrics_are_counted_by_operation_and_status() -> None:
    target = prometheus_client.CollectorRegistry()
    measured = metrics.NodeMetrics(target)
    measured.observe_request("GetObject", 200, seconds=0.003, sent_bytes=10)
    measured.observe_request("GetObject", 404, seconds=0.001)
    labels = {"operation": "GetObject", "status": "200"}
    assert target.get_sample_value("couchestor_requests_total", labels) == 1
    assert target.get_sample_value("couchestor_sent_bytes_total") == 10
    assert (
        target.get_sample_value("couchestor_request_seconds_count", {"operation": "GetObject"}) == 2
    )


@pytest.mark.usefixtures("root_logger")
def test_what_may_pass_by_itself_is_not_the_exit_status_of_a_mistake(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock_fd = data_dir_lock.take(settings.Settings(data_dir=tmp_path))
    words = ["serve", "--port", "0", "--data-dir", str(tmp_path)]
    assert command.main(words) == 1
    assert "another couchestor daemon uses" in capsys.readouterr().err
    os.close(lock_fd)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        words = ["serve", "--data-dir", str(tmp_path / "other"), "--port", str(port)]
        assert command.main(words) == 1
    assert "already in use" in capsys.readouterr().err
    assert command.main(["serve", "--port", "70000"]) == command.USAGE_EXIT


def test_the_supervisor_tells_the_version_and_what_its_children_take() -> None:
    board = child_status.Board()
    living = dataclasses.replace(_child("worker-0", "ready"), pid=os.getpid())
    ended = dataclasses.replace(_child("worker-1", "waiting"), pid=None)
    board.update(phase="serving", children=[living, ended])
    target = prometheus_client.CollectorRegistry()
    target.register(metrics.ChildrenCollector(board))
    assert target.get_sample_value("couchestor_build_info", {"version": version.installed()}) == 1
    for name in ("resident_bytes", "cpu_seconds_total", "open_files"):
        name = f"couchestor_child_{name}"
        value = target.get_sample_value(name, {"child": "worker-0"})
        assert value is not None, name
        assert value > 0, name
        assert target.get_sample_value(name, {"child": "worker-1"}) is None


def test_a_full_index_says_whether_its_limit_or_its_medium_is_reached() -> None:
    limit = lmdb_index._translated(lmdb.MapFullError("x"), "write")
    assert isinstance(limit, errors.IndexFullError)
    assert "the limit of a node: delete objects" in limit.message
    medium = lmdb_index._translated(lmdb.DiskError("No space left on device"), "write")
    assert isinstance(medium, errors.IndexFullError)
    assert "No space left on device" in medium.message
