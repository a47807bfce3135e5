"""What states of the exploration hold, by small integers: those are cheap to hash and compare."""

from __future__ import annotations

import dataclasses

import migration_cluster

from couchestor_operator.control import migration

OUTDATED_SEAL = "m.outdated"


class Objects:
    """Clusters, records and verdicts by index; equal ones have the same.

    Args:
        outdated_seals_matter: Whether earlier seals of a migration are told from none.
    """

    def __init__(self, *, outdated_seals_matter: bool) -> None:
        self._outdated_seals_matter = outdated_seals_matter
        self._indices: dict[object, int] = {}
        self._objects: list[object] = []
        self._shown: dict[int, int] = {}
        self._after_writing: dict[int, int] = {}

    def __getitem__(self, index: int) -> object:
        return self._objects[index]

    def index(self, thing: object) -> int:
        """Of something, which is kept if it is new."""
        found = self._indices.get(thing)
        if found is None:
            found = self._indices[thing] = len(self._objects)
            self._objects.append(thing)
        return found

    def cluster(self, index: int) -> migration_cluster.Cluster:
        """The cluster of an index."""
        found = self._objects[index]
        assert isinstance(found, migration_cluster.Cluster), found
        return found

    def record(self, index: int) -> migration.Record:
        """The record of an index."""
        found = self._objects[index]
        assert isinstance(found, migration.Record), found
        return found

    def is_write(self, index: int) -> bool:
        """Whether a verdict changes the record, or else commands something."""
        return isinstance(self._objects[index], migration.Advance | migration.End)

    def shown_of(self, cluster: int) -> int:
        """What a look shows of a cluster."""
        found = self._shown.get(cluster)
        if found is None:
            shown = migration_cluster.shown(self.cluster(cluster))
            found = self._shown[cluster] = self.index(shown)
        return found

    def outdated(self, index: int) -> int:
        """A cluster, or a command, once the record has changed: no seal is of its revision then.

        Which earlier revision one is of makes no difference, so all revisions are one here.
        """
        found = self._after_writing.get(index)
        if found is None:
            thing = self._objects[index]
            if isinstance(thing, migration_cluster.Cluster):
                thing = thing._replace(seals=self._outdated_seals(thing.seals))
            elif isinstance(thing, migration.Seal):
                thing = dataclasses.replace(thing, seals=self._outdated_seals(thing.seals))
            found = self._after_writing[index] = self.index(thing)
        return found

    def _outdated_seals(self, seals: tuple[str, ...]) -> tuple[str, ...]:
        return (OUTDATED_SEAL,) if seals and self._outdated_seals_matter else ()
