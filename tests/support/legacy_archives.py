"""Archives as the old system made them (LEGACY.md, C3 and C4): each layout, written from its description by `tar`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SESSION = "5b1f3c9e-8d2a-4f6b-9c47-1a2b3c4d5e6f"
CONVERSATION = "0d9a6c1e-3b52-4a7f-8e10-7c6b5a493827"
TOKEN = "ghp_CanaryOfTheOldRemote0123456789abcdef"
OLD_HOME = f"-tmp-session-{SESSION}-workspace-demo"
LAYOUTS = ("T0", "T1", "T2", "T3", "T4")
FILES: Mapping[str, bytes] = {
    "README.md": b"# demo\n\nchanged by the old worker\n",
    "src/app.py": b"print('from the old system')\n",
    "src/deep/er.py": b"x = 1\n",
    "docs/guide.md": b"guide\n",
    ".gitignore": b"*.o\nbuild/\n",
    "empty.txt": b"",
    "naïve/日本語.txt": "ünïcode\n".encode(),
    "a b 'c' \"d\".txt": b"quotes\n",
    "long/" + "n" * 120 + "/" + "m" * 120 + ".txt": b"longer than a header of tar holds\n",
    "large.bin": bytes(range(256)) * 8192,
}
LINKS: Mapping[str, str] = {"current": "src/app.py", "away": "/etc/passwd"}


@dataclass(frozen=True)
class Old:
    """One session of the old system. `shape`: whose metadata, `ai` (the coding worker's) or `github` (with fewer fields)."""

    layout: str
    url: str = "https://github.com/example/demo"
    session: str = SESSION
    shape: str = "ai"
    branch: str = "webedt/make-it-so-3c4d5e6f"
    base_branch: str = "main"
    title: str = "Make it so"
    files: Mapping[str, bytes] = field(default_factory=lambda: dict(FILES))
    links: Mapping[str, str] = field(default_factory=lambda: dict(LINKS))
    conversation: str = CONVERSATION
    lines: bytes = b""
    """Of the conversation; empty for some that no program would read."""
    packed: int = 1_764_842_400
    """Seconds since the epoch, in the archive: without them its bytes would depend on the second in which a test made it."""

    @property
    def repository(self) -> str:
        """Where its working tree is."""
        return {"T0": "workspace/demo", "T1": "workspace/workspace/demo", "T3": "workspace", "T4": "workspace/workspace/demo"}.get(
            self.layout, "workspace/demo"
        )

    def metadata(self) -> dict[str, object]:
        """`.session-metadata.json`."""
        said: dict[str, object] = {
            "sessionId": self.session,
            "sessionPath": f"example__demo__{self.branch.replace('/', '-')}",
            "sessionTitle": self.title,
            "repositoryOwner": "example",
            "repositoryName": "demo",
            "branch": self.branch,
            "createdAt": "2025-12-04T10:00:00.000Z",
            "github": {"repoUrl": self.url, "baseBranch": self.base_branch, "clonedPath": "demo"},
        }
        if self.shape == "ai":
            return {**said, "providerSessionId": self.conversation, "provider": "ClaudeAgentSDK", "updatedAt": "2025-12-04T11:00:00.000Z"}
        return {**said, "lastModified": "2025-12-04T11:00:00.000Z"}

    def write(self, folder: Path) -> None:
        """Its files."""
        tree = folder / self.repository
        for name, content in self.files.items():
            _put(tree / name, content)
        for name, target in self.links.items():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).symlink_to(target)
        (tree / "run.sh").write_text("#!/bin/sh\n")
        (tree / "run.sh").chmod(0o755)
        if self.layout == "T3":
            return
        remote = f'[remote "origin"]\n\turl = https://{TOKEN}@github.com/example/demo\n[core]\n\tfsmonitor = touch /tmp/it-ran\n'
        _put(tree / ".git/config", remote.encode())
        _put(tree / ".git/HEAD", b"ref: refs/heads/main\n")
        _put(tree / ".git/objects/ab/cdef", b"no object")
        (tree / ".git/objects/ab/cdef").chmod(0o444)
        at = "" if self.layout == "T2" else "workspace/"
        _put(folder / at / ".session-metadata.json", json.dumps(self.metadata()).encode())
        _put(folder / at / ".stream-events.jsonl", b'{"type":"message"}\n')
        if self.layout in ("T0", "T1", "T4"):
            _put(folder / ".claude/.credentials.json", json.dumps({"claudeAiOauth": {"accessToken": TOKEN}}).encode())
            _put(folder / f".claude/projects/{OLD_HOME}/{self.conversation}.jsonl", self.lines or CONVERSATION_LINES)
            _put(folder / f".claude/projects/{OLD_HOME}/agent-1234.jsonl", b'{"type":"user"}\n')
            _put(folder / ".codex/auth.json", json.dumps({"apiKey": TOKEN}).encode())
        if self.layout == "T4":
            _put(folder / "metadata.json", json.dumps({"sessionId": self.session, "users": ["u1"], "isGitRepo": False}).encode())
            _put(folder / ".collaboration/operations.log", b'{"timestamp":1,"userId":"u1","operation":{}}\n')

    def archive(self, scratch: Path) -> Path:
        """`session.tar.gz`."""
        folder = scratch / f"{self.layout}-{self.shape}-{self.session}"
        self.write(folder)
        made = scratch / f"{folder.name}.tar.gz"
        subprocess.run(["tar", "-czf", made, f"--mtime=@{self.packed}", "-C", folder, "."], check=True)
        return made


def _said(content: str) -> bytes:
    cwd = f"/tmp/session-{SESSION}/workspace/demo"
    line = {"type": "user", "sessionId": CONVERSATION, "cwd": cwd, "message": {"role": "user", "content": content}}
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


CONVERSATION_LINES = _said("remember: 7") + _said(f"git remote -v: https://{TOKEN}@github.com/example/demo")


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
