"""The `farthing` command, as a person types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml
from farthing_runtime.catalog import CATALOG

ROOT = Path(__file__).parent.parent.parent
FARTHING = str(Path(sys.executable).parent / "farthing")


def farthing(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    given = {**os.environ, "COLUMNS": "200", **environment}
    return subprocess.run([FARTHING, *arguments], env=given, cwd=cwd, capture_output=True, text=True, timeout=100, check=False)


def test_help_lists_the_commands() -> None:
    done = farthing("--help")
    commands = "serve demo replay call usage keys budgets ledger alerts limits prices health config migrate"
    commands += " performance diversification decisions"
    for command in commands.split():
        assert command in done.stdout


def test_config_prints_what_differs_and_hides_passwords(tmp_path: Path) -> None:
    assert "Every setting is at its default" in farthing("config", cwd=tmp_path).stdout
    url = "postgresql://u:secret@db/farthing"
    secrets = {"FARTHING_DATABASE_URL": url, "FARTHING_BUDGET_SMTP_PASSWORD": "a secret"}
    done = farthing("config", cwd=tmp_path, FARTHING_CACHE_SIMILARITY_MIN="0.9", **secrets)
    assert "FARTHING_CACHE_SIMILARITY_MIN" in done.stdout
    assert "u:***@db" in done.stdout
    assert "FARTHING_BUDGET_SMTP_PASSWORD" in done.stdout
    assert "secret" not in done.stdout


@pytest.mark.parametrize(
    ("environment", "text", "named"),
    [
        ({"FARTHING_GRPC_PORT": "seven"}, "", "FARTHING_GRPC_PORT"),
        ({"FARTHING_PEERS": "budget"}, "", "FARTHING_PEERS"),
        ({"FARTHING_REDIS_URL": "localhost:6379"}, "", "FARTHING_REDIS_URL"),
        ({"FARTHING_CACHE_SIMILARITY_MIN": "7"}, "", "FARTHING_CACHE_SIMILARITY_MIN"),
        ({}, "version: 1\ncolour: red\n", "colour"),
        ({}, "version: 2\n", "version"),
        ({}, "providers: {p: {base_url: 'http://x', colour: red}}\n", "providers.p.colour"),
        ({}, "models: {m: {provider: nobody}}\n", "models.m.provider"),
        ({}, "policy: {cache: {mode: always}}\n", "policy.cache.mode"),
        ({}, "a: [", "farthing.yaml"),
        ({"FARTHING_GATEWAY_HTTP_HOST": "0.0.0.0", "FARTHING_GATEWAY_AUTH": "open"}, "", "FARTHING_GATEWAY"),
    ],
)
def test_what_cannot_be_ends_the_start_with_one_line_that_names_it(
    environment: dict[str, str], text: str, named: str, tmp_path: Path, database_url: str, session_dir: Path
) -> None:
    path = tmp_path / "farthing.yaml"
    path.write_text(text)
    ports = {"FARTHING_GRPC_PORT": "0", "FARTHING_GATEWAY_HTTP_PORT": "0"}
    places = {"FARTHING_DATABASE_URL": database_url, "FARTHING_DATA_DIR": str(session_dir), "FARTHING_CONFIG_FILE": str(path)}
    done = farthing("serve", **{**ports, **places, **environment})
    assert done.returncode == 2, done.stderr
    assert named in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_health_says_how_each_service_is(serve: Any) -> None:
    served = serve("budget", "optimizer")
    done = farthing("health", "--address", served.grpc)
    assert done.returncode == 0
    assert done.stdout.count("SERVING") == 2
    assert farthing("health", "--address", "127.0.0.1:1", "--timeout-s", "1").returncode == 1


def test_alert_rules_from_the_shell(serve: Any) -> None:
    served = serve("budget")
    place = ("--scope", "organizations/acme", "--address", served.grpc)
    hook = ("--webhook", "https://hooks.example.test/a?token=hush", "--email", "ann@example.test")
    made = farthing("alerts", "create", "--kind", "budget_percent", "--percent", "75", *hook, *place)
    rule = made.stdout.strip()
    assert (made.returncode, "signed with" in made.stderr) == (0, True), made.stderr
    spent = farthing("alerts", "create", "--kind", "daily_cost", "--usd", "12.50", *place)
    listed = farthing("alerts", "rules", *place).stdout
    for shown in (rule, "75 %", "email ann@example.test", "https://hooks.example.test/a?…", spent.stdout.strip(), "$12.50"):
        assert shown in listed
    assert "hush" not in listed
    assert farthing("alerts", "list", *place).stdout == "No alert was raised.\n"
    assert farthing("alerts", "delete", rule, *place).returncode == 0
    assert rule not in farthing("alerts", "rules", *place).stdout
    again = farthing("alerts", "delete", rule, *place)
    assert (again.returncode, again.stderr.strip()) == (2, f"farthing: no alert rule {rule}")
    assert farthing("alerts", "create", "--kind", "anything", *place).returncode == 2


def test_a_request_from_the_shell(serve: Any) -> None:
    served = serve()
    asked = ("call", "How do I reset my password?", "--address", served.grpc)
    planned = farthing(*asked, "--dry-run")
    assert "small: likely" in planned.stdout
    done = farthing(*asked, "--receipt")
    assert done.stdout.startswith("Open Settings"), done.stderr
    assert "saved $" in done.stderr
    assert '"baseline_model": "large"' in done.stderr
    bad = farthing("call", "x", "--scope", "acme", "--address", served.grpc)
    assert (bad.returncode, len(bad.stderr.strip().splitlines())) == (2, 1)


def test_usage_is_a_table_or_a_file(serve: Any, tmp_path: Path) -> None:
    served = serve()
    assert farthing("call", "How do I reset my password?", "--address", served.grpc).returncode == 0
    asked = ("usage", "--address", served.grpc)
    table = farthing(*asked, "--by", "model,task,day", "--top", "3")
    assert table.returncode == 0, table.stderr
    (row,) = (line for line in table.stdout.splitlines() if "small" in line)
    assert "chat" in row
    assert "$0.0000" in row
    for option, column in (("--csv", "cost_usd_nanos"), ("--focus", "BilledCost"), ("--invoice", "cost_usd")):
        path = tmp_path / "usage.csv"
        done = farthing(*asked, option, str(path))
        assert done.returncode == 0, done.stderr
        header, *lines = path.read_text().splitlines()
        assert column in header.split(",")
        assert [("small" in line) for line in lines] == [True]
    assert "request_id,line" in farthing(*asked, "--csv", "-", "--model", "small").stdout
    for bad in (
        ("--by", "colour"),
        ("--from", "soon"),
        ("--csv", "a", "--focus", "b"),
        ("--by", "tag,user"),
        ("--scope", "acme"),
    ):
        done = farthing(*asked, *bad, cwd=tmp_path)
        assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1), bad


def test_rate_limits_are_made_listed_and_ended_from_the_shell(serve: Any) -> None:
    served = serve("budget")
    where = ("--scope", "organizations/acme", "--address", served.grpc)
    made = farthing("limits", "create", *where, "--rpm", "6000", "--tpm", "100000", "--model", "large").stdout.strip()
    listed = farthing("limits", "list", *where).stdout
    assert made in listed
    for shown in ("large", "6,000", "100,000", "60 s"):
        assert shown in listed
    again = farthing("limits", "create", *where, "--concurrent", "5", "--model", "large")
    assert (again.returncode, len(again.stderr.strip().splitlines())) == (2, 1)
    assert "is gone" in farthing("limits", "delete", made, *where).stdout
    assert made not in farthing("limits", "list", *where).stdout


def test_sigterm_ends_a_host_cleanly(serve: Any) -> None:
    assert serve().stop() == 0


def test_an_embedded_postgres_is_shared_and_the_last_one_out_stops_it(serve: Any, tmp_path: Path, session_dir: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "models").symlink_to(session_dir / "models")
    own = {"FARTHING_DATABASE_URL": "", "FARTHING_DATA_DIR": str(data)}
    one, other = serve("budget", **own), serve("budget", **own)
    postmaster = data / "postgres" / "data" / "postmaster.pid"
    assert one.stop() == 0
    assert postmaster.exists()
    assert other.stop() == 0
    assert not postmaster.exists()


def test_a_replay_answers_what_was_recorded_and_nothing_else(config_file: Path) -> None:
    url = yaml.safe_load(config_file.read_text())["providers"]["replay"]["base_url"]

    def post(body: Any) -> Any:
        request = urllib.request.Request(
            f"{url}/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    messages = [{"role": "user", "content": "How do I reset my password?"}]
    assert post({"model": "small", "messages": messages})["usage"]["total_tokens"] == 120
    short = post({"model": "small", "messages": messages, "max_tokens": 3})
    assert short["choices"][0]["finish_reason"] == "length"
    for body, code in (
        ({"model": "ghost", "messages": messages}, "model_not_found"),
        ({"model": "small", "messages": [{"role": "user", "content": "?"}]}, "prompt_not_recorded"),
    ):
        with pytest.raises(urllib.error.HTTPError) as caught:
            post(body)
        assert caught.value.code == 404
        assert json.load(caught.value)["error"]["code"] == code


def test_the_demonstration_saves_and_its_receipts_add_up(tmp_path: Path, session_dir: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "models").symlink_to(session_dir / "models")
    done = farthing("demo", cwd=tmp_path, FARTHING_DATA_DIR=str(data))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "add up to the ledger, to the nanodollar" in done.stdout
    assert "desk-large alone: 158" in done.stdout


def test_every_service_is_in_the_compose_file_with_a_health_check() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    assert set(CATALOG) | {"postgres", "redis"} == set(compose["services"])
    for name, service in compose["services"].items():
        assert service["healthcheck"]["test"], name
        if name in CATALOG:
            assert service["build"]["args"]["SERVICE"] == name
            peers = dict(pair.split("=") for pair in service["environment"]["FARTHING_PEERS"].split(","))
            assert set(CATALOG[name].peers) <= set(peers)
    assert "ARG SERVICE" in (ROOT / "Dockerfile").read_text()
