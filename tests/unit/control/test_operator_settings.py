"""What the operator is told: flags, environment, and what is said of mistakes."""

from __future__ import annotations

import dataclasses
import json
import logging
import pathlib
import re
import subprocess
import sys
from typing import Any

import aiohttp
import pytest

from couchestor_domain import errors
from couchestor_operator.app import command, logs, pages, settings

URL = ("--prometheus-url", "http://prometheus:9090")
DOCUMENT = pathlib.Path(__file__).resolve().parents[3] / "docs" / "OPERATOR.md"


def test_a_flag_wins_over_the_environment_and_that_over_the_default() -> None:
    told = settings.from_words(
        [*URL, "--log-level", "debug", "--dry-run"],
        {
            "LOG_LEVEL": "error",
            "MAX_CONCURRENT_MIGRATIONS": "7",
            "PRESERVATION_MODE": "true",
            "METRICS_ADDR": "[::1]:9",
            # Set to nothing, as manifests do.
            "KUBECONFIG": "",
        },
    )
    assert told == settings.Settings(
        prometheus_url="http://prometheus:9090",
        log_level="debug",
        dry_run=True,
        max_concurrent_migrations=7,
        preservation_mode=True,
        metrics_addr=pages.Address("::1", 9),
    )


def test_every_setting_is_an_option_and_stands_in_the_document() -> None:
    names = [option.name for option in settings.OPTIONS]
    assert names == [field.name for field in dataclasses.fields(settings.Settings)]
    documented = re.findall(r"^\| `--([a-z-]+)` \|", DOCUMENT.read_text(), re.MULTILINE)
    assert documented == [option.flag.removeprefix("--") for option in settings.OPTIONS]


@pytest.mark.parametrize(
    ("words", "environment", "said"),
    [
        ([], {}, "nothing says where Prometheus is: give --prometheus-url or PROMETHEUS_URL"),
        (["--prometheus-url", ""], {}, "--prometheus-url is '': it is empty"),
        (URL, {"DRY_RUN": "perhaps"}, "DRY_RUN is 'perhaps': it must be true or false"),
        ([*URL, "--health-addr", "8081"], {}, "--health-addr is '8081': it must be HOST:PORT"),
        ([*URL, "--health-addr", ":99999"], {}, "it must be HOST:PORT"),
        ([*URL, "--log-level", "loud"], {}, "it must be one of debug, info, warning, error"),
        ([*URL, "--max-concurrent-migrations", "1.5"], {}, "it is not a whole number"),
        ([*URL, "--max-concurrent-migrations", "0"], {}, "a whole number from 1 to 1000"),
        ([*URL, "--sync-poll-interval-seconds", "nan"], {}, "must be a number from 0.1 to 3600"),
        ([*URL, "--volume-manager", "rest"], {}, "needs --mayastor-url"),
        ([*URL, "--mayastor-url", "http://m"], {}, "--volume-manager rest needs"),
        ([*URL, "--node-selector", "a=b"], {}, "--node-selector needs --stripe-policy"),
        ([*URL, "--stripe-policy", "cold"], {}, "--node-selector needs --stripe-policy"),
        ([*URL, "--node-selector", "a"], {}, "it must be labels such as storage=couchestor"),
        ([*URL, "--node-selector", "a=b,a=c"], {}, "it must be labels such as"),
        ([*URL, "--node-port", "0"], {}, "a whole number from 1 to 65535"),
        ([*URL, "--no-such"], {}, "unrecognized arguments: --no-such; see couchestor-operator"),
    ],
)
def test_a_mistake_is_told_by_its_place_and_what_to_do(
    words: list[str], environment: dict[str, str], said: str
) -> None:
    with pytest.raises(errors.ConfigurationError, match=re.escape(said)):
        settings.from_words(list(words), environment)


def test_a_part_that_is_not_installed_is_told_by_its_name() -> None:
    # Wherever this runs, as if it were not installed.
    program = f"""
import sys
from couchestor_operator.app import command

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name == "kubernetes":
            raise ModuleNotFoundError(name=name)

sys.meta_path.insert(0, Absent())
sys.exit(command.main({[*URL]}))
"""
    # A process of its own: the logs of this one stay as they are.
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (
        command.STATUS_CONFIGURATION,
        "couchestor-operator: the operator needs kubernetes, which is not installed; run: "
        "pip install 'couchestor[operator]'\n",
    )


def _record(message: str, **fields: Any) -> logging.LogRecord:
    return logging.makeLogRecord(
        {"name": "n", "levelname": "INFO", "msg": message, "created": 1.5, **fields}
    )


def test_lines_are_for_people_or_for_machines() -> None:
    record = _record("two\nlines", policy="p")
    assert logs.TextFormatter().format(record) == (
        "1970-01-01T00:00:01.500Z INFO    two lines policy=p"
    )
    assert json.loads(logs.JsonFormatter().format(record)) == {
        "time": "1970-01-01T00:00:01.500Z",
        "level": "info",
        "logger": "n",
        "message": "two\nlines",
        "policy": "p",
    }


async def test_pages_are_served_where_they_were_asked_for() -> None:
    page = pages.Page(503, "text/plain", b"ill")
    async with (
        pages.served(
            pages.Address("127.0.0.1", 0), {"/healthz": lambda: page}, option="--health-addr"
        ) as at,
        aiohttp.ClientSession() as client,
    ):
        async with client.get(f"http://127.0.0.1:{at.port}/healthz") as answer:
            assert (answer.status, await answer.text()) == (503, "ill")
        async with client.get(f"http://127.0.0.1:{at.port}/") as answer:
            assert (answer.status, await answer.text()) == (404, "not found; try /healthz\n")
        with pytest.raises(errors.ConfigurationError, match="another address with --metrics-addr"):
            async with pages.served(at, {}, option="--metrics-addr"):
                pass
