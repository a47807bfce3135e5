"""What ends a benchmark."""

from __future__ import annotations

from couchestor_domain import errors


class BenchmarkError(errors.CouchestorError):
    """The benchmark cannot go on: what is wrong, where, and what to do next."""
