"""Strict reading of JSON records: every field checked, none unknown, everything bounded.

Both sides read what another machine sent, so nothing is assumed: a record that does not fit is
refused whole, with the path of the field that does not.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn, TypeVar

from couchestor_domain import errors, ids, units

VERSION: Final = 1
COUNT_MAX: Final = 2**53 - 1
"""Larger ones are not the same number to every reader of JSON."""
NAME_LENGTH_MAX: Final = 253
TEXT_LENGTH_MAX: Final = 1024
BYTES_MAX: Final = 8 * units.MIB
"""Of a record as sent."""

_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", re.ASCII)
_ID: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
_DIGITS_COUNT_MAX: Final = 17

T = TypeVar("T")
E = TypeVar("E", bound=enum.Enum)


class Fields:
    """The fields of one object, each of which must be read once before ``end``.

    Every method raises ``NodeRecordError`` where a field is missing or is something else.
    """

    def __init__(self, value: object, *, path: str) -> None:
        if not isinstance(value, dict):
            refuse(path, "is not an object")
        self._left: dict[str, Any] = dict(value)
        self._path = path

    def refuse(self, name: str, why: str) -> NoReturn:
        """Say what is wrong with a field."""
        refuse(f"{self._path}.{name}", why)

    def end(self) -> None:
        """Refuse whatever else is there."""
        if self._left:
            found = min(self._left)
            if is_name(found):
                self.refuse(found, "is not known")
            refuse(self._path, "has a field that is not known")

    def count(self, name: str, *, least: int = 0, most: int = COUNT_MAX) -> int:
        """A whole number within bounds."""
        value = self._take(name)
        # A bool is an int to Python.
        if type(value) is not int or not least <= value <= most:
            self.refuse(name, f"must be a whole number from {least} to {most}")
        return value

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self._take(name)
        if not isinstance(value, bool):
            self.refuse(name, "must be true or false")
        return value

    def name(self, name: str, *, length_max: int = NAME_LENGTH_MAX) -> str:
        """A name as Kubernetes has them."""
        value = self._take(name)
        if not isinstance(value, str) or len(value) > length_max or _NAME.fullmatch(value) is None:
            self.refuse(name, f"must be a lower-case name of at most {length_max} characters")
        return value

    def hexadecimal_id(self, name: str) -> str:
        """An id of a node or device."""
        value = self._take(name)
        if not isinstance(value, str) or _ID.fullmatch(value) is None:
            self.refuse(name, "must be 32 lower-case hexadecimal digits")
        return value

    def device_id(self, name: str) -> ids.DeviceId:
        """An id of a device."""
        return ids.DeviceId(self.hexadecimal_id(name))

    def text(self, name: str, *, length_max: int = TEXT_LENGTH_MAX) -> str:
        """Words for people, on one line; may be empty."""
        value = self._take(name)
        if not isinstance(value, str) or len(value) > length_max or not value.isprintable():
            self.refuse(name, f"must be one line of at most {length_max} characters")
        return value

    def choice(self, name: str, kind: type[E]) -> E:
        """One of the words of an enumeration."""
        value = self._take(name)
        for member in kind:
            # Compared with its type: 1 equals True.
            if type(value) is str and member.value == value:
                return member
        words = ", ".join(str(member.value) for member in kind)
        self.refuse(name, f"must be one of {words}")

    def each(
        self, name: str, read: Callable[[object, str], T], *, most: int, least: int = 0
    ) -> tuple[T, ...]:
        """A list, each item of which is read with its path."""
        value = self._take(name)
        if not isinstance(value, list) or not least <= len(value) <= most:
            self.refuse(name, f"must be a list of {least} to {most}")
        return tuple(
            read(item, f"{self._path}.{name}[{index}]") for index, item in enumerate(value)
        )

    def _take(self, name: str) -> Any:
        if name not in self._left:
            self.refuse(name, "is missing")
        return self._left.pop(name)


def count_item(value: object, path: str) -> int:
    """An item of a list of whole numbers."""
    if type(value) is not int or not 0 <= value <= COUNT_MAX:
        refuse(path, f"must be a whole number from 0 to {COUNT_MAX}")
    return value


def is_name(text: str) -> bool:
    """Whether a text can be a name in a record."""
    return len(text) <= NAME_LENGTH_MAX and _NAME.fullmatch(text) is not None


def opened(body: bytes | bytearray, *, kind: str, bytes_max: int = BYTES_MAX) -> Fields:
    """The fields of a record, of its kind and of a version that is known.

    Raises:
        NodeRecordError: it is longer, no JSON object, of another kind or version.
    """
    if len(body) > bytes_max:
        refuse(kind, f"is longer than {bytes_max} bytes")
    try:
        value = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_object,
            parse_int=_whole,
            parse_float=_no_number,
            parse_constant=_no_number,
        )
    except (ValueError, RecursionError) as exc:
        # Not what json says: it may quote what others sent.
        why = exc.args[0] if isinstance(exc, _NotAllowed) else "is no JSON"
        raise errors.NodeRecordError(f"{kind} {why}", path=kind) from None
    found = Fields(value, path=kind)
    if found.count("version") != VERSION:
        found.refuse("version", f"must be {VERSION}: let both sides be of one release")
    if found.text("kind") != kind:
        found.refuse("kind", f"must be {kind}")
    return found


def written(kind: str, fields: Mapping[str, object]) -> bytes:
    """A record as it is sent: one line of ASCII."""
    document = {"version": VERSION, "kind": kind, **fields}
    return json.dumps(document, separators=(",", ":")).encode("ascii")


def refuse(path: str, why: str) -> NoReturn:
    """Raise for a field.

    Raises:
        NodeRecordError: always.
    """
    raise errors.NodeRecordError(f"{path} {why}", path=path)


class _NotAllowed(ValueError):
    """JSON that two readers may understand differently."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _NotAllowed("has a field twice")
    return found


def _whole(digits: str) -> int:
    if len(digits) > _DIGITS_COUNT_MAX:
        raise _NotAllowed("has a number that is too large")
    return int(digits)


def _no_number(_digits: str) -> NoReturn:
    raise _NotAllowed("has a number that is not whole")
