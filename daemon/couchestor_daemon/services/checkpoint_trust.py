"""Which copies of checkpoints this process has read back whole.

A checkpoint that a rebuild could start from although any m devices are lost may stand for the log
before it; what was written but never read is only thought to be there.
"""

from __future__ import annotations

import collections
import contextlib
import logging
from collections.abc import Callable, Sequence

from couchestor_daemon.formats import media_records
from couchestor_daemon.ports import device as device_port
from couchestor_daemon.ports import media as media_port
from couchestor_daemon.services import checkpoint_image, checkpoint_writer
from couchestor_domain import errors, ids

logger = logging.getLogger(__name__)


class ReadBack:
    """What one process has read of complete checkpoints.

    Args:
        copies_count: Devices that should each hold a complete image.
        should_stop: Ends a reading under way.
    """

    def __init__(
        self, media: media_port.Media, *, copies_count: int, should_stop: Callable[[], bool]
    ) -> None:
        self._media = media
        self._copies_count = copies_count
        self._should_stop = should_stop
        self._whole_on: dict[int, frozenset[ids.DeviceId]] = {}
        self._returns: collections.Counter[ids.DeviceId] = collections.Counter()

    def is_trusted(self, record: media_records.CheckpointRecord) -> bool:
        """Whether every copy was read back whole and is on a device in service. Any thread."""
        wanted = checkpoint_image.Image.of_record(record).device_ids
        whole = self._whole_on.get(record.checkpoint_id, frozenset())
        return (
            len(wanted) >= self._copies_count
            and whole.issuperset(wanted)
            and len(self._in_service(wanted)) == len(wanted)
        )

    def has_copy(self, checkpoint_id: int) -> bool:
        """Whether at least one copy was read back whole."""
        return bool(self._whole_on.get(checkpoint_id))

    def forget_others(self, checkpoint_ids: Sequence[int]) -> None:
        """Keep what is known of these alone. Others were released."""
        self._whole_on = {each: self._whole_on.get(each, frozenset()) for each in checkpoint_ids}

    def forget_device(self, device_id: ids.DeviceId) -> None:
        """Read copies on a device again before they are trusted. Any thread."""
        self._returns[device_id] += 1
        self._whole_on = {
            checkpoint_id: whole - {device_id} for checkpoint_id, whole in self._whole_on.items()
        }

    def verify(self, record: media_records.CheckpointRecord) -> None:
        """Read each copy that was not yet, by itself, as a rebuild would without the others.

        Blocking. What does not verify is logged.

        Raises:
            StoppedError: ``should_stop`` ended it.
        """
        image = checkpoint_image.Image.of_record(record)
        returns = collections.Counter(self._returns)
        devices = self._in_service(image.device_ids)
        whole = set(self._whole_on.get(record.checkpoint_id, ()))
        listed_open = frozenset(segment_id for segment_id, _ in record.open_segments)
        for device_id in sorted(devices.keys() - whole):
            try:
                found = checkpoint_image.verify(
                    image.of_copy(device_id), devices, before_block=self._stop_if_told
                )
            except errors.CatalogueError as exc:
                logger.warning("the copy on device %s does not verify: %s", device_id, exc)
                continue
            if (found.entries_count, found.image_bytes, found.open_segments) != (
                record.entries_count,
                record.image_bytes,
                listed_open,
            ):
                logger.warning(
                    "the copy of checkpoint %d on device %s is not what was recorded of it",
                    record.checkpoint_id,
                    device_id,
                )
                continue
            whole.add(device_id)
        # One that has been away meanwhile is not what was read.
        whole = {each for each in whole if self._returns[each] == returns[each]}
        self._whole_on = {**self._whole_on, record.checkpoint_id: frozenset(whole)}

    def _stop_if_told(self) -> None:
        if self._should_stop():
            raise checkpoint_writer.StoppedError

    def _in_service(
        self, device_ids: Sequence[ids.DeviceId]
    ) -> dict[ids.DeviceId, device_port.ZonedDevice]:
        found: dict[ids.DeviceId, device_port.ZonedDevice] = {}
        for device_id in device_ids:
            with contextlib.suppress(errors.DeviceError):
                found[device_id] = self._media.device(device_id)
        return found
