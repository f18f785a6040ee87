"""The slots, as the spawner makes them: nobody else can change what a name in one means, whoever the server is."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress

import structlog

from server.sandbox.bubblewrap import HOME, SANDBOX_ID
from server.sandbox.listing import beside, carried, take
from server.spawner.ownership import give
from server.spawner.settings import SpawnerSettings
from server.workers.slot import GONE, Slot, delete_tree

log = structlog.get_logger()

DRAFT = ".new-"
"""Begins the name of a slot that is being made."""

User = tuple[int, int]
"""Uid and gid."""


class NoUser(Exception):
    """All users that workers may have are taken; the message says what to do."""


class Slots:
    """Makes slots and deletes them. Each has a user of its own, where the spawner is root, and is known by its own file as long as anything
    of it is there; so no two live slots share one, over any restart. All methods block; call them from a thread."""

    def __init__(self, settings: SpawnerSettings) -> None:
        self.root = settings.slots_dir
        self.server: User = settings.server_ids
        self._uids = settings.slot_uids
        self._own: User = (os.geteuid(), os.getegid())
        self._taken: set[int] = set()
        # One that was just free is the last to be used again: the kernel keeps some things of a user for a while.
        self._next = secrets.randbelow(len(self._uids))
        self._lock = threading.Lock()
        self._remains: list[Slot] = []

    def begin(self, others: Iterable[int]) -> None:
        """Before anything else: learn which users are taken, by slots, by what is left of them, and by `others`. Errors: OSError."""
        for path in self.root.iterdir():
            if (slot := Slot(path)).is_spawners and slot.user() is None:
                # Its containers say it, if there are any, and they are among the others.
                log.warning("slot.torn", slot=path.name)
        with self._lock:
            self._taken = self._on_disk() | set(others)
        self._remains = [Slot(path) for path in self.root.glob(f"{GONE}*")]

    def make(self, name: str) -> Slot:
        """The slot of that name, if it is not there. One at a time for each name. Errors: NoUser, OSError."""
        slot = Slot(self.root / name)
        if slot.path.exists():
            return slot
        user = self._take()
        draft = Slot(self.root / f"{DRAFT}{secrets.token_hex(4)}")
        try:
            build(draft, server=self.server, user=user)
            draft.path.rename(slot.path)
        except BaseException:
            with suppress(OSError):
                delete_tree(draft.path)
            self.free(user[0])
            raise
        return slot

    def give(self, slot: Slot, user: User) -> None:
        """The workspace is the worker's from now on. One that waited for it has its socket by then, and puts no other there. Errors:
        OSError."""
        if os.geteuid() == 0 and slot.workspace.lstat().st_uid != user[0]:
            give(slot.workspace, self.server[0], user)
            # Only now: a worker that has had it may have changed anything since.
            _keep_list(slot, lambda: take(str(slot.workspace)))
        if os.path.lexists(slot.socket):
            self.seal(slot)

    def take_back(self, slot: Slot) -> None:
        """The workspace is the server's again, which reads it: by itself, or where it is root as the user of its sandbox. Nobody of the
        worker lives. Errors: OSError."""
        if os.geteuid() != 0:
            return
        with suppress(FileNotFoundError):
            user = slot.user()
            # Where that was torn: whoever has the workspace, if it was given to anybody.
            worker = user[0] if user else slot.workspace.lstat().st_uid
            if user or worker in self._uids:
                self._take_back(slot, worker)

    def _take_back(self, slot: Slot, worker: int) -> None:
        """With the list of what the worker has not touched, which the change of owner would make worthless."""
        reader = self.server if self.server[0] != 0 else (SANDBOX_ID, SANDBOX_ID)
        listing = beside(slot.workspace)
        try:
            listed = listing.read_bytes()
        except FileNotFoundError:
            listed = b""
        given = False

        def back() -> None:
            nonlocal given
            give(slot.workspace, worker, reader)
            given = True

        if listed:
            _keep_list(slot, lambda: carried(listed, str(slot.workspace), back))
        if not given:
            back()

    def seal(self, slot: Slot) -> None:
        """The worker can put nothing else in the place of its socket any more. Errors: OSError."""
        if os.geteuid() == 0:
            os.chown(slot.run, 0, 0, follow_symlinks=False)
            slot.run.chmod(0o755)

    def renew(self, slot: Slot) -> None:
        """Another worker may be started in the place of one that has ended without a turn. Errors: OSError."""
        user = slot.user()
        if user is not None and os.geteuid() == 0:
            if self.server[0] == 0:
                # It may have been given the workspace, and that been taken back.
                give(slot.workspace, SANDBOX_ID, self.server)
            beside(slot.workspace).unlink(missing_ok=True)
            os.chown(slot.run, *user, follow_symlinks=False)
            slot.run.chmod(0o711)
        slot.forget()

    def delete(self, slot: Slot) -> None:
        """Nothing of the slot is left. Repeatable. Errors: OSError."""
        user = slot.user()
        slot.delete()
        if user is not None:
            self.free(user[0])

    def clear(self) -> None:
        """Delete what spawners before this one have left half deleted. Errors: OSError."""
        while self._remains:
            user = self._remains[-1].user()
            delete_tree(self._remains.pop().path)
            if user is not None:
                self.free(user[0])

    def free(self, uid: int) -> None:
        """Nobody is that user any more, unless a slot says so."""
        with self._lock:
            self._taken -= {uid} - self._on_disk()

    def _take(self) -> User:
        if os.geteuid() != 0:
            return self._own
        with self._lock:
            for _ in self._uids:
                uid = self._uids[self._next % len(self._uids)]
                self._next += 1
                if uid not in self._taken:
                    self._taken.add(uid)
                    return uid, uid
        raise NoUser(f"each of the {len(self._uids)} users of TREADLE_WORKER_UIDS has a worker; let workers have more")

    def _on_disk(self) -> set[int]:
        users = [Slot(path).user() for path in self.root.iterdir() if path.is_dir()]
        return {user[0] for user in users if user is not None}


def _keep_list(slot: Slot, made: Callable[[], bytes]) -> None:
    """Beside the workspace, where the server may read it. Without a list, the import reads every file."""
    listing = beside(slot.workspace)
    draft = listing.with_name(f".{listing.name}")
    try:
        draft.write_bytes(made())
        draft.chmod(0o640)
        draft.rename(listing)
    except OSError as error:
        log.warning("workspace.not_listed", slot=slot.path.name, error=str(error))
        draft.unlink(missing_ok=True)
        listing.unlink(missing_ok=True)


def build(slot: Slot, *, server: User, user: User) -> None:
    """Make the directory and what belongs in it. Errors: OSError."""
    slot.path.mkdir(mode=0o700)
    uid, gid = user
    slot.create("user", f"{uid} {gid}")
    slot.create("passwd", f"root:x:0:0:root:/:/usr/sbin/nologin\nagent:x:{uid}:{gid}:Coding agent:{HOME}:/bin/sh\n", 0o644)
    slot.create("group", f"root:x:0:\nagent:x:{gid}:\n", 0o644)
    slot.arm()
    root = os.geteuid() == 0
    # One that waits has the workspace as its directory before it has it, and a server that is another user reads it afterwards; who gets
    # as far as to the slot is decided below.
    for directory, owner, mode in (
        (slot.state, server, 0o700),
        (slot.workspace, server, 0o755),
        (slot.models, server, 0o755),
        (slot.run, user, 0o711),
    ):
        directory.mkdir(mode=0o700)
        if root:
            os.chown(directory, *owner)
        directory.chmod(mode)
    if server[0] != os.geteuid():
        # What is recorded here later has the server's group, too. Set before the group is another's: then it would take CAP_FSETID.
        slot.path.chmod(0o2750)
        for path in (slot.path, *(slot.path / name for name in ("user", "secret"))):
            os.chown(path, -1, server[1])
