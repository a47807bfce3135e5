"""Nodes in memory and nodes over HTTP keep the same contract."""

from __future__ import annotations

import fake_node
import memory_node_client
import node_client_contract as contract
import pytest

from couchestor_operator.adapters import node_access, node_api


@pytest.mark.parametrize("check", contract.CHECKS, ids=lambda check: str(check.__name__))
async def test_nodes_in_memory(check: contract.Check) -> None:
    client = memory_node_client.MemoryNodes()
    node = contract.made_node()
    await check(contract.Harness(client=client, endpoint=client.put(node), node=node))


@pytest.mark.parametrize("check", contract.CHECKS, ids=lambda check: str(check.__name__))
async def test_nodes_over_http(check: contract.Check) -> None:
    access = node_access.Access(url="http://nodes:9443")
    async with (
        fake_node.served(contract.made_node()) as server,
        node_api.opened(access) as client,
    ):
        harness = contract.Harness(client=client, endpoint=server.endpoint, node=server.node)
        await check(harness)
