"""Settings: precedence, sizes, and one clear line for each mistake."""

from __future__ import annotations

import pathlib
import tomllib

import pytest

from couchestor_daemon.app import command, option_table, option_values, settings
from couchestor_domain import errors, units


def _load(
    flags: dict[str, object] | None = None,
    environment: dict[str, str] | None = None,
    config: pathlib.Path = pathlib.Path("/nonexistent"),
) -> settings.Settings:
    return option_table.load(flags or {}, environment or {}, system_config=config)


def test_table_and_settings_name_the_same_fields() -> None:
    assert set(option_table.BY_NAME) == set(settings.Settings.__dataclass_fields__)


def test_flag_beats_environment_beats_file_beats_default(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('region = "file-1"\nport = 9001\nworkers = 3\n')
    told = _load(
        {"region": "flag-1"}, {"COUCHESTOR_REGION": "env-1", "COUCHESTOR_PORT": "9002"}, file
    )
    assert (told.region, told.port, told.workers) == ("flag-1", 9002, 3)
    assert told.zone_bytes == 64 * units.MIB


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4096", 4096),
        ("64MiB", 64 << 20),
        ("64M", 64 << 20),
        ("1MB", 10**6),
        ("1.5 GiB", 3 << 29),
        ("2t", 2 << 40),
    ],
)
def test_sizes(text: str, expected: int) -> None:
    assert option_values.parse_size(text) == expected


