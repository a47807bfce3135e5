"""Types that fields of several resources share."""

from __future__ import annotations

import datetime
import enum
from typing import Annotated, ClassVar

import msgspec

from couchestor_operator.control import duration
from couchestor_operator.resources import schema

GROUP = "storage.billyronks.io"
VERSION = "v1"
API_VERSION = f"{GROUP}/{VERSION}"

NAME_LENGTH_MAX = 253
"""Of a Kubernetes object's name."""

Count = Annotated[int, msgspec.Meta(ge=0)]
ByteCount = Annotated[int, msgspec.Meta(ge=0)]
Percent = Annotated[int, msgspec.Meta(ge=0, le=100)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_LENGTH_MAX)]
Duration = Annotated[
    str, msgspec.Meta(pattern=duration.PATTERN, max_length=duration.TEXT_LENGTH_MAX)
]
Checksum = Annotated[
    str, msgspec.Meta(max_length=128, description="Algorithm and digits: xxh3-128:0123...")
]
Moment = Annotated[datetime.datetime, msgspec.Meta(tz=True)]


class ObjectMeta(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What the control plane uses of a Kubernetes object's metadata."""

    name: str
    namespace: str | None = None
    uid: str | None = None
    resource_version: str | None = None
    generation: int | None = None
    creation_timestamp: Moment | None = None
    deletion_timestamp: Moment | None = None
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    annotations: dict[str, str] = msgspec.field(default_factory=dict)
    finalizers: list[str] = msgspec.field(default_factory=list)


class ConditionStatus(enum.Enum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One aspect of a resource's state, as Kubernetes writes it everywhere."""

    type: Annotated[str, msgspec.Meta(max_length=316)]
    status: ConditionStatus
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
    message: Annotated[str, msgspec.Meta(max_length=32768)]
    last_transition_time: Moment
    observed_generation: Count | None = None


Conditions = Annotated[
    list[Condition],
    msgspec.Meta(
        max_length=16,
        extra_json_schema={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    ),
]


class SelectorOperator(enum.Enum):
    """How an expression compares the value of its key."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


class SelectorExpression(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A requirement on the value of one label."""

    RULES: ClassVar = (
        schema.Rule(
            "self.operator in ['In', 'NotIn'] ? size(self.values) > 0 : size(self.values) == 0",
            "In and NotIn need at least one of values, Exists and DoesNotExist take none",
        ),
    )

    key: Annotated[str, msgspec.Meta(min_length=1, max_length=317)]
    operator: SelectorOperator
    values: Annotated[
        list[Annotated[str, msgspec.Meta(max_length=63)]], msgspec.Meta(max_length=64)
    ] = msgspec.field(default_factory=list)


class LabelSelector(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Labels that an object must have; everything that is given must match."""

    match_labels: Annotated[
        dict[str, Annotated[str, msgspec.Meta(max_length=63)]], msgspec.Meta(max_length=64)
    ] = msgspec.field(default_factory=dict)
    match_expressions: Annotated[list[SelectorExpression], msgspec.Meta(max_length=32)] = (
        msgspec.field(default_factory=list)
    )
