"""Resources that must be refused, and the words that say why: to a model and to a real server."""

from __future__ import annotations

from typing import Any

Spec = dict[str, Any]

STRIPE: Spec = {
    "volumeRef": "pvc-1",
    "stripeId": 7,
    "policyRef": "cold",
    "lbaRange": {"startLba": 0, "endLba": 2048},
    "generation": 3,
    "shardLocations": [
        {
            "shardIndex": index,
            "isDataShard": index < 2,
            "poolName": f"pool-{index}",
            "nodeName": f"node-{index}",
            "offset": 0,
            "sizeBytes": 4096,
        }
        for index in range(3)
    ],
}
"""A group that is accepted."""

SELECTOR = {"matchLabels": {"tier": "nvme"}}

STORAGE_POLICIES: list[tuple[Spec, str]] = [
    ({"lowWatermarkIOPS": 5000}, "lowWatermarkIOPS must be below highWatermarkIOPS"),
    ({"highWatermarkIOPS": 1000}, "warmWatermarkIOPS must lie between"),
    ({"warmWatermarkIOPS": 500}, "warmWatermarkIOPS must lie between"),
    ({"highWatermarkIOPS": 0}, "greater than or equal to 1"),
    ({"highWatermarkIOPS": -1, "lowWatermarkIOPS": -5}, "greater than or equal to"),
    ({"highWatermarkIOPS": "many"}, "must be of type integer"),
    ({"samplingWindow": "0s"}, "samplingWindow must be longer than 0"),
    ({"cooldownPeriod": "0h0m"}, "cooldownPeriod must be longer than 0"),
    ({"migrationTimeout": "0d"}, "migrationTimeout must be longer than 0"),
    ({"samplingWindow": "an hour"}, "samplingWindow in body should match"),
    ({"samplingWindow": "1" * 40 + "s"}, "may not be more than 32"),
    ({"maxConcurrentMigrations": 0}, "greater than or equal to 1"),
    ({"maxConcurrentMigrations": 101}, "less than or equal to 100"),
    (
        {"hotPoolSelector": SELECTOR, "nvmePoolSelector": SELECTOR},
        "nvmePoolSelector is another",
    ),
    ({"coldPoolSelector": {}, "sataPoolSelector": {}}, "sataPoolSelector is another"),
    ({"warmPoolSelector": {}, "warmWatermarkIOPS": 0}, "warmPoolSelector needs"),
    ({"ecMinVolumeSizeBytes": -1}, "greater than or equal to 0"),
    ({"ecPolicyRef": ""}, "ecPolicyRef in body should be at least 1 chars long"),
    (
        {"storageClassName": ""},
        "storageClassName in body should be at least 1 chars long",
    ),
    (
        {"volumeSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}},
        "In and NotIn need at least one of values",
    ),
    (
        {
            "volumeSelector": {
                "matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]
            }
        },
        "Exists and DoesNotExist take none",
    ),
    (
        {"volumeSelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}},
        "Unsupported value",
    ),
]

CODING_POLICIES: list[tuple[Spec, str]] = [
    ({"dataShards": 20, "parityShards": 13}, "at most 32 together"),
    ({"dataShards": 0}, "greater than or equal to 1"),
    ({"parityShards": 0}, "greater than or equal to 1"),
    ({"minHealthyShards": 3}, "minHealthyShards must lie between"),
    ({"minHealthyShards": 7}, "minHealthyShards must lie between"),
    ({"stripeSizeBytes": 65537}, "multiple of 4096"),
    ({"stripeSizeBytes": 4096}, "greater than or equal to 65536"),
    ({"stripeSizeBytes": 128 << 20}, "less than or equal to"),
    ({"algorithm": "Fountain"}, "Unsupported value"),
    ({"algorithm": "LRC", "dataShards": 5}, "LRC needs an even number"),
    ({"algorithm": "LRC", "parityShards": 1}, "exactly 2 parityShards"),
    ({"algorithm": "LRC", "dataShards": 8, "parityShards": 3}, "exactly 2 parityShards"),
    (
        {"algorithm": "LRC", "journalConfig": {"replicationFactor": 2}},
        "replicationFactor must be above parityShards",
    ),
    ({"journalConfig": {}, "parityShards": 3}, "replicationFactor must be above parityShards"),
    ({"journalConfig": {"replicationFactor": 1}}, "greater than or equal to 2"),
    ({"journalConfig": {"destageThresholdPercent": 0}}, "greater than or equal to 1"),
    ({"journalConfig": {"destageInterval": "0s"}}, "destageInterval must be above 0"),
    ({"scrubInterval": "0d"}, "scrubInterval must be longer than 0"),
]

STRIPE_CHANGES: list[tuple[Spec, str]] = [
    ({"volumeRef": "pvc-2"}, "volumeRef and stripeId never change"),
    ({"generation": 2}, "generation never goes back"),
    ({"shardLocations": STRIPE["shardLocations"][:2]}, "raise the generation"),
    ({"lbaRange": {"startLba": 5, "endLba": 5}}, "endLba must be above"),
    ({"shardLocations": []}, "should have at least 2 items"),
    ({"shardLocations": [STRIPE["shardLocations"][0]] * 2}, "Duplicate value"),
    (
        {
            "shardLocations": [
                location | {"isDataShard": False} for location in STRIPE["shardLocations"]
            ]
        },
        "at least one data shard",
    ),
]
"""Changes to ``STRIPE``."""
