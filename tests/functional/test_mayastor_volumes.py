"""Volumes over Mayastor's REST API, by the contract of their port and what the API lets it keep."""

from __future__ import annotations

import pathlib
from collections.abc import AsyncIterator
from typing import Any

import fake_mayastor
import memory_claims
import pytest
import set_clock
import volume_manager_contract as contract

from couchestor_domain import errors
from couchestor_operator.adapters import mayastor_access, mayastor_api, mayastor_volumes
from couchestor_operator.control import migration, pool
from couchestor_operator.control import volume as volumes
from couchestor_operator.ports import volume_manager

VOLUME = "ec4e66fd-3b33-4439-b504-d49aba53da26"


class RestHarness:
    """Over the fake."""

    volume = VOLUME
    missing_volume = "00000000-3b33-4439-b504-d49aba53da26"

    def __init__(
        self,
        server: fake_mayastor.FakeMayastor,
        manager: volume_manager.VolumeManager,
        claims: memory_claims.MemoryClaims,
        clock: set_clock.SetClock,
    ) -> None:
        self.server = server
        self.manager = manager
        self.claims = claims
        self._clock = clock
        for name in (*contract.SOURCE_POOLS, contract.TARGET):
            server.put_pool(name, node=f"node-of-{name}", tier="any", available_bytes=1000)
        server.put_volume(VOLUME, *contract.SOURCE_POOLS, size_bytes=contract.SIZE_BYTES)
        claims.put(VOLUME)

    async def settle(self) -> None:
        """One rebuild."""
        self.server.settle(VOLUME)

    async def break_replica(self, pool_name: str) -> None:
        """A fault."""
        self.server.break_replica(VOLUME, pool_name)

    async def fill_target(self) -> None:
        """No room."""
        self.server.fill_pool(contract.TARGET, available_bytes=1)

    async def delete_volume(self) -> None:
        """Gone."""
        del self.server.volumes[VOLUME]

    async def shows(self, expected: bool) -> None:
        """When what is kept is too old."""
        self._clock.go(mayastor_volumes.FLEET_KEPT_SECONDS)
        assert (VOLUME in {each.name for each in await self.manager.fleet()}) is expected

    async def seen(self) -> volumes.Volume:
        """The volume as a look shows it."""
        look = await self.manager.look(VOLUME, pool_name=contract.TARGET)
        assert look.volume is not None
        return look.volume


@pytest.fixture
async def harness() -> AsyncIterator[RestHarness]:
    """A volume and its pools."""
    claims = memory_claims.MemoryClaims()
    async with (
        fake_mayastor.served() as server,
        mayastor_api.opened(mayastor_access.Access(url=server.url)) as api,
    ):
        clock = set_clock.SetClock()
        manager = mayastor_volumes.MayastorVolumes(api, claims, clock)
        yield RestHarness(server, manager, claims, clock)


@pytest.mark.parametrize("check", contract.CHECKS, ids=lambda check: str(check.__name__))
async def test_volumes(harness: RestHarness, check: contract.Check) -> None:
    await check(harness)


