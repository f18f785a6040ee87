"""A session as the old system's workers read it: layout T2 (layout.py), with a `.git` that they can go on with."""

from __future__ import annotations

import gzip
import hashlib
import json
import tarfile
import threading
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from server.db.legacy_store import Unwritten
from server.storage.reading import Stopped

_OLD_WORKER = 1001
"""The uid and gid of the old system's workers."""
_PROVIDER = "ClaudeAgentSDK"


@dataclass(frozen=True)
class Packed:
    """A file that was made."""

    path: Path
    sha256: str


def repository_name(url: str) -> str:
    """The name of the directory of the working tree: as a clone names it."""
    return url.rpartition("/")[2].removesuffix(".git")


def pack(session: Unwritten, folder: Path, into: Path, stop: threading.Event) -> Packed:
    """Complete what `build_workspace` made in `folder`/workspace/NAME, and write the archive. Blocks. Errors: OSError; Stopped."""
    name = repository_name(session.repository_url)
    with (folder / "workspace" / name / ".git" / "config").open("a") as config:
        # The URL is one that was checked: it holds no quote, no blank and no credential.
        config.write(f'[remote "origin"]\n\turl = {session.repository_url}\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n')
    (folder / ".session-metadata.json").write_text(json.dumps(_metadata(session, name)))

    def as_theirs(info: tarfile.TarInfo) -> tarfile.TarInfo:
        if stop.is_set():
            raise Stopped
        return _as_theirs(info)

    with (
        into.open("wb") as raw,
        gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=1, filename="", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        archive.add(folder, ".", filter=as_theirs)
    with into.open("rb") as made:
        return Packed(into, hashlib.file_digest(made, "sha256").hexdigest())


def _metadata(session: Unwritten, name: str) -> dict[str, object]:
    """Of the coding worker's shape."""
    owner = session.repository_url.split("/")[-2]
    return {
        "sessionId": session.session_key,
        "sessionPath": "__".join(_flat(part) for part in (owner, name, session.branch)),
        "sessionTitle": session.title,
        "repositoryOwner": owner,
        "repositoryName": name,
        "branch": session.branch,
        "provider": _PROVIDER,
        "createdAt": _time(session.created_at),
        "updatedAt": _time(session.updated_at),
        "github": {"repoUrl": session.repository_url, "baseBranch": session.base_branch, "clonedPath": name},
    }


def _flat(part: str) -> str:
    """A part of a session path, by the old website's rule."""
    flat = part.replace("/", "-").replace("__", "-")
    return "".join(character if character.isascii() and (character.isalnum() or character in "._-") else "-" for character in flat)


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _as_theirs(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """The old system copies over what is there, which a file that nobody may write to stops."""
    info.uid = info.gid = _OLD_WORKER
    info.uname = info.gname = ""
    info.mode |= 0o600
    return info
