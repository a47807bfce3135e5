"""The filter of a lifecycle rule: what it acts on.

S3 takes one element in a filter, or an And with several. Clients that put several side by side mean
all of them together, the narrowest reading; they are given back as an And.
"""

from __future__ import annotations

from couchestor_domain import lifecycle
from couchestor_gateway.protocol import lifecycle_numbers, s3_error, tags, xml_tree, xml_writing

_KEY_BYTES_MAX = 1_024


def read(element: xml_tree.Element) -> lifecycle.Filter:
    """A Filter, or a Prefix that stands in its place.

    Raises:
        S3Error: MalformedXML, InvalidRequest, InvalidArgument, InvalidTag.
    """
    found = _Found()
    if element.name == "Prefix":
        found.take(element)
        return found.made(lifecycle.FilterForm.PREFIX)
    form = lifecycle.FilterForm.SINGLE
    for child in element.children:
        if child.name == "And":
            if len(child.children) < 2:
                xml_tree.refuse()
            for each in child.children:
                found.take(each)
            form = lifecycle.FilterForm.AND
        else:
            found.take(child)
    if len(element.children) > 1:
        form = lifecycle.FilterForm.AND
    return found.made(form)


def write(xml: xml_writing.Document, asked: lifecycle.Filter) -> None:
    """The filter as it was put."""
    if asked.form is lifecycle.FilterForm.PREFIX:
        xml.text("Prefix", asked.prefix or "")
        return
    is_and = asked.form is lifecycle.FilterForm.AND
    xml.open("Filter")
    if is_and:
        xml.open("And")
    if asked.prefix is not None:
        xml.text("Prefix", asked.prefix)
    for key, value in asked.tags.items():
        xml.open("Tag").text("Key", key).text("Value", value).close("Tag")
    if asked.larger_than_bytes is not None:
        xml.text("ObjectSizeGreaterThan", asked.larger_than_bytes)
    if asked.smaller_than_bytes is not None:
        xml.text("ObjectSizeLessThan", asked.smaller_than_bytes)
    if is_and:
        xml.close("And")
    xml.close("Filter")


class _Found:
    """What a filter has asked for so far."""

    def __init__(self) -> None:
        self._prefix: str | None = None
        self._tags: list[tuple[str, str]] = []
        self._larger: int | None = None
        self._smaller: int | None = None

    def take(self, element: xml_tree.Element) -> None:
        """One more element."""
        if element.name == "Prefix":
            self._take_prefix(element)
        elif element.name == "Tag":
            key, value = element.find("Key"), element.find("Value")
            if len(element.children) != 2 or key is None or value is None:
                xml_tree.refuse()
            self._tags.append((key, value))
        elif element.name == "ObjectSizeGreaterThan" and self._larger is None:
            self._larger = _size(element)
        elif element.name == "ObjectSizeLessThan" and self._smaller is None:
            self._smaller = _size(element)
        else:
            xml_tree.refuse()

    def _take_prefix(self, element: xml_tree.Element) -> None:
        if element.children:
            xml_tree.refuse()
        prefix, before = element.text, self._prefix or ""
        if len(prefix.encode()) > _KEY_BYTES_MAX:
            raise s3_error.make(
                "InvalidRequest",
                f"The maximum size of a prefix is {_KEY_BYTES_MAX}.",
            )
        if not (prefix.startswith(before) or before.startswith(prefix)):
            raise s3_error.make(
                "InvalidRequest", "No key begins with both prefixes of the rule's filter."
            )
        self._prefix = max(prefix, before, key=len)

    def made(self, form: lifecycle.FilterForm) -> lifecycle.Filter:
        """The filter of all that was taken."""
        if len({key for key, _ in self._tags}) != len(self._tags):
            raise s3_error.make("InvalidRequest", "Duplicate Tag Keys are not allowed.")
        larger, smaller = self._larger, self._smaller
        if larger is not None and smaller is not None and smaller <= larger:
            raise s3_error.make(
                "InvalidRequest",
                "'ObjectSizeLessThan' has to be a value greater than 'ObjectSizeGreaterThan'.",
            )
        count = len(self._tags) + sum(each is not None for each in (self._prefix, larger, smaller))
        if form is lifecycle.FilterForm.AND and count < 2:
            form = lifecycle.FilterForm.SINGLE
        return lifecycle.Filter(
            form=form,
            prefix=self._prefix,
            tags=tags.checked(self._tags, count_max=tags.OBJECT_TAGS_MAX),
            larger_than_bytes=larger,
            smaller_than_bytes=smaller,
        )


def _size(element: xml_tree.Element) -> int:
    size_bytes = lifecycle_numbers.whole(element)
    if size_bytes < 0:
        raise s3_error.make("InvalidArgument", f"'{element.name}' must not be negative")
    return size_bytes
