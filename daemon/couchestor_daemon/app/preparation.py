"""What happens before workers serve and after they have ended: the two ends of a node's run."""

from __future__ import annotations

import dataclasses
import logging
import pathlib
import shutil
from typing import Final

from couchestor_daemon import buffers
from couchestor_daemon.adapters import (
    codec_choice,
    codec_selftest,
    device_roster,
    directory_device,
    lmdb_index,
    log_events,
    threaded_media,
)
from couchestor_daemon.app import (
    device_set,
    metrics,
    node_file,
    sealed_secrets,
    settings,
    stop_mark,
)
from couchestor_daemon.formats import media_records
from couchestor_daemon.services import commit_log, recovery_table, replay, writer_slots
from couchestor_domain import errors, event_publisher, events, geometry, ids, units

_log = logging.getLogger("couchestor.node")

BUFFER_POOL_BYTES: Final = 48 * units.MIB
INDEX_MAP_BYTES: Final = 64 * units.GIB


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NodeSummary:
    """What a start found and did."""

    node_id: str
    action: str
    devices_count: int
    missing_count: int
    replayed_batches_count: int
    checkpoint_sequence: int
    """Where a rebuild started; 0: at the beginning of the log, or there was none."""


def index_dir(told: settings.Settings) -> pathlib.Path:
    """Folder of the live index."""
    return told.data_dir / "index"


def has_index(told: settings.Settings) -> bool:
    """Whether a whole index is there. Without the mark a rebuild was interrupted."""
    return (index_dir(told) / "complete").exists()


def index_generation(told: settings.Settings) -> object:
    """Changes when a rebuild puts another index in the place of the live one."""
    try:
        found = (index_dir(told) / "data.mdb").stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def open_index(told: settings.Settings, *, read_only: bool = False) -> lmdb_index.LmdbIndex:
    """Open the live index, or begin one; ``read_only`` for a look beside a running node."""
    return lmdb_index.LmdbIndex(
        index_dir(told), map_size_bytes=INDEX_MAP_BYTES, read_only=read_only
    )


def conclude(told: settings.Settings) -> None:
    """Sync the index, then mark the stop as clean: the next start uses it, in any boot.

    Call when no process of the node is left. Does nothing where there is no whole index.

    Raises:
        CouchestorError: the index cannot be opened or synced; the mark stays as it is.
    """
    if not has_index(told):
        return
    index = open_index(told)
    try:
        index.sync()
    finally:
        index.close()
    stop_mark.sync_folder(told.data_dir)
    stop_mark.write_clean(told.data_dir)


def prepare(told: settings.Settings, *, recover_asked: bool = False) -> NodeSummary:
    """Bring the node to where workers may serve: format, verify, recover.

    Raises:
        CouchestorError: with one line that says what is wrong and what to do.
    """
    told.data_dir.mkdir(parents=True, exist_ok=True)
    wanted = geometry.StripeGeometry(told.data_shards, told.parity_shards)
    codec_selftest.run(codec_choice.choose(told.codec, wanted))
    membership = node_file.load(told)
    device_set.format_first(told, membership)
    devices = device_set.open_all(told, membership)
    if not devices:
        raise errors.ConfigurationError(
            f"none of the {len(told.device_paths)} devices of this node is there; "
            f"the first is expected at {told.device_paths[0]}"
        )
    membership = device_set.join_all(told, devices, membership)
    shape = wanted.shards_count
    if len(told.device_paths) < told.journal_replica_count:
        raise errors.ConfigurationError(
            f"{len(told.device_paths)} devices cannot hold {told.journal_replica_count} copies of "
            f"the log; configure at least that many ({shape} for {wanted})"
        )
    action = recovery_table.decide(
        index=_index_state(told, membership.node_id, recover_asked=recover_asked),
        last_stop=stop_mark.last_stop(told.data_dir),
        log_present=replay.log_present(devices),
        recover_asked=recover_asked,
    )
    if action is recovery_table.Action.REFUSE:
        raise errors.ConfigurationError(
            f"the index under {index_dir(told)} cannot be used: it belongs to another node than "
            "the devices, or is to be rebuilt and no present device holds a log. Bring the devices "
            "back, or move the index away"
        )
    report = replay.ReplayReport(batches_count=0, last_sequence=0, secured=False)
    if action in (recovery_table.Action.REBUILD, recovery_table.Action.INITIALISE):
        # First: else a crash in here could leave the old index beside a mark that trusts it.
        stop_mark.remove(told.data_dir)
        if action is recovery_table.Action.REBUILD:
            _log.warning("rebuilding the index from %d devices", len(devices))
            _set_aside(index_dir(told))
        report = _build_index(told, devices, membership.node_id)
    _warn_of_secrets(told)
    # Last: from here on this boot trusts the index, and no other does.
    stop_mark.write_running(told.data_dir)
    for device in devices.values():
        device.close()
    return NodeSummary(
        node_id=membership.node_id,
        action=action.value,
        devices_count=len(devices),
        missing_count=len(told.device_paths) - len(devices),
        replayed_batches_count=report.batches_count,
        checkpoint_sequence=report.checkpoint_sequence,
    )


