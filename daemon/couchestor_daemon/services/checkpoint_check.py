"""Whether every copy of every checkpoint is what it should be."""

from __future__ import annotations

from collections.abc import Iterable

from couchestor_daemon.formats import media_records
from couchestor_daemon.services import checkpoint_image
from couchestor_domain import errors, ids


def findings(
    devices: checkpoint_image.Devices, records: Iterable[media_records.CheckpointRecord]
) -> list[str]:
    """One sentence for each copy that is missing or does not verify.

    What was never finished is no finding: recovery ignores it and the next start releases it. So
    is one that no record names, unless some copy of it is whole and newer than what is recorded:
    a device that was away when a checkpoint was replaced comes back with its copy.

    Args:
        records: What the index lists; nothing when there is none.
    """
    images = {image.checkpoint_id: image for image in checkpoint_image.find_images(devices)}
    found: list[str] = []
    recorded = {record.checkpoint_id: record for record in records}
    newest = max(
        (
            r.sequence
            for r in recorded.values()
            if r.state == media_records.CheckpointState.COMPLETE
        ),
        default=0,
    )
    for checkpoint_id in sorted(images.keys() | recorded.keys()):
        image, record = images.get(checkpoint_id), recorded.get(checkpoint_id)
        complete = record is not None and record.state == media_records.CheckpointState.COMPLETE
        if complete and record is not None and record.sequence < newest:
            continue  # On its way out.
        if record is None and image is not None and image.sequence <= newest:
            continue  # It was, long ago.
        if image is None:
            if complete:
                found.append(f"checkpoint {checkpoint_id} is on no device: a recovery replays more")
            continue
        problems = [_problem(image, device_id, devices) for device_id in image.device_ids]
        if complete or not all(problems):
            found += [
                f"the copy of checkpoint {checkpoint_id} on device {device_id} {problem}"
                for device_id, problem in zip(image.device_ids, problems, strict=True)
                if problem
            ]
    return found


def _problem(
    image: checkpoint_image.Image, device_id: ids.DeviceId, devices: checkpoint_image.Devices
) -> str:
    if device_id not in devices:
        return "is on a missing device"
    try:
        checkpoint_image.verify(image.of_copy(device_id), devices)
    except errors.CatalogueError as exc:
        return f"does not verify: {exc.message}"
    return ""
