"""The end of a turn for a person: how it ended, the branch, the commit and the diff."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from server.cli.screen import Screen
from server.cli.usage import Usage, show_usage
from treadle.session.v1 import event_pb2 as pb

DIFF_LINES = 200
"""The diff that is printed ends here; Git has all of it."""

SHORT = 12
"""How much of a commit's or a blob's name is shown; enough to be found by."""

_RECORDED = "replay"
"""The provider whose agent tells by itself what it used; of others that counts which the server counted."""

_INDEX_LINE = re.compile(rf"^(index [0-9a-f]{{{SHORT}}})[0-9a-f]*\.\.([0-9a-f]{{{SHORT}}})[0-9a-f]*")
_ENDINGS = {
    pb.TURN_STATUS_COMPLETED: ("completed", "bold green"),
    pb.TURN_STATUS_FAILED: ("failed", "bold red"),
    pb.TURN_STATUS_INTERRUPTED: ("interrupted", "bold yellow"),
}
_DIFF_STYLES = {"+": "green", "-": "red", "@": "cyan"}


@dataclass
class Summary:
    """What is worth repeating at a turn's end, gathered as its events pass."""

    branch: str = ""
    provider: str = ""
    commits: list[pb.GitUpdated] = field(default_factory=list)
    push_refused: bool = False
    usage: Usage = field(default_factory=Usage)
    total: pb.FileChanged = field(default_factory=pb.FileChanged)

    @property
    def subject(self) -> str:
        """Of the last commit."""
        return self.commits[-1].message.partition("\n")[0] if self.commits else ""

    def note(self, event: pb.Event) -> None:
        """Remember what matters of it."""
        kind = event.WhichOneof("body")
        if kind == "session_updated" and event.session_updated.branch:
            self.branch = event.session_updated.branch
        elif kind == "file_changed" and event.file_changed.turn_total:
            self.total = event.file_changed
        elif kind == "usage_updated" and (event.actor.kind == pb.ACTOR_KIND_SERVER or self.provider == _RECORDED):
            self.usage.add(event.usage_updated)
        elif kind == "git_updated":
            self._note_git(event.git_updated)

    def _note_git(self, git: pb.GitUpdated) -> None:
        self.branch = git.branch or self.branch
        if git.action == pb.GIT_ACTION_COMMITTED:
            self.commits.append(git)
        elif git.action == pb.GIT_ACTION_PUSH_FAILED:
            self.push_refused = True


def show_summary(screen: Screen, end: pb.TurnCompleted, summary: Summary, *, told: bool) -> None:
    """Print it. `told`: why it ended so stands above."""
    word, style = _ENDINGS.get(end.status, ("ended", "bold"))
    seconds = end.duration.seconds + end.duration.nanos / 1e9
    # Of what was interrupted the message says it again.
    why = f": {end.message.removeprefix(f'{word} ')}" if end.message and not told else ""
    screen.parts((word, style), (f" in {seconds:.1f} s{why}", ""), hang=2)
    if end.commit:
        screen.label("branch", f"{summary.branch}{_push_state(end, summary)}")
        before = f" (and {len(summary.commits) - 1} before it)" if len(summary.commits) > 1 else ""
        screen.label("commit", f"{end.commit[:SHORT]}  {summary.subject}{before}")
        screen.label("diff", _counts(summary))
    elif end.status == pb.TURN_STATUS_COMPLETED:
        screen.label("commit", "none, no file was changed")
    show_usage(screen, summary.usage, recorded=summary.provider == _RECORDED)
    if end.commit:
        _show_diff(screen, summary.total)


def _push_state(end: pb.TurnCompleted, summary: Summary) -> str:
    if end.pushed:
        return " (pushed)"
    return " (push refused)" if summary.push_refused else " (not pushed)"


def _counts(summary: Summary) -> str:
    """Of a turn that made one commit, what that says, which knows of all files; else of those that are listed."""
    if len(summary.commits) == 1 and summary.commits[0].files_changed:
        (commit,) = summary.commits
        return counts(commit.files_changed, commit.additions, commit.deletions)
    changes = summary.total.changes
    additions, deletions = sum(change.additions for change in changes), sum(change.deletions for change in changes)
    return counts(len(changes), additions, deletions, more=summary.total.truncated)


def counts(files: int, additions: int, deletions: int, *, more: bool = False) -> str:
    """How much a commit changes."""
    return f"{files}{'+' if more else ''} file{'' if files == 1 else 's'} changed, +{additions} -{deletions}"


def _show_diff(screen: Screen, total: pb.FileChanged) -> None:
    lines = [line for change in total.changes for line in _diff_lines(change)]
    screen.line()
    for line in lines[:DIFF_LINES]:
        screen.line(f"  {line}", diff_style(line))
    if len(lines) > DIFF_LINES:
        screen.line(f"  ... {len(lines) - DIFF_LINES} more lines", "dim")


def _diff_lines(change: pb.FileChange) -> list[str]:
    if change.patch:
        return [_INDEX_LINE.sub(r"\1..\2", line) for line in change.patch.splitlines()]
    why = "binary" if change.binary else "too large to show" if change.patch_truncated else "no change of content"
    return [f"diff {change.path} ({why})"]


def diff_style(line: str) -> str:
    """The style of a line of a unified diff."""
    if line.startswith(("diff ", "index ", "--- ", "+++ ", "new file", "deleted file", "similarity", "rename ", "old mode", "new mode")):
        return "bold"
    return _DIFF_STYLES.get(line[:1], "")
