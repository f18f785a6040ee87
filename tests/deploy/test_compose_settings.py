"""Which settings of an operator's files reach whom, as docker-compose itself reads docker-compose.yml. No engine is asked."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.containers import ROOT
from support.requirements import require

from server.config import Settings
from server.spawner.settings import SpawnerSettings

GIVEN = {
    "docker_host",
    "server_user",
    "worker_root",
    "spawner_socket",
    "data_dir",
    "spawner_kind",
    "swarm_network",
    "worker_reserved_mib",
    "spawner_tcp",
    "spawner_key",
}
"""Those of the spawner that the file itself decides, and those of a Swarm."""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    require(shutil.which("docker-compose"), "docker-compose", "apt-get install docker-compose")
    shutil.copy(ROOT / "docker-compose.yml", tmp_path)
    made(tmp_path)
    return tmp_path


def made(home: Path, *names: str, path: str = os.environ["PATH"]) -> subprocess.CompletedProcess[str]:
    command = ["/bin/bash", str(ROOT / "tools" / "compose-env"), *names]
    return subprocess.run(command, cwd=home, env={"PATH": path}, capture_output=True, text=True, timeout=60, check=False)


def services(home: Path) -> dict[str, dict[str, Any]]:
    """What each would be."""
    command = ["docker-compose", "config"]
    done = subprocess.run(command, cwd=home, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = yaml.safe_load(done.stdout)["services"]
    return found


def environments(home: Path) -> dict[str, dict[str, Any]]:
    """What each service would have."""
    return {name: service.get("environment", {}) for name, service in services(home).items()}


def add(file: Path, **values: str) -> None:
    with file.open("a") as settings:
        settings.writelines(f"{name}={value}\n" for name, value in values.items())


def test_what_nobody_set_is_not_set(home: Path) -> None:
    """A limit that is set must be one that the machine has; the default is less, where the machine is small."""
    found = environments(home)
    for name in set(found["spawner"]) - {"TREADLE_SERVER_USER", "TREADLE_WORKER_ROOT", "TREADLE_SPAWNER_SOCKET"}:
        assert found["spawner"][name] is None, name
    assert found["gateway"]["TREADLE_EGRESS_NETWORKS"] is None
    assert not {f"TREADLE_{name.upper()}" for name in SpawnerSettings.model_fields if name not in Settings.model_fields} & {
        *found["server"]
    }
    assert "TREADLE_WORKER_MEMORY_MIB" not in found["server"]


def test_every_setting_of_the_spawner_reaches_it(home: Path) -> None:
    wanted = {f"TREADLE_{name.upper()}": f"x{name}" for name in set(SpawnerSettings.model_fields) - GIVEN}
    add(home / ".env", **wanted)
    found = environments(home)["spawner"]
    assert {name: found.get(name) for name in wanted} == wanted


def test_what_the_servers_file_says_nothing_takes_away(home: Path) -> None:
    wanted = {"TREADLE_EGRESS_NETWORKS": "10.1.0.0/16", "TREADLE_EGRESS_HOSTS": "*", "TREADLE_LOG_FORMAT": "json", "ANTHROPIC_API_KEY": "k"}
    add(home / "server.env", **wanted)
    found = environments(home)
    assert {name: found["server"][name] for name in wanted} == wanted
    assert [name for name in found if "ANTHROPIC_API_KEY" in found[name]] == ["server"]


def test_no_service_can_take_the_machines_memory_or_its_processes(home: Path) -> None:
    add(home / ".env", SERVER_MEMORY="3g")
    found = services(home)
    assert all(service.get("mem_limit") and service.get("pids_limit") for service in found.values()), found
    assert found["server"]["mem_limit"] == "3g"


def test_who_reads_metrics_is_in_no_network_with_a_way_out_nor_with_the_database(home: Path) -> None:
    found = {name: [*(service.get("networks") or ())] for name, service in services(home).items()}
    assert [name for name in found if "metrics" in found[name]] == ["gateway", "server"]
    assert sorted(found["gateway"]) == ["metrics", "outside"]


def test_logs_can_be_json(home: Path) -> None:
    for file in (".env", "server.env"):
        add(home / file, TREADLE_LOG_FORMAT="json")
    found = environments(home)
    assert [name for name in found if found[name].get("TREADLE_LOG_FORMAT") == "json"] == ["gateway", "server", "spawner"]


def test_this_machines_own_public_addresses_are_denied_to_workers(home: Path) -> None:
    """A container does not know them, so the server inside cannot see that they are its machine's."""
    require(os.geteuid() == 0 and shutil.which("ip"), "root and iproute2", "apt-get install iproute2")
    settings = home / ".env"
    # As after a restore: of another machine, beside what the operator denies, which stays.
    kept = [line for line in settings.read_text().splitlines() if not line.startswith("MACHINE_ADDRESSES")]
    kept.append("TREADLE_EGRESS_DENIED_NETWORKS=192.0.2.9")
    settings.write_text("\n".join(["MACHINE_ADDRESSES=198.51.100.1", *kept]))
    add = [f"ip address add {address} dev lo" for address in ("198.51.100.77/32", "10.9.9.9/8", "2001:db8:5::7/128", "fd00::7/128")]
    command = " && ".join(["ip link set lo up", *add, str(ROOT / "tools" / "compose-env")])
    subprocess.run(["unshare", "--net", "bash", "-c", command], cwd=home, check=True, timeout=60)
    assert settings.read_text().splitlines()[:-1] == kept
    found = environments(home)
    assert {found[name]["TREADLE_EGRESS_DENIED_NETWORKS"] for name in ("server", "gateway")} == {
        "198.51.100.77,2001:0db8:0005:0000::/64,192.0.2.9"
    }


def test_a_certificate_is_for_names_and_addresses_and_no_key_is_written_over(tmp_path: Path) -> None:
    assert made(tmp_path, "treadle.example.org", "192.0.2.7", "2001:db8::7").returncode == 0
    command = ["openssl", "x509", "-noout", "-ext", "subjectAltName", "-in", "tls/certificate.pem"]
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    for name in (
        "DNS:treadle.example.org",
        "DNS:localhost",
        "IP Address:192.0.2.7",
        "IP Address:2001:DB8:0:0:0:0:0:7",
        "IP Address:127.0.0.1",
    ):
        assert name in shown
    key = (tmp_path / "tls" / "key.pem").read_bytes()
    (tmp_path / "tls" / "certificate.pem").unlink()
    again = made(tmp_path)
    assert again.returncode == 1
    assert "tls/key.pem is there and its certificate is not" in again.stderr
    assert (tmp_path / "tls" / "key.pem").read_bytes() == key


def test_a_machine_without_openssl_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for program in ("dirname", "realpath"):
        (tmp_path / "bin" / program).symlink_to(str(shutil.which(program)))
    told = made(tmp_path, path=str(tmp_path / "bin"))
    assert (told.returncode, told.stderr) == (
        1,
        "compose-env: openssl is not installed. On Debian or Ubuntu: apt-get install openssl\n",
    )
