"""Parquet datasets through pyarrow's own S3 client and through s3fs: each writes, each reads."""

from __future__ import annotations

import base64
import datetime
import decimal
import pathlib
import random
import subprocess
import typing
import zlib

import pyarrow
import pyarrow.dataset
import pyarrow.fs
import pyarrow.parquet
import pytest
import s3fs
from tests.functional import daemon_process

from couchestor_bench import server_process

_MIB: typing.Final = 1024 * 1024
_ROWS: typing.Final = 8_000
# They become parts of keys.
_CITIES: typing.Final = ("Zürich", "São Paulo", "a+b&c=d%/e", "10 % #?")
_PARTITIONING: typing.Final = pyarrow.dataset.partitioning(
    pyarrow.schema([("year", pyarrow.int16()), ("city", pyarrow.string())]), flavor="hive"
)


def _pyarrow_system(server: server_process.ServerProcess) -> typing.Any:
    return pyarrow.fs.S3FileSystem(
        endpoint_override=server.endpoint,
        access_key=server.credentials.access_key,
        secret_key=server.credentials.secret_key,
        region=server.credentials.region,
        retry_strategy=pyarrow.fs.AwsStandardS3RetryStrategy(max_attempts=1),
        allow_bucket_creation=True,
        allow_bucket_deletion=True,
    )


def _s3fs_system(server: server_process.ServerProcess) -> typing.Any:
    return s3fs.S3FileSystem(
        endpoint_url=server.endpoint,
        key=server.credentials.access_key,
        secret=server.credentials.secret_key,
        client_kwargs={"region_name": server.credentials.region},
        config_kwargs={"retries": {"total_max_attempts": 1}},
        skip_instance_cache=True,
    )


_SYSTEMS: typing.Final = {"pyarrow": _pyarrow_system, "s3fs": _s3fs_system}


@pytest.fixture(scope="module")
def table() -> typing.Any:
    """Eight thousand rows, a column of each kind that Parquet keeps, a tenth of it null."""
    dice = random.Random(20261129)
    begin = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    kinds: dict[str, tuple[typing.Any, typing.Callable[[], object]]] = {
        "truth": (pyarrow.bool_(), lambda: dice.random() < 0.5),
        "tiny": (pyarrow.int8(), lambda: dice.randrange(-128, 128)),
        "long": (pyarrow.int64(), lambda: dice.randrange(-(2**63), 2**63)),
        "unsigned": (pyarrow.uint64(), lambda: dice.randrange(2**64)),
        "single": (pyarrow.float32(), lambda: dice.randrange(2**20) / 64),
        "double": (pyarrow.float64(), dice.random),
        "money": (pyarrow.decimal128(20, 4), lambda: decimal.Decimal(dice.randrange(10**9)) / 100),
        "text": (pyarrow.string(), lambda: "é" * dice.randrange(20)),
        "bytes": (pyarrow.binary(), lambda: dice.randbytes(dice.randrange(40))),
        "digest": (pyarrow.binary(16), lambda: dice.randbytes(16)),
        "word": (
            pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
            lambda: dice.choice(("red", "green", "blue")),
        ),
        "day": (pyarrow.date32(), lambda: (begin + _days(dice)).date()),
        "moment": (pyarrow.timestamp("us", "UTC"), lambda: begin + _days(dice)),
        "clock": (pyarrow.time64("us"), lambda: (begin + _days(dice)).time()),
        "span": (pyarrow.duration("us"), lambda: _days(dice)),
        "numbers": (
            pyarrow.list_(pyarrow.int32()),
            lambda: [dice.randrange(100) for _ in range(dice.randrange(4))],
        ),
        "place": (
            pyarrow.struct([("x", pyarrow.float64()), ("name", pyarrow.string())]),
            lambda: {"x": dice.random(), "name": "somewhere"},
        ),
        "map": (
            pyarrow.map_(pyarrow.string(), pyarrow.int32()),
            lambda: [("a", dice.randrange(9)), ("b", None)],
        ),
    }
    columns = {
        "id": pyarrow.array(range(_ROWS), pyarrow.int64()),
        "year": pyarrow.array([2024 + index % 2 for index in range(_ROWS)], pyarrow.int16()),
        "city": pyarrow.array([dice.choice(_CITIES) for _ in range(_ROWS)], pyarrow.string()),
        "nothing": pyarrow.nulls(_ROWS),
    }
    for name, (kind, draw) in kinds.items():
        cells = [None if dice.random() < 0.1 else draw() for _ in range(_ROWS)]
        columns[name] = pyarrow.array(cells, kind)
    return pyarrow.table(columns)


