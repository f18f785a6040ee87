"""A worker's slot: the files that let any server process on this machine find the worker again.

state/worker     which worker it is, and what for (JSON)
state/furnished  the working tree is complete; without it no turn can begin here
state/ready      pool: a worker waits here, and answers; until a turn's server has connected to it
workspace/       the working tree; belongs to the worker's uid while it runs
workspace.listing  how it looked when its worker got it (server/sandbox/listing.py); no worker sees this file
run/             the worker's socket
models/          the server's sockets for model requests and for the network; the server's own, seen read-only inside
secret           the turn's secret; never visible inside the sandbox
lock             launcher `process`: held by the shim as long as the worker, or anything that it started, is alive
pid              launcher `process`: the shim's pid and start time
user             launcher `docker`: uid and gid of the worker
passwd, group    launcher `docker`: their names, as seen inside
container        launcher `docker`: the name of the container
exit             how it ended; once it exists, no worker can start here any more
output.log       what the worker printed

With launcher `process` all of it is the server's. With `docker` the directory is the spawner's, and the server's are `state/`, `models/`
and, while no worker has it, `workspace/`; the rest it may read.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import hmac
import json
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from server.kernel.ports.launcher import WorkerExit, WorkerId, WorkerSpec

SOCKET_NAME = "worker.sock"
MODEL_SOCKET_NAME = "model.sock"
EGRESS_SOCKET_NAME = "egress.sock"
_TAIL_BYTES = 4096
GONE = ".gone-"
"""Begins the name of what is being deleted."""
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True)
class Slot:
    """One worker's directory. All methods block briefly; call them from a thread."""

    path: Path

    @property
    def workspace(self) -> Path:
        """The hostile working tree."""
        return self.path / "workspace"

    @property
    def run(self) -> Path:
        """The directory of the socket."""
        return self.path / "run"

    @property
    def socket(self) -> Path:
        """The worker's socket; hostile."""
        return self.run / SOCKET_NAME

    @property
    def models(self) -> Path:
        """The directory of the server's sockets for model requests and for the network."""
        return self.path / "models"

    @property
    def state(self) -> Path:
        """What the server keeps here."""
        return self.path / "state"

    def make(self) -> None:
        """Make what is there before anybody knows which worker it is for. Repeatable, also by two servers at once."""
        for directory in (self.path, self.workspace, self.run, self.models, self.state):
            directory.mkdir(mode=0o700, parents=directory == self.path, exist_ok=True)
        # The agent must be able to pass it, and only that: it is shown read-only, and nothing else of the slot leads there.
        self.models.chmod(0o755)
        self.arm()

    def arm(self) -> None:
        """Make the lock and the secret. Repeatable."""
        (self.path / "lock").touch(mode=0o600)
        self.create("secret", secrets.token_hex(32))

    def describe(self, spec: WorkerSpec) -> None:
        """This is the slot of that worker. Repeatable, also by two servers at once."""
        what_for = {name: value for name, value in asdict(spec).items() if name != "worker"}
        self.create("state/worker", json.dumps(asdict(spec.worker) | what_for))

    def ready(self) -> None:
        """A worker waits here for a turn. Repeatable."""
        self.create("state/ready", "")

    @property
    def is_ready(self) -> bool:
        """Whether a worker waits here, or did, and never heard of a turn."""
        return (self.state / "ready").exists()

    def used(self) -> None:
        """The worker that waited here has its turn. Repeatable."""
        (self.state / "ready").unlink(missing_ok=True)

    def furnish(self) -> None:
        """The workspace is complete. Repeatable."""
        self.create("state/furnished", "")

    @property
    def is_furnished(self) -> bool:
        """Whether this is where the worker's workspace was built."""
        return (self.state / "furnished").exists()

    def user(self) -> tuple[int, int] | None:
        """Uid and gid of its worker; None where the slot does not say them, also when a power cut tore the file."""
        try:
            uid, gid = (self.path / "user").read_text().split()
            return int(uid), int(gid)
        except (FileNotFoundError, ValueError):
            return None

    @property
    def is_spawners(self) -> bool:
        """Whether a spawner has made it."""
        return (self.path / "user").exists()

    def worker(self) -> WorkerId | None:
        """Whose slot it is; None when it is not complete."""
        spec = self.spec()
        return spec.worker if spec else None

    def spec(self) -> WorkerSpec | None:
        """What its worker is for, empty where an earlier version did not say; None when the slot is not complete."""
        try:
            fields = json.loads((self.state / "worker").read_text())
            worker = WorkerId(turn_id=fields["turn_id"], attempt=fields["attempt"])
        except (OSError, ValueError, KeyError):
            return None
        what_for = {name: str(fields.get(name, "")) for name in ("session_id", "tenant_id", "provider")}
        return WorkerSpec(worker, **what_for)

    def secret(self) -> bytes:
        """The turn's secret."""
        return bytes.fromhex((self.path / "secret").read_text())

    def model_token(self) -> str:
        """What the agent shows at the model gateway; the worker derives it in the same way."""
        return hmac.new(self.secret(), b"models", hashlib.sha256).hexdigest()

    def process(self) -> tuple[int, int] | None:
        """The shim's pid and start time; None before it started, and when a power cut tore the file: then what ran here is gone with
        the machine's last life."""
        try:
            pid, start = (self.path / "pid").read_text().split()
            return int(pid), int(start)
        except FileNotFoundError:
            return None
        except ValueError:
            return None

    @property
    def was_started(self) -> bool:
        """Whether a shim ever ran here."""
        return (self.path / "pid").exists()

    def exit(self) -> WorkerExit | None:
        """How the worker ended, as its shim or `close` recorded it; None while nothing is recorded."""
        try:
            fields = json.loads((self.path / "exit").read_text())
            code, oom_killed, stopped = fields["code"], bool(fields.get("oom_killed")), bool(fields.get("stopped"))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            code, oom_killed, stopped = None, False, False
        return WorkerExit(code=code, oom_killed=oom_killed, log_tail=self.log_tail(), stopped=stopped)

    def container(self) -> str:
        """The name of its container; empty when none was ever started."""
        try:
            return (self.path / "container").read_text()
        except FileNotFoundError:
            return ""

    def hold(self, container: str) -> None:
        """From now on a container of that name was started for this slot. Repeatable."""
        self.create("container", container)

    def record(self, exit_: WorkerExit) -> None:
        """How its container ended. From now on none can be started here. Repeatable; the first record stays.
        Where the disk is full, only that it ended is kept."""
        try:
            if exit_.log_tail:
                self.create("output.log", exit_.log_tail)
            self.create("exit", json.dumps({"code": exit_.code, "oom_killed": exit_.oom_killed, "stopped": exit_.stopped}))
        except OSError as error:
            if error.errno not in FULL:
                raise
            # That it ended must be recorded, or nobody could ever delete what fills the disk. A rename needs no space, and the lock, which
            # is empty, has no use here.
            with contextlib.suppress(FileNotFoundError):
                (self.path / "lock").rename(self.path / "exit")

    def forget(self) -> None:
        """That a worker was here and has ended. Where this breaks off, it still has."""
        for path in (self.socket, self.path / "output.log", self.path / "exit", self.path / "container"):
            path.unlink(missing_ok=True)

    def log_tail(self) -> str:
        """The last 4 KiB that the worker printed."""
        try:
            with (self.path / "output.log").open("rb") as log:
                log.seek(max(0, os.fstat(log.fileno()).st_size - _TAIL_BYTES))
                return log.read(_TAIL_BYTES).decode(errors="replace")
        except FileNotFoundError:
            return ""

    def close(self) -> bool:
        """Record that it ended, if nobody did, so that no shim can start a worker here any more. False while somebody runs here."""
        with (self.path / "lock").open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            self.create("exit", json.dumps({"code": None}))
        return True

    def delete(self) -> None:
        """Remove everything. The slot disappears at once, then its files."""
        doomed = self.path.with_name(GONE + self.path.name + secrets.token_hex(4))
        with contextlib.suppress(FileNotFoundError):
            self.path.rename(doomed)
            delete_tree(doomed)

    def create(self, name: str, content: str, mode: int = 0o640) -> None:
        """Write a file that is complete from the moment it exists; whoever is first wins. Who gets as far as to the file is decided by the
        slot's own mode."""
        place = self.path / name
        draft = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(content)
                os.fchmod(descriptor, mode)
            with contextlib.suppress(FileExistsError):
                place.hardlink_to(draft)
        finally:
            draft.unlink()


