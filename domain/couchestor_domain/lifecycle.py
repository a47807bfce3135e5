"""Rules of a bucket's lifecycle, and what they say is due: pure, at moments that are given.

A rule acts on what its filter matches; of several rules the one that is due first counts.

    what there is                          goes by
    the current version                    Days after it was written, or at Date
    a version that is not current          NoncurrentDays after its successor was written, unless it
                                           is among the newest that are kept
    a delete marker that hides nothing     ExpiredObjectDeleteMarker at once, or Days, or Date
    an upload under way                    DaysAfterInitiation

Tags and sizes are asked of versions only: a rule with them says nothing of delete markers.

Source: Amazon S3 User Guide, "Lifecycle configuration elements" and "Lifecycle rules: examples".
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from couchestor_domain import objects, units

NS_PER_DAY: Final = 86_400 * units.NS_PER_SECOND


class FilterForm(enum.Enum):
    """How a filter was written, so that it is given back so."""

    PREFIX = 1
    """A prefix beside the rule's other elements, as before there were filters."""
    SINGLE = 2
    """A filter with one element, or none."""
    AND = 3
    """A filter with several."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What a rule acts on: what matches all of it."""

    form: FilterForm = FilterForm.SINGLE
    prefix: str | None = None
    """Of keys; None: not given, which matches as an empty one does."""
    tags: Mapping[str, str] = field(default_factory=objects.empty_map)
    larger_than_bytes: int | None = None
    smaller_than_bytes: int | None = None

    @property
    def is_by_prefix_alone(self) -> bool:
        """Whether it asks nothing but the key."""
        return not self.tags and self.larger_than_bytes is None and self.smaller_than_bytes is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule."""

    rule_id: str
    is_enabled: bool
    filter: Filter
    days: int | None = None
    date_ns: int | None = None
    """Since the Unix epoch: midnight UTC."""
    removes_lone_markers: bool | None = None
    """ExpiredObjectDeleteMarker; None: not given."""
    noncurrent_days: int | None = None
    newer_noncurrent_count: int | None = None
    """How many versions that are not current are kept however old; None: not given."""
    abort_days: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """All rules of a bucket, in the order in which they were put."""

    rules: tuple[Rule, ...]
    transition_minimum: str = ""
    """What x-amz-transition-default-minimum-object-size said where it was given. Kept for clients
    that ask for it: nothing moves here."""


@dataclass(frozen=True, slots=True)
class Calendar:
    """How long a day is.

    Args:
        day_ns: ``NS_PER_DAY``: what is due is due at midnight UTC, rounded up. Any other length is
            for tests of whole nodes, where nothing is rounded.
    """

    day_ns: int = NS_PER_DAY

    def after(self, moment_ns: int, days: int) -> int:
        """When so many days have passed, since the Unix epoch."""
        passed_ns = moment_ns + days * self.day_ns
        if self.day_ns != NS_PER_DAY:
            return passed_ns
        return units.ceil_div(passed_ns, NS_PER_DAY) * NS_PER_DAY


REAL_DAYS: Final = Calendar()


class Due(NamedTuple):
    """Since when something is due, or will be, and by which rule."""

    at_ns: int
    rule_id: str


class Version(NamedTuple):
    """What rules ask of a version that is no delete marker."""

    size_bytes: int
    modified_ns: int
    tags: Mapping[str, str]


def enabled(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """The rules that act."""
    return tuple(rule for rule in rules if rule.is_enabled)


def prefixes(rules: Iterable[Rule]) -> tuple[bytes, ...]:
    """The fewest prefixes, in bytewise order, that all keys have on which enabled rules act."""
    found: list[bytes] = []
    for prefix in sorted({(rule.filter.prefix or "").encode() for rule in enabled(rules)}):
        # What sorts between a prefix and what begins with it, begins with it, too.
        if not found or not prefix.startswith(found[-1]):
            found.append(prefix)
    return tuple(found)


def current_due(
    rules: Sequence[Rule], key: str, version: Version, calendar: Calendar = REAL_DAYS
) -> Due | None:
    """When the current version of a key expires; None: never.

    Args:
        rules: Enabled ones. So of the other functions.
    """
    return _first(
        due
        for rule in rules
        if _matches(rule.filter, key, version)
        and (due := _expiration(rule, version.modified_ns, calendar))
    )


def noncurrent_due(
    rules: Sequence[Rule],
    key: str,
    version: Version | None,
    *,
    since_ns: int,
    newer_count: int,
    calendar: Calendar = REAL_DAYS,
) -> Due | None:
    """When a version that is not current goes for good.

    Args:
        version: None for a delete marker.
        since_ns: When its successor was written.
        newer_count: How many versions that are not current, delete markers too, are newer.
    """
    return _first(
        Due(calendar.after(since_ns, rule.noncurrent_days), rule.rule_id)
        for rule in rules
        if rule.noncurrent_days is not None
        and newer_count >= (rule.newer_noncurrent_count or 0)
        and (
            _matches(rule.filter, key, version)
            if version is not None
            else _acts_on_key(rule.filter, key)
        )
    )


def newer_counted_max(rules: Iterable[Rule]) -> int:
    """Up to how many newer versions it makes a difference how many there are."""
    return max((rule.newer_noncurrent_count or 0 for rule in rules), default=0)


def lone_marker_due(
    rules: Sequence[Rule], key: str, *, modified_ns: int, calendar: Calendar = REAL_DAYS
) -> Due | None:
    """When a delete marker goes that is the only version of its key."""
    return _first(
        due
        for rule in rules
        if _acts_on_key(rule.filter, key)
        and (
            due := Due(modified_ns, rule.rule_id)
            if rule.removes_lone_markers
            else _expiration(rule, modified_ns, calendar)
        )
    )


def upload_due(
    rules: Sequence[Rule], key: str, *, initiated_ns: int, calendar: Calendar = REAL_DAYS
) -> Due | None:
    """When an upload that is still under way is aborted."""
    return _first(
        Due(calendar.after(initiated_ns, rule.abort_days), rule.rule_id)
        for rule in rules
        if rule.abort_days is not None and _acts_on_key(rule.filter, key)
    )


def _first(due: Iterable[Due]) -> Due | None:
    return min(due, key=lambda each: each.at_ns, default=None)


def _expiration(rule: Rule, modified_ns: int, calendar: Calendar) -> Due | None:
    if rule.days is not None:
        return Due(calendar.after(modified_ns, rule.days), rule.rule_id)
    return None if rule.date_ns is None else Due(rule.date_ns, rule.rule_id)


def _acts_on_key(asked: Filter, key: str) -> bool:
    return asked.is_by_prefix_alone and key.startswith(asked.prefix or "")


def _matches(asked: Filter, key: str, version: Version) -> bool:
    if not key.startswith(asked.prefix or ""):
        return False
    if asked.larger_than_bytes is not None and version.size_bytes <= asked.larger_than_bytes:
        return False
    if asked.smaller_than_bytes is not None and version.size_bytes >= asked.smaller_than_bytes:
        return False
    return not asked.tags or asked.tags.items() <= version.tags.items()
