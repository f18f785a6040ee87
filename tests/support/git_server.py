"""A real Git server over HTTP for tests: `git http-backend`, with optional authentication, hooks, and silence."""

from __future__ import annotations

import base64
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

from server.embedded.git_http import GitHttpServer

ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "safe.directory",  # a workspace belongs to the worker's uid
    "GIT_CONFIG_VALUE_0": "*",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
    "GIT_AUTHOR_DATE": "@1700000000 +0000",
    "GIT_COMMITTER_DATE": "@1700000000 +0000",
}


def git(directory: Path, *arguments: str, stdin: bytes = b"", check: bool = True) -> str:
    """Plain git on a friendly repository; the tests' second opinion."""
    done = subprocess.run(
        ["git", "-C", str(directory), *arguments], env=ENVIRONMENT, input=stdin, capture_output=True, check=False, timeout=60
    )
    if check and done.returncode:
        raise AssertionError(f"git {' '.join(arguments)}: {done.stderr.decode()}")
    return done.stdout.decode("utf-8", "surrogateescape").rstrip("\n")


class GitServer(GitHttpServer):
    """Serves `root`. `token` asks for it as a basic password; while `speaking` is cleared, requests hang."""

    def __init__(self, root: Path, *, token: str | None = None, host: str = "127.0.0.1") -> None:
        super().__init__(root, host=host)
        self._token = token
        self.speaking = threading.Event()
        self.speaking.set()
        self.asked: list[str] = []
        self.answers: dict[str, HTTPStatus] = {}
        """What is answered to requests whose target holds the key."""
        self.hangs_on = ""
        """Requests whose target holds this are not answered."""
        self._over = threading.Event()

    def refusal(self, target: str, authorization: str | None) -> HTTPStatus | None:
        if self.hangs_on and self.hangs_on in target:
            self._over.wait(30)
        if answer := next((status for part, status in self.answers.items() if part in target), None):
            return answer
        expected = "Basic " + base64.b64encode(f"x-access-token:{self._token}".encode()).decode()
        return None if self._token is None or authorization == expected else HTTPStatus.UNAUTHORIZED

    def before(self, path: str) -> None:
        self.asked.append(path)
        self.speaking.wait(30)

    def stop(self) -> None:
        self.speaking.set()
        self._over.set()
        super().stop()

    def create(self, name: str, files: Mapping[str, str | bytes], *, branch: str = "main") -> Path:
        """A bare repository `name`.git with one commit on its default branch."""
        bare = self.root / f"{name}.git"
        work = self.root / f"{name}-seed"
        git(self.root, "init", "--quiet", "--bare", "--template=", f"--initial-branch={branch}", str(bare))
        git(self.root, "init", "--quiet", "--template=", f"--initial-branch={branch}", str(work))
        self.commit(name, files, branch=branch)
        return bare

    def commit(self, name: str, files: Mapping[str, str | bytes], *, branch: str = "main") -> str:
        """One more commit on a branch, made from the seed clone; returns its id."""
        work = self.root / f"{name}-seed"
        for path, content in files.items():
            target = work / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content if isinstance(content, bytes) else content.encode())
        git(work, "add", "--all", "--force")
        git(work, "commit", "--quiet", "--allow-empty", "-m", "seed")
        git(work, "push", "--quiet", str(self.root / f"{name}.git"), f"HEAD:refs/heads/{branch}")
        return git(work, "rev-parse", "HEAD")

    def refuse_pushes(self, name: str, reason: str) -> None:
        """Install a hook that says what a host says, and refuses."""
        hook = self.root / f"{name}.git" / "hooks" / "pre-receive"
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{reason}\nEND\nexit 1\n")
        hook.chmod(0o755)


@contextmanager
def git_server(root: Path, *, token: str | None = None, host: str = "127.0.0.1") -> Iterator[GitServer]:
    """A started server on a free port."""
    root.mkdir(parents=True, exist_ok=True)
    server = GitServer(root, token=token, host=host)
    server.start()
    try:
        yield server
    finally:
        server.stop()
