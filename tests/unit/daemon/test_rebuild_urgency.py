"""Which groups go on beside one another, and which pause, over devices in memory."""

from __future__ import annotations

import lost_device_node
import pytest
from lost_device_node import LOST, LostDeviceNode

from couchestor_daemon.services import member_rebuild, rebuild_lanes, rebuild_order, stripe_runs
from couchestor_domain import events


@pytest.fixture
async def bench() -> LostDeviceNode:
    made = LostDeviceNode()
    await made.fill()
    return made


@pytest.fixture
def in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """One turn of each lane, and one run in each turn."""
    monkeypatch.setattr(rebuild_lanes, "STEP_SECONDS", 0.0)
    monkeypatch.setattr(stripe_runs, "RUN_BYTES", 1)


async def test_a_more_endangered_group_goes_before_lesser_ones_under_way(
    bench: LostDeviceNode, in_turns: None
) -> None:
    lost = bench.of_device(LOST)
    bench.lose(LOST)
    await bench.steps_until(lambda: len(bench.fresh_zones()) == rebuild_order.GROUPS_AT_ONCE)
    await bench.work.step()
    at_it = set(bench.fresh_zones().values())
    waiting = lost - at_it - set(bench.groups_of(events.ReconstructionCompleted))
    # A second member is lost of some that are under way, and of some that are not.
    targets = {zone.device_id for zone in bench.fresh_zones()}
    other = next(
        device
        for device in bench.devices
        if (also := bench.of_device(device)) & at_it
        and at_it - also
        and waiting & also
        and device not in targets
    )
    urgent = lost & bench.of_device(other)
    bench.lose(other)
    begun = len(bench.events_of(events.ReconstructionTriggered))
    written: list[int] = []

    async def write(self: member_rebuild.MemberRebuild, run: stripe_runs.Run) -> None:
        written.append(self.record.group_id)
        await honest(self, run)

    honest = member_rebuild.MemberRebuild._write
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(member_rebuild.MemberRebuild, "_write", write)
        await bench.settle()
    # First what can lose no more, whether it was under way or not; all else is paused meanwhile.
    first_lesser = next(n for n, group in enumerate(written) if group not in urgent)
    assert set(written[:first_lesser]) == urgent
    for group_id in urgent - at_it:
        assert group_id not in written[first_lesser:]
    # What paused did not begin anew.
    triggered = bench.groups_of(events.ReconstructionTriggered)
    assert [g for g in triggered[begun:] if g in at_it - urgent] == []
    assert not bench.groups_of(events.ReconstructionFailed)
    # The second members of those that were under way are found missing by the next look at all.
    bench.now_seconds += lost_device_node.RESURVEY_SECONDS
    await bench.settle()
    await bench.check()


async def test_beside_the_most_endangered_groups_no_lesser_one_is_begun(
    bench: LostDeviceNode,
) -> None:
    *lesser, urgent = bench.lost_groups()
    await bench.rot_and_queue(bench.address_in(urgent), bench.present(urgent)[0])
    bench.lose(LOST)
    await bench.settle()
    told = [
        event
        for event in bench.published
        if isinstance(event, events.ReconstructionCompleted | events.ReconstructionTriggered)
    ]
    assert [(type(event), event.group_id) for event in told[:3]] == [
        (events.ReconstructionTriggered, urgent),
        (events.ReconstructionCompleted, urgent),
        (events.ReconstructionTriggered, lesser[0]),
    ]
    await bench.check()


def a_need(group_id: int, redundancy_count: int) -> rebuild_order.Need:
    return rebuild_order.Need(redundancy_count, 0, group_id, (0,), ())


def test_beside_a_group_only_its_equals_are_begun() -> None:
    equals = [a_need(number, 1) for number in range(rebuild_order.GROUPS_AT_ONCE)]
    one = a_need(9, 1)
    assert rebuild_order.may_begin(one, [])
    assert rebuild_order.may_begin(one, equals[:-1])
    assert not rebuild_order.may_begin(one, equals)
    assert not rebuild_order.may_begin(one, [a_need(8, 0)])
    assert rebuild_order.may_begin(one, [a_need(number, 2) for number in range(9)])


def test_while_a_more_endangered_one_is_under_way_the_others_pause() -> None:
    under_way = [a_need(1, 0), a_need(2, 1), a_need(3, 0), a_need(4, 2)]
    assert [rebuild_order.goes_on(one, under_way) for one in under_way] == [
        True, False, True, False,
    ]  # fmt: skip
    assert rebuild_order.goes_on(under_way[3], under_way[3:])
