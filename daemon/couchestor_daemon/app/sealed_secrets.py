"""Whether the secrets in the index can be opened with the master keys that are there."""

from __future__ import annotations

from typing import Final

from couchestor_daemon.app import master_key_file, settings
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services.catalogue import identities
from couchestor_domain import errors

_NAMED_MAX: Final = 3


def complaint(told: settings.Settings, reader: index_port.IndexReader) -> str | None:
    """What a person must know whose master keys do not fit the index; None: they do."""
    sealed: dict[str, str] = {name: key.master_key_id for name, key in identities.list_keys(reader)}
    if not sealed:
        return None
    path = told.master_key_path
    try:
        master = master_key_file.load(path)
    except FileNotFoundError:
        lost = list(sealed)
    except errors.ConfigurationError as exc:
        return f"{len(sealed)} access keys of tenants do not open: {exc.message}"
    else:
        lost = [name for name, key_id in sealed.items() if key_id not in master]
    if not lost:
        return None
    named = ", ".join(lost[:_NAMED_MAX]) + (", ..." if len(lost) > _NAMED_MAX else "")
    wanted = ", ".join(sorted({sealed[name] for name in lost}))
    return (
        f"{len(lost)} access keys of tenants ({named}) do not open: the master key {wanted} is not"
        f" in {path}. Put the file back that holds it and start again; if it is lost for good,"
        " remove those access keys with `couchestor key remove` and create others: nothing else is"
        " lost with it"
    )
