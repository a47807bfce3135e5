"""Benchmarks of layers over small data: rows that make sense, and nothing left behind."""

from __future__ import annotations

import pathlib

import pytest

from couchestor_bench import failures
from couchestor_bench.layers import codec_speed, device_speed
from couchestor_daemon.adapters import isal_codec
from couchestor_domain import geometry, units


def quiet(text: str) -> None:
    """Nobody watches."""


def test_codecs_are_measured_at_encoding_and_rebuilding() -> None:
    rows = list(
        codec_speed.measure(
            [geometry.StripeGeometry(4, 2)], [64 * units.KIB], seconds=0.01, progress=quiet
        )
    )
    reed_solomon = [row["what"] for row in rows if str(row["codec"]).startswith("rs")]
    assert reed_solomon == ["encode", "rebuild 1 lost", "rebuild 2 lost"]
    assert all(row["coding"] == "4+2" and row["stripe"] == "64 KiB" for row in rows)
    assert all(float(row["gb_per_second"]) > 0 for row in rows)
    assert all(0 < float(row["p50_us"]) <= float(row["p99_us"]) for row in rows)


def test_a_codec_that_rebuilds_other_bytes_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def lie(self: object, available: object, missing: dict[int, memoryview]) -> None:
        for chunk in missing.values():
            chunk[0] ^= 1

    monkeypatch.setattr(isal_codec.IsalCodec, "reconstruct", lie)
    with pytest.raises(failures.BenchmarkError, match="other bytes than were encoded"):
        list(
            codec_speed.measure(
                [geometry.StripeGeometry(2, 1)], [8 * units.KIB], seconds=0.001, progress=quiet
            )
        )


def test_a_folder_is_measured_and_left_as_it_was(tmp_path: pathlib.Path) -> None:
    (tmp_path / "theirs").write_text("x")
    rows = list(
        device_speed.measure(
            tmp_path,
            sizes_bytes=[64 * units.KIB, units.MIB],
            depths=[1, 2],
            seconds=0.02,
            space_bytes=4 * device_speed.ZONE_BYTES,
            progress=quiet,
        )
    )
    kinds = ["write, durable", "read, sequential", "read, random"]
    sizes = [("64 KiB", "depth 1"), ("64 KiB", "depth 2"), ("1024 KiB", "depth 1")]
    sizes.append(("1024 KiB", "depth 2"))
    assert [(row["what"], row["size"], row["depth"]) for row in rows] == [
        (kind, *each) for kind in kinds for each in sizes
    ]
    assert all(float(row["mb_per_second"]) > 0 for row in rows)
    assert [each.name for each in tmp_path.iterdir()] == ["theirs"]


@pytest.mark.parametrize(
    ("name", "space", "said"),
    [
        ("absent", 1 << 30, "cannot use .*absent"),
        ("file", 1 << 30, "is no folder"),
        (".", 1 << 24, "too little for a depth of 8"),
    ],
)
def test_what_cannot_be_measured_is_said(
    tmp_path: pathlib.Path, name: str, space: int, said: str
) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(failures.BenchmarkError, match=said):
        list(
            device_speed.measure(
                tmp_path / name,
                sizes_bytes=[units.MIB],
                depths=[8],
                seconds=0.01,
                space_bytes=space,
                progress=quiet,
            )
        )
