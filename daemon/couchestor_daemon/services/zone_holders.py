"""Which devices hold zones of this node."""

from __future__ import annotations

import contextlib

from couchestor_daemon.formats import media_records
from couchestor_daemon.ports import device as device_port
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.ports import media as media_port
from couchestor_domain import errors, ids


def in_service(
    index: index_port.IndexStore, media: media_port.Media
) -> dict[ids.DeviceId, device_port.ZonedDevice]:
    """Devices in service that the index knows zones in use of, retiring ones too."""
    found: dict[ids.DeviceId, device_port.ZonedDevice] = {}
    start, stop = media_records.table_range(media_records.ZONES)
    with index.read() as reader:
        while (first := next(iter(reader.scan(start, stop)), None)) is not None:
            device_id = media_records.zone_of_key(first[0]).device_id
            with contextlib.suppress(errors.DeviceError):
                found[device_id] = media.device(device_id)
            _, start = media_records.device_zones_range(device_id)
    return found
