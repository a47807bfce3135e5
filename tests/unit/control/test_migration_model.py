"""Every interleaving of a migration with kills, late calls, sleepers, faults and other people.

Each configuration is explored completely; the mutants show that what it proves can fail.
"""

from __future__ import annotations

import migration_model
import migration_promises
import migration_rules
import pytest

from couchestor_operator.control import migration, migration_machine, sight

Bounds, Rules = migration_rules.Bounds, migration_rules.Rules

# What is met within the first is met within the second, too.
PEOPLE = Bounds(replicas_count=1, acts_count=2, meddling_count=1)
PEOPLE_AND_FAULTS = Bounds(replicas_count=1, acts_count=2, meddling_count=1, faults_count=1)
FAULTS_OF_ONE = Bounds(replicas_count=1, acts_count=2, faults_count=1)
FAULTS_OF_TWO = Bounds(replicas_count=2, acts_count=2, faults_count=1)


@pytest.mark.parametrize(
    ("bounds", "states_count_min"),
    [
        pytest.param(PEOPLE_AND_FAULTS, 100_000, id="people-and-faults"),
        pytest.param(
            Bounds(replicas_count=1, acts_count=3, meddling_count=1),
            20_000,
            id="three-at-once",
        ),
        pytest.param(FAULTS_OF_TWO, 9_000, id="two-replicas-and-faults"),
        pytest.param(
            Bounds(replicas_count=2, acts_count=2, meddling_count=1),
            7_000,
            id="two-replicas-and-people",
        ),
        pytest.param(
            Bounds(replicas_count=2, acts_count=1, faults_count=1, meddling_count=1),
            30_000,
            id="two-replicas-people-and-faults",
        ),
    ],
)
def test_no_order_of_events_breaks_a_promise(
    bounds: migration_rules.Bounds, states_count_min: int
) -> None:
    explored = migration_model.Model(bounds)
    states_count = explored.explore()
    print(f"{bounds}: {states_count} states")
    assert states_count >= states_count_min
    outcomes = set(migration.Outcome)
    if bounds.meddling_count == 0:
        outcomes.remove(migration.Outcome.PRESERVED)
    assert {end.ending.outcome for end in explored.ends} == outcomes
    assert {end.surplus for end in explored.ends} == set(migration.Surplus)
    assert {end.source_kept for end in explored.ends} == {True, False}


@pytest.mark.parametrize(
    ("rules", "bounds", "broken"),
    [
        (Rules(all_seem_whole=True), PEOPLE, "not all that stay are whole"),
        (
            Rules(versions_checked=False, history_judged=False),
            FAULTS_OF_TWO,
            "than the source",
        ),
        (Rules(versions_checked=False), FAULTS_OF_TWO, "no surplus"),
        (Rules(looks_are_cached=True), PEOPLE, "after the end"),
        (Rules(acts_before_writing=True), PEOPLE, "no record tells"),
        (Rules(record_read_first=True), PEOPLE, "after the end"),
        (Rules(seal_not_awaited=True), PEOPLE, "no surplus"),
        (Rules(any_seal_will_do=True), PEOPLE, "that the source stays"),
    ],
    ids=[
        "sync-not-asked",
        "versions-not-checked",
        "versions-not-checked-and-the-history",
        "stale-look",
        "acts-before-writing",
        "record-read-first",
        "no-seal",
        "seal-of-an-earlier-ending",
    ],
)
def test_a_machine_without_one_of_its_guards_is_caught(
    rules: migration_rules.Rules, bounds: migration_rules.Bounds, broken: str
) -> None:
    """Within bounds that are safe with all guards: so it is the missing one that is caught."""
    with pytest.raises(migration_promises.Violation, match=broken):
        migration_model.Model(bounds, rules=rules).explore()


def test_a_record_that_is_changed_to_and_fro_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    decide = migration_machine.decide

    def wavers(seen: sight.FreshSight) -> migration.Verdict:
        is_early = seen.now_seconds < seen.record.deadline_seconds
        if seen.record.ending is not None and seen.volume is not None and is_early:
            return migration.ending(seen.record, None)
        return decide(seen)

    monkeypatch.setattr(migration_machine, "decide", wavers)
    with pytest.raises(migration_promises.Violation, match="goes round in circles"):
        migration_model.Model(PEOPLE).explore()


def test_a_kill_leads_where_something_else_leads_too() -> None:
    killing = migration_model.Model(PEOPLE, rules=Rules(kills_are_moves=True))
    assert killing.explore() == migration_model.Model(PEOPLE).explore()


def test_without_versions_a_manager_that_takes_the_sick_first_keeps_the_copies() -> None:
    """What is left of safety over the Mayastor REST API, which has no versions and takes no names.

    The history may be wrong then: a call that comes after the end is carried out.
    """
    lenient = Rules(versions_checked=False, manager_chooses=True, history_judged=False)
    assert migration_model.Model(FAULTS_OF_ONE, rules=lenient).explore() > 15_000
    exact = Rules(versions_checked=False, manager_chooses=True)
    with pytest.raises(migration_promises.Violation, match="no surplus"):
        migration_model.Model(FAULTS_OF_ONE, rules=exact).explore()
