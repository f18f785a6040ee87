"""What an archive is and what would become of it; nothing here writes."""

from __future__ import annotations

import uuid
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import BinaryIO

from server.db.legacy_store import PostgresLegacyStore, Standing
from server.kernel.errors import BranchUnknown, InvalidField, RepositoryNotAllowed, RepositoryUnreachable
from server.kernel.identity import Principal
from server.kernel.naming import check_branch_name, title_from
from server.kernel.ports.repositories import Repositories, Repository
from server.legacy.isolation import Reader
from server.legacy.metadata import Metadata, without_credentials
from server.legacy.owners import Owners
from server.legacy.protocol import Found
from server.legacy.source import Entry

_NAMESPACE = uuid.UUID("6f1d0c52-7a53-4c0e-9a36-2d5f0b8e4c11")


class Reason(StrEnum):
    """Why an archive is passed over."""

    NO_OWNER = "NO_OWNER"
    """Nobody says whose it is, or there is no such user."""
    NO_METADATA = "NO_METADATA"
    """It does not say of which repository it is, and nobody else does."""
    NO_REPOSITORY = "NO_REPOSITORY"
    """It names a repository and holds none, or the other way round."""
    NOT_ALLOWED = "NOT_ALLOWED"
    """Its repository is not one that this server fetches."""
    BRANCH_UNKNOWN = "BRANCH_UNKNOWN"
    """The repository has neither its branch nor the one that it grew from."""
    UNREACHABLE = "UNREACHABLE"
    """The repository, or the archive itself, could not be fetched; the next import tries again."""
    OTHER_OWNER = "OTHER_OWNER"
    """There is a session with its id, of another user."""
    DELETED = "DELETED"
    """It was imported, and its owner deleted the session since."""
    BUSY = "BUSY"
    """A turn is active in its session; the next import tries again."""
    DIVERGED = "DIVERGED"
    """Both systems worked on the session since they agreed. The archive stays as it is."""
    WORKSPACE = "WORKSPACE"
    """Its tree could not be read back."""


class PassedOver(Exception):
    """The archive is not imported."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Plan:
    """What becomes of an archive."""

    entry: Entry
    session_id: str
    sha256: str
    found: Found
    owner: Principal
    repository: Repository
    base_branch: str
    branch: str
    """Of the session; empty where none is known that the session may have."""
    branch_exists: bool
    said: Metadata
    title: str
    standing: Standing


def session_id_of(key: str) -> str:
    """The key, when it is a UUID as nearly all are, so that links to the session stay valid; else one that is made from it."""
    with suppress(ValueError):
        if str(uuid.UUID(key)) == key:
            return key
    return str(uuid.uuid5(_NAMESPACE, key))


class Survey:
    """Judges archives one at a time."""

    def __init__(self, reader: Reader, repositories: Repositories, records: PostgresLegacyStore, owners: Owners, *, tenant_id: str) -> None:
        self._reader = reader
        self._repositories = repositories
        self._records = records
        self._owners = owners
        self._tenant_id = tenant_id

    async def plan(self, entry: Entry, standing: Standing, archive: BinaryIO, sha256: str) -> Plan:
        """Errors: PassedOver, Refused, StoreUnavailable, WorkspaceFailed."""
        found = await self._reader.look(archive)
        hint, said = self._owners.of(entry.key), Metadata.parse(found.metadata) if found.metadata else Metadata()
        owner = await self._records.user(self._tenant_id, hint.owner) if hint.owner else None
        if owner is None:
            raise PassedOver(Reason.NO_OWNER, f"there is no user {hint.owner!r}" if hint.owner else "nobody says whose it is")
        _refuse_standing(standing, owner)
        url = without_credentials(hint.repository) or said.repository_url
        if not url:
            raise PassedOver(Reason.NO_METADATA, "it does not say of which repository it is")
        if not found.repository:
            raise PassedOver(
                Reason.NO_REPOSITORY, "no working tree is where its metadata say (`clonedPath`), and not one directory alone has a .git"
            )
        try:
            repository = Repository(owner.tenant_id, owner.user_id, self._repositories.check_url(url))
        except RepositoryNotAllowed as error:
            raise PassedOver(Reason.NOT_ALLOWED, error.message) from error
        branch = standing.branch or hint.branch or said.branch
        base, branch, exists = await self._branches(repository, hint.base_branch or said.base_branch, branch)
        title = title_from(hint.title or said.title) if hint.title or said.title else ""
        return Plan(entry, session_id_of(entry.key), sha256, found, owner, repository, base, branch, exists, said, title, standing)

    async def _branches(self, repository: Repository, base: str, branch: str) -> tuple[str, str, bool]:
        """The base branch, the session's, and whether the remote has that. Errors: PassedOver."""
        branch = branch if branch != base and _is_usable(branch) else ""
        try:
            default = (await self._repositories.inspect(repository, branch="")).name
            # A session of the code page could be on the default branch, which Treadle never pushes to.
            branch = "" if branch == default else branch
            exists = await self._has(repository, branch)
            if base and not await self._has(repository, base):
                if not exists:
                    raise PassedOver(Reason.BRANCH_UNKNOWN, f"the repository has neither {branch!r} nor {base!r}")
                base = ""
        except BranchUnknown as error:
            raise PassedOver(Reason.BRANCH_UNKNOWN, error.message) from error
        except RepositoryUnreachable as error:
            raise PassedOver(Reason.UNREACHABLE, error.message) from error
        return base or default, branch, exists

    async def _has(self, repository: Repository, branch: str) -> bool:
        try:
            return bool(branch and await self._repositories.inspect(repository, branch=branch))
        except BranchUnknown:
            return False


def _refuse_standing(standing: Standing, owner: Principal) -> None:
    """Errors: PassedOver."""
    agreed = standing.agreed
    if not standing.owner_id:
        return
    if (standing.tenant_id, standing.owner_id) != (owner.tenant_id, owner.user_id):
        raise PassedOver(Reason.OTHER_OWNER, "there is a session with its id, of another user")
    if standing.active:
        raise PassedOver(Reason.BUSY, "a turn is active in its session")
    moved = standing.head_commit != agreed.commit if agreed else standing.has_turns or not standing.imported
    if moved and not standing.head_is_import:
        raise PassedOver(Reason.DIVERGED, "both systems worked on the session since they agreed")


def _is_usable(branch: str) -> bool:
    try:
        check_branch_name(branch)
    except InvalidField:
        return False
    return True
