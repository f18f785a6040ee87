"""Events as lines for people: one small function per kind."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from server.cli.origin import origin
from server.cli.pull_request_words import how_far
from server.cli.refusals import what_to_do
from server.cli.screen import Screen
from server.cli.summary import SHORT, Summary, counts, diff_style, show_summary
from server.cli.waiting import place_in_line
from treadle.session.v1 import event_pb2 as pb

_OUTPUT = "    "
_CUT_INPUT = '{"truncated": true}'
"""What a worker tells in the place of an input that is too large."""
_CHANGING = (pb.TOOL_KIND_EDIT, pb.TOOL_KIND_DELETE)
_OPERATIONS = {
    pb.FILE_OPERATION_ADDED: ("+", "green"),
    pb.FILE_OPERATION_MODIFIED: ("~", "yellow"),
    pb.FILE_OPERATION_DELETED: ("-", "red"),
    pb.FILE_OPERATION_RENAMED: (">", "yellow"),
}


class Renderer:
    """Shows events in the order in which they come. Text grows on a terminal; elsewhere it is printed when it is complete. `asking`:
    whoever is asked gets the options below, so that they are not shown here. `data_dir`: for what can be typed next."""

    def __init__(self, screen: Screen, *, asking: bool = False, data_dir: Path | None = None) -> None:
        self._screen = screen
        self._data_dir = data_dir
        self._asking = asking
        self._summary = Summary()
        self._begun: set[str] = set()
        self._agents: set[tuple[str, int]] = set()
        self._told: dict[str, str] = {}
        self._rest: dict[str, str] = {}
        self._untold: dict[str, str] = {}
        """Calls that are told by what they change, so that nothing tells of one that fails: id and title."""
        self._errors: set[str] = set()

    def show(self, event: pb.Event) -> None:
        """Print what a person wants to know of it; nothing for most of the bookkeeping."""
        self._note(event)
        show = getattr(self, f"_{event.WhichOneof('body')}", None)
        if show is not None:
            show(event)

    def recall(self, event: pb.Event) -> None:
        """Take in what was shown before, by an earlier command: the turn's end counts it, and it is not said again."""
        self._note(event)
        if event.HasField("tool_call") and event.tool_call.status != pb.TOOL_STATUS_PENDING:
            self._begun.add(event.tool_call.call_id)
            if event.tool_call.tool_kind in _CHANGING:
                self._untold[event.tool_call.call_id] = event.tool_call.title or event.tool_call.name
        if event.HasField("content_delta") and event.content_delta.channel == pb.CHANNEL_TEXT and self._screen.live:
            self._begun.add(event.item_id)
            self._told[event.item_id] = self._told.get(event.item_id, "") + event.content_delta.data

    def _note(self, event: pb.Event) -> None:
        if event.HasField("turn_started"):
            self._summary = Summary(self._summary.branch, event.turn_started.provider)
            # Ids of items are an agent's own, which may count from 1 in each turn.
            for known in (self._begun, self._agents, self._told, self._rest, self._untold, self._errors):
                known.clear()
        if event.HasField("error") and not event.error.fatal:
            self._errors.add(event.error.message)
        if event.git_updated.action == pb.GIT_ACTION_PUSH_FAILED:
            self._errors.add(event.git_updated.message)
        self._summary.note(event)

    # -- the turn -----------------------------------------------------------------------------------------------------------

    def _turn_started(self, event: pb.Event) -> None:
        turn = event.turn_started
        agent = f"{turn.provider} · {turn.model}" if turn.model else turn.provider
        self._screen.parts((f"turn {turn.number}", "bold"), (f" · {agent} · session {event.session_id}", "dim"), hang=2)

    def _session_forked(self, event: pb.Event) -> None:
        fork = event.session_forked
        forgotten = "" if fork.remembered else "; its agent remembers nothing of it"
        self._screen.label("fork", f"of {origin(fork)}{forgotten}")

    def _session_updated(self, event: pb.Event) -> None:
        if event.session_updated.HasField("waiting"):
            self._screen.label("waiting", place_in_line(event.session_updated.waiting), "yellow")

    def _user_input(self, event: pb.Event) -> None:
        said = event.user_input
        if said.status != pb.INPUT_STATUS_DELIVERED:
            status = pb.InputStatus.Name(said.status).removeprefix("INPUT_STATUS_").lower()
            first, _, more = _text(said.parts).partition("\n")
            self._screen.label(status, f"{first} …" if more else first, "dim")
            return
        for line in _text(said.parts).splitlines():
            self._screen.parts(("› ", "cyan"), (line, ""), hang=2)

    # -- what the agent asks ------------------------------------------------------------------------------------------------

    def _approval_requested(self, event: pb.Event) -> None:
        self._screen.line()
        show_approval(self._screen, event.approval_requested, "▸ ")

    def _question_requested(self, event: pb.Event) -> None:
        self._screen.line()
        for question in event.question_requested.questions:
            self._screen.parts(("▸ ", "bold yellow"), (question.text, "bold"), hang=2)
            if question.options and not self._asking:
                self._screen.prose(_OUTPUT + " · ".join(option.label or option.id for option in question.options))

    def _request_resolved(self, event: pb.Event) -> None:
        resolved = event.request_resolved
        outcome = pb.RequestOutcome.Name(resolved.outcome).removeprefix("REQUEST_OUTCOME_").lower()
        answers = [", ".join(answer.option_ids) or answer.text for answer in resolved.answers]
        what = resolved.option_id or "; ".join(answers) or outcome
        self._screen.parts(("  ✓ " if answers or resolved.option_id else "  ✗ ", "yellow"), (what, ""), (_who(resolved), "dim"), hang=4)

    def _worker_updated(self, event: pb.Event) -> None:
        worker = event.worker_updated
        if worker.phase == pb.WORKER_PHASE_READY:
            wall, style = ("sandboxed", "") if worker.sandboxed else ("NOT sandboxed", "bold yellow")
            self._screen.label("worker", f"{worker.launcher}, {wall}", style)
        elif worker.phase == pb.WORKER_PHASE_WAITING:
            self._screen.label("worker", "waits until a machine has room for it")
        elif worker.phase == pb.WORKER_PHASE_ADOPTED:
            self._screen.label("worker", "goes on after a restart of the server")
        elif worker.phase == pb.WORKER_PHASE_LOST:
            self._screen.label("worker", f"lost{', out of memory' if worker.oom_killed else ''}{_exit(worker)}", "red")
            for line in worker.log_tail.splitlines():
                self._screen.line(_OUTPUT + line, "dim")

    def _turn_completed(self, event: pb.Event) -> None:
        self._screen.line()
        # What a model's provider, or the remote, says in the end was told when it said it.
        show_summary(self._screen, event.turn_completed, self._summary, told=event.turn_completed.message in self._errors)

    def _error(self, event: pb.Event) -> None:
        # A fatal one is the message of the turn's end, too.
        if not event.error.fatal:
            told = f"{event.error.code}: {event.error.message}"
            self._screen.parts((told, "yellow" if event.error.retryable else "red"), hang=2)

    # -- what the agent says ------------------------------------------------------------------------------------------------

    def _message(self, event: pb.Event) -> None:
        if not event.message.final:
            return
        text, told = _text(event.message.parts), self._told.pop(event.item_id, "")
        if not event.message.parts:
            # Withdrawn: what was told of it was cut off, and comes again as another message.
            if told:
                self._screen.end_piece()
                self._screen.line("(cut off)", "dim")
            return
        if told and text.startswith(told):
            if rest := text[len(told) :]:
                self._screen.piece(rest)
            self._screen.end_piece()
            return
        self._open_item(event.item_id)
        self._screen.prose(text)

    def _reasoning(self, event: pb.Event) -> None:
        self._screen.line()
        self._screen.prose(event.reasoning.summary or event.reasoning.text, "dim italic")

    def _content_delta(self, event: pb.Event) -> None:
        delta = event.content_delta
        if delta.channel == pb.CHANNEL_TEXT and self._screen.live:
            self._open_item(event.item_id)
            self._told[event.item_id] = self._told.get(event.item_id, "") + delta.data
            self._screen.piece(delta.data)
        elif delta.channel in (pb.CHANNEL_STDOUT, pb.CHANNEL_STDERR):
            self._output(event.item_id, delta.data)

    def _plan_updated(self, event: pb.Event) -> None:
        entries = event.plan_updated.entries
        for position, entry in enumerate(entries, 1):
            if entry.status == "in_progress":
                self._screen.line()
                self._screen.parts((f"▸ {entry.text}", "bold"), (f"  {position}/{len(entries)}", "dim"), hang=2)

    # -- what the agent does ------------------------------------------------------------------------------------------------

    def _tool_call(self, event: pb.Event) -> None:
        call = event.tool_call
        # A pending one may not be whole yet, or wait for leave; one that asks is told by its question.
        if call.call_id in self._begun or call.status == pb.TOOL_STATUS_PENDING or call.tool_kind == pb.TOOL_KIND_ASK:
            return
        self._begun.add(call.call_id)
        if call.command:
            self._screen.parts(("  $ ", "cyan"), (call.command, "cyan"))
        elif call.tool_kind in _CHANGING:
            self._untold[call.call_id] = call.title or call.name
        else:
            self._screen.parts(("  · ", "cyan"), (call.title or call.name, ""), hang=4)

    def _tool_result(self, event: pb.Event) -> None:
        result = event.tool_result
        streamed = self._told.pop(result.call_id, "")
        if rest := self._rest.pop(result.call_id, ""):
            self._screen.line(_OUTPUT + rest, "dim")
        failed = result.status != pb.TOOL_OUTCOME_COMPLETED
        if (untold := self._untold.pop(result.call_id, "")) and failed:
            self._screen.parts(("  · ", "cyan"), (untold, ""), hang=4)
        # What an edit did is told by its file_changed.
        if not streamed and (failed or result.HasField("exit_code")):
            for line in _text(result.parts).splitlines():
                self._screen.line(_OUTPUT + line, "dim")
        if failed:
            outcome = pb.ToolOutcome.Name(result.status).removeprefix("TOOL_OUTCOME_").lower().replace("_", " ")
            code = f", exit code {result.exit_code}" if result.exit_code else ""
            self._screen.line(f"{_OUTPUT}{outcome}{code}", "red")

    def _file_changed(self, event: pb.Event) -> None:
        if event.file_changed.turn_total:
            return
        for change in event.file_changed.changes:
            _show_change(self._screen, change)

    def _subagent_updated(self, event: pb.Event) -> None:
        agent = event.subagent_updated
        if (agent.agent_id, agent.state) in self._agents:
            return
        self._agents.add((agent.agent_id, agent.state))
        if agent.state == pb.SUBAGENT_STATE_RUNNING:
            self._screen.parts(("  ⇢ ", "magenta"), (f"sub-agent: {agent.name}", ""), hang=4)
        else:
            state = pb.SubagentState.Name(agent.state).removeprefix("SUBAGENT_STATE_").lower()
            self._screen.parts(("  ⇠ ", "magenta"), (f"sub-agent: {agent.name}", ""), (f"  {state}", "dim"), hang=4)

    def _context_compacted(self, event: pb.Event) -> None:
        compacted = event.context_compacted
        if compacted.trigger == pb.COMPACTION_TRIGGER_RESET:
            self._screen.label("memory", "the agent began its conversation anew", "yellow")
            return
        tokens = f" ({compacted.tokens_before:,} tokens before)" if compacted.tokens_before else ""
        self._screen.label("memory", f"the agent goes on with a summary of what was before{tokens}", "dim")

    def _provider_raw(self, event: pb.Event) -> None:
        raw = event.provider_raw
        self._screen.parts((f"  · {raw.provider} said something that this version does not know: {raw.native_type}", "dim"), hang=4)

    def _network_access(self, event: pb.Event) -> None:
        access = event.network_access
        host = f"{access.host}:{access.port}" if access.host else "the network"
        times = f", {access.count} times" if access.count > 1 else ""
        why = access.message.removeprefix(f"{host}: ")
        if access.decision == pb.NETWORK_DECISION_DENIED:
            self._screen.label("refused", f"{host}{times}: {why}", "yellow")
        elif access.reason:
            self._screen.label("network", f"{host}{times}: {why}", "dim")
        elif access.ended:
            self._screen.label("network", f"{host}{times}, {access.bytes_in:,} bytes in, {access.bytes_out:,} out", "dim")

    def _git_updated(self, event: pb.Event) -> None:
        git = event.git_updated
        if git.action == pb.GIT_ACTION_CLONED:
            # Which may be ahead of the branch: a user's edits.
            self._screen.label("fetched", f"{git.branch or git.base_branch}; the turn begins at {git.sha[:SHORT]}")
        elif git.action == pb.GIT_ACTION_BRANCHED:
            self._screen.label("branch", git.branch)
        elif git.action == pb.GIT_ACTION_COMMITTED and not event.turn_id:
            # The end of a turn tells of its own.
            self._screen.label("commit", f"{git.sha[:SHORT]}  {git.message.partition(chr(10))[0]}")
            self._screen.label("diff", counts(git.files_changed, git.additions, git.deletions))
        elif git.action == pb.GIT_ACTION_CHECKPOINTED:
            self._screen.label("kept", f"the work so far, as {git.sha[:SHORT]}", "dim")
        elif git.action == pb.GIT_ACTION_PUSHED and not event.turn_id:
            self._screen.label("pushed", f"{git.branch} at {git.sha[:SHORT]}")
        elif git.action == pb.GIT_ACTION_PUSH_FAILED:
            self._screen.label("push", f"refused{', the commit is kept' if git.sha else ''}: {git.message}", "red")
            advised = what_to_do(git.refusal, event.session_id, self._data_dir, repository=git.repository, begun=bool(git.sha))
            for line in advised:
                self._screen.label("", line, "yellow")
        elif git.action == pb.GIT_ACTION_SKIPPED:
            for path in git.skipped:
                self._screen.label("left out", f"{path.path} ({path.reason})", "yellow")
            if git.skipped_count > len(git.skipped):
                self._screen.label("left out", f"{git.skipped_count - len(git.skipped)} more", "yellow")

    def _pull_request_updated(self, event: pb.Event) -> None:
        pull = event.pull_request_updated
        self._screen.label("pull", f"{how_far(pull)}, {pull.head} into {pull.base} at {pull.head_commit[:SHORT]}")
        self._screen.label("", pull.url)

    # -- text that grows ----------------------------------------------------------------------------------------------------

    def _open_item(self, item: str) -> None:
        """A blank line before something that is said."""
        if item not in self._begun:
            self._begun.add(item)
            self._screen.line()

    def _output(self, item: str, data: str) -> None:
        """Whole lines are printed as they come."""
        *lines, self._rest[item] = (self._rest.get(item, "") + data).split("\n")
        self._told[item] = "output"
        for line in lines:
            self._screen.line(_OUTPUT + line, "dim")