def secrets_complaint(told: settings.Settings) -> str | None:
    """What is to be said of secrets in the live index that do not open."""
    index = open_index(told)
    try:
        with index.read() as reader:
            return sealed_secrets.complaint(told, reader)
    finally:
        index.close()


def _warn_of_secrets(told: settings.Settings) -> None:
    if (complaint := secrets_complaint(told)) is not None:
        _log.error("%s", complaint)


def _index_state(
    told: settings.Settings, node_id: ids.NodeId, *, recover_asked: bool
) -> recovery_table.IndexState:
    path = index_dir(told)
    if not has_index(told):
        # What is there is half a replay.
        shutil.rmtree(path, ignore_errors=True)
        return recovery_table.IndexState.ABSENT
    if recover_asked:
        # Whatever it holds. Not opened: a file cut short can kill who looks into it.
        return recovery_table.IndexState.PRESENT
    try:
        index = open_index(told)
        try:
            with index.read() as reader:
                found = reader.get(media_records.NODE_KEY)
        finally:
            index.close()
    except errors.IndexCorruptError as exc:
        if not exc.context.get("is_damage"):
            raise
        _log.error("the index is damaged, so it is rebuilt", extra={"reason": exc.message})
        return recovery_table.IndexState.DAMAGED
    if found is None:
        # Whole ones all say whose they are.
        _log.error("the index is empty, so it is rebuilt")
        return recovery_table.IndexState.DAMAGED
    if found != node_id.encode():
        return recovery_table.IndexState.FOREIGN
    return recovery_table.IndexState.PRESENT


def _build_index(
    told: settings.Settings,
    devices: dict[ids.DeviceId, directory_device.DirectoryDevice],
    node_id: ids.NodeId,
) -> replay.ReplayReport:
    index = open_index(told)
    publisher = log_events.LogEventPublisher(
        label_of=lambda device_id: device_set.label_of(devices, device_id)
    )
    media = threaded_media.ThreadedMedia(devices, health_changes(publisher))
    try:
        log = commit_log.CommitLog(
            writer=writer_slots.RECOVERY,
            index=index,
            media=media,
            pool=buffers.BufferPool(BUFFER_POOL_BYTES),
            replicas_count=told.journal_replica_count,
            reserve_zones_count=told.reserve_zones_count,
            publisher=publisher,
        )
        report = replay.rebuild(index, devices, log)
        with index.write() as txn:
            # Not logged: it names this index, and a rebuild writes it anew.
            txn.put(media_records.NODE_KEY, node_id.encode())
            txn.commit()
        index.sync()
        (index_dir(told) / "complete").write_text(node_id, encoding="ascii")
        return report
    finally:
        media.close()
        index.close()


def _set_aside(path: pathlib.Path) -> None:
    """Keep one earlier index until the rebuild has succeeded: a person may want it back."""
    kept = path.with_name("index.before-rebuild")
    if path.exists():
        shutil.rmtree(kept, ignore_errors=True)
        path.rename(kept)


def health_changes(publisher: event_publisher.EventPublisher) -> device_roster.FailureListener:
    """What tells people that a device left this process."""

    def publish(device_id: ids.DeviceId, error: BaseException) -> None:
        publisher.publish(
            events.HealthChanged(
                subject=f"{metrics.DEVICE_SUBJECT}{device_id}", healthy=False, reason=str(error)
            )
        )

    return publish
