"""Settings that cannot be right stop the start, all at once, in one sentence each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from server.config import Settings, invalid_settings
from server.db.errors import with_cause
from server.environment import settings_of_environment, unknown_settings
from server.kernel.errors import StoreUnavailable
from server.refusal import SettingsUnfit
from server.spawner.settings import SpawnerSettings


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("lease_seconds", "-3", "greater than 0"),
        ("heartbeat_seconds", "0", "greater than 0"),
        ("heartbeat_seconds", "nan", "finite"),
        ("turn_timeout_seconds", "soon", "valid number"),
        ("max_turns", "0", "greater than or equal to 1"),
        ("default_provider", "nobody", "'nobody' is no agent; there are: anthropic, claude, replay"),
        ("launcher", "nobody", "'nobody' is not installed; there are: docker, process"),
        ("object_store", "nobody", "'nobody' is not installed; there are: filesystem, s3"),
        ("listen", "nonsense", "'nonsense' is not host:port"),
        ("listen", "127.0.0.1:70000", "'127.0.0.1:70000' is not host:port"),
        ("metrics_listen", ":1", "':1' is not host:port"),
        ("gateway_listen", "127.0.0.1:7433", "127.0.0.1:7433 is TREADLE_LISTEN already"),
        ("gateway_listen", "127.0.0.1:7434", "127.0.0.1:7434 is TREADLE_METRICS_LISTEN already"),
        ("gateway_metrics_listen", "127.0.0.1:7430", "127.0.0.1:7430 is TREADLE_GATEWAY_LISTEN already"),
        ("gateway_origins", "https://a.example,foo", "'foo' is not an origin"),
        ("gateway_origins", "https://a.example/", "'https://a.example/' is not an origin"),
        ("gateway_tls_key", "/etc/hostname", "only together with TREADLE_GATEWAY_TLS_CERTIFICATE"),
        ("gateway_tls_certificate", "/nowhere", "/nowhere cannot be read: No such file or directory"),
        ("gateway_tls_certificate", "/", "/ cannot be read: Is a directory"),
        ("s3_bucket", "ends-with-", "'ends-with-' is no bucket's name"),
        ("log_level", "bogus", "'debug', 'info', 'warning' or 'error'"),
        ("log_format", "bogus", "'console' or 'json'"),
        ("git_allowed_prefixes", "http://x", "'http://x' is not an http or https URL that ends with /"),
        ("branch_prefix", "-x/", "cannot begin a branch's name"),
        ("commit_coauthor", "Ada", "'Ada' is neither `agent` nor a name with an address"),
        ("commit_coauthor", "Ada <ada@example.org>\nSigned-off-by: Eve <eve@example.org>", "neither `agent` nor a name"),
        ("session_link", "https://treadle.example/", "is not an http or https URL with {session_id} in it"),
        ("session_link", "treadle.example/{session_id}", "is not an http or https URL with {session_id} in it"),
        ("session_link", "https://treadle.example/{session_id}\nx: y", "is not an http or https URL with {session_id} in it"),
        ("spawner_socket", "/" + "x" * 107, "longer than the 107 bytes"),
        ("egress_hosts", "a.test,10.0.0.1", "'10.0.0.1' is not the name of a host"),
        ("egress_networks", "10.0.0.1/8", "has host bits set; a network is 10.1.0.0/16"),
        ("egress_denied_networks", "me", "'me' does not appear to be an IPv4 or IPv6 network; a network is"),
        ("egress_proxy", "envoy", "'envoy' is not host:port"),
        ("egress_dns", "1.1.1.1", "'1.1.1.1' is not host:port"),
    ],
)
def test_a_value_that_cannot_be_right_is_refused(name: str, value: str, says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(**{name: value})
    told = [line for line in invalid_settings(caught.value) if line.startswith(f"TREADLE_{name.upper()}: ")]
    assert len(told) == 1, invalid_settings(caught.value)
    assert says in told[0]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("worker_memory_mib", "128", "128 MiB are too little for a container: at least 256"),
        ("worker_cpus", "0", "greater than or equal to 0.01"),
        ("worker_pids", "3", "greater than or equal to 64"),
        ("worker_tmp_mib", "0", "greater than or equal to 16"),
        ("worker_uids", "20000", "'20000' is not a range of at least two user ids"),
        ("worker_uids", "0-9", "is not a range of at least two user ids"),
        ("worker_uids", "20000-4294967294", "is not a range of at least two user ids"),
        ("server_user", "treadle", "'treadle' is not a user, as in 10000 or 10000:10000"),
        ("server_user", "0", "is not a user"),
        ("server_user", "20000", "20000 is among TREADLE_WORKER_UIDS"),
        ("worker_image", "treadle-worker", "'treadle-worker' is not the name of an image with {provider} in it"),
        ("worker_image", "Treadle {provider}", "is not the name of an image"),
        ("worker_seconds", "0", "greater than 0"),
    ],
)
def test_a_value_that_the_spawner_cannot_use_is_refused(name: str, value: str, says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        SpawnerSettings(**{name: value})
    (told,) = invalid_settings(caught.value, SpawnerSettings)
    assert told.startswith(f"TREADLE_{name.upper()}: ")
    assert says in told


def test_a_fifo_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "key.pem")
    with pytest.raises(ValidationError, match="cannot be read: it is a FIFO"):
        Settings(gateway_tls_certificate=tmp_path / "key.pem")


def test_networks_for_hosts_that_nobody_names_are_refused() -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(egress_hosts="*", egress_networks="10.1.0.0/16")
    (told,) = invalid_settings(caught.value)
    assert told.startswith("TREADLE_EGRESS_NETWORKS: ")
    assert "name those hosts too" in told
    for hosts in ("", "*,mirror.test:80", "*.corp.test"):
        Settings(egress_hosts=hosts, egress_networks="10.1.0.0/16")


def test_a_proxy_without_its_credential_is_refused() -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(egress_proxy="/run/egress.sock")
    (told,) = invalid_settings(caught.value)
    assert told.startswith("TREADLE_EGRESS_PROXY_CREDENTIAL: it is needed")


def test_a_certificate_without_its_key_is_refused() -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(gateway_tls_certificate="/etc/hostname")
    (told,) = invalid_settings(caught.value)
    assert told.startswith("TREADLE_GATEWAY_TLS_KEY: ")
    assert "needed" in told


def test_what_may_be_stays_possible() -> None:
    settings = Settings(
        log_level="INFO", metrics_listen="", gateway_listen="[::1]:0", listen="127.0.0.1:0", branch_prefix="",
        gateway_origins="https://a.example, http://localhost:3000", git_allowed_prefixes="http://git:3000/, https://x/y/",
    )  # fmt: skip
    assert settings.log_level == "info"


def test_secrets_are_never_repeated() -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(s3_secret_key=["hush"], max_turns=0)
    assert "hush" not in "".join(invalid_settings(caught.value))


def server(*arguments: str, tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return run("server", *arguments, tmp_path=tmp_path, **environment)


def run(program: str, *arguments: str, tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TREADLE_")}
    return subprocess.run(
        [sys.executable, "-m", program, *arguments], env=inherited | {"TREADLE_DATA_DIR": str(tmp_path)} | environment,
        capture_output=True, text=True, timeout=60, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip


def test_the_server_alone_says_what_it_needs(tmp_path: Path) -> None:
    told = server(tmp_path=tmp_path)
    assert told.returncode == 2
    assert told.stderr.startswith("server: TREADLE_DATABASE_URL and TREADLE_DATABASE_SYSTEM_URL are needed")
    assert "treadle up" in told.stderr
    both = server(tmp_path=tmp_path, TREADLE_MAX_TURNS="many", TREADLE_LEASE_SECONDS="-3")
    assert both.returncode == 2
    assert "TREADLE_MAX_TURNS: " in both.stderr
    assert "TREADLE_LEASE_SECONDS: " in both.stderr
    help_ = server("--help", tmp_path=tmp_path)
    assert help_.returncode == 0
    assert "docs/configuration.md" in help_.stdout
    for each in (told, both, help_):
        assert "Traceback" not in each.stderr


@pytest.mark.parametrize(
    ("program", "wrong"),
    [("server", "TREADLE_MAX_TURNS"), ("server.spawner", "TREADLE_WORKER_UIDS"), ("server.gateway", "TREADLE_GATEWAY_TLS_KEY")],
)
def test_where_logs_are_json_a_start_that_is_refused_is_told_so_too(program: str, wrong: str, tmp_path: Path) -> None:
    told = run(program, tmp_path=tmp_path, TREADLE_LOG_FORMAT="JSON", **{wrong: "/nowhere"})
    assert told.returncode == 2
    (line,) = told.stderr.splitlines()
    said = json.loads(line)
    assert (said["event"], said["level"]) == (f"{program.removeprefix('server.')}.says", "error")
    assert said["message"].startswith(f"{wrong}: ")


def test_the_server_alone_does_not_start_with_a_setting_that_it_does_not_know(tmp_path: Path) -> None:
    told = server(tmp_path=tmp_path, TREADLE_MAX_TURN="3", treadle_lease_second="hush", TREADLE_MAX_TURNS="many")
    assert told.returncode == 2
    assert told.stderr.splitlines()[1:] == [
        "  TREADLE_MAX_TURN: there is no such setting; is TREADLE_MAX_TURNS meant?",
        "  treadle_lease_second: there is no such setting; is TREADLE_LEASE_SECONDS meant?",
    ]
    assert told.stderr.startswith("server: TREADLE_MAX_TURNS: ")


def test_a_server_refuses_what_only_its_spawner_elsewhere_would_read(tmp_path: Path) -> None:
    """In its environment alone it would limit nobody."""
    nowhere = f"postgresql://nobody@/none?host={tmp_path}"
    given = {"TREADLE_DATABASE_URL": nowhere, "TREADLE_DATABASE_SYSTEM_URL": nowhere, "TREADLE_LAUNCHER": "docker"}
    given |= {"TREADLE_SPAWNER_SOCKET": str(tmp_path / "spawner"), "TREADLE_WORKER_MEMORY_MIB": "512", "TREADLE_WORKER_RUNTIME": "runsc"}
    told = server(tmp_path=tmp_path, **given)
    assert told.returncode == 2
    assert [line.split(":")[-2].strip() for line in told.stderr.splitlines()] == ["TREADLE_WORKER_MEMORY_MIB", "TREADLE_WORKER_RUNTIME"]
    assert "the spawner reads it, and not this server" in told.stderr


@pytest.mark.parametrize(
    ("name", "value", "known"),
    [
        ("TREADLE_MAX_TURNS", "3", True),
        ("treadle_max_turns", "3", True),
        ("TREADLE_API_KEY_FILE", "key", True),
        ("TREADLE_SERVICE_HOST", "10.0.0.1", True),
        ("TREADLE_GATEWAY_SERVICE_PORT_HTTP", "7430", True),
        ("TREADLE_PORT", "tcp://10.0.0.1:7433", True),
        ("TREADLE_PORT_7433_TCP_ADDR", "10.0.0.1", True),
        ("TREADLE_GATEWAY_PORT", "7430", False),
        ("TREADLE_ZZZZ", "", False),
        ("TREADLE_", "", False),
        ("TREADLES", "", True),
    ],
)
def test_what_a_variable_with_our_prefix_may_be(name: str, value: str, known: bool) -> None:
    told = unknown_settings({name: value})
    assert (told == []) == known
    assert all(value not in each or not value for each in told)


def test_secrets_are_files_too_and_a_slip_in_their_names_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TREADLE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TREADLE_SECRETS_DIR", str(tmp_path))
    for name, value in {"treadle_s3_secret_key": "of the file\n", "treadle_max_turns": "3", "anothers": "x"}.items():
        (tmp_path / name).write_text(value)
    monkeypatch.setenv("TREADLE_MAX_TURNS", "4")
    settings = settings_of_environment()
    assert (settings.s3_secret_key.get_secret_value(), settings.max_turns) == ("of the file", 4)
    # A Swarm has no empty secrets, so `tools/swarm-secrets` writes blank ones.
    for name in ("treadle_github_webhook_secret", "treadle_github_client_secret"):
        (tmp_path / name).write_text("\n")
    settings = settings_of_environment()
    assert (settings.github_webhook_secrets, settings.github_client_secrets) == ((), {})
    (tmp_path / "treadle_database_ulr").write_text("canary")
    with pytest.raises(SettingsUnfit, match=r"treadle_database_ulr: there is no such setting; is TREADLE_DATABASE_URL meant") as told:
        settings_of_environment()
    assert "canary" not in str(told.value)


@pytest.mark.parametrize(("cause", "words"), [(TimeoutError(), " (TimeoutError)"), (OSError(113, "No route"), " ([Errno 113] No route)")])
def test_why_a_database_does_not_answer_is_said_also_where_that_has_no_words(cause: Exception, words: str) -> None:
    error = StoreUnavailable()
    error.__cause__ = cause
    assert with_cause(error) == f"the database does not answer; try again{words}"
    assert with_cause(StoreUnavailable()) == "the database does not answer; try again"


def test_the_server_alone_says_what_does_not_work(tmp_path: Path) -> None:
    nowhere = f"postgresql://nobody@/none?host={tmp_path}"
    addresses = {"TREADLE_LISTEN": "127.0.0.1:0", "TREADLE_METRICS_LISTEN": "127.0.0.1:0"}
    urls = {"TREADLE_DATABASE_URL": nowhere, "TREADLE_DATABASE_SYSTEM_URL": nowhere, **addresses}
    away = server(tmp_path=tmp_path, **urls)
    assert away.returncode == 1
    assert "the database does not answer" in away.stderr
    file = tmp_path / "file"
    file.write_text("")
    wrong = server(tmp_path=file, **urls)
    assert wrong.returncode == 2
    assert f"{file} is not a directory" in wrong.stderr
    for each in (away, wrong):
        assert "Traceback" not in each.stderr
