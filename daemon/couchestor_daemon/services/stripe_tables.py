"""What a packed stripe says it holds, and which of it the L2P still leads to."""

from __future__ import annotations

from collections.abc import Sequence

from couchestor_daemon.formats import l2p_record, packed_stripe
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import stripe_reader
from couchestor_daemon.services.catalogue import l2p
from couchestor_domain import ids, units

Table = Sequence[packed_stripe.Entry]


async def read(
    stripes: stripe_reader.StripeReader,
    stripe: stripe_reader.StripeLocation,
    members: stripe_reader.GroupMembers,
) -> Table | None:
    """The table at the start of a stripe's data; None when what lies there is not one.

    Raises:
        InsufficientShardsError: too few shards verify.
    """
    wanted = units.BLOCK_BYTES
    while True:
        wanted = min(wanted, stripe.data_bytes)
        view = memoryview(bytearray(wanted))
        await stripes.read(stripe, members, 0, wanted, view)
        announced = packed_stripe.announced_bytes(view)
        if announced <= wanted:
            return packed_stripe.unpack(view, data_bytes=stripe.data_bytes)
        if wanted == stripe.data_bytes:
            return None
        wanted = announced


def live_entries(
    reader: index_port.IndexReader, table: Table, stripe: stripe_reader.StripeLocation
) -> list[l2p.Entry]:
    """Those of a table's entries that the L2P leads to at just their place in the stripe."""
    entries = []
    for part in table:
        address = ids.ExtentAddress(part.extent_address)
        value = reader.get(l2p_record.key(address))
        if value is None:
            continue
        location = l2p_record.unpack(value)
        if leads_to(location, stripe) and _is_part(location, part):
            entries.append(l2p.Entry(address, location))
    return entries


def leads_to(location: l2p_record.Location, stripe: stripe_reader.StripeLocation) -> bool:
    """Whether a location is inside a stripe."""
    return not isinstance(location, l2p_record.JournalLocation) and tuple(location[:4]) == stripe


def _is_part(location: l2p_record.Location, part: packed_stripe.Entry) -> bool:
    return (
        not isinstance(location, l2p_record.JournalLocation)
        and (location.start_bytes, location.stored_bytes, location.length_bytes) == part[1:4]
        and isinstance(location, l2p_record.Lz4Location) == part.is_lz4
    )
