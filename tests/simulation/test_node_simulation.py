"""A whole node under crashes, power loss and failing devices, by seed.

``node_lives`` runs several lives of two worker processes under concurrent clients; every answer
goes to the oracle, and after every start everything is read and the media are audited.
COUCHESTOR_SIMULATION_SEEDS sets the number of seeds, ``make simulate`` runs more of them.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import types
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import pytest
from tests.simulation import (
    clients,
    fault_plan,
    ledger,
    media_audit,
    node_lives,
    node_shape,
    oracle,
    quiet_end,
    run_seeds,
    simulated_node,
    simulated_process,
    virtual_loop,
)

from couchestor_daemon import buffers
from couchestor_daemon.adapters import inline_media, isal_codec
from couchestor_daemon.formats import l2p_record, packed_stripe, shard
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import (
    group_sealer,
    log_scan,
    log_segment,
    member_moves,
    member_rebuild,
    member_replacement,
    node_store,
    rebuild_survey,
    release,
    stranded_groups,
    stripe_runs,
)
from couchestor_daemon.services.catalogue import l2p, liveness
from couchestor_domain import ids, objects

SEEDS_COUNT = int(os.environ.get("COUCHESTOR_SIMULATION_SEEDS", "150"))
SEEDS_PER_TEST = 50
CANARY_SEEDS_COUNT = 120

# All of a node runs inline on the virtual loop, so nothing here can block anybody.
pytestmark = [pytest.mark.may_block, pytest.mark.usefixtures("quiet")]

isal_codec.load_library()


@pytest.mark.parametrize("seed", run_seeds.kept_seeds())
def test_a_seed_that_once_failed(seed: int) -> None:
    node_lives.run(seed)


@pytest.mark.parametrize("block", range(SEEDS_COUNT // SEEDS_PER_TEST))
def test_a_node_keeps_its_promises(block: int) -> None:
    for seed in range(block * SEEDS_PER_TEST, (block + 1) * SEEDS_PER_TEST):
        node_lives.run(seed)


def test_a_run_is_a_function_of_its_seed() -> None:
    hashes = [node_lives.run(seed) for seed in range(6)]
    assert len(set(hashes)) == len(hashes)
    assert [node_lives.run(seed) for seed in range(6)] == hashes


def test_the_seeds_meet_every_kind_of_fault() -> None:
    """A plan that stopped injecting would let everything pass."""
    seen: set[str] = set()
    for seed in range(25):
        lives = node_lives.Lives(seed)
        lives.run()
        assert lives.book.operations_count > 20
        seen.update(line.split(" ")[0] for line in lives.faults.log)
    assert seen >= {
        *("initialise", "rebuild", "use", "power", "crash,", "full", "rot", "dies"),
        *(
            "alone",
            "checkpoint",
            "from-checkpoint",
            "released-group",
            "released-segment",
            "destage-moved",
            "reclaim-moved",
            "compressed",
            "rebuilt",
            "scrub-found",
            "quiet",
            "quiet-alone",
            "stranded",
            "in-commit",
            "unplug",
            "write",
            "flush",
            "read",
            "misdirect",
            "hang",
            "landed-late",
            "back",
            "away",
            "dead",
        ),
    }


def test_a_read_goes_on_when_its_version_is_replaced() -> None:
    """Between the lookup and the first byte, as the gateway writes its headers."""
    shape = fault_plan.choose_shape(random.Random(0))
    node = simulated_node.SimulatedNode("replaced", shape)
    node.prepare()

    async def read_while_replacing() -> tuple[bytes, bytes]:
        worker = simulated_process.Worker(node, 0)
        await worker.start()
        store = worker.store
        await store.create_bucket(name="b", owner="o", region="r")
        bodies = [oracle.content(version, 100_000) for version in (1, 2)]
        request = objects.PutRequest(bucket="b", key="k")
        for body in bodies:
            source = clients.SimulatedBody(body, announced_bytes=len(body))
            if body is bodies[1]:
                record = await store.get_object(bucket="b", key="k")
            await store.put_object(request, source)
        pieces = store.stream(record, start_bytes=10, length_bytes=99_000)
        found = b"".join([bytes(piece) async for piece in pieces])
        return found, bodies[0][10:99_010]

    loop = virtual_loop.VirtualLoop("replaced")  # type: ignore[abstract]
    found, expected = loop.run(read_while_replacing(), interrupted=lambda: False)
    assert found == expected


# -- canaries: planted bugs that must be noticed ------------------------------------------------


def must_be_caught(symptoms: str, *, first_seed: int = 0) -> None:
    """Demand that some seed fails with one of the symptoms, and none with anything else."""
    for seed in range(first_seed, first_seed + CANARY_SEEDS_COUNT):
        try:
            node_lives.run(seed)
        except Exception as exc:
            found = list(_leaves(exc))
            assert all(re.search(symptoms, str(leaf)) for leaf in found), found
            return
    pytest.fail(f"{CANARY_SEEDS_COUNT} seeds did not notice the planted bug")


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


@pytest.fixture
def without_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what clients read counts."""
    monkeypatch.setattr(media_audit, "run", lambda node, *, damaged: None)


