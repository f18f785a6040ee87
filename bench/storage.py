"""Git and storage: what a user waits for before and after an agent's work."""

from __future__ import annotations

from bench import big_tree, files, moved, workspaces
from bench.report import write

PARTS = {
    "workspace": workspaces.measure,
    "checkout": workspaces.check_out,
    "import": big_tree.measure,
    "files": files.measure,
    "edits": files.paced,
    "moved": moved.measure,
}


async def run(only: str = "") -> None:
    """Measure all parts, or one, and write. Errors: KeyError for a part that there is not."""
    rows = [row for name in ([only] if only else PARTS) for row in await PARTS[name]()]
    write(
        f"storage-{only}" if only else "storage",
        "Git and storage",
        rows,
        "Workspaces: a session is ready when its fetch, its branch on the remote, and its workspace are made; the remote is `git "
        "http-backend` on the same machine. Of a repository of more than 16 MiB a workspace has the last 200 commits. Files: over gRPC "
        "directly, one call behind the other, while the edit before is stored as a snapshot; `download` is the whole session as tar.gz.",
    )
