"""Writing S3's XML documents. Element order is the caller's; escaping is ours."""

from __future__ import annotations

from typing import Final, Self

NAMESPACE: Final = "http://s3.amazonaws.com/doc/2006-03-01/"
_DECLARATION: Final = '<?xml version="1.0" encoding="UTF-8"?>\n'

# XML 1.0 has no way to write these, not even as references. A document with one is none: a client
# could not even read the upload id beside the key. Listings refuse them (``list_encoding``), for a
# key must not be listed under another's name.
_FORBIDDEN: Final = frozenset(
    {chr(code) for code in range(0x20)} - {"\t", "\n", "\r"} | {"\ufffe", "\uffff"}
)
_ESCAPES: Final = str.maketrans(
    {
        **dict.fromkeys(_FORBIDDEN, "\ufffd"),
        "\r": "&#xD;",
        "&": "&amp;",
        "<": "&lt;",
        ">": "&gt;",
        '"': "&quot;",
    }
)


def escape(text: str) -> str:
    """``text`` as character data or attribute value; U+FFFD for what XML cannot hold."""
    return text.translate(_ESCAPES)


def is_writable(text: str) -> bool:
    """Whether every XML parser reads back what ``escape`` writes for ``text``."""
    return text.isprintable() or _FORBIDDEN.isdisjoint(text)


class Document:
    """A document under construction. Methods return self so that elements chain."""

    __slots__ = ("_parts", "_root")

    def __init__(self, root: str, *, namespace: str = NAMESPACE) -> None:
        attribute = f' xmlns="{namespace}"' if namespace else ""
        self._root = root
        self._parts = [f"{_DECLARATION}<{root}{attribute}>"]

    def text(self, name: str, value: str | int) -> Self:
        """``<name>value</name>``."""
        self._parts.append(f"<{name}>{escape(str(value))}</{name}>")
        return self

    def flag(self, name: str, value: bool) -> Self:
        """``<name>true</name>`` or ``false``."""
        self._parts.append(f"<{name}>{'true' if value else 'false'}</{name}>")
        return self

    def open(self, name: str, attributes: str = "") -> Self:
        """Start an element with children; ``close`` must follow.

        Args:
            attributes: As they stand in the document.
        """
        self._parts.append(f"<{name} {attributes}>" if attributes else f"<{name}>")
        return self

    def close(self, name: str) -> Self:
        """End the element started by ``open``."""
        self._parts.append(f"</{name}>")
        return self

    def owner(self, owner: str, display_name: str, *, name: str = "Owner") -> Self:
        """The element that tells a user: the canonical id and the name shown for it."""
        return self.open(name).text("ID", owner).text("DisplayName", display_name).close(name)

    def finish(self) -> bytes:
        """The document as UTF-8."""
        return f"{''.join(self._parts)}</{self._root}>".encode()
