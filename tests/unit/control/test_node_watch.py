"""A node is lost by two witnesses over a whole grace, and by nothing else."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from couchestor_operator.control import node_watch, storage_node

GRACE_SECONDS = 100.0
Contact = node_watch.Contact


def _node(*, ready: bool, declared_lost: bool = False) -> storage_node.StorageNode:
    return storage_node.StorageNode(
        name="n",
        address="10.0.0.1",
        zone="",
        ready=ready,
        declared_lost=declared_lost,
        selected=True,
    )


OBSERVATIONS = st.tuples(
    st.sampled_from(list(Contact)),
    st.sampled_from([None, _node(ready=True), _node(ready=False)]),
    st.sampled_from([1.0, 30.0, 60.0]),
)


@given(st.lists(OBSERVATIONS, max_size=20))
def test_nothing_less_than_both_witnesses_for_the_whole_grace_makes_a_node_lost(
    observations: list[tuple[Contact, storage_node.StorageNode | None, float]],
) -> None:
    watch = node_watch.NodeWatch(grace_seconds=GRACE_SECONDS)
    now_seconds = 0.0
    since_seconds: float | None = None
    """Since when nothing has spoken for the node."""
    for contact, node, passed_seconds in observations:
        now_seconds += passed_seconds
        known = {} if node is None else {"n": node}
        lost = watch.lost(["n"], known=known, contacts={"n": contact}, now_seconds=now_seconds)
        speaks = contact is Contact.ANSWERED or (node is not None and node.ready)
        if speaks:
            since_seconds = None
        elif since_seconds is None:
            since_seconds = now_seconds
        if lost:
            assert since_seconds is not None
            assert now_seconds - since_seconds >= GRACE_SECONDS
        if speaks:
            assert not lost


@given(st.integers(0, 9), st.integers(1, 9))
def test_more_than_half_is_too_many(lost_count: int, known_count: int) -> None:
    names = [str(number) for number in range(known_count)]
    lost = names[:lost_count]
    assert node_watch.is_too_many(lost, names) is (len(lost) > known_count / 2)


def test_what_is_missing_is_lost_after_the_grace_and_what_people_say_at_once() -> None:
    watch = node_watch.NodeWatch(grace_seconds=GRACE_SECONDS)
    gone = {"n": _node(ready=False)}
    for now_seconds, expected in ((0.0, False), (99.0, False), (100.0, True), (500.0, True)):
        lost = watch.lost(
            ["n"], known=gone, contacts={"n": Contact.UNREACHABLE}, now_seconds=now_seconds
        )
        assert bool(lost) is expected
    # Left alone for a while, it is missing all the same.
    assert watch.lost(["n"], known=gone, contacts={"n": Contact.NOT_ASKED}, now_seconds=501.0)
    declared = {"n": _node(ready=True, declared_lost=True)}
    fresh = node_watch.NodeWatch(grace_seconds=GRACE_SECONDS)
    for now_seconds, contact in zip(itertools.count(), Contact, strict=False):
        assert fresh.lost(
            ["n"], known=declared, contacts={"n": contact}, now_seconds=float(now_seconds)
        )


def test_a_node_that_is_of_no_interest_any_more_is_forgotten() -> None:
    watch = node_watch.NodeWatch(grace_seconds=GRACE_SECONDS)
    gone = {"n": _node(ready=False)}
    contacts = {"n": Contact.UNREACHABLE}
    watch.lost(["n"], known=gone, contacts=contacts, now_seconds=0.0)
    watch.lost([], known=gone, contacts=contacts, now_seconds=50.0)
    assert not watch.lost(["n"], known=gone, contacts=contacts, now_seconds=120.0)
