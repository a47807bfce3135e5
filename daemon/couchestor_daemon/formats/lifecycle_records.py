"""The rules of a bucket's lifecycle as the index holds them.

One version byte, then a MessagePack array of the rules and of what else was put; each rule is an
array of the fields below, in order. A field is only ever added at the end, with a default.
"""

from __future__ import annotations

from typing import Final

import msgspec

from couchestor_domain import errors, lifecycle

VERSION: Final = b"\x01"


class Rule(msgspec.Struct, array_like=True, frozen=True):
    """A rule."""

    rule_id: str
    is_enabled: bool
    form: int
    """Value of ``lifecycle.FilterForm``."""
    prefix: str | None
    tags: dict[str, str]
    larger_than_bytes: int | None
    smaller_than_bytes: int | None
    days: int | None
    date_ns: int | None
    removes_lone_markers: bool | None
    noncurrent_days: int | None
    newer_noncurrent_count: int | None
    abort_days: int | None


class Lifecycle(msgspec.Struct, array_like=True, frozen=True):
    """All rules of a bucket."""

    rules: tuple[Rule, ...]
    transition_minimum: str


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Lifecycle)


def pack(configuration: lifecycle.Configuration) -> bytes:
    """Encode."""
    rules = tuple(
        Rule(
            rule_id=rule.rule_id,
            is_enabled=rule.is_enabled,
            form=rule.filter.form.value,
            prefix=rule.filter.prefix,
            tags=dict(rule.filter.tags),
            larger_than_bytes=rule.filter.larger_than_bytes,
            smaller_than_bytes=rule.filter.smaller_than_bytes,
            days=rule.days,
            date_ns=rule.date_ns,
            removes_lone_markers=rule.removes_lone_markers,
            noncurrent_days=rule.noncurrent_days,
            newer_noncurrent_count=rule.newer_noncurrent_count,
            abort_days=rule.abort_days,
        )
        for rule in configuration.rules
    )
    return VERSION + _ENCODER.encode(Lifecycle(rules, configuration.transition_minimum))


def unpack(value: bytes) -> lifecycle.Configuration:
    """Decode. Raises IndexCorruptError."""
    try:
        if value[:1] != VERSION:
            raise ValueError(f"version {value[:1]!r}")
        stored = _DECODER.decode(memoryview(value)[1:])
        rules = tuple(_rule(rule) for rule in stored.rules)
    except (msgspec.MsgspecError, ValueError) as exc:
        raise errors.IndexCorruptError(
            f"the index holds an undecodable lifecycle: {exc}; run `couchestor recover`"
        ) from exc
    return lifecycle.Configuration(rules=rules, transition_minimum=stored.transition_minimum)


def _rule(stored: Rule) -> lifecycle.Rule:
    return lifecycle.Rule(
        rule_id=stored.rule_id,
        is_enabled=stored.is_enabled,
        filter=lifecycle.Filter(
            form=lifecycle.FilterForm(stored.form),
            prefix=stored.prefix,
            tags=stored.tags,
            larger_than_bytes=stored.larger_than_bytes,
            smaller_than_bytes=stored.smaller_than_bytes,
        ),
        days=stored.days,
        date_ns=stored.date_ns,
        removes_lone_markers=stored.removes_lone_markers,
        noncurrent_days=stored.noncurrent_days,
        newer_noncurrent_count=stored.newer_noncurrent_count,
        abort_days=stored.abort_days,
    )