def _days(dice: random.Random) -> datetime.timedelta:
    return datetime.timedelta(microseconds=dice.randrange(10**15))


def _write(table: typing.Any, place: str, system: typing.Any, behaviour: str) -> None:
    pyarrow.dataset.write_dataset(
        table, place, filesystem=system, format="parquet", partitioning=_PARTITIONING,
        existing_data_behavior=behaviour, max_rows_per_group=200, max_rows_per_file=600,
    )  # fmt: skip


def _read(place: str, system: typing.Any, like: typing.Any, rows: typing.Any = None) -> typing.Any:
    """The rows of a dataset, found anew, in the order of ``like``'s columns and of ``id``."""
    source: str | list[str] = place
    if isinstance(system, s3fs.S3FileSystem):
        system.invalidate_cache()
        # It takes the objects by which pyarrow marks folders for files, so pyarrow would read them.
        source = system.glob(f"{place}/**/*.parquet")
    found = pyarrow.dataset.dataset(source, filesystem=system, partitioning=_PARTITIONING)
    return found.to_table(filter=rows, columns=like.column_names).sort_by("id")


@pytest.mark.parametrize("reader", _SYSTEMS)
@pytest.mark.parametrize("writer", _SYSTEMS)
def test_a_partitioned_dataset_reads_back_filtered_as_it_was_written(
    daemon: server_process.ServerProcess, table: typing.Any, writer: str, reader: str
) -> None:
    write, read = _SYSTEMS[writer](daemon), _SYSTEMS[reader](daemon)
    place = f"{daemon_process.BUCKET}/datasets/{writer} to {reader}"
    _write(table, place, write, "error")
    back = _read(place, read, table)
    back.validate(full=True)
    assert back.equals(table)
    field = pyarrow.dataset.field
    for rows in (
        (field("year") == 2025) & field("city").isin(["São Paulo", "a+b&c=d%/e"]),
        (field("id") >= 7_000) & (field("id") < 7_100),
        (field("city") == "10 % #?") & field("truth").is_valid() & (field("double") < 0.25),
        field("city") == "nowhere",
    ):
        wanted = table.filter(rows)
        assert _read(place, read, table, rows).equals(wanted), rows
    # One partition is replaced: its files go, those of the others stay.
    replaced = (field("year") == 2024) & (field("city") == "Zürich")
    fewer = table.filter(replaced).slice(0, 10)
    _write(fewer, place, write, "delete_matching")
    assert _read(place, read, table, replaced).equals(fewer)
    assert _read(place, read, table, ~replaced).equals(table.filter(~replaced))


@pytest.mark.parametrize("name", _SYSTEMS)
def test_a_long_file_is_written_in_parts_and_read_anywhere(
    daemon: server_process.ServerProcess, tree: pathlib.Path, name: str
) -> None:
    body = (tree / "large.bin").read_bytes()
    key = f"datasets/long by {name}"
    place = f"{daemon_process.BUCKET}/{key}"
    if name == "pyarrow":
        system = _pyarrow_system(daemon)
        with system.open_output_stream(place, metadata={"Content-Type": "x/proof"}) as stream:
            for begin in range(0, len(body), 3 * _MIB):
                stream.write(body[begin : begin + 3 * _MIB])
        opened = system.open_input_file(place)
    else:
        system = _s3fs_system(daemon)
        with system.open(place, "wb", block_size=5 * _MIB, ContentType="x/proof") as stream:
            for begin in range(0, len(body), 3 * _MIB):
                stream.write(body[begin : begin + 3 * _MIB])
        opened = system.open(place, "rb", block_size=_MIB)
    with opened:
        for begin, size in ((len(body) - 7, 7), (5 * _MIB - 3, 6), (0, 1), (0, len(body))):
            opened.seek(begin)
            assert opened.read(size) == body[begin : begin + size]
    told = daemon_process.boto_client(daemon).head_object(Bucket=daemon_process.BUCKET, Key=key)
    assert told["ContentLength"] == len(body)
    assert told["ContentType"] == "x/proof"
    assert "-" in told["ETag"]


