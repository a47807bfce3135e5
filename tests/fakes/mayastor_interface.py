"""What Mayastor's REST API v0 takes and answers, in the operations that the operator uses.

Written down for these tests in the notation of OpenAPI 3.0. The control plane's own document says
the same and more; it carries no licence of its own and so does not stand here. To hold everything
to it instead, set ``COUCHESTOR_MAYASTOR_SPEC`` to its path.
"""

from __future__ import annotations

import os
import pathlib
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

SPEC_VARIABLE: Final = "COUCHESTOR_MAYASTOR_SPEC"

_COUNT: Final = {"type": "integer", "minimum": 0}
_TEXT: Final = {"type": "string"}
_TEXTS: Final = {"type": "object", "additionalProperties": _TEXT}
_UUID: Final = {"type": "string", "format": "uuid"}


def _word(*words: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(words)}


def _object(required: Sequence[str], **properties: Any) -> dict[str, Any]:
    named = {name.replace("_dash_", "-"): each for name, each in properties.items()}
    return {"type": "object", "required": list(required), "properties": named}


_STATE: Final = _word("Unknown", "Online", "Degraded", "Faulted")
_SPEC_STATUS: Final = _word("Creating", "Created", "Deleting", "Deleted")
_CHILD: Final = _object(("state", "uri"), state=_STATE, uri=_TEXT)
_NEXUS: Final = _object(
    ("children", "deviceUri", "node", "rebuilds", "protocol", "size", "state", "uuid"),
    children={"type": "array", "items": _CHILD},
    deviceUri=_TEXT,
    node=_TEXT,
    rebuilds=_COUNT,
    protocol=_word("none", "nvmf", "iscsi", "nbd"),
    size=_COUNT,
    state=_word("Unknown", "Online", "Degraded", "Faulted", "ShuttingDown", "Shutdown"),
    uuid=_UUID,
)
_REPLICA: Final = _object(
    ("state",),
    node=_TEXT,
    pool=_TEXT,
    state=_STATE,
    child_dash_status=_STATE,
    rebuild_dash_progress={"type": "integer", "minimum": 0, "maximum": 100},
)
_VOLUME: Final = _object(
    ("spec", "state"),
    spec=_object(
        (
            *("num_paths", "num_replicas", "protocol", "size", "status", "uuid", "policy"),
            *("thin", "num_snapshots"),
        ),
        num_replicas={"type": "integer", "minimum": 0, "maximum": 255},
        size=_COUNT,
        status=_SPEC_STATUS,
        uuid=_UUID,
        policy=_object(("self_heal",), self_heal={"type": "boolean"}),
        thin={"type": "boolean"},
        labels=_TEXTS,
        num_snapshots=_COUNT,
    ),
    state=_object(
        ("size", "uuid", "status", "replica_topology"),
        target=_NEXUS,
        size=_COUNT,
        status=_word("Unknown", "Online", "Degraded", "Faulted", "Shutdown"),
        uuid=_UUID,
        replica_topology={"type": "object", "additionalProperties": _REPLICA},
    ),
)
_POOL: Final = _object(
    ("id",),
    id=_TEXT,
    spec=_object(
        ("disks", "id", "node", "status"),
        disks={"type": "array", "items": _TEXT},
        id=_TEXT,
        labels=_TEXTS,
        node=_TEXT,
        status=_SPEC_STATUS,
    ),
    state=_object(
        ("capacity", "disks", "id", "node", "status", "used"),
        capacity=_COUNT,
        disks={"type": "array", "items": _TEXT},
        id=_TEXT,
        node=_TEXT,
        status=_STATE,
        used=_COUNT,
    ),
)
_NODE: Final = _object(
    ("id",),
    id=_TEXT,
    spec=_object(("grpcEndpoint", "id"), grpcEndpoint=_TEXT, id=_TEXT, cordondrainstate={}),
    state=_object(
        ("grpcEndpoint", "id", "status"),
        grpcEndpoint=_TEXT,
        id=_TEXT,
        status=_word("Unknown", "Online", "Offline"),
    ),
)
_KINDS: Final = """
    Timeout Deserialize Internal InvalidArgument DeadlineExceeded NotFound AlreadyExists
    PermissionDenied ResourceExhausted FailedPrecondition NotShared NotPublished AlreadyPublished
    AlreadyShared Aborted OutOfRange Unimplemented Unavailable Unauthenticated Unauthorized Conflict
    FailedPersist Deleting InUse CapacityLimitExceeded NotAcceptable
"""
_REFUSAL: Final = _object(
    ("details", "kind", "message"),
    details=_TEXT,
    message=_TEXT,
    kind=_word(*_KINDS.split()),
)


def _operation(answer: Any, *parameters: Any) -> dict[str, Any]:
    def content(schema: Any) -> dict[str, Any]:
        return {"content": {"application/json": {"schema": schema}}}

    responses = {"200": content(answer), "4XX": content(_REFUSAL), "5XX": content(_REFUSAL)}
    return {"parameters": list(parameters), "responses": responses}


def _parameter(place: str, name: str, schema: Any, *, required: bool = True) -> dict[str, Any]:
    return {"in": place, "name": name, "schema": schema, "required": required}


