"""What the protos promise to strangers; comments and names are checked by `buf lint` in `make check`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from google.api import annotations_pb2
from google.protobuf.descriptor import MethodDescriptor
from support.git_server import git
from support.requirements import require

from treadle.account.v1 import credential_service_pb2
from treadle.file.v1 import file_service_pb2
from treadle.git.v1 import git_service_pb2, webhook_service_pb2
from treadle.session.v1 import session_service_pb2
from treadle.spawner.v1 import spawner_service_pb2
from treadle.worker.v1 import worker_service_pb2

ROOT = Path(__file__).parents[2]
PUBLIC = [
    *session_service_pb2.DESCRIPTOR.services_by_name["SessionService"].methods,
    *file_service_pb2.DESCRIPTOR.services_by_name["FileService"].methods,
    *git_service_pb2.DESCRIPTOR.services_by_name["GitService"].methods,
    *webhook_service_pb2.DESCRIPTOR.services_by_name["WebhookService"].methods,
    *credential_service_pb2.DESCRIPTOR.services_by_name["CredentialService"].methods,
]
PRIVATE = [
    *worker_service_pb2.DESCRIPTOR.services_by_name["WorkerService"].methods,
    *spawner_service_pb2.DESCRIPTOR.services_by_name["SpawnerService"].methods,
]


OVER_HTTP = [method for method in PUBLIC if not method.client_streaming]
"""The gateway would gather a client's stream before it passes it on."""


@pytest.mark.parametrize("method", OVER_HTTP, ids=lambda method: method.name)
def test_every_public_rpc_is_served_as_json(method: MethodDescriptor) -> None:
    rule = method.GetOptions().Extensions[annotations_pb2.http]
    pattern = rule.WhichOneof("pattern")
    assert pattern in {"get", "post", "put", "patch", "delete"}
    assert getattr(rule, pattern).startswith("/v1/")


def test_no_two_public_rpcs_share_a_route() -> None:
    rules = [method.GetOptions().Extensions[annotations_pb2.http] for method in OVER_HTTP]
    routes = [(rule.WhichOneof("pattern"), getattr(rule, rule.WhichOneof("pattern"))) for rule in rules]
    assert len(set(routes)) == len(routes)


@pytest.mark.parametrize("method", PRIVATE, ids=lambda method: method.full_name)
def test_no_private_rpc_is_reachable_through_the_gateway(method: MethodDescriptor) -> None:
    assert not method.GetOptions().HasExtension(annotations_pb2.http)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """As CI has it: the branch main, and nothing beside it to compare with."""
    tools = ROOT / ".venv-proto"
    require((tools / "bin" / "buf").exists(), "buf", "tools/setup proto")
    git(tmp_path, "clone", "--quiet", "--shared", str(ROOT), "clone")
    shutil.copy(ROOT / "tools" / "unbroken", tmp_path / "clone" / "tools")
    (tmp_path / "clone" / ".venv-proto").symlink_to(tools)
    return tmp_path / "clone"


def unbroken(clone: Path, since: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([clone / "tools" / "unbroken", since], capture_output=True, text=True, timeout=100, check=False)


def commit(clone: Path, file: str, old: str, new: str) -> str:
    path = clone / "protos" / "treadle" / "session" / "v1" / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    git(clone, "commit", "--quiet", "--all", "--message", new or "removed")
    return git(clone, "rev-parse", "HEAD")


def test_a_change_that_breaks_clients_is_found_although_it_is_committed(clone: Path) -> None:
    before = git(clone, "rev-parse", "HEAD")
    field = "  // The caller's mood.\n  string mood = 1000;\n"
    commit(clone, "session_service.proto", "  string title = 9;\n", "  string title = 9;\n" + field)
    assert unbroken(clone, before).returncode == 0
    # What is removed here was never on any other branch, nor in the version that all began with.
    commit(clone, "session_service.proto", field, "")
    found = unbroken(clone, before)
    assert found.returncode == 1
    assert '"1000" with name "mood"' in found.stdout