def show_approval(screen: Screen, asked: pb.ApprovalRequested, mark: str) -> None:
    """What leave is asked for: all that there is to be seen of it."""
    # The usual title of a short command has all of it.
    told = asked.tool.command and asked.title == f"{asked.tool.name}: {asked.tool.command}"
    title = asked.title or "may the agent go on?"
    screen.parts((mark, "bold yellow"), (title, "bold"), hang=None if told else 2)
    for line in (asked.description if told else asked.tool.command or asked.description).splitlines():
        screen.line(_OUTPUT + line, "cyan" if asked.tool.command and not told else "")
    for change in asked.changes:
        _show_change(screen, change)
        for line in change.patch.splitlines():
            screen.line(_OUTPUT + line, diff_style(line))
    if asked.tool.input_json and not asked.tool.command and not asked.changes:
        screen.line(_OUTPUT + asked.tool.input_json)
    if asked.tool.input_json == _CUT_INPUT or any(change.patch_truncated or change.binary for change in asked.changes):
        screen.prose(f"{_OUTPUT}this is not all of it: the rest is too large, or no text", "bold red")


def _show_change(screen: Screen, change: pb.FileChange) -> None:
    mark, style = _OPERATIONS.get(change.operation, ("~", ""))
    moved = f"{change.old_path} → " if change.old_path else ""
    screen.parts((f"  {mark} ", style), (f"{moved}{change.path}", ""), (_counts(change), "dim"), hang=4)


def _text(parts: Iterable[pb.Part]) -> str:
    return "\n".join(part.text for part in parts)


def _counts(change: pb.FileChange) -> str:
    if change.binary:
        return "  binary"
    return f"  +{change.additions} -{change.deletions}" if change.additions or change.deletions else ""


def _who(resolved: pb.RequestResolved) -> str:
    by = f"  by {resolved.resolved_by}" if resolved.resolved_by else ""
    return f"{by}  ({resolved.note})" if resolved.note else by


def _exit(worker: pb.WorkerUpdated) -> str:
    return f", exit code {worker.exit_code}" if worker.HasField("exit_code") else ""