def slot_of(root: Path, worker: WorkerId) -> Slot:
    """Where a worker's slot is. The name is short: socket paths end at 107 bytes."""
    return Slot(root / hashlib.sha256(str(worker).encode()).hexdigest()[:12])


def slots(root: Path) -> Iterator[Slot]:
    """All slots with files."""
    for path in sorted(root.iterdir()) if root.is_dir() else []:
        if path.is_dir() and not path.name.startswith("."):
            yield Slot(path)


def delete_remains(root: Path) -> None:
    """Finish what a `delete` left behind when its server died."""
    for path in root.glob(GONE + "*"):
        delete_tree(path)


def delete_tree(path: Path) -> None:
    """Delete a tree of which nothing is trusted, and to which nobody writes any more: links are not followed, directories that forbid
    it are opened first, and a tree of any depth takes two descriptors and no recursion (`shutil.rmtree` needs one of each per level)."""
    root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        os.fchmod(root, stat.S_IRWXU)
        while names := os.listdir(root):  # noqa: PTH208 a descriptor, not a path
            for name in names:
                _delete_entry(root, name)
    finally:
        os.close(root)
    path.rmdir()


def _delete_entry(root: int, name: str) -> None:
    """Unlink a file; of a directory, unlink the files and move the directories up beside it, where they get their turn."""
    if not _is_open_directory(root, name):
        os.unlink(name, dir_fd=root)
        return
    directory = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=root)
    try:
        for child in os.listdir(directory):  # noqa: PTH208
            if _is_open_directory(directory, child):
                os.rename(child, secrets.token_hex(16), src_dir_fd=directory, dst_dir_fd=root)
            else:
                os.unlink(child, dir_fd=directory)
    finally:
        os.close(directory)
    os.rmdir(name, dir_fd=root)


def _is_open_directory(parent: int, name: str) -> bool:
    """Whether it is a directory (never what a link leads to); if so, its owner may now do everything with it."""
    if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
        return False
    # Nothing keeps root out. And this follows links, of which somebody lesser may put one there just now.
    if os.geteuid() != 0:
        os.chmod(name, stat.S_IRWXU, dir_fd=parent)
    return True
