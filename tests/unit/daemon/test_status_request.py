"""Which node `couchestor status` asks, and what it refuses to take for an answer."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator

import pytest

from couchestor_daemon.app import (
    child_status,
    health_server,
    node_address,
    settings,
    status_request,
)
from couchestor_domain import errors


@pytest.fixture
def data_dir(tmp_path: pathlib.Path) -> pathlib.Path:
    made = tmp_path / "node"
    made.mkdir()
    return made


@pytest.fixture
def port(data_dir: pathlib.Path) -> Iterator[int]:
    """Where a node of the data directory answers."""
    board = child_status.Board(data_dir=data_dir.resolve())
    with _serving(health_server.health_pages(board)) as found:
        yield found


class _serving:
    def __init__(self, pages: dict[str, Callable[[], health_server.Answer]]) -> None:
        self._server = health_server.PageServer(
            host="127.0.0.1", port=0, name="health", pages=pages
        )

    def __enter__(self) -> int:
        self._server.start()
        return self._server.port

    def __exit__(self, *args: object) -> None:
        self._server.close()


def test_the_node_of_the_data_directory_is_found_by_what_it_wrote_down(
    data_dir: pathlib.Path, port: int
) -> None:
    node_address.remember(data_dir, f"http://127.0.0.1:{port}")
    for told in (
        settings.Settings(data_dir=data_dir),
        settings.Settings(data_dir=data_dir, health_port=0),
    ):
        assert status_request.ask(told)["data_dir"] == str(data_dir)
    node_address.forget(data_dir)
    assert node_address.recall(data_dir) == ""
    with pytest.raises(errors.ConfigurationError, match="no node runs under"):
        status_request.ask(settings.Settings(data_dir=data_dir, health_port=0))


def test_another_node_at_the_address_is_not_taken_for_it(
    tmp_path: pathlib.Path, data_dir: pathlib.Path, port: int
) -> None:
    node_address.remember(tmp_path, f"http://127.0.0.1:{port}")
    with pytest.raises(errors.ConfigurationError, match=f"keeps its data in {data_dir}"):
        status_request.ask(settings.Settings(data_dir=tmp_path))
    with pytest.raises(errors.ConfigurationError, match="that one does not run"):
        status_request.ask(settings.Settings(data_dir=tmp_path, health_port=port))


def test_an_address_alone_names_a_node(
    port: int, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert status_request.ask(settings.Settings(health_port=port))["phase"] == "preparing"


def test_a_proxy_of_the_environment_is_not_asked(
    data_dir: pathlib.Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    told = settings.Settings(data_dir=data_dir, health_port=port)
    assert status_request.ask(told)["phase"] == "preparing"


@pytest.mark.parametrize("body", [b"[1]", b"{}", b"<html>"])
def test_what_is_no_node_is_said_to_be_none(data_dir: pathlib.Path, body: bytes) -> None:
    with _serving({"/status": lambda: (200, "text/plain", body)}) as port:
        told = settings.Settings(data_dir=data_dir, health_port=port)
        with pytest.raises(errors.ConfigurationError, match="no node"):
            status_request.ask(told)


def test_addresses_that_stand_for_all_networks_are_reached_on_this_machine() -> None:
    told = settings.Settings(health_host="::", metrics_host="0.0.0.0")
    assert told.health_url == "http://[::1]:8081"
    assert told.metrics_url == "http://127.0.0.1:8080"
