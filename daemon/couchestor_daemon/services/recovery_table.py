"""What a start does, as a table over everything it can find.

Pure: `decide` is total, and a test enumerates every input.

    index     last stop          action
    --------  -----------------  -----------------------------------------------------------
    absent    any, empty log     INITIALISE  a first start
    absent    any, log present   REBUILD     the log is the truth; replay it after the newest
                                             checkpoint, or from its beginning
    foreign   any                REFUSE      the index belongs to another node
    damaged   any, log present   REBUILD     what is there is kept aside
    damaged   any, empty log     REFUSE      the devices that hold the log are away
    present   clean              USE         synced at the last stop
    present   crash, same boot   USE         commits survive the death of processes; a batch beyond
                                             the index was never answered and stays void
    present   crash, other boot  REBUILD     the live index is not synced and cannot be trusted
    any       recover asked for  REBUILD     `couchestor recover`, which need not look at the index;
                                             REFUSE when one is there and no device holds a log to
                                             rebuild it from
"""

from __future__ import annotations

import enum


class IndexState(enum.Enum):
    """What is found where the live index should be."""

    ABSENT = "absent"
    FOREIGN = "foreign"
    DAMAGED = "damaged"
    PRESENT = "present"


class LastStop(enum.Enum):
    """How the node stopped, from the shutdown mark and the boot id."""

    CLEAN = "clean"
    CRASH_SAME_BOOT = "crash, same boot"
    CRASH_OTHER_BOOT = "crash, other boot"


class Action(enum.Enum):
    """What to do before serving."""

    INITIALISE = "initialise"
    USE = "use"
    REBUILD = "rebuild"
    REFUSE = "refuse"


def decide(
    *, index: IndexState, last_stop: LastStop, log_present: bool, recover_asked: bool
) -> Action:
    """The table above."""
    if index is IndexState.FOREIGN and not recover_asked:
        return Action.REFUSE
    if index is IndexState.ABSENT and not log_present:
        return Action.INITIALISE
    if (recover_asked or index is IndexState.DAMAGED) and not log_present:
        return Action.REFUSE
    if recover_asked or index in (IndexState.ABSENT, IndexState.DAMAGED):
        return Action.REBUILD
    if last_stop is LastStop.CRASH_OTHER_BOOT:
        return Action.REBUILD
    return Action.USE
