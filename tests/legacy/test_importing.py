"""A bucket of the old system becomes sessions: with their work, their branch and their conversation; again and again without harm."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import asyncpg
import pytest
from legacy.conftest import OWNER, Move
from support.git_server import git
from support.hostile_archives import CORPUS
from support.legacy_archives import CONVERSATION, FILES, LAYOUTS, SESSION, TOKEN, Old
from support.treadle import in_process, pushed_files, recording

from server.db.legacy_store import Agreed, PostgresLegacyStore
from server.db.transcripts import Packed, unpack
from server.git.refs import session_ref
from server.git.repository import GitRepositories
from server.identity.local_user import USER
from server.identity.vault import open_vault
from server.kernel.errors import StoreUnavailable
from server.kernel.history import SnapshotKind
from server.legacy.report import Outcome, Report, Status
from server.legacy.source import DirectorySource
from treadle.session.v1 import session_service_pb2 as pb

BRANCH = "webedt/make-it-so-3c4d5e6f"


def mirror(move: Move) -> Path:
    (found,) = (move.settings.data_dir / "mirrors").glob("*.git")
    return found


async def transcript(move: Move, session_id: str = SESSION) -> bytes:
    connection = await asyncpg.connect(move.settings.database_system_url.get_secret_value())
    try:
        row = await connection.fetchrow("SELECT provider, data, size FROM transcripts WHERE session_id = $1", session_id)
    finally:
        await connection.close()
    if row is None:
        return b""
    assert row["provider"] == "claude"
    return unpack(Packed(row["data"], row["size"]))


async def test_every_layout_becomes_a_session(move: Move) -> None:
    ids = {layout: str(uuid.uuid5(uuid.NAMESPACE_URL, layout)) for layout in LAYOUTS}
    for layout, session_id in ids.items():
        move.put(Old(layout, url=move.url, session=session_id))

    told = await move.bring()

    assert {layout: told[key]["status"] for layout, key in ids.items()} == {
        "T0": "IMPORTED", "T1": "IMPORTED", "T2": "IMPORTED", "T3": "SKIPPED", "T4": "IMPORTED",
    }  # fmt: skip
    assert told[ids["T3"]]["reason"] == "NO_METADATA"
    assert {line["skipped_paths"] for line in told.values()} == {0}
    trees = {git(mirror(move), "rev-parse", f"{told[ids[layout]]['commit']}^{{tree}}") for layout in ("T0", "T1", "T2", "T4")}
    assert len(trees) == 1
    files = git(mirror(move), "-c", "core.quotePath=false", "ls-tree", "-r", "--name-only", trees.pop()).splitlines()
    assert {"README.md", "src/app.py", "empty.txt", "large.bin", "naïve/日本語.txt", "current", "away", "run.sh"} <= {*files}
    assert "gone.txt" not in files
    for layout in ("T0", "T1", "T2", "T4"):
        session = await move.stores.sessions.get(OWNER, ids[layout])
        assert (session.title, session.base_branch, session.repository_url) == ("Make it so", "main", move.url)
        assert session.labels == {"legacy": "true", "legacy-layout": layout}
        assert session.head_commit == told[ids[layout]]["commit"]
        (snapshot,) = (await move.stores.history.list(OWNER, ids[layout], page_size=10, page_token="")).snapshots
        assert (snapshot.kind, snapshot.commit) == (SnapshotKind.IMPORT, session.head_commit)
    with_conversation = {layout for layout, key in ids.items() if told[key]["conversation"]}
    assert with_conversation == {"T0", "T1", "T4"}


async def test_an_imported_session_goes_on_where_the_old_system_left_it(move: Move) -> None:
    """Its branch is on the remote; the archive has work that was not pushed."""
    files = {**FILES, "go.jsonl": recording({"write": "new.txt", "content": "by treadle\n"}).encode()}
    seed = move.git_server.root / "example/demo-seed"
    git(seed, "push", "--quiet", str(move.git_server.root / "example/demo.git"), f"HEAD:refs/heads/{BRANCH}")
    move.put(Old("T1", url=move.url, files=files))
    (told,) = (await move.bring()).values()
    assert (told["branch"], told["owner"], told["session_id"]) == (BRANCH, USER, SESSION)
    kept = await transcript(move)
    assert kept.startswith(json.dumps({"session_id": CONVERSATION}).encode() + b"\n")
    assert b"remember: 7" in kept
    assert TOKEN.encode() not in kept
    session = await move.stores.sessions.get(OWNER, SESSION)
    assert (session.pushed_commit, session.unpushed_commit) == (git(seed, "rev-parse", "HEAD"), told["commit"])
    assert (session.provider, session.created_at) == ("claude", datetime(2025, 12, 4, 10, tzinfo=UTC))

    async with in_process(move.settings) as (_, client):
        seen = await client.run(session_id=SESSION, prompt="go", provider="replay", model="go.jsonl")
        assert seen[-1].turn_completed.pushed
        log = await client.log(SESSION)
        (listed,) = (await client.call("ListSessions", pb.ListSessionsRequest())).sessions
    told_of = log[0].git_updated
    assert (told_of.sha, told_of.files_changed > 1, told_of.additions > 1) == (told["commit"], True, True)
    assert told["deleted_paths"] == 1
    assert listed.branch == BRANCH
    pushed = pushed_files(move.git_server.root / "example/demo.git", BRANCH)
    assert pushed["src/app.py"] == "print('from the old system')"
    assert pushed["new.txt"] == "by treadle"
    assert "gone.txt" not in pushed


async def test_the_same_import_again_does_nothing_and_a_changed_archive_comes_on_top(move: Move) -> None:
    move.put(Old("T2", url=move.url))
    first = (await move.bring())[SESSION]

    nothing_done = {"layout": "", "owner": "", "repository": "", "branch": "", "deleted_paths": 0}
    assert (await move.bring())[SESSION] | {"status": "IMPORTED"} == {**first, **nothing_done}
    archive = move.put(Old("T2", url=move.url, packed=1_764_842_401))  # the same work, packed anew
    again = (await move.bring())[SESSION]
    assert (again["status"], again["commit"]) == ("UNCHANGED", first["commit"])
    assert again["sha256"] != first["sha256"]
    os.utime(archive, (1, 1))  # the same bytes, as a copy has them
    assert (await move.bring())[SESSION]["sha256"] == again["sha256"]
    agreed = (await move.stores.legacy.standing(SESSION)).agreed
    assert agreed is not None
    assert agreed.version.endswith("-1000000000")
    move.put(Old("T2", url=move.url, files={**FILES, "src/app.py": b"print('later')\n"}))
    second = (await move.bring())[SESSION]

    assert second["status"] == "IMPORTED"
    assert git(mirror(move), "rev-parse", f"{second['commit']}^") == first["commit"]
    history = (await move.stores.history.list(OWNER, SESSION, page_size=10, page_token="")).snapshots
    assert [each.commit for each in history] == [second["commit"], first["commit"]]


async def test_what_is_written_after_the_list_was_made_is_what_is_agreed_about(move: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = move.put(Old("T2", url=move.url))
    commit = (await move.bring())[SESSION]["commit"]
    os.utime(archive, (1, 1))
    listed, downloaded = DirectorySource.entries, DirectorySource.download

    async def entries(source: DirectorySource) -> Any:
        found = await listed(source)
        os.utime(archive, (2, 2))
        return found

    monkeypatch.setattr(DirectorySource, "entries", entries)
    await move.bring()
    agreed = (await move.stores.legacy.standing(SESSION)).agreed
    assert agreed is not None
    assert agreed.version.endswith("-2000000000")
    os.utime(archive, (3, 3))
    theirs = Agreed("a server's", "0" * 64, commit)

    async def download(*of: Any, **how: Any) -> Any:
        came = await downloaded(*of, **how)
        assert await move.stores.legacy.agree(OWNER, SESSION, SESSION, theirs, over=agreed.version)
        return came

    monkeypatch.setattr(DirectorySource, "download", download)
    await move.bring()
    assert (await move.stores.legacy.standing(SESSION)).agreed == theirs, "who comes late sets nothing back"


async def test_an_archive_that_both_systems_went_on_from_is_left_alone(move: Move) -> None:
    files = {**FILES, "go.jsonl": recording({"write": "new.txt", "content": "by treadle\n"}).encode()}
    move.put(Old("T2", url=move.url, files=files))
    await move.bring()
    async with in_process(move.settings) as (_, client):
        await client.run(session_id=SESSION, prompt="go", provider="replay", model="go.jsonl")
        head = (await move.stores.sessions.get(OWNER, SESSION)).head_commit
        move.put(Old("T2", url=move.url))
        assert (await move.bring())[SESSION]["reason"] == "DIVERGED"
        assert (await move.stores.sessions.get(OWNER, SESSION)).head_commit == head
        await client.call("DeleteSession", pb.DeleteSessionRequest(session_id=SESSION))
    assert (await move.bring())[SESSION]["reason"] == "DELETED"


async def test_what_the_old_system_pushed_is_not_said_to_be_unpushed(move: Move) -> None:
    old = Old("T2", url=move.url)
    move.put(old)
    first = (await move.bring())[SESSION]
    session = await move.stores.sessions.get(OWNER, SESSION)
    assert (session.branch, session.branch_requested, session.unpushed_commit) == ("", BRANCH, first["commit"])
    # It commits and pushes all that it has in the archive.
    seed = move.git_server.root / "example/demo-seed"
    (move.scratch / "theirs").mkdir()
    subprocess.run(["tar", "-xzf", old.archive(move.scratch / "theirs"), "-C", move.scratch / "theirs"], check=True)
    tree = move.scratch / "theirs" / "workspace" / "demo"
    for command in (["rm", "-rq", "."], [f"--work-tree={tree}", "add", "--all"], ["commit", "-qm", "theirs"]):
        git(seed, *command)
    git(seed, "push", "--quiet", str(move.git_server.root / "example/demo.git"), f"HEAD:refs/heads/{BRANCH}")
    move.put(replace(old, packed=old.packed + 1))  # as it does after each of its turns

    second = (await move.bring())[SESSION]

    assert (second["status"], second["commit"]) == ("IMPORTED", git(seed, "rev-parse", "HEAD"))
    session = await move.stores.sessions.get(OWNER, SESSION)
    assert (session.branch, session.unpushed_commit) == (BRANCH, ""), "else its next turn would want to make a branch that is there"


async def test_a_dry_run_tells_the_same_and_writes_nothing(move: Move) -> None:
    move.put(Old("T1", url=move.url))
    open_vault(move.settings)  # as the server did when it started
    before = sorted(move.settings.data_dir.rglob("*"))

    told = (await move.bring(dry_run=True))[SESSION]

    assert (told["status"], told["layout"], told["conversation"], told["dry_run"]) == ("IMPORTED", "T1", True, True)
    assert sorted(path for path in move.settings.data_dir.rglob("*") if path.name != "scratch") == before
    connection = await asyncpg.connect(move.settings.database_system_url.get_secret_value())
    for table in ("sessions", "snapshots", "transcripts", "legacy_archives"):
        assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0
    await connection.close()


async def test_one_bad_archive_stops_no_other(move: Move) -> None:
    move.put(Old("T2", url=move.url))
    for name, hostile in CORPUS.items():
        if name in ("realpath_chain", "zeros", "hard_link_to_the_host", "no_gzip", "parent"):
            (move.place / f"0-{name}").mkdir()
            (move.place / f"0-{name}" / "session.tar.gz").write_bytes(hostile.make())
    move.put(Old("T2", url=move.url, session="ffffffff-0000-4000-8000-000000000001", base_branch="nowhere", branch="nothing"))
    move.put(Old("T2", url="https://evil.example.org/o/r", session="ffffffff-0000-4000-8000-000000000002"))
    (move.place / "no-archive").mkdir()

    told = await move.bring()

    assert {key.partition("-")[2]: line["reason"] for key, line in told.items() if line["status"] == "REFUSED"} == {
        name: CORPUS[name].reason for name in ("realpath_chain", "zeros", "hard_link_to_the_host", "no_gzip", "parent")
    }
    assert told["ffffffff-0000-4000-8000-000000000001"]["reason"] == "BRANCH_UNKNOWN"
    assert told["ffffffff-0000-4000-8000-000000000002"]["reason"] == "NOT_ALLOWED"
    assert told[SESSION]["status"] == "IMPORTED"
    assert list((move.settings.data_dir / "scratch").iterdir()) == []


async def test_owners_come_from_a_file_that_the_old_database_can_write(move: Move) -> None:
    keys = {name: str(uuid.uuid5(uuid.NAMESPACE_URL, name)) for name in ("hers", "nobodys", "strangers", "files")}
    for name, key in keys.items():
        move.put(Old("T3" if name == "files" else "T0", url=move.url, session=key, shape="github"))
    owners = move.scratch / "owners.json"
    owners.write_text(
        json.dumps({
            keys["hers"]: {"owner": USER, "title": "Her title", "repository": None},
            keys["strangers"]: "stranger",
            keys["files"]: {"owner": USER, "repository": move.url, "base_branch": "main"},
        })
    )  # fmt: skip

    told = await move.bring(owner=str(owners), limit=1)
    assert sum(line["status"] == "IMPORTED" for line in told.values()) == 1
    told = await move.bring(owner=str(owners), limit=1) | told

    assert told[keys["hers"]]["status"] == "IMPORTED"
    assert (await move.stores.sessions.get(OWNER, keys["hers"])).title == "Her title"
    assert {told[keys[name]]["reason"] for name in ("nobodys", "strangers")} == {"NO_OWNER"}
    assert (told[keys["files"]]["status"], told[keys["files"]]["deleted_paths"]) == ("IMPORTED", 0)
    kept = git(mirror(move), "ls-tree", "-r", "--name-only", told[keys["files"]]["commit"]).splitlines()
    assert {"gone.txt", "src/app.py", "docs/guide.md"} <= {*kept}, "of single files nothing is known of the others"
    assert git(mirror(move), "show", f"{told[keys['files']]['commit']}:src/app.py") == "print('from the old system')"


async def test_an_import_that_was_cut_short_is_finished_by_the_next(move: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    class Cut(Exception):
        pass

    async def cut(*_: Any, **__: Any) -> None:
        raise Cut

    move.put(Old("T1", url=move.url))
    store = "server.db.legacy_store.PostgresLegacyStore"
    for point in (f"{store}.adopt", "server.kernel.journal.notes.Notes.record", "server.git.trees.GitTrees.keep", f"{store}.agree"):
        with monkeypatch.context() as patched, pytest.raises(Cut):
            patched.setattr(point, cut)
            await move.bring()

    told = (await move.bring())[SESSION]

    session = await move.stores.sessions.get(OWNER, SESSION)
    assert (told["status"], told["commit"]) == ("UNCHANGED", session.head_commit)
    assert session.provider == "claude"
    assert await transcript(move)
    history = (await move.stores.history.list(OWNER, SESSION, page_size=10, page_token="")).snapshots
    assert [each.commit for each in history] == [told["commit"]]


async def test_an_import_on_top_of_another_that_was_cut_short_is_finished_by_the_next(move: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    move.put(Old("T2", url=move.url))
    await move.bring()
    move.put(Old("T2", url=move.url, files={**FILES, "src/app.py": b"print('later')\n"}))
    with monkeypatch.context() as patched, pytest.raises(StoreUnavailable):
        patched.setattr(PostgresLegacyStore, "agree", AsyncMock(side_effect=StoreUnavailable()))
        await move.bring()
    head = (await move.stores.sessions.get(OWNER, SESSION)).head_commit

    told = (await move.bring())[SESSION]

    assert (told["status"], told["commit"]) == ("UNCHANGED", head)
    agreed = (await move.stores.legacy.standing(SESSION)).agreed
    assert agreed is not None
    assert agreed.commit == head


async def test_a_turn_during_an_import_keeps_its_conversation_and_its_commit(move: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {**FILES, "go.jsonl": recording({"write": "new.txt", "content": "by treadle\n"}).encode()}
    move.put(Old("T2", url=move.url, files=files))
    await move.bring()
    move.put(Old("T1", url=move.url))  # with a conversation, which T2 has none of
    bring_in = GitRepositories.import_workspace
    async with in_process(move.settings) as (_, client):

        async def beside_a_turn(*arguments: Any, **options: Any) -> Any:
            imported = await bring_in(*arguments, **options)
            with monkeypatch.context() as patched:
                patched.setattr(GitRepositories, "import_workspace", bring_in)
                await client.run(session_id=SESSION, prompt="go", provider="replay", model="go.jsonl")
            return imported

        with monkeypatch.context() as patched:
            patched.setattr(GitRepositories, "import_workspace", beside_a_turn)
            told = (await move.bring())[SESSION]

    assert told["reason"] == "DIVERGED"
    assert await transcript(move) == b""
    head = (await move.stores.sessions.get(OWNER, SESSION)).head_commit
    assert git(mirror(move), "rev-parse", session_ref(SESSION)) == head


async def test_the_command_says_what_became_of_each(move: Move) -> None:
    move.put(Old("T2", url=move.url))
    (move.place / "bad").mkdir()
    (move.place / "bad" / "session.tar.gz").write_bytes(CORPUS["parent"].make())
    settings = move.settings
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "server.cli", "legacy", "import", "--from", str(move.place), "--owner", USER, "--dry-run",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={
            "PATH": "/usr/bin:/bin",
            "TREADLE_DATA_DIR": str(settings.data_dir),
            "TREADLE_DATABASE_URL": settings.database_url.get_secret_value(),
            "TREADLE_DATABASE_SYSTEM_URL": settings.database_system_url.get_secret_value(),
            "TREADLE_GIT_ALLOWED_PREFIXES": settings.git_allowed_prefixes,
        },
    )  # fmt: skip
    out, aside = await process.communicate()
    assert process.returncode == 1, aside  # one is refused
    assert out.decode().splitlines() == [
        f"IMPORTED  {SESSION}  T2  {move.url}  {BRANCH}",
        "REFUSED  bad  BAD_NAME: the path '../escaped'",
    ]
    assert b"2 archives; a dry run: nothing is written" in aside
    assert "REFUSED BAD_NAME" in aside.decode()


@pytest.mark.parametrize(
    ("ended", "well"),
    [
        ([], True),
        ([Status.IMPORTED, Status.SKIPPED], True),
        ([Status.UNCHANGED, Status.SKIPPED], True),
        ([Status.SKIPPED, Status.SKIPPED], False),
        ([Status.IMPORTED, Status.REFUSED], False),
    ],
)
def test_an_archive_that_is_refused_or_nothing_but_skipped_ones_did_not_go_well(ended: list[Status], well: bool) -> None:
    report = Report(None, dry_run=True)
    for status in ended:
        report.add(Outcome("key", status))
    assert report.went_well is well


async def test_a_directory_without_an_archive_is_told_how_one_is_named(
    move: Move, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong" / f"{SESSION}.tar.gz").write_bytes(b"")
    assert await move.bring(dry_run=True, place=str(tmp_path / "wrong")) == {}
    assert "an archive is a file <session's id>/session.tar.gz" in " ".join(capsys.readouterr().err.split())
