"""A session's files over HTTP, as curl and browsers ask for them."""

from __future__ import annotations

import base64
import json
import os
import zipfile
from io import BytesIO

import pytest
from support.gateway import Http
from support.git_server import GitServer

BIG = os.urandom(2 * 1024 * 1024 + 5)
FILES = {"a b/ä+&?#%2F.html": "<script>alert(1)</script>", "big": BIG, "a.txt": "one\n"}


@pytest.fixture
async def files(http: Http, git_server: GitServer) -> str:
    """The address of a session's files."""
    git_server.create("acme/app", FILES)
    async with http.session.post(f"{http.base}/v1/sessions", json={"repositoryUrl": f"{git_server.url}/acme/app.git"}) as answer:
        return f"{http.base}/v1/sessions/{(await answer.json())['session']['sessionId']}/files"


async def test_files_are_listed_edited_found_and_compared(http: Http, files: str) -> None:
    async with http.session.get(files, params={"pageSize": 2}) as answer:
        page = await answer.json()
        assert [file["path"] for file in page["files"]] == ["a b", "a.txt"]
    async with http.session.get(files, params={"pageToken": page["nextPageToken"], "recursive": "true"}) as answer:
        assert [file["path"] for file in (await answer.json())["files"]] == ["big"]
    etag = page["files"][1]["etag"]
    edits = [{"write": {"path": "a.txt", "text": "two\n", "expectedEtag": etag}}, {"write": {"path": "n", "data": "AAE="}}]
    async with http.session.post(f"{files}:edit", json={"edits": edits}) as answer:
        assert answer.status == 200, await answer.text()
        assert [each["changed"] for each in (await answer.json())["files"]] == [True, True]
    async with http.session.post(f"{files}:edit", json={"edits": edits}) as answer:
        assert (answer.status, (await answer.json())["details"][0]["reason"]) == (409, "FILE_CHANGED")
    async with http.session.get(f"{files}:find", params={"pattern": "*.txt"}) as answer:
        assert [file["path"] for file in (await answer.json())["files"]] == ["a.txt"]
    async with http.session.get(f"{files}:search", params={"pattern": "^t.o$", "regex": "true"}) as answer:
        assert (await answer.json())["matches"] == [{"path": "a.txt", "line": 1, "text": "two"}]
    async with http.session.get(f"{files}:diff") as answer:
        assert [(file["path"], file["operation"]) for file in (await answer.json())["files"]] == [("a.txt", "MODIFIED"), ("n", "ADDED")]
    async with http.session.get(f"{files}:patch", params={"path": "a.txt"}) as answer:
        assert (await answer.text()).endswith("-one\n+two\n")
    async with http.session.get(f"{files}:read", params={"path": "n"}) as answer:
        assert answer.content_type == "application/jsonl"
        first, second = [json.loads(line) for line in (await answer.text()).splitlines()]
        assert (first["file"]["size"], base64.b64decode(second["data"])) == ("2", b"\0\1")
    for write, status in (({"path": "n", "executable": True}, 200), ({"path": "none", "text": ""}, 200), ({"path": "n"}, 400)):
        async with http.session.post(f"{files}:edit", json={"edits": [{"write": write}]}) as answer:
            assert answer.status == status, await answer.text()


async def test_a_download_is_an_attachment_whatever_it_looks_like(http: Http, files: str) -> None:
    path = "a b/ä+&?#%2F.html"
    async with http.session.get(f"{files}:download", params={"path": path}) as answer:
        assert answer.status == 200, await answer.text()
        assert await answer.text() == FILES[path]
        assert (answer.content_type, answer.headers["x-content-type-options"]) == ("application/octet-stream", "nosniff")
        assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''%C3%A4%2B%26%3F%23%252F.html"
    async with http.session.get(f"{files}:download", params={"path": "big"}) as answer:
        assert (answer.headers["x-treadle-size"], await answer.read()) == (str(len(BIG)), BIG)
    async with http.session.get(f"{files}:download", params={"path": "big", "offset": len(BIG) - 2, "length": 9}) as answer:
        assert (answer.headers["x-treadle-size"], await answer.read()) == ("2", BIG[-2:])
    async with http.session.get(f"{files}:archive", params={"format": "ARCHIVE_FORMAT_ZIP"}) as answer:
        assert answer.headers["content-disposition"].startswith("attachment; filename*=UTF-8''app-")
        with zipfile.ZipFile(BytesIO(await answer.read())) as archive:
            assert archive.read("big") == BIG
    async with http.session.get(f"{files}:download", params={"path": "nothing"}) as answer:
        assert (answer.status, (await answer.json())["details"][0]["reason"]) == (404, "FILE_NOT_FOUND")
    async with http.session.get(f"{files}:download", params={"path": "../x"}) as answer:
        assert (answer.status, (await answer.json())["details"][0]["reason"]) == (400, "PATH_INVALID")
