"""What may be taken away from the tables of a stopped node: it belongs to nothing any more."""

from __future__ import annotations

from couchestor_daemon.formats import media_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import commit_log, index_audit, repair_queue
from couchestor_domain import ids


def described(reader: index_port.IndexReader) -> list[str]:
    """What ``removal`` would change, a sentence each."""
    return [
        *(f"freed {index_audit.name_of(zone)}" for zone in _unowned(reader)),
        *(f"dropped the repairs of group {group_id}" for group_id in _gone(reader)),
    ]


def removal() -> commit_log.Operation:
    """Free zones that nothing owns, and drop repairs of groups that are gone."""

    def apply(txn: index_port.IndexWriter, _: commit_log.Placement) -> None:
        for zone in _unowned(txn):
            txn.delete(media_records.zone_key(zone))
        for group_id in _gone(txn):
            repair_queue.delete_of_group(txn, group_id)

    return commit_log.Operation(apply=apply, uses_reserve=True)


def _unowned(reader: index_port.IndexReader) -> list[ids.ZoneAddress]:
    return [
        finding.zone
        for finding in index_audit.zone_findings(reader)
        if finding.zone is not None and not finding.is_damage
    ]


def _gone(reader: index_port.IndexReader) -> list[int]:
    return [
        group_id
        for group_id in repair_queue.groups(reader)
        if reader.get(media_records.group_key(group_id)) is None
    ]
