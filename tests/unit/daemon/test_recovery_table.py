from __future__ import annotations

import itertools

import pytest

from couchestor_daemon.services import recovery_table
from couchestor_daemon.services.recovery_table import Action, IndexState, LastStop

EVERY_INPUT = list(itertools.product(IndexState, LastStop, [False, True], [False, True]))


@pytest.mark.parametrize(("index", "last_stop", "log_present", "recover_asked"), EVERY_INPUT)
def test_every_input_has_the_action_the_rules_allow(
    index: IndexState, last_stop: LastStop, log_present: bool, recover_asked: bool
) -> None:
    action = recovery_table.decide(
        index=index, last_stop=last_stop, log_present=log_present, recover_asked=recover_asked
    )
    if action is Action.INITIALISE:
        assert index is IndexState.ABSENT
        assert not log_present
    if action is Action.USE:
        # Never trust an index that was not synced through a loss of power, nor a foreign one.
        assert index is IndexState.PRESENT
        assert last_stop is not LastStop.CRASH_OTHER_BOOT
        assert not recover_asked
    if log_present and index in (IndexState.ABSENT, IndexState.DAMAGED):
        assert action is Action.REBUILD
    foreign = index is IndexState.FOREIGN and not recover_asked
    wanted = recover_asked or index is IndexState.DAMAGED
    nothing_to_rebuild_from = wanted and not log_present and index is not IndexState.ABSENT
    assert (action is Action.REFUSE) == (foreign or nothing_to_rebuild_from)
    if action is Action.REBUILD:
        # A rebuild replaces what is there, so there must be something to replace it with.
        assert log_present or not wanted


def test_the_table_row_by_row() -> None:
    def decide(index: IndexState, stop: LastStop, *, log: bool = True, ask: bool = False) -> Action:
        return recovery_table.decide(
            index=index, last_stop=stop, log_present=log, recover_asked=ask
        )

    assert decide(IndexState.PRESENT, LastStop.CLEAN) is Action.USE
    assert decide(IndexState.PRESENT, LastStop.CRASH_SAME_BOOT) is Action.USE
    assert decide(IndexState.PRESENT, LastStop.CRASH_OTHER_BOOT) is Action.REBUILD
    assert decide(IndexState.PRESENT, LastStop.CLEAN, ask=True) is Action.REBUILD
    assert decide(IndexState.FOREIGN, LastStop.CLEAN, ask=True) is Action.REBUILD
    assert decide(IndexState.DAMAGED, LastStop.CLEAN) is Action.REBUILD
    assert decide(IndexState.DAMAGED, LastStop.CLEAN, log=False) is Action.REFUSE
    assert decide(IndexState.ABSENT, LastStop.CLEAN, log=False) is Action.INITIALISE