def patch_media_writes(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[memoryview, bool], tuple[memoryview, bool]]
) -> None:
    """Change the data or durability of every shard on its way to a device."""
    honest = inline_media.InlineMedia.write

    async def write(
        self: inline_media.InlineMedia,
        zone: ids.ZoneAddress,
        offset_bytes: int,
        data: memoryview,
        *,
        durable: bool,
    ) -> None:
        data, durable = change(data, durable)
        await honest(self, zone, offset_bytes, data, durable=durable)

    monkeypatch.setattr(inline_media.InlineMedia, "write", write)


@pytest.mark.usefixtures("without_audit")
def test_canary_shards_that_are_not_durable(monkeypatch: pytest.MonkeyPatch) -> None:
    patch_media_writes(monkeypatch, lambda data, durable: (data, False))
    must_be_caught("cannot be read")


def _only_data_shards(data: memoryview, durable: bool) -> tuple[memoryview, bool]:
    header = shard.unpack(data)
    if header is not None and header.shard_index >= header.data_shards:
        return memoryview(bytes(len(data))), durable
    return data, durable


def test_canary_a_stripe_answered_without_its_parity(monkeypatch: pytest.MonkeyPatch) -> None:
    patch_media_writes(monkeypatch, _only_data_shards)
    must_be_caught("is not on ZoneAddress")


@pytest.mark.usefixtures("without_audit")
def test_canary_missing_parity_is_missed_when_devices_die(monkeypatch: pytest.MonkeyPatch) -> None:
    patch_media_writes(monkeypatch, _only_data_shards)
    must_be_caught("cannot be read|are not repaired")


@pytest.mark.usefixtures("without_audit")
def test_canary_an_index_committed_before_its_batch_is_on_the_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = log_segment.LogSegment.append
    late: dict[int, tuple[int, bytes]] = {}

    def append(self: log_segment.LogSegment, data: memoryview) -> None:
        offset, end = self.offset_bytes, self.offset_bytes + len(data)
        held = late.pop(id(self), None)
        if held is not None and held[0] + len(held[1]) == offset:
            self.offset_bytes = held[0]
            honest(self, memoryview(held[1]))
        late[id(self)] = (offset, bytes(data))
        self.offset_bytes = end

    monkeypatch.setattr(log_segment.LogSegment, "append", append)
    must_be_caught("a gap after sequence|is not mapped|shows")


@pytest.mark.usefixtures("without_audit")
def test_canary_log_segments_released_that_no_checkpoint_covers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(release, "_is_covered", lambda segment_id, covering: True)
    must_be_caught("a gap after sequence|can be followed to sequence|does not list")


@pytest.mark.usefixtures("without_audit")
def test_canary_groups_sealed_while_a_commit_under_way_refers_to_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(group_sealer.GroupSealer, "_ready", lambda self: list(self._waiting))
    # So that zones come back before a slow upload ends.
    for name in ("PLACES_KEPT_SECONDS", "GRACE_SECONDS", "RELEASE_GRACE_SECONDS"):
        monkeypatch.setattr(node_shape, name, getattr(node_shape, name) / 10)
    must_be_caught("does not list|is referred to again|another or no shard lies there")


@pytest.mark.usefixtures("without_audit")
def test_canary_zones_reset_before_readers_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_shape, "RELEASE_GRACE_SECONDS", 0.0)
    honest = ledger.Ledger.read_key

    def slowly(
        book: ledger.Ledger, store: node_store.NodeStore, key: str, *, pause_seconds: float = 0.0
    ) -> Awaitable[objects.ObjectRecord | None]:
        # Slow enough to meet a reset now and then, and still within the grace there should be.
        pause = max(pause_seconds, 0.4 * node_shape.GRACE_SECONDS)
        return honest(book, store, key, pause_seconds=pause)

    monkeypatch.setattr(ledger.Ledger, "read_key", slowly)
    # Few seeds meet one, and with such slow reads each takes seconds: from near one that does.
    must_be_caught("was given away under a read", first_seed=75)


