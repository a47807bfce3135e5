"""Structural schemas from typed models.

A model is a ``msgspec.Struct``: field types, constraints, defaults and docstrings become an OpenAPI
v3 schema as ``apiextensions.k8s.io/v1`` demands it: every node typed, no references, no unions.
Rules over several fields stand in the model's ``RULES`` and become ``x-kubernetes-validations``.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import inspect as msgspec_inspect

Schema = dict[str, Any]
"""A JSON Schema object: what it may hold depends on the keyword."""


class Rule(NamedTuple):
    """A CEL expression over ``self`` (and ``oldSelf``) that must hold, and what is said if not."""

    expression: str
    message: str


def structural(model: type[msgspec.Struct], *, with_defaults: bool) -> Schema:
    """Schema of a model.

    Args:
        model: A Struct of structs, lists, string maps, enums and scalars. A field of type
            ``T | None`` with the default None may be absent.
        with_defaults: Whether the API server fills defaults in: for a spec, not for a status.

    Raises:
        TypeError: a field's type has no structural form.
    """
    return _node(msgspec_inspect.type_info(model), with_defaults=with_defaults)


def rules_of(model: type) -> Sequence[Rule]:
    """The rules over several fields that a model carries."""
    rules: Sequence[Rule] = getattr(model, "RULES", ())
    return rules


def _node(kind: msgspec_inspect.Type, *, with_defaults: bool) -> Schema:
    match kind:
        case msgspec_inspect.Metadata(type=inner, extra_json_schema=extra):
            return _node(inner, with_defaults=with_defaults) | (extra or {})
        case msgspec_inspect.BoolType():
            return {"type": "boolean"}
        case msgspec_inspect.IntType(ge=minimum, le=maximum):
            return {"type": "integer", "format": "int64"} | _given(minimum=minimum, maximum=maximum)
        case msgspec_inspect.FloatType(ge=minimum, le=maximum):
            return {"type": "number"} | _given(minimum=minimum, maximum=maximum)
        case msgspec_inspect.StrType(min_length=shortest, max_length=longest, pattern=pattern):
            return {"type": "string"} | _given(
                minLength=shortest, maxLength=longest, pattern=pattern
            )
        case msgspec_inspect.DateTimeType():
            return {"type": "string", "format": "date-time"}
        case msgspec_inspect.EnumType(cls=enumeration):
            return {"type": "string", "enum": [member.value for member in enumeration]}
        case msgspec_inspect.ListType(item_type=item, min_length=least, max_length=longest):
            items = _node(item, with_defaults=with_defaults)
            return {"type": "array", "items": items} | _given(minItems=least, maxItems=longest)
        case msgspec_inspect.DictType(value_type=value, max_length=longest):
            values = _node(value, with_defaults=with_defaults)
            return {"type": "object", "additionalProperties": values} | _given(
                maxProperties=longest
            )
        case msgspec_inspect.UnionType(types=(inner, msgspec_inspect.NoneType())):
            return _node(inner, with_defaults=with_defaults)
        case msgspec_inspect.StructType():
            return _object(kind, with_defaults=with_defaults)
        case _:
            raise TypeError(f"{kind} has no structural form: see {structural.__module__}")


def _object(kind: msgspec_inspect.StructType, *, with_defaults: bool) -> Schema:
    properties: dict[str, Schema] = {}
    for field in kind.fields:
        node = _node(field.type, with_defaults=with_defaults)
        if with_defaults and (default := _default(field)) is not None:
            node["default"] = default
        properties[field.encode_name] = node
    schema: Schema = {"type": "object", "properties": properties}
    if doc := kind.cls.__doc__:
        schema = {"description": inspect.cleandoc(doc).partition("\n\n")[0]} | schema
    if required := [field.encode_name for field in kind.fields if field.required]:
        schema["required"] = required
    if rules := rules_of(kind.cls):
        schema["x-kubernetes-validations"] = [
            {"rule": rule.expression, "message": rule.message} for rule in rules
        ]
    return schema


def _default(field: msgspec_inspect.Field) -> object:
    if field.default is not msgspec.NODEFAULT:
        return msgspec.to_builtins(field.default)
    if field.default_factory is not msgspec.NODEFAULT:
        return msgspec.to_builtins(field.default_factory())
    return None


def _given(**keywords: object) -> Schema:
    return {keyword: value for keyword, value in keywords.items() if value is not None}