_VOLUME_ID: Final = _parameter("path", "volume_id", _UUID)
_OWN: Final[dict[str, Any]] = {
    "paths": {
        "/nodes": {"get": _operation({"type": "array", "items": _NODE})},
        "/nodes/{id}": {"get": _operation(_NODE, _parameter("path", "id", _TEXT))},
        "/pools": {"get": _operation({"type": "array", "items": _POOL})},
        "/pools/{pool_id}": {"get": _operation(_POOL, _parameter("path", "pool_id", _TEXT))},
        "/volumes": {
            "get": _operation(
                _object(
                    ("entries",),
                    entries={"type": "array", "items": _VOLUME},
                    next_token={"type": "integer"},
                ),
                _parameter("query", "max_entries", {"type": "integer"}),
                _parameter("query", "starting_token", {"type": "integer"}, required=False),
            )
        },
        "/volumes/{volume_id}": {"get": _operation(_VOLUME, _VOLUME_ID)},
        "/volumes/{volume_id}/replica_count/{replica_count}": {
            "put": _operation(
                _VOLUME,
                _VOLUME_ID,
                _parameter(
                    "path",
                    "replica_count",
                    {"type": "integer", "minimum": 1, "maximum": 255},
                ),
            )
        },
    }
}


class Unspecified(AssertionError):
    """A request or an answer that the interface does not have."""


class Interface:
    """The interface, and whether what is sent is of it."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._operations = [
            (re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(path))), methods)
            for path, methods in document["paths"].items()
        ]

    def operation(self, method: str, path: str, query: Mapping[str, str]) -> Mapping[str, Any]:
        """The operation that a request is.

        Raises:
            Unspecified: it is none, or a parameter is missing, unknown, or not as it has to be.
        """
        for pattern, methods in self._operations:
            found = pattern.fullmatch(path)
            if found is not None and method.lower() in methods:
                operation: Mapping[str, Any] = methods[method.lower()]
                self._check_parameters(operation, {"path": found.groupdict(), "query": query})
                return operation
        raise Unspecified(f"there is no {method} {path}")

    def check_answer(self, operation: Mapping[str, Any], status: int, answer: object) -> None:
        """Raises: Unspecified: the operation does not answer so."""
        responses = operation["responses"]
        response = responses.get(str(status)) or responses.get(f"{status // 100}XX")
        if response is None:
            raise Unspecified(f"no answer has the status {status}")
        schema = self._resolved(response)["content"]["application/json"]["schema"]
        self._check(answer, schema, "answer")

    def _check_parameters(
        self, operation: Mapping[str, Any], given: Mapping[str, Mapping[str, str]]
    ) -> None:
        known: set[tuple[str, str]] = set()
        for parameter in operation.get("parameters", ()):
            place, name = parameter["in"], parameter["name"]
            known.add((place, name))
            text = given[place].get(name)
            if text is None:
                if parameter.get("required"):
                    raise Unspecified(f"{name} is missing in the {place}")
                continue
            schema = self._resolved(parameter["schema"])
            value = int(text) if schema.get("type") == "integer" else text
            self._check(value, schema, name)
        unknown = {(place, name) for place in given for name in given[place]} - known
        if unknown:
            raise Unspecified(f"unknown parameters: {unknown}")

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        while "$ref" in schema:
            found: Any = self._document
            for part in schema["$ref"].removeprefix("#/").split("/"):
                found = found[part]
            schema = found
        return schema

    def _check(self, value: Any, schema: Mapping[str, Any], where: str) -> None:
        schema = self._resolved(schema)
        for part in schema.get("allOf", ()):
            self._check(value, part, where)
        if "enum" in schema and value not in schema["enum"]:
            raise Unspecified(f"{where} is {value!r}, none of {schema['enum']}")
        match schema.get("type"):
            case "string":
                _demand(isinstance(value, str), where, value)
                if schema.get("format") == "uuid":
                    uuid.UUID(value)
            case "integer":
                _demand(isinstance(value, int) and not isinstance(value, bool), where, value)
                _demand(value >= schema.get("minimum", value), where, value)
                _demand(value <= schema.get("maximum", value), where, value)
            case "boolean":
                _demand(isinstance(value, bool), where, value)
            case "array":
                _demand(isinstance(value, list), where, value)
                for index, item in enumerate(value):
                    self._check(item, schema["items"], f"{where}[{index}]")
            case "object":
                _demand(isinstance(value, dict), where, value)
                self._check_object(value, schema, where)

    def _check_object(
        self, value: Mapping[str, Any], schema: Mapping[str, Any], where: str
    ) -> None:
        missing = set(schema.get("required", ())) - value.keys()
        if missing:
            raise Unspecified(f"{where} lacks {missing}")
        _demand(len(value) >= schema.get("minProperties", 0), where, value)
        properties, more = schema.get("properties", {}), schema.get("additionalProperties", True)
        for name, part in value.items():
            if name in properties:
                self._check(part, properties[name], f"{where}.{name}")
            elif isinstance(more, Mapping):
                self._check(part, more, f"{where}.{name}")
            elif not more:
                raise Unspecified(f"{where} has no {name}")


def interface() -> Interface:
    """The one that is written down here, or the control plane's own document."""
    path = os.environ.get(SPEC_VARIABLE)
    if path is None:
        return Interface(_OWN)
    return Interface(msgspec.yaml.decode(pathlib.Path(path).read_bytes()))


def _demand(holds: bool, where: str, value: object) -> None:
    if not holds:
        raise Unspecified(f"{where} is {value!r}")