def test_a_configuration_that_may_not_be_looked_for_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(path: pathlib.Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(pathlib.Path, "exists", refuse)
    with pytest.raises(errors.ConfigurationError, match="Permission denied; name another file"):
        _load()


@pytest.mark.parametrize("text", ["", "MiB", "-1", "5 parsecs", "1e9"])
def test_bad_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        option_values.parse_size(text)


@pytest.mark.parametrize(
    ("flags", "environment", "words"),
    [
        ({"port": "99999"}, {}, ["--port", "99999", "65535"]),
        ({}, {"COUCHESTOR_ZONE_BYTES": "7"}, ["COUCHESTOR_ZONE_BYTES", "'7'"]),
        ({}, {"COUCHESTOR_ZONE_BYTE": "7"}, ["did you mean COUCHESTOR_ZONE_BYTES"]),
        ({"log_level": "inof"}, {}, ["--log-level", "did you mean info"]),
        ({"data_shards": "9"}, {}, ["9+2", "11 devices", "--data-shards"]),
        (
            {"codec": "lrc", "data_shards": "3", "parity_shards": "3"},
            {},
            ["3+3 survives any 2 lost devices, not the 3", "codec rs", "--codec"],
        ),
        (
            {
                "data_shards": "30",
                "parity_shards": "3",
                "devices": [",".join(f"/{i}" for i in range(33))],
            },
            {},
            ["30+3 is not a usable coding", "--data-shards"],
        ),
        ({"devices": ["/a,/b", "/a"]}, {}, ["named twice", "--devices"]),
        ({"devices": [""]}, {}, ["--devices: ''", "by nothing"]),
        ({"devices": ["/a", ""]}, {}, ["--devices: '/a,'", "by nothing"]),
        ({}, {"COUCHESTOR_DEVICES": ""}, ["COUCHESTOR_DEVICES: ''", "by nothing"]),
        ({}, {"COUCHESTOR_DEVICES": "/a, ,/b"}, ["COUCHESTOR_DEVICES", "by nothing"]),
        ({"host": "a..b"}, {}, ["--host: 'a..b' is not a host name"]),
        ({"health_host": "a" * 70 + ".example"}, {}, ["--health-host: 'aaa", "not a host name"]),
        ({"tls_cert": "/nope"}, {}, ["belong together"]),
        ({"tls_cert": "/nope", "tls_key": "/nope"}, {}, ["cannot read /nope", "--tls-cert"]),
        ({"journal_threshold_bytes": "5MiB"}, {}, ["4 MiB", "--journal-threshold-bytes"]),
        ({"port": "8080"}, {}, ["must differ", "--port"]),
        ({"config": "/nope.toml"}, {}, ["cannot read /nope.toml", "No such file"]),
    ],
)
def test_a_mistake_is_one_line_naming_its_source(
    flags: dict[str, object], environment: dict[str, str], words: list[str]
) -> None:
    with pytest.raises(errors.ConfigurationError) as caught:
        _load(flags, environment)
    assert "\n" not in caught.value.message
    for word in words:
        assert word in caught.value.message


def test_a_mistake_in_the_file_names_its_line(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('# hello\nregion = "x"\nprot = 1\n')
    with pytest.raises(errors.ConfigurationError, match=r"c.toml:3: .*did you mean port"):
        _load(config=file)
    file.write_text("port = true\n")
    with pytest.raises(errors.ConfigurationError, match=r"c.toml:1 port: 'True'"):
        _load(config=file)


def test_a_file_that_nobody_foresaw_to_fail_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> int:
        raise OSError(28, "No space left on device", "/run/couchestor/metrics")

    monkeypatch.setattr(command, "_dispatch", fails)
    assert command.main(["serve"]) == 1
    assert capsys.readouterr().err == (
        "couchestor: /run/couchestor/metrics: No space left on device\n"
    )


def test_no_devices_in_the_file_are_not_the_usual_ones(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("devices = []\n")
    with pytest.raises(errors.ConfigurationError, match=r"c.toml:1 devices: '' names a folder by"):
        _load(config=file)


@pytest.mark.parametrize(
    "text",
    ["127.0.0.1", "::1", "[::1]", "fe80::1%eth0", "node-1.example", "localhost", "b\xfccher.de"],
)
def test_hosts(text: str) -> None:
    assert _load({"host": text}).host == text.strip("[]")


def test_kubernetes_service_links_are_not_settings() -> None:
    told = _load(
        environment={
            "COUCHESTOR_PORT": "tcp://10.0.0.1:9000",
            "COUCHESTOR_SERVICE_HOST": "10.0.0.1",
            "COUCHESTOR_PORT_9000_TCP_ADDR": "10.0.0.1",
        }
    )
    assert told.port == 9000


def test_settings_survive_the_pipe() -> None:
    told = _load({"devices": ["/a,/b,/c,/d,/e,/f"], "log_json": "yes", "drain_seconds": "2.5s"})
    assert settings.Settings.from_json(told.to_json()) == told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["srve"], "did you mean serve"),
        (["serve", "--prot", "1"], "did you mean --port"),
        (["serve", "--port=x"], "--port"),
        (["device"], "ACTION"),
    ],
)
def test_a_wrong_command_line_exits_2(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        raise SystemExit(command.main(words))
    assert caught.value.code == 2
    complaint = capsys.readouterr().err
    assert said in complaint
    assert complaint.count("\n") == 1


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    pyproject = pathlib.Path(__file__).parents[3] / "pyproject.toml"
    wanted = tomllib.loads(pyproject.read_text())["project"]["version"]
    with pytest.raises(SystemExit) as caught:
        command.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"couchestor {wanted}\n"


def test_commands_of_other_parts_say_what_is_missing(
    capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needy_command.py").write_text("import a_library_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    parts = {"absent": ("no_such_module:main", ""), "needy": ("needy_command:main", "")}
    monkeypatch.setattr(command, "FOREIGN", parts)
    assert command.main(["absent"]) == command.USAGE_EXIT
    assert capsys.readouterr().err == (
        "couchestor: this version of couchestor has no `couchestor absent`\n"
    )
    assert command.main(["needy"]) == command.USAGE_EXIT
    assert "needs a_library_that_is_not_there, which is not" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command.main(["absen"])
    assert "absent" not in capsys.readouterr().err


def test_help_offers_a_part_only_with_what_it_needs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command.main([]) == 0
    assert "measure this node or any S3 endpoint" in capsys.readouterr().out
    monkeypatch.setattr(command, "NEEDS", {"bench": ("a_library_that_is_not_there",)})
    assert command.main([]) == 0
    assert "measure this node" not in capsys.readouterr().out


def test_help_tells_every_setting_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["serve", "--help"])
    text = capsys.readouterr().out
    assert all(option.flag in text for option in option_table.OPTIONS)
    assert "[64MiB]" in text
    assert "COUCHESTOR_ZONE_BYTES" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["device", "add"], ["--label", "--failure-domain", "puts it into service at once"]),
        (["device", "retire"], ["--undo", "shows that it is empty"]),
        (["device", "list"], ["--json", "retiring", "missing", "refused"]),
        (["device", "remove"], ["label, id or path", "Refused with numbers"]),
        (["device", "replace"], ["--label", "The other device retires"]),
        (["device", "attach"], ["An old copy"]),
        (["check"], ["Exit status 0", "beside a running node", "wants the node stopped"]),
        (["recover"], ["must be stopped", "index.before-rebuild"]),
        (["status"], ["--health-port", "Exit status 0"]),
    ],
)
def test_each_command_tells_what_a_person_must_know(
    words: list[str], said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main([*words, "--help"])
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert all(word in text for word in ("--data-dir", "--config", *said)), text


def test_the_operations_page_tells_every_option_as_it_is() -> None:
    page = pathlib.Path(__file__).parents[3] / "docs" / "OPERATIONS.md"
    told = [line for line in page.read_text().splitlines() if line.startswith("| `--")]
    expected = []
    for option in option_table.OPTIONS:
        default = option_table.default_text(option)
        shown = f"`{default}`" if default else "-"
        expected.append(f"| `{option.flag}` | {option.help} | {shown} |")
    assert told == expected


def test_targets_of_notices_have_names_and_urls(tmp_path: pathlib.Path) -> None:
    expected = {"a": "https://user:pass@h/x?y=z", "b-1": "http://[::1]:80"}
    told = _load({"notification_targets": [f"{name}={url}" for name, url in expected.items()]})
    assert told.notification_urls == expected
    assert settings.Settings.from_json(told.to_json()) == told
    file = tmp_path / "c.toml"
    file.write_text('notification_targets = ["a=http://h/", "b=http://i/"]\n')
    assert _load(config=file).notification_urls == {"a": "http://h/", "b": "http://i/"}
    assert _load({"notification_targets": ""}).notification_urls == {}


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("http://h/", "is not NAME=URL"),
        ("a b=http://h/", "is not NAME=URL"),
        ("=http://h/", "is not NAME=URL"),
        ("a=ftp://h/", "gives the target a no URL"),
        ("a=http:///x", "gives the target a no URL"),
        ("a=http://h/ x", "gives the target a no URL"),
        ("a=http://h/,a=http://i/", "names the target a twice"),
    ],
)
def test_targets_that_are_none_are_refused(text: str, wrong: str) -> None:
    with pytest.raises(errors.ConfigurationError, match=wrong):
        _load({"notification_targets": text})
