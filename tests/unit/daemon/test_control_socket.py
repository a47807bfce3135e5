"""The socket by which commands reach a running node: who is heard, and what is refused."""

from __future__ import annotations

import asyncio
import os
import pathlib
import socket
import stat

import pytest

from couchestor_daemon.app import control_socket
from couchestor_domain import errors

pytestmark = pytest.mark.may_block  # at the end an idle thread is waited for


async def _answer(request: control_socket.Request) -> str:
    if request.command == "refuse":
        raise errors.ConfigurationError("no device is called d9")
    if request.command == "fail":
        raise errors.DeviceGoneError("d1 is gone")
    return f"{request.command} {request.path}"


def _raw(data_dir: pathlib.Path, line: bytes) -> bytes:
    folder = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(f"/proc/self/fd/{folder}/{control_socket.NAME}")
            connection.sendall(line)
            return connection.recv(1 << 16)
    finally:
        os.close(folder)


async def test_a_command_is_carried_out_or_refused_by_name(tmp_path: pathlib.Path) -> None:
    # A path longer than the address of a socket may be.
    data_dir = tmp_path / ("d" * 120)
    data_dir.mkdir()
    async with control_socket.serving(data_dir, _answer):
        mode = (data_dir / control_socket.NAME).stat().st_mode
        assert (stat.S_ISSOCK(mode), stat.S_IMODE(mode)) == (True, 0o600)
        told = control_socket.Request(command="add", path="/mnt/d6")
        assert await asyncio.to_thread(control_socket.ask, data_dir, told) == "add /mnt/d6"
        for command, kind, text in (
            ("refuse", errors.ConfigurationError, "no device is called d9"),
            ("fail", errors.NodeError, "d1 is gone"),
        ):
            with pytest.raises(kind, match=text):
                await asyncio.to_thread(
                    control_socket.ask, data_dir, control_socket.Request(command=command)
                )
    assert not (data_dir / control_socket.NAME).exists()
    assert await asyncio.to_thread(control_socket.ask, data_dir, told) is None


async def test_a_socket_that_a_killed_node_left_is_no_node_and_no_obstacle(
    tmp_path: pathlib.Path,
) -> None:
    left = socket.socket(socket.AF_UNIX)
    folder = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    left.bind(f"/proc/self/fd/{folder}/{control_socket.NAME}")
    left.close()
    os.close(folder)
    request = control_socket.Request(command="add")
    for place in (tmp_path, tmp_path / "absent"):
        assert await asyncio.to_thread(control_socket.ask, place, request) is None
    async with control_socket.serving(tmp_path, _answer):
        assert await asyncio.to_thread(control_socket.ask, tmp_path, request) == "add "


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"not json\n", b"not a command"),
        (b'{"command": 7}\n', b"not a command"),
        (b'{"path": "/mnt"}\n', b"not a command"),
        (b'{"command": "add", "version": 2}\n', b"speaks version 1"),
        (b"x" * (control_socket.LINE_BYTES_MAX + 2), b"not one line within the limits"),
    ],
)
async def test_what_is_no_command_is_refused(
    tmp_path: pathlib.Path, line: bytes, said: bytes
) -> None:
    async with control_socket.serving(tmp_path, _answer):
        assert said in await asyncio.to_thread(_raw, tmp_path, line)


async def test_a_line_that_never_ends_is_not_waited_for(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_socket, "REQUEST_SECONDS_MAX", 0.05)
    async with control_socket.serving(tmp_path, _answer):
        assert b"within the limits" in await asyncio.to_thread(_raw, tmp_path, b'{"comm')


async def test_another_user_is_not_heard(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with control_socket.serving(tmp_path, _answer):
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        said = await asyncio.to_thread(_raw, tmp_path, b'{"command": "add"}\n')
    assert b"does not own this node" in said


async def test_a_node_that_cannot_listen_serves_all_the_same(tmp_path: pathlib.Path) -> None:
    (tmp_path / control_socket.NAME).mkdir()
    async with control_socket.serving(tmp_path, _answer):
        request = control_socket.Request(command="add")
        assert await asyncio.to_thread(control_socket.ask, tmp_path, request) is None