def test_s3fs_puts_gets_moves_and_removes_a_tree(
    daemon: server_process.ServerProcess, tree: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    system, place = _s3fs_system(daemon), f"{daemon_process.BUCKET}/s3fs"
    system.put(str(tree), place, recursive=True)
    sizes = {
        f"{place}/{path.relative_to(tree)}": path.stat().st_size
        for path in tree.rglob("*")
        if path.is_file()
    }
    assert system.du(place, total=False) == sizes
    assert sorted(system.glob(f"{place}/json/*.py")) == sorted(
        name for name in sizes if name.startswith(f"{place}/json/")
    )
    told = daemon_process.boto_client(daemon).head_object(
        Bucket=daemon_process.BUCKET, Key="s3fs/json/decoder.py", ChecksumMode="ENABLED"
    )
    # Its default: sent, verified and kept without having been asked for.
    crc = zlib.crc32((tree / "json" / "decoder.py").read_bytes()).to_bytes(4, "big")
    assert base64.b64decode(told["ChecksumCRC32"]) == crc
    system.get(place, str(tmp_path / "down"), recursive=True)
    subprocess.run(["diff", "-r", str(tree), str(tmp_path / "down")], check=True)
    system.mv(f"{place}/large.bin", f"{place}/moved é +.bin")
    assert not system.exists(f"{place}/large.bin")
    assert system.cat(f"{place}/moved é +.bin") == (tree / "large.bin").read_bytes()
    system.setxattr(f"{place}/moved é +.bin", colour="blue")
    assert system.getxattr(f"{place}/moved é +.bin", "colour") == "blue"
    system.put_tags(f"{place}/moved é +.bin", {"team": "a b"})
    assert system.get_tags(f"{place}/moved é +.bin") == {"team": "a b"}
    system.rm(place, recursive=True)
    assert not system.exists(place)


def test_pyarrow_makes_lists_moves_and_removes_folders(
    daemon: server_process.ServerProcess, tree: pathlib.Path
) -> None:
    system, bucket = _pyarrow_system(daemon), "pyarrow-bucket"
    system.create_dir(f"{bucket}/folder/empty é")
    copied = f"{bucket}/folder/lib"
    pyarrow.fs.copy_files(str(tree), copied, destination_filesystem=system)
    found = system.get_file_info(pyarrow.fs.FileSelector(f"{bucket}/folder", recursive=True))
    kinds = pyarrow.fs.FileType
    assert {row.path: row.size for row in found if row.type == kinds.File} == {
        f"{copied}/{path.relative_to(tree)}": path.stat().st_size
        for path in tree.rglob("*")
        if path.is_file()
    }
    assert f"{bucket}/folder/empty é" in {row.path for row in found if row.type == kinds.Directory}
    system.move(f"{copied}/large.bin", f"{bucket}/moved + é")
    assert system.get_file_info(f"{copied}/large.bin").type == kinds.NotFound
    with system.open_input_stream(f"{bucket}/moved + é") as stream:
        assert stream.read() == (tree / "large.bin").read_bytes()
    system.delete_dir(f"{bucket}/folder")
    rest = system.get_file_info(pyarrow.fs.FileSelector(bucket, recursive=True))
    assert [row.path for row in rest] == [f"{bucket}/moved + é"]
    system.delete_file(f"{bucket}/moved + é")
    system.delete_dir(bucket)
    assert system.get_file_info(bucket).type == kinds.NotFound
