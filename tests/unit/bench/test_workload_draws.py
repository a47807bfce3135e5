"""Sizes and keys: the distributions that were asked for, and the same ones again."""

from __future__ import annotations

import collections
import itertools

import numpy as np
import pytest

from couchestor_bench import signing
from couchestor_bench.workload import choices, keys, plan, sizes

DRAWS = 20_000


def drawn(text: str, seed: int = 7) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.asarray(sizes.parse(text).draw(np.random.default_rng(seed), DRAWS))


def test_sizes_are_drawn_as_they_were_asked_for() -> None:
    assert set(drawn("4KiB").tolist()) == {4096}
    uniform = drawn("uniform:1KiB-3KiB")
    assert uniform.min() >= 1024
    assert uniform.max() <= 3072
    assert uniform.mean() == pytest.approx(2048, rel=0.02)
    chosen = collections.Counter(drawn("4KiB=75,1MiB=25").tolist())
    assert set(chosen) == {4096, 1 << 20}
    assert chosen[4096] / DRAWS == pytest.approx(0.75, abs=0.02)
    long_tail = drawn("lognormal:64KiB,1.5,16MiB")
    assert np.median(long_tail) == pytest.approx(65536, rel=0.05)
    assert np.log(long_tail[long_tail < 16 << 20]).std() == pytest.approx(1.5, rel=0.05)
    assert long_tail.max() <= 16 << 20
    assert long_tail.min() >= 1


def test_a_lognormal_without_a_limit_has_one() -> None:
    found = sizes.parse("lognormal:1KiB,1")
    assert found.largest_bytes == int(1024 * np.e**3)


@pytest.mark.parametrize("text", ["4KiB", "uniform:1-9", "1=2,3=4", "lognormal:8KiB,2"])
def test_the_same_seed_draws_the_same_sizes(text: str) -> None:
    assert drawn(text).tolist() == drawn(text).tolist()


@pytest.mark.parametrize(
    "text",
    ["", "big", "uniform:9-1", "uniform:4KiB", "normal:1,2", "1=0", "1=-1,2=3", "1=x",
     "lognormal:4KiB", "lognormal:4KiB,9", "lognormal:4KiB,1,1KiB", "lognormal:4KiB,nan"],
)  # fmt: skip
def test_a_size_that_cannot_be_read_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="lognormal:64KiB"):
        sizes.parse(text)


@pytest.mark.parametrize("exponent", [0.5, 0.99, 1.5])
def test_zipf_takes_each_rank_in_proportion(exponent: float) -> None:
    count = 50
    draw = keys.parse(f"zipf:{exponent}").prepare(count, np.random.default_rng(3))
    found = np.bincount(draw(np.random.default_rng(4), 200_000), minlength=count)
    weights = 1 / np.arange(1, count + 1) ** exponent
    wanted = 200_000 * weights / weights.sum()
    assert sorted(found.tolist(), reverse=True) == pytest.approx(wanted, rel=0.1)
    # The most popular key is not just the first one.
    assert found.argmax() != 0 or found.argmin() != count - 1


def test_uniform_takes_all_keys_alike_and_the_same_seed_the_same_keys() -> None:
    draw = keys.parse("uniform").prepare(10, np.random.default_rng(3))
    found = draw(np.random.default_rng(4), DRAWS)
    assert np.bincount(found) == pytest.approx([DRAWS / 10] * 10, rel=0.1)
    assert found.tolist() == draw(np.random.default_rng(4), DRAWS).tolist()


@pytest.mark.parametrize("text", ["", "zipf:0", "zipf:x", "zipf:9", "uniform:1", "gauss"])
def test_a_distribution_of_keys_that_there_is_not_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"zipf:0\.99"):
        keys.parse(text)


def test_operations_come_by_weight() -> None:
    draw = keys.Uniform().prepare(5, np.random.default_rng(1))
    endless = choices.endless({"get": 3, "put": 1}, draw, np.random.default_rng(2))
    found = collections.Counter(each.operation for each in itertools.islice(endless, DRAWS))
    assert found["get"] / DRAWS == pytest.approx(0.75, abs=0.02)
    assert found["get"] + found["put"] == DRAWS


def test_sizes_belong_to_keys_in_every_process() -> None:
    def made(process_count: int) -> plan.Plan:
        return plan.Plan(
            workload="get",
            mix={"get": 1},
            endpoint=plan.Endpoint("h", 80, False),
            credentials=signing.Credentials(access_key="a", secret_key="s"),
            bucket="b",
            prefix="p/",
            sizes_text="uniform:1-1000",
            process_count=process_count,
        )

    assert made(1).sizes_of_keys().tolist() == made(4).sizes_of_keys().tolist()


@pytest.mark.parametrize("text", ["get", "get=x", "get=-1", "get=0", "fly=1", "put=1,delete=2"])
def test_a_mix_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        plan.parse_mix(text)
    assert plan.parse_mix("get=70, put=30") == {"get": 70, "put": 30}


class TestLivingKeys:
    def test_a_deleted_key_gives_way_to_one_that_has_an_object(self) -> None:
        living = choices.LivingKeys(range(0, 6, 2))
        assert living.admit(choices.Choice("delete", 1)) == choices.Choice("delete", 2)
        assert living.admit(choices.Choice("get", 1)) == choices.Choice("get", 4)
        assert living.living_count == 2

    def test_what_is_in_use_is_not_deleted(self) -> None:
        living = choices.LivingKeys(range(1))
        read = living.admit(choices.Choice("get", 0))
        assert read is not None
        assert living.admit(choices.Choice("delete", 0)) is None
        living.release(read, succeeded=True)
        assert living.admit(choices.Choice("delete", 0)) is not None

    def test_nothing_is_put_beside_a_delete_of_the_same_key(self) -> None:
        living = choices.LivingKeys(range(2))
        gone = living.admit(choices.Choice("delete", 0))
        assert gone is not None
        assert living.admit(choices.Choice("put", 0)) == choices.Choice("put", 1)
        living.release(gone, succeeded=True)
        assert living.admit(choices.Choice("put", 0)) == choices.Choice("put", 0)

    def test_only_a_put_that_succeeded_brings_an_object(self) -> None:
        living = choices.LivingKeys(range(1))
        for succeeded, alive in ((False, 0), (True, 1)):
            if living.living_count:
                gone = living.admit(choices.Choice("delete", 0))
                assert gone is not None
                living.release(gone, succeeded=True)
            put = living.admit(choices.Choice("put", 0))
            assert put is not None
            living.release(put, succeeded=succeeded)
            assert living.living_count == alive