async def test_volumes_are_read_page_by_page(
    harness: RestHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{index:08}-3b33-4439-b504-d49aba53da26" for index in range(7)]
    for name in names:
        harness.server.put_volume(name, "sata-0", size_bytes=1)
        harness.claims.put(name)
    monkeypatch.setattr(mayastor_api, "PAGE_ENTRIES_COUNT", 3)
    assert [each.name for each in await harness.manager.fleet()] == [VOLUME, *names]
    pages = [path for _, path in harness.server.asked if path == "/v0/volumes"]
    assert len(pages) == 3


async def test_all_volumes_are_not_read_anew_for_every_look_at_migrations(
    harness: RestHarness,
) -> None:
    first = await harness.manager.fleet()
    await harness.break_replica("sata-0")
    assert await harness.manager.fleet() == first
    assert len([path for _, path in harness.server.asked if path == "/v0/volumes"]) == 1
    await harness.shows(True)
    assert await harness.manager.fleet() != first


async def test_a_volume_without_a_claim_is_none_of_ours(harness: RestHarness) -> None:
    harness.claims.delete(VOLUME)
    assert await harness.manager.fleet() == []
    look = await harness.manager.look(VOLUME, pool_name=contract.TARGET)
    assert look.volume is None


async def test_a_volume_that_is_not_published_has_no_synced_replica(harness: RestHarness) -> None:
    for replica in harness.server.topology(VOLUME).values():
        del replica["child-status"]
    assert (await harness.seen()).whole_count == 0


async def test_a_seal_outdates_every_command_from_before(harness: RestHarness) -> None:
    before = await harness.seen()
    await harness.manager.seal(contract.seal_of(before, "id.1"))
    with pytest.raises(errors.VersionConflictError):
        await harness.manager.add_replica(
            migration.AddReplica(
                volume_name=VOLUME,
                volume_version=before.version,
                replicas_count=3,
                pool=contract.TARGET,
            )
        )
    assert not [method for method, _ in harness.server.asked if method == "PUT"]


async def test_a_pool_takes_nothing_while_its_node_does_not(harness: RestHarness) -> None:
    async def target() -> pool.Pool:
        look = await harness.manager.look(VOLUME, pool_name=contract.TARGET)
        assert look.target is not None
        (listed,) = [p for p in await harness.manager.pools() if p.name == contract.TARGET]
        assert listed == look.target
        return listed

    found = await target()
    assert (found.online, found.node, found.labels) == (True, "node-of-nvme-0", {"tier": "any"})
    node = harness.server.nodes[found.node]
    cordon = {"cordonedstate": {"cordonlabels": ["maintenance"]}}
    node["spec"]["cordondrainstate"] = cordon
    assert not (await target()).online
    del node["spec"]["cordondrainstate"]
    node["state"]["status"] = "Offline"
    assert not (await target()).online
    node["state"]["status"] = "Online"
    del harness.server.pools[contract.TARGET]["state"]
    assert (await target()).available_bytes == 0
    assert not (await target()).online


@pytest.mark.parametrize(
    ("status", "kind", "error", "words"),
    [
        (507, "ResourceExhausted", errors.NoSuitablePoolError, "no room"),
        (400, "InvalidArgument", errors.MigrationFailedError, "refuses"),
        (404, "NotFound", errors.VersionConflictError, "gone"),
        (412, "FailedPrecondition", errors.MayastorApiError, "412 .*FailedPrecondition: because"),
        (401, "Unauthenticated", errors.MayastorApiError, "give the token"),
        (503, "Unavailable", errors.MayastorApiError, "503"),
    ],
)
async def test_what_a_refused_command_means(
    harness: RestHarness, status: int, kind: str, error: type[Exception], words: str
) -> None:
    seen = await harness.seen()
    command = migration.RemoveReplica(
        volume_name=VOLUME,
        volume_version=seen.version,
        replicas_count=1,
        replica_id=seen.replicas[0].replica_id,
    )
    harness.server.next_answers = [
        fake_mayastor.Answer(200, harness.server.volumes[VOLUME]),
        fake_mayastor.refusal(status, kind, "because"),
    ]
    with pytest.raises(error, match=words):
        await harness.manager.remove_replica(command)
    assert await harness.seen() == seen


async def test_another_404_than_the_api_s_own_makes_no_volume_be_gone(harness: RestHarness) -> None:
    harness.server.next_answers = [
        fake_mayastor.Answer(200, harness.server.pools[contract.TARGET]),
        fake_mayastor.Answer(200, harness.server.nodes["node-of-nvme-0"]),
        fake_mayastor.refusal(404, "Internal", "no such path"),
    ]
    with pytest.raises(errors.MayastorApiError, match="set the URL that its API v0 is under"):
        await harness.manager.look(VOLUME, pool_name=contract.TARGET)


async def test_a_token_is_sent_and_never_shown(
    harness: RestHarness, tmp_path: pathlib.Path
) -> None:
    harness.server.token = "not-to-be-shown"
    with pytest.raises(errors.MayastorApiError, match="give the token"):
        await harness.manager.pools()
    token_file = tmp_path / "token"
    token_file.write_text("not-to-be-shown\n")
    access = mayastor_access.Access(url=harness.server.url, bearer_token_file=token_file)
    async with mayastor_api.opened(access) as api:
        assert len(await api.pools()) == 3
        token_file.write_text("another")
        with pytest.raises(errors.MayastorApiError) as told:
            await api.pools()
        assert "another" not in str(told.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"url": "ftp://mayastor"}, "the Mayastor URL is not one"),
        ({"url": "http://mayastor", "ca_file": pathlib.Path("/nowhere")}, "its URL says http"),
    ],
)
def test_settings_that_cannot_be_are_told_of_mayastor(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(errors.ConfigurationError, match=words):
        mayastor_access.Access(**settings)


async def test_a_server_that_is_not_there_or_no_mayastor_is_told_by_its_address(
    unused_tcp_port: int,
) -> None:
    access = mayastor_access.Access(url=f"http://127.0.0.1:{unused_tcp_port}")
    async with mayastor_api.opened(access) as api:
        with pytest.raises(errors.MayastorApiError, match=f"127.0.0.1:{unused_tcp_port} cannot be"):
            await api.pools()
