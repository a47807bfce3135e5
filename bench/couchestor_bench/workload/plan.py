"""One run, as it was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from couchestor_bench import signing
from couchestor_bench.workload import keys as key_distributions
from couchestor_bench.workload import sizes as size_distributions
from couchestor_daemon.app import option_values

MIXABLE: Final = ("get", "head", "put", "list", "delete")
PUT_BYTES_MAX: Final = 256 * 1024 * 1024
"""Of one request: its body lies in memory, once for each process."""
_KEY_SEED: Final = 1
_SIZE_SEED: Final = 2


class Endpoint(NamedTuple):
    """Where the S3 server is."""

    host: str
    port: int
    secure: bool

    @property
    def url(self) -> str:
        return f"{'https' if self.secure else 'http'}://{self.host_header}"

    @property
    def host_header(self) -> str:
        """As the Host header has it, and as it is signed."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == (443 if self.secure else 80) else f"{name}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run against one bucket.

    Args:
        workload: What reports call it.
        mix: Weight of each operation (``MIXABLE``, or ``multipart`` alone).
        prefix: Before every key of the run, so that it meets no object that is not its own.
        keys_count: Objects there are before the clock runs; of ``put`` and ``multipart``: keys
            that are written again and again.
        part_bytes: Of an upload in parts.
        page_keys_count: Keys that a listing asks for.
        connections: Over all processes.
        per_second: Arrivals of the open loop over all processes; None: closed loop.
        arrivals: ``poisson`` or ``constant``.
        duration_seconds: Measured time; with ``count`` its limit.
        count: Requests to be measured over all processes; None: as many as there is time for.
        signed_payload: Send the SHA-256 of each body, which the server has to verify.
        timeout_seconds: A request without an answer by then has failed.
        ca_file: Certificates to trust; None: the system's.
        verify: Whether the server's certificate has to be trusted.
    """

    workload: str
    mix: Mapping[str, float]
    endpoint: Endpoint
    credentials: signing.Credentials
    bucket: str
    prefix: str
    sizes_text: str = "4KiB"
    keys_text: str = "uniform"
    keys_count: int = 1000
    part_bytes: int = 8 * 1024 * 1024
    page_keys_count: int = 1000
    connections: int = 16
    process_count: int = 1
    per_second: float | None = None
    arrivals: str = "poisson"
    warm_up_seconds: float = 2.0
    duration_seconds: float = 10.0
    count: int | None = None
    seed: int = 1
    signed_payload: bool = True
    timeout_seconds: float = 30.0
    ca_file: str | None = None
    verify: bool = True

    @property
    def sizes(self) -> size_distributions.Sizes:
        return size_distributions.parse(self.sizes_text)

    @property
    def keys(self) -> key_distributions.Keys:
        return key_distributions.parse(self.keys_text)

    @property
    def deletes(self) -> bool:
        """Keys are divided among the processes then: one alone knows which objects are left."""
        return self.mix.get("delete", 0) > 0

    def sizes_of_keys(self) -> npt.NDArray[np.int64]:
        """Size of each key in bytes, the same in every process."""
        random = np.random.default_rng((self.seed, _SIZE_SEED))
        return self.sizes.draw(random, self.keys_count)

    def draw_of_keys(self) -> key_distributions.Draw:
        """Draws of keys, the same in every process but for the state of ``random``."""
        random = np.random.default_rng((self.seed, _KEY_SEED))
        return self.keys.prepare(self.keys_count, random)

    def key(self, key_index: int) -> str:
        """Name of a key."""
        return f"{self.prefix}{key_index:09d}"


def parse_mix(text: str) -> dict[str, float]:
    """Weights from ``get=70,put=30``.

    Raises:
        ValueError: What is wrong.
    """
    mix: dict[str, float] = {}
    for part in text.split(","):
        name, equals, weight = part.strip().partition("=")
        if name not in MIXABLE:
            near = option_values.suggestion(name, MIXABLE)
            raise ValueError(f"has no operation {name!r}{near}; there are {', '.join(MIXABLE)}")
        try:
            mix[name] = float(weight) if equals else -1.0
        except ValueError:
            mix[name] = -1.0
        if not 0 <= mix[name] < float("inf"):
            raise ValueError(f"wants a weight for each operation, such as {name}=50")
    if not sum(mix.values()):
        raise ValueError("wants a weight above zero")
    if mix.get("delete", 0) > mix.get("put", 0):
        raise ValueError("deletes more than it puts: nothing would be left to read")
    return mix
