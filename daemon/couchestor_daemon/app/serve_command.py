"""``couchestor serve``: the wiring of the supervisor and what a person sees of it."""

from __future__ import annotations

import asyncio
import collections.abc
import contextlib
import dataclasses
import importlib
import logging
import os
import pathlib
import socket
import sys
from typing import Final

from couchestor_daemon.app import (
    child_status,
    credentials_file,
    data_dir_lock,
    descriptors,
    health_server,
    logs,
    master_key_file,
    metrics,
    node_address,
    node_file,
    service_manager,
    settings,
    supervisor,
    tls,
    users_file,
)
from couchestor_domain import errors

PRESIGN_CURE: Final = "aws configure set default.s3.signature_version s3v4"
"""Without it the AWS CLI and boto3 make URLs with signatures of version 2 for some regions."""
NODE_MODULE: Final = "couchestor_daemon.app.processes"
_log = logging.getLogger("couchestor.serve")


def run(
    told: settings.Settings,
    *,
    environment: collections.abc.Mapping[str, str],
    reload: collections.abc.Callable[[], settings.Settings] | None = None,
    child_module: str = NODE_MODULE,
) -> int:
    """Serve until told to stop. Returns the exit status.

    Raises:
        CouchestorError: the node cannot start; one line says why.
    """
    logs.configure(json_lines=told.log_json, level=told.log_level)
    _warn_of_short_days(told)
    descriptors.raise_limit()
    if told.tls_cert and told.tls_key:
        # Tried here, or every worker would say why it cannot serve.
        tls.ReloadingCertificate(cert=told.tls_cert, key=told.tls_key)
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(reserve_port(told.host, told.port))
        told = dataclasses.replace(told, port=port.getsockname()[1])
        door = stack.enter_context(
            reserve_port(told.admin_host, told.admin_port, what="tenants", option="admin-")
        )
        told = dataclasses.replace(told, admin_port=door.getsockname()[1])
        data_lock = data_dir_lock.take(told)
        stack.callback(os.close, data_lock)
        told = node_file.with_added_devices(told)
        device_locks = list(importlib.import_module(child_module).lock_devices(told))
        for fd in device_locks:
            stack.callback(os.close, fd)
        root = credentials_file.load_or_create(told.credentials_path, environment)
        # Tried here, or every worker would say why it cannot serve.
        users_file.Users(root, told.users_file)
        master_key_file.load_or_create(told.master_key_path)
        directory = runtime_directory(told, environment) / "metrics"
        metrics.clean_directory(directory)
        board = child_status.Board(data_dir=told.data_dir.resolve(), admin_url=told.admin_url)
        told = _start_pages(stack, told, board, directory)
        node_address.remember(told.data_dir, told.health_url)
        stack.callback(node_address.forget, told.data_dir)
        manager = service_manager.ServiceManager(environment)
        if root.is_new and not _is_terminal():
            # Elsewhere the secret would end up in a log; the file is for its owner alone.
            _log.info("root credentials created", extra={"file": str(told.credentials_path)})

        def level_after_reload() -> str:
            return (reload() if reload else told).log_level

        async def serve() -> int:
            return await supervisor.Supervisor(
                told,
                root=root,
                board=board,
                manager=manager,
                lock_fds=[data_lock, *device_locks],
                environment={**environment, metrics.DIRECTORY_VARIABLE: str(directory)},
                on_ready=lambda: _announce(told, root),
                on_child_exit=lambda name: metrics.forget_live_values(directory, name),
                reload=level_after_reload,
                child_module=child_module,
            ).run()

        return asyncio.run(serve())


def _warn_of_short_days(told: settings.Settings) -> None:
    if told.lifecycle_debug_day_seconds:
        _log.warning(
            "lifecycle_debug_day_seconds is set: a day of lifecycle rules lasts %g seconds, and"
            " objects expire long before their time; leave it out where data matters",
            told.lifecycle_debug_day_seconds,
        )


def reserve_port(host: str, port: int, *, what: str = "S3", option: str = "") -> socket.socket:
    """Hold a port for the workers, who share it by SO_REUSEPORT. Never listens itself.

    Bound once without that option first, because with it a second daemon of the same user would
    be let in silently and take half of the requests.

    Args:
        what: Is served there, for the refusal.
        option: What the names of the options begin with that choose another.

    Raises:
        ConfigurationError: the port is taken, forbidden, or the host is not of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            address = probe.getsockname()
        holder = socket.socket(family, kind, protocol)
        try:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            holder.bind(address)
        except OSError:
            holder.close()
            raise
    except OSError as exc:
        raise errors.ConfigurationError(
            f"cannot serve {what} on {host}:{port}: {exc.strerror or exc}; "
            f"choose another with --{option}host and --{option}port"
        ) from exc
    return holder


def runtime_directory(
    told: settings.Settings, environment: collections.abc.Mapping[str, str]
) -> pathlib.Path:
    """Folder of files that mean nothing after a restart."""
    given = environment.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return pathlib.Path(given) if given else told.data_dir / "run"


def _start_pages(
    stack: contextlib.ExitStack,
    told: settings.Settings,
    board: child_status.Board,
    directory: pathlib.Path,
) -> settings.Settings:
    health = health_server.PageServer(
        host=told.health_host,
        port=told.health_port,
        name="health",
        pages=health_server.health_pages(board),
    )
    stack.callback(health.close)
    figures = health_server.PageServer(
        host=told.metrics_host,
        port=told.metrics_port,
        name="metrics",
        pages={
            "/metrics": lambda: (
                200,
                metrics.CONTENT_TYPE,
                metrics.page(directory, board),
            )
        },
    )
    stack.callback(figures.close)
    health.start()
    figures.start()
    return dataclasses.replace(told, health_port=health.port, metrics_port=figures.port)


def _announce(told: settings.Settings, root: credentials_file.RootCredentials) -> None:
    _log.info("serving", extra={"endpoint": told.endpoint, "workers": told.worker_count})
    if _is_terminal():
        print(banner(told, root), flush=True)


def _is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def banner(told: settings.Settings, root: credentials_file.RootCredentials) -> str:
    """What a person at the terminal needs next. Shows the secret only when it is new."""
    lines = ["", f"  CoucheStor serves S3 on {told.endpoint}"]
    lines.append(f"  data     {told.data_dir} ({told.data_shards}+{told.parity_shards})")
    lines.append(f"  keys     {told.credentials_path if not root.is_new else 'new, shown once:'}")
    if root.is_new:
        lines += [
            "",
            f"    export AWS_ACCESS_KEY_ID={root.access_key}",
            f"    export AWS_SECRET_ACCESS_KEY={root.secret_key}",
            f"    export AWS_DEFAULT_REGION={told.region}",
            "",
            "  or for good:",
            f"    aws configure set aws_access_key_id {root.access_key}",
            f"    aws configure set aws_secret_access_key {root.secret_key}",
            f"    aws configure set region {told.region}",
            "",
            f"  kept in {told.credentials_path}",
        ]
    elif root.source == "the environment":
        lines[-1] = "  keys     from the environment"
    lines += [
        f"  health   {told.health_url}/readyz",
        f"  metrics  {told.metrics_url}/metrics",
        "",
        f"  Try:  aws --endpoint-url {told.endpoint} s3 mb s3://first",
        f"        aws --endpoint-url {told.endpoint} s3 cp README.md s3://first/",
        "  URLs for others (`aws s3 presign`, boto3) need signatures of version 4, once:",
        f"        {PRESIGN_CURE}",
        "  Ctrl-C stops it.",
        "",
    ]
    return "\n".join(lines)