def test_canary_an_entry_switched_although_a_client_changed_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def replace_all(txn: index_port.IndexWriter, moves: Sequence[l2p.Move]) -> list[l2p.Move]:
        for move in moves:
            now = txn.get(l2p_record.key(move.address))
            if now is not None:
                liveness.subtract(txn, [l2p_record.unpack(now)])
            txn.put(l2p_record.key(move.address), l2p_record.pack(move.location))
            liveness.add(txn, [move.location])
        return list(moves)

    monkeypatch.setattr(l2p, "replace_all", replace_all)
    must_be_caught("belong to nothing|is not mapped; next is|reaches past its extent")


def _packed_shards_not_durable(data: memoryview, durable: bool) -> tuple[memoryview, bool]:
    header = shard.unpack(data)
    is_packed = header is not None and header.extent_address == packed_stripe.ADDRESS
    return data, durable and not is_packed


@pytest.mark.usefixtures("without_audit")
def test_canary_entries_switched_before_the_shards_are_durable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    patch_media_writes(monkeypatch, _packed_shards_not_durable)
    must_be_caught("cannot be read|are not repaired|is not on")


@pytest.mark.usefixtures("without_audit")
def test_canary_bytes_served_unverified(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard, "verify_blocks", lambda header, first_block, view: True)
    must_be_caught("is torn")


@pytest.mark.usefixtures("without_audit")
def test_canary_an_unanswered_batch_preferred_to_the_one_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = log_scan.committed_chain

    def lowest_wins(
        base: int, found: Sequence[log_scan.FoundBatch]
    ) -> Sequence[log_scan.FoundBatch]:
        lowest: dict[int, int] = {}
        for item in found:
            lowest[item.previous] = min(item.sequence, lowest.get(item.previous, item.sequence))
        return honest(base, [item for item in found if item.sequence == lowest[item.previous]])

    monkeypatch.setattr(log_scan, "committed_chain", lowest_wins)
    must_be_caught("a gap after sequence|shows")


def test_canary_memory_lent_again_that_a_hung_write_still_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(buffers, "abandon", lambda view: None)
    must_be_caught("that a command under way reads was changed")


def test_canary_damage_that_is_never_repaired(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuild_survey.RebuildSurvey, "need_of", lambda self, reader, record: None)
    must_be_caught("are not repaired")


def test_canary_groups_that_no_device_can_complete_are_left_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stranded_groups.StrandedGroups, "among", lambda self, reader, records: {})
    # Few seeds meet such a group, and few a device whose retiring ends too late: from near those.
    must_be_caught("are not repaired", first_seed=70)


def test_canary_a_retiring_device_that_nothing_is_moved_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def idle(self: member_moves.MemberMoves) -> float:
        await asyncio.sleep(0)
        return 1.0

    monkeypatch.setattr(member_moves.MemberMoves, "step", idle)
    monkeypatch.setattr(fault_plan, "RETIRE_RATIO", 0.9)
    monkeypatch.setattr(quiet_end, "QUIET_SECONDS_MAX", 0.5)
    must_be_caught("are on retiring devices", first_seed=65)


def test_canary_members_switched_to_zones_that_hold_nothing_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Hasty(member_rebuild.MemberRebuild):
        async def advance(self, *, until_seconds: float | None = None) -> bool:
            return await super().advance(until_seconds=until_seconds) or self.moved_bytes > 0

        async def _write(self, run: stripe_runs.Run) -> None:
            self.moved_bytes += run.end_bytes - run.start_bytes

    class HastyReplacement(member_replacement.MemberReplacement):
        async def take_up(self, *told: Any, **named: Any) -> member_rebuild.MemberRebuild:
            work = await super().take_up(*told, **named)
            work.__class__ = Hasty
            return work

    monkeypatch.setattr(fault_plan, "RETIRE_RATIO", 0.9)
    monkeypatch.setattr(fault_plan, "JOIN_RATIO", 0.9)
    # Of moves alone.
    monkeypatch.setattr(
        member_moves,
        "member_replacement",
        types.SimpleNamespace(MemberReplacement=HastyReplacement),
    )
    must_be_caught("is not on ZoneAddress")
