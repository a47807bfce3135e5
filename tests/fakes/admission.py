"""What an API server does with a custom resource before it stores it: defaults, types, rules.

A small model of ``apiextensions.k8s.io/v1`` over the generated schemas, so that every rule is
evaluated by a CEL engine in an ordinary test. What it cannot show is what only a real server knows:
the cost limits of rules, and that the definitions themselves are accepted.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import cel

from couchestor_operator.resources import definition, schema

Document = dict[str, Any]


def defaulted(kind: definition.ResourceKind, document: Document) -> Document:
    """The document with its defaults filled in."""
    filled = copy.deepcopy(document)
    _fill(definition.openapi(kind), filled)
    return filled


def complaints(
    kind: definition.ResourceKind, document: Document, *, old: Document | None = None
) -> list[str]:
    """What is wrong with a document, defaults filled in; with ``old``, with the change to it."""
    root = definition.openapi(kind)
    new = defaulted(kind, document)
    previous = None if old is None else defaulted(kind, old)
    # Rules are only asked about what fits its types, as by a real server.
    return list(_misfits(root, new, kind.kind)) or list(_broken(root, new, previous, kind.kind))


def _fill(node: schema.Schema, value: Any) -> None:
    match node["type"], value:
        case "object", dict():
            for name, child in node.get("properties", {}).items():
                if name not in value and "default" in child:
                    value[name] = copy.deepcopy(child["default"])
                if name in value:
                    _fill(child, value[name])
        case "array", list():
            for item in value:
                _fill(node["items"], item)


def _misfits(node: schema.Schema, value: Any, path: str) -> Iterator[str]:
    kind = node["type"]
    if not _is_of(kind, value):
        yield f"{path} in body must be of type {kind}"
        return
    yield from _out_of_bounds(node, value, path)
    if kind == "object":
        for name in node.get("required", ()):
            if name not in value:
                yield f"{path}.{name}: Required value"
        for name, child in node.get("properties", {}).items():
            if name in value:
                yield from _misfits(child, value[name], f"{path}.{name}")
        if (values := node.get("additionalProperties")) is not None:
            for name, item in value.items():
                yield from _misfits(values, item, f"{path}.{name}")
    elif kind == "array":
        for index, item in enumerate(value):
            yield from _misfits(node["items"], item, f"{path}[{index}]")
        keys = node.get("x-kubernetes-list-map-keys")
        if keys and len({tuple(item[key] for key in keys) for item in value}) < len(value):
            yield f"{path}: Duplicate value"


def _broken(node: schema.Schema, value: Any, old: Any, path: str) -> Iterator[str]:
    if node["type"] == "object":
        for name, child in node.get("properties", {}).items():
            if name in value:
                before = old.get(name) if isinstance(old, dict) else None
                yield from _broken(child, value[name], before, f"{path}.{name}")
    elif node["type"] == "array":
        for index, item in enumerate(value):
            yield from _broken(node["items"], item, None, f"{path}[{index}]")
    for rule in node.get("x-kubernetes-validations", ()):
        if "oldSelf" in rule["rule"] and old is None:
            continue
        if cel.evaluate(rule["rule"], {"self": value, "oldSelf": old}) is not True:
            yield f"{path}: {rule['message']}"


def _is_of(kind: str, value: object) -> bool:
    types: dict[str, type | tuple[type, ...]] = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
    }
    return isinstance(value, types[kind]) and (kind == "boolean") == isinstance(value, bool)


def _out_of_bounds(node: schema.Schema, value: Any, path: str) -> Iterator[str]:
    if "enum" in node and value not in node["enum"]:
        yield f"{path}: Unsupported value"
    if "pattern" in node and not re.search(node["pattern"], value):
        yield f"{path} in body should match '{node['pattern']}'"
    if "minimum" in node and value < node["minimum"]:
        yield f"{path} in body should be greater than or equal to {node['minimum']}"
    if "maximum" in node and value > node["maximum"]:
        yield f"{path} in body should be less than or equal to {node['maximum']}"
    size = len(value) if isinstance(value, (str, list, dict)) else 0
    if "minLength" in node and size < node["minLength"]:
        yield f"{path} in body should be at least {node['minLength']} chars long"
    if "minItems" in node and size < node["minItems"]:
        yield f"{path} in body should have at least {node['minItems']} items"
    for most in ("maxLength", "maxItems", "maxProperties"):
        if size > node.get(most, size):
            yield f"{path}: may not be more than {node[most]} long"
