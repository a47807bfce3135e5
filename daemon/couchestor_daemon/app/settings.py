"""What a node is told: one frozen value, made by ``option_table``, handed to every process."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from typing import Any, Final

from couchestor_daemon.adapters import threaded_media
from couchestor_daemon.services import notice_queue, room_wait, zone_grace
from couchestor_domain import units

EMBEDDED_DEVICE_COUNT: Final = 6
"""Folders of the embedded default: enough for 4 + 2, each standing for one device."""


def default_data_dir() -> pathlib.Path:
    """Where a person's own node keeps its data."""
    return pathlib.Path("~/.local/share/couchestor").expanduser()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting of a node. The meaning of each is told once, in ``option_table``."""

    data_dir: pathlib.Path = dataclasses.field(default_factory=default_data_dir)
    devices: tuple[pathlib.Path, ...] = ()
    device_capacity_bytes: int = 0
    zone_bytes: int = 64 * units.MIB
    data_shards: int = 4
    parity_shards: int = 2
    journal_replicas: int = 0
    codec: str = "rs"
    journal_threshold_bytes: int = 128 * units.KIB
    stripe_bytes: int = 4 * units.MIB
    compression_saving_percent: int = 30
    destage_log_bytes: int = 256 * units.MIB
    destage_age_seconds: int = 3600
    destage_idle_seconds: int = 30
    destage_on_stop: bool = False
    reclaim_dead_percent: int = 50
    reclaim_free_percent: int = 15
    balance_gap_percent: int = 10
    checkpoint_log_bytes: int = 64 * units.MIB
    checkpoint_log_percent: int = 100
    zone_grace_seconds: float = zone_grace.ZONE_GRACE_SECONDS
    room_wait_seconds: float = room_wait.SECONDS_MAX
    background_bytes_per_second: int = 0
    background_floor_bytes_per_second: int = 8 * units.MIB
    rebuild_delay_seconds: int = 300
    scrub_period_seconds: int = 14 * 24 * 3600
    lifecycle_interval_seconds: int = 3600
    lifecycle_debug_day_seconds: float = 0.0
    device_deadline_seconds: float = threaded_media.DEADLINE_SECONDS
    suspect_window_seconds: float = 10.0
    suspect_latency_ratio: int = 4
    suspect_latency_floor_seconds: float = 0.01
    host: str = "127.0.0.1"
    port: int = 9000
    workers: int = 0
    region: str = "us-east-1"
    domain: str = ""
    signature_v2: bool = False
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 8080
    health_host: str = "127.0.0.1"
    health_port: int = 8081
    tls_cert: pathlib.Path | None = None
    tls_key: pathlib.Path | None = None
    access_log: bool = False
    log_json: bool = False
    log_level: str = "info"
    stall_seconds: float = 30.0
    drain_seconds: float = 30.0
    credentials_file: pathlib.Path | None = None
    users_file: pathlib.Path | None = None
    master_key_file: pathlib.Path | None = None
    admin_host: str = "127.0.0.1"
    admin_port: int = 8082
    bucket_log_seconds: float = 60.0
    notification_targets: tuple[str, ...] = ()
    notification_queue_max: int = notice_queue.WAITING_MAX

    @property
    def is_embedded(self) -> bool:
        """True when no device was named: folders under the data directory stand in."""
        return not self.devices

    @property
    def device_paths(self) -> tuple[pathlib.Path, ...]:
        """The configured devices, or the embedded folders."""
        if self.devices:
            return self.devices
        return tuple(self.data_dir / "devices" / f"d{i}" for i in range(EMBEDDED_DEVICE_COUNT))

    @property
    def journal_replica_count(self) -> int:
        """Copies of each journal write; by default as many losses are survived as by stripes."""
        return self.journal_replicas or self.parity_shards + 1

    @property
    def checkpoint_copies_count(self) -> int:
        """Devices that hold a copy of a checkpoint: more than may be lost at once."""
        return self.parity_shards + 1

    @property
    def reserve_zones_count(self) -> int:
        """Zones of each device kept for deletes and repairs on a full store: one for the log of
        every process, the maintenance process and recovery among them."""
        return self.worker_count + 2

    @property
    def checkpoint_reserve_zones_count(self) -> int:
        """What a checkpoint that gives back more zones than it takes leaves of the reserve."""
        return (self.reserve_zones_count + 1) // 3

    @property
    def background_reserve_share_count(self) -> int:
        """What background work that moves data may take of the reserve, because more zones come
        back by it: one for the group it fills, one for the segment of the log its commits need."""
        return 2

    @property
    def places_kept_seconds(self) -> float:
        """How long a read uses places it looked up: zones are left alone for longer."""
        return zone_grace.places_kept_seconds(self.zone_grace_seconds)

    @property
    def worker_count(self) -> int:
        """Gateway processes; by default one per core this process may run on."""
        return self.workers or len(os.sched_getaffinity(0))

    @property
    def credentials_path(self) -> pathlib.Path:
        """File of the root credentials."""
        return self.credentials_file or self.data_dir / "credentials.json"

    @property
    def master_key_path(self) -> pathlib.Path:
        """File of the keys that secrets in the index are sealed with."""
        return self.master_key_file or self.data_dir / "master-key.json"

    @property
    def notification_urls(self) -> dict[str, str]:
        """Name of each target of notices -> where it takes them."""
        return dict(item.split("=", 1) for item in self.notification_targets)

    @property
    def endpoint(self) -> str:
        """URL a client on this machine can use."""
        scheme = "https" if self.tls_cert else "http"
        return f"{scheme}://{_reachable(self.host)}:{self.port}"

    @property
    def health_url(self) -> str:
        """Where health answers on this machine."""
        return f"http://{_reachable(self.health_host)}:{self.health_port}"

    @property
    def admin_url(self) -> str:
        """Where tenants are administered on this machine."""
        return f"http://{_reachable(self.admin_host)}:{self.admin_port}"

    @property
    def metrics_url(self) -> str:
        """Where metrics answer on this machine."""
        return f"http://{_reachable(self.metrics_host)}:{self.metrics_port}"

    def to_json(self) -> str:
        """Text that ``from_json`` turns back into an equal value."""
        return json.dumps({f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)})

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """The value ``to_json`` wrote; only ever read from a process of our own."""
        values: dict[str, Any] = json.loads(text)
        for name in (
            *("data_dir", "tls_cert", "tls_key"),
            *("credentials_file", "users_file", "master_key_file"),
        ):
            if values[name] is not None:
                values[name] = pathlib.Path(values[name])
        values["notification_targets"] = tuple(values["notification_targets"])
        values["devices"] = tuple(pathlib.Path(path) for path in values["devices"])
        return cls(**values)


def _reachable(host: str) -> str:
    """What a URL names for an address that may stand for all networks."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    return f"[{host}]" if ":" in host else host


def _plain(value: object) -> object:
    if isinstance(value, pathlib.Path):
        return str(value)
    if isinstance(value, tuple):
        return [str(item) for item in value]
    return value
