"""XML documents of requests as trees of elements, within bounds.

Document types and entities are refused before anything expands; depth, elements and bytes are
limited; names are compared without their namespace, as AWS does.
"""

from __future__ import annotations

from typing import Final, NoReturn
from xml.parsers import expat

from couchestor_gateway.protocol import s3_error

_DEPTH_MAX: Final = 6


class Element:
    """An element; its text is empty where it has children."""

    __slots__ = ("attributes", "children", "name", "text")

    def __init__(self, name: str, attributes: dict[str, str]) -> None:
        self.name = name
        self.attributes = attributes
        """By namespace, ``}`` and name, or by name alone."""
        self.children: list[Element] = []
        self.text = ""

    def find(self, name: str) -> str | None:
        """Text of the first child of that name."""
        for child in self.children:
            if child.name == name:
                return child.text
        return None


def refuse(message: str | None = None) -> NoReturn:
    """Raise MalformedXML."""
    raise s3_error.make("MalformedXML", message)


def parse(document: bytes, root_name: str, *, bytes_max: int, elements_max: int) -> Element:
    """The root of a document.

    Raises:
        S3Error: MalformedXML, also for another root, or more bytes or elements than allowed.
    """
    if not document or len(document) > bytes_max:
        refuse()
    # The encoding is fixed: a document in another one is refused rather than guessed.
    parser = expat.ParserCreate("utf-8", "}")
    parser.buffer_text = True
    stack: list[Element] = []
    roots: list[Element] = []
    pieces: list[str] = []
    count = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal count
        count += 1
        if count > elements_max or len(stack) >= _DEPTH_MAX:
            refuse()
        element = Element(name.rpartition("}")[2], attributes)
        (stack[-1].children if stack else roots).append(element)
        stack.append(element)
        pieces.clear()

    def end(name: str) -> None:
        element = stack.pop()
        if not element.children:
            element.text = "".join(pieces)
        pieces.clear()

    def forbidden(*declaration: object) -> None:
        refuse("Document types and entities are not accepted.")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = pieces.append
    parser.StartDoctypeDeclHandler = forbidden
    parser.EntityDeclHandler = forbidden
    try:
        parser.Parse(document, True)
    except (expat.ExpatError, ValueError) as exc:
        raise s3_error.make("MalformedXML") from exc
    if len(roots) != 1 or roots[0].name != root_name:
        refuse()
    return roots[0]
