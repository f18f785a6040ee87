"""Everything that can go wrong, as types.

Raised where it is known; mapped to gRPC once, in `server/api/status.py`. A message is short, lower case and states facts; values that
vary are also in `metadata`, for programs.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from server.kernel.push_refusal import PushRefusal

MESSAGE_BYTES = 1000
VALUE_BYTES = 300
"""Longer ones are cut: they may hold what a caller sent, and an answer's headers have room for 8 KiB, in which a byte can take four."""


class KernelError(Exception):
    """Root of every expected failure. `field` names the request field at fault, when one is."""

    def __init__(self, message: str, *, field: str = "", **metadata: str) -> None:
        self.message = _cut(message, MESSAGE_BYTES)
        super().__init__(self.message)
        self.field = field
        self.metadata = {name: _cut(value, VALUE_BYTES) for name, value in metadata.items()}


def _cut(text: str, limit: int) -> str:
    """At most `limit` bytes of UTF-8."""
    if len(text) * 4 <= limit or len(data := text[: limit + 1].encode(errors="replace")) <= limit:
        return text
    return data[: limit - 3].decode(errors="ignore") + "..."


# -- what a caller did wrong ------------------------------------------------------------------------------------------------


class InvalidField(KernelError):
    """A field of the request is missing or malformed."""

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}", field=field)


class RequestMalformed(KernelError):
    """The bytes of a request are no message."""

    def __init__(self) -> None:
        super().__init__("the bytes of the request are not a message of this call")


class RequestTooLarge(KernelError):
    """A field of the request is larger than it may be."""

    def __init__(self, field: str, *, size: int, limit: int) -> None:
        super().__init__(f"{field}: {size:,} characters, at most {limit:,} are allowed", field=field, size=str(size), limit=str(limit))


class MessageTooLarge(KernelError):
    """The request as a whole is larger than any may be."""

    def __init__(self, *, size: int, limit: int) -> None:
        super().__init__(f"the request has {size:,} bytes, at most {limit:,} are allowed", size=str(size), limit=str(limit))


class CallUnknown(KernelError):
    """There is no such call on this server."""

    def __init__(self, path: str) -> None:
        super().__init__(f"there is no call {path} on this server", path=path)


class ProviderUnknown(KernelError):
    """No such agent is installed on this server."""

    def __init__(self, provider: str, known: list[str]) -> None:
        super().__init__(
            f"provider {provider!r} is not installed; known: {', '.join(known) or 'none'}",
            field="provider",
            provider=provider,
            known=",".join(known),
        )


class ModelNotAllowed(KernelError):
    """This server does not let this agent use this model."""

    def __init__(self, model: str, reason: str) -> None:
        super().__init__(f"model {model!r} {reason}", field="model", model=model)


class ProviderNotConfigured(KernelError):
    """The agent needs a model, and this server has no credential for it."""

    def __init__(self, provider: str, variables: list[str]) -> None:
        super().__init__(
            f"provider {provider!r} needs a model, and this server has no credential for one; set {' or '.join(variables)}",
            field="provider",
            provider=provider,
            variables=",".join(variables),
        )


class HostNotAllowed(KernelError):
    """This server does not let workers connect to this host."""

    def __init__(self, rule: str, allowed: str) -> None:
        said = f"allowed are {allowed}" if allowed else "none is allowed"
        super().__init__(f"{rule} is not allowed by this server (TREADLE_EGRESS_HOSTS): {said}", field="allowed_hosts", host=rule)


class EgressNotConfigured(KernelError):
    """This server has no way out for workers."""

    def __init__(self) -> None:
        message = "this server has no proxy for workers: set TREADLE_EGRESS_PROXY, or use `treadle up` with its gateway"
        super().__init__(message, field="allowed_hosts")


class CredentialNotFound(KernelError):
    """There is no such credential, or it is not yours."""

    def __init__(self, id_: str) -> None:
        super().__init__(f"there is no credential {id_!r}", credential_id=id_)


class CredentialUnreadable(KernelError):
    """The server has lost the key under which the credential is sealed."""

    def __init__(self, host: str) -> None:
        super().__init__(f"the credential for {host} cannot be read by this server; store it again", host=host)


class CredentialMissing(KernelError):
    """The caller has stored no credential for the host."""

    def __init__(self, host: str) -> None:
        super().__init__(f"you have stored no credential for {host}", host=host)


class CredentialRejected(KernelError):
    """The host does not take the credential: it was revoked, has expired, or a single sign-on is due (`sso_url`)."""

    def __init__(self, host: str, reason: str, *, sso_url: str = "") -> None:
        more = {"sso_url": sso_url} if sso_url else {}
        super().__init__(f"{host} does not take your credential: {reason}", host=host, reason=reason, **more)


class LoginExpired(KernelError):
    """The user has not entered the code in time."""

    def __init__(self, host: str) -> None:
        super().__init__(f"the code for {host} has expired; begin the login anew", host=host)


class LoginDenied(KernelError):
    """The user has said no."""

    def __init__(self, host: str) -> None:
        super().__init__(f"the login at {host} was refused there; nothing was stored", host=host)


class LoginTooSoon(KernelError):
    """It is not time yet to ask the host again, by its own word."""

    def __init__(self, host: str, *, seconds: int) -> None:
        super().__init__(
            f"{host} may be asked again in {seconds} s whether the code was entered", host=host, retry_after_seconds=str(seconds)
        )


class TooManyLogins(KernelError):
    """The caller has as many logins open as may be, or has begun as many in a short time."""

    def __init__(self, *, seconds: int) -> None:
        message = f"you have begun many logins; finish one of them, or begin another in {seconds} s"
        super().__init__(message, retry_after_seconds=str(seconds))


class WebhooksNotConfigured(KernelError):
    """This server has no secret by which it could tell a code host from anybody else."""

    def __init__(self) -> None:
        super().__init__("this server takes no webhooks: its operator has not set TREADLE_GITHUB_WEBHOOK_SECRET")


class SignatureInvalid(KernelError):
    """A webhook is not signed, or not with a secret of this server's."""

    def __init__(self) -> None:
        super().__init__("the delivery is not signed with a secret of this server: X-Hub-Signature-256 is missing or another")


class CodeHostForbidden(KernelError):
    """The credential may not do this."""

    def __init__(self, host: str, reason: str) -> None:
        super().__init__(f"{host} does not let your credential do this: {reason}", host=host, reason=reason)


class CodeHostLimited(KernelError):
    """The host lets this credential make no more requests for now."""

    def __init__(self, host: str, *, seconds: int) -> None:
        super().__init__(f"{host} takes no more requests of you for {seconds} s", host=host, retry_after_seconds=str(seconds))


class CodeHostRefused(KernelError):
    """The host refused, for a reason of its own."""

    def __init__(self, host: str, reason: str) -> None:
        super().__init__(f"{host} refused: {reason}", host=host, reason=reason)


class UnsupportedByHost(KernelError):
    """This kind of code host cannot do that, or this server does not know how to ask it."""

    def __init__(self, host: str, what: str) -> None:
        message = f"{host} is no GitHub that this server knows (its operator's TREADLE_GITHUB_APIS), and {what} can be had of GitHub only"
        super().__init__(message, host=host)


class RemoteNotFound(KernelError):
    """The host has no such thing, or hides it from this credential."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the code host has no {what}, or does not show it to you", what=what)


class BranchExists(KernelError):
    """There is a branch with this name."""

    def __init__(self, branch: str) -> None:
        super().__init__(f"there is a branch {branch!r} already", branch=branch)


class PullRequestExists(KernelError):
    """There is an open pull request for these branches."""

    def __init__(self, head: str, base: str) -> None:
        super().__init__(f"there is an open pull request from {head!r} into {base!r} already", head=head, base=base)


class ContentChanged(KernelError):
    """The file is not what the caller has seen."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path!r} has changed since you read it; read it again", path=path)


class ContentTooLarge(KernelError):
    """The file is larger than this call gives out."""

    def __init__(self, path: str, *, size: int, limit: int) -> None:
        super().__init__(f"{path!r} has {size:,} bytes; at most {limit:,} are given out here", path=path, size=str(size), limit=str(limit))


class NoCommits(KernelError):
    """There is nothing to merge."""

    def __init__(self, head: str, base: str) -> None:
        super().__init__(f"{head!r} has no commits that {base!r} has not", head=head, base=base)


class MergeConflict(KernelError):
    """The branches cannot be merged without a person."""

    def __init__(self, into: str, from_: str) -> None:
        super().__init__(f"{from_!r} cannot be merged into {into!r} without conflicts", into=into, **{"from": from_})


class NotMergeable(KernelError):
    """The host does not let the pull request be merged."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(f"pull request {number} cannot be merged: {reason}", number=str(number), reason=reason)


class MergeabilityUnknown(KernelError):
    """The host did not find out in time whether the pull request can be merged."""

    def __init__(self, number: int, *, seconds: float) -> None:
        super().__init__(f"after {seconds:g} s the host does not know whether pull request {number} can be merged", number=str(number))


class RepositoryNotAllowed(KernelError):
    """The repository's URL has a form, a scheme or a host that this server does not allow."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"repository is not allowed: {reason}", field="repository_url", reason=reason)


class RepositoryUnreachable(KernelError):
    """Git could not read the repository; `reason` is what Git said, without credentials. Where it may be for want of one, `credential` says
    whether there is none for the `host` (MISSING) or one that did not help (REFUSED)."""

    def __init__(self, reason: str, *, host: str = "", credential: str = "") -> None:
        more = {"host": host, "credential": credential} if credential else {}
        super().__init__(f"repository cannot be read: {reason}", field="repository_url", reason=reason, **more)
        self.reason = reason


class BranchUnknown(KernelError):
    """The remote has no such base branch."""

    def __init__(self, branch: str) -> None:
        super().__init__(f"the repository has no branch {branch!r}", field="base_branch", branch=branch)


class BranchDiverged(KernelError):
    """A session's branch went on on the remote, and the session's own commits that were never pushed do not fit to that."""

    def __init__(self, branch: str, *, theirs: str, ours: str, paths: Sequence[str] = ()) -> None:
        self.kind = PushRefusal.CONFLICT if paths else PushRefusal.REWRITTEN
        self.ours = ours
        why = "its history was rewritten"
        if paths:
            shown = ", ".join(path[:100] for path in paths[:3])
            why = f"both changed {shown}" + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
        super().__init__(
            f"the branch {branch!r} is at {theirs[:12]} on the remote, which cannot be merged with {ours[:12]}, the session's newest "
            f"commit, which was never pushed: {why}. Nothing is lost",
            branch=branch,
            theirs=theirs,
            ours=ours,
        )


class SessionNotFound(KernelError):
    """The session does not exist, or is not yours; the two look the same."""

    def __init__(self, session_id: str) -> None:
        super().__init__(f"session {session_id!r} does not exist", session_id=session_id)


class TurnActive(KernelError):
    """The session has a turn that has not ended yet."""

    def __init__(self, session_id: str, turn_id: str, *, edit: bool = False) -> None:
        """`edit`: what was asked for is refused only while the turn begins or ends, mostly for a moment."""
        why, more = "the session's turn has not ended", {}
        if edit:
            why = "the turn is beginning or ending; files can be changed while its agent works, and once it has ended"
            more = {"edit": "true"}
        super().__init__(why, session_id=session_id, turn_id=turn_id, **more)


class HeadMoved(KernelError):
    """The session's newest commit is another one than the caller has seen."""

    def __init__(self, given: str, current: str) -> None:
        super().__init__(f"the session's newest commit is {current[:12] or 'none yet'}; read it again", given=given, current=current)


class SnapshotNotFound(KernelError):
    """The session has no such snapshot."""

    def __init__(self, named: str) -> None:
        super().__init__(
            f"snapshot {named!r} does not exist; say the number of one, its commit, the id of a turn that has ended, 0 for the "
            "beginning, or head (`treadle history` lists them)",
            snapshot=named,
        )


class SnapshotExpired(KernelError):
    """The snapshot was older than this server keeps them."""

    def __init__(self, named: str) -> None:
        super().__init__(
            f"snapshot {named!r} was older than this server keeps them (TREADLE_RETENTION_DAYS); ListSnapshots and `treadle history` say "
            "which there are",
            snapshot=named,
        )


class SnapshotUnavailable(KernelError):
    """A commit is not on this server, and cannot be fetched from the object store now."""

    def __init__(self, commit: str, reason: str) -> None:
        super().__init__(f"commit {commit[:12]} cannot be had now: {reason}", commit=commit, reason=reason)


class SnapshotDamaged(KernelError):
    """What the object store has of a commit is not what was stored."""

    def __init__(self, commit: str, reason: str) -> None:
        super().__init__(f"the snapshot of commit {commit[:12]} is damaged: {reason}", commit=commit, reason=reason)


class InputNotFound(KernelError):
    """The session has no such input."""

    def __init__(self, input_id: str) -> None:
        super().__init__(f"input {input_id!r} does not exist", input_id=input_id)


class InputNotQueued(KernelError):
    """The input cannot be changed any more: an agent has it or is getting it, or it was cancelled."""

    def __init__(self, input_id: str, *, state: str, turn_id: str) -> None:
        how = (
            "was cancelled" if state == "CANCELLED" else "is being handed to the agent" if state == "OFFERED" else "was given to the agent"
        )
        super().__init__(f"the input {how}", input_id=input_id, state=state, turn_id=turn_id)


class TooManyInputs(KernelError):
    """The session's queue is full."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} inputs are queued, which is the limit of a session", limit=str(limit))


class RequestNotFound(KernelError):
    """The session's agents have asked nothing under this id."""

    def __init__(self, request_id: str) -> None:
        super().__init__(f"request {request_id!r} does not exist", request_id=request_id)


class RequestResolved(KernelError):
    """The request was answered before, expired, or is not waited for any more. Who was first, counts."""

    def __init__(self, request_id: str, *, outcome: str, resolved_by: str) -> None:
        how = f"was resolved by {resolved_by!r}" if resolved_by else "is not waited for any more"
        super().__init__(f"the request {how} ({outcome})", request_id=request_id, outcome=outcome, resolved_by=resolved_by)


class RequestIdReused(KernelError):
    """The request_id was used before for a different request."""

    def __init__(self, request_id: str) -> None:
        super().__init__(f"request_id {request_id!r} was used for a different request", field="request_id", request_id=request_id)


class SequenceAhead(KernelError):
    """The caller claims to have events that the log does not hold."""

    def __init__(self, after_seq: int, last_seq: int) -> None:
        super().__init__(
            f"after_seq {after_seq} is beyond the last event, {last_seq}",
            field="after_seq",
            after_seq=str(after_seq),
            last_seq=str(last_seq),
        )


class NothingToResume(KernelError):
    """The caller claims to have events of a turn that this very request has not started."""

    def __init__(self) -> None:
        super().__init__(
            "no call with this request_id has started a turn, so there are no events to go on behind; "
            "resume the session, or call without last-event-id"
        )


class VersionConflict(KernelError):
    """Somebody else changed the resource since the caller read it."""

    def __init__(self, given: int, current: int) -> None:
        super().__init__(f"version {given} was given, version {current} is current; read it again", given=str(given), current=str(current))


class TooManyTurns(KernelError):
    """As many turns wait for a place as may."""

    def __init__(self, limit: int, *, whose: str) -> None:
        super().__init__(
            f"{limit} turns wait for their start already, which is this {whose}'s limit; try again later", limit=str(limit), whose=whose
        )


class StorageExhausted(KernelError):
    """The snapshots of the caller's tenant take as much as they may."""

    def __init__(self, *, used: int, limit: int) -> None:
        super().__init__(
            f"your tenant's snapshots take {used / 2**20:,.0f} MiB, of {limit / 2**20:,.0f} that they may; delete sessions",
            used=str(used),
            limit=str(limit),
        )


class TooManyStreams(KernelError):
    """As many streams are open as may be without an API key."""

    def __init__(self, limit: int, *, whose: str = "this server's") -> None:
        super().__init__(f"{limit} such streams are open, which is {whose} limit; try again later", limit=str(limit))


class ApiKeyMissing(KernelError):
    """The call carries no API key."""

    def __init__(self) -> None:
        super().__init__("an API key is needed: metadata `authorization: Bearer <key>`")


class ApiKeyInvalid(KernelError):
    """The API key is malformed, unknown or revoked; which of these is not told."""

    def __init__(self) -> None:
        super().__init__("the API key is not valid")


class ApiKeyExpired(KernelError):
    """The API key has ended. Only who has all of it is told."""

    def __init__(self, expired_at: datetime) -> None:
        super().__init__(f"the API key expired at {expired_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}")


class TicketInvalid(KernelError):
    """The ticket is malformed, over, for another session, or of a key that was revoked or has expired; which of these is not told."""

    def __init__(self) -> None:
        super().__init__("the ticket is not valid for this session, or is over; ask for a new one with CreateStreamTicket")


class PathInvalid(KernelError):
    """No such path can be in a session, or not with such content."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"path {path!r} {reason}", field="path", path=path, reason=reason)


class PathNotFound(KernelError):
    """The session holds nothing at this path."""

    def __init__(self, path: str) -> None:
        super().__init__(f"there is nothing at {path!r}", path=path)


class NotAFile(KernelError):
    """There is something else at this path, such as a directory or a symbolic link."""

    def __init__(self, path: str, kind: str) -> None:
        super().__init__(f"{path!r} is no file: {kind.lower()}", path=path, kind=kind)


class NotADirectory(KernelError):
    """There is a file at this path."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path!r} is no directory", path=path)


class FileChanged(KernelError):
    """A file is not as the caller believes; `etag` is its current one, empty for none."""

    def __init__(self, path: str, etag: str, *, expected: str) -> None:
        if not expected:
            how = "is there already; give its etag, or leave expected_etag out to take whatever is there"
        else:
            how = "is not what has this etag (any more); read it again" if etag else "is not there (any more); read the directory again"
        super().__init__(f"{path!r} {how}", path=path, etag=etag)


class FileExists(KernelError):
    """There is something already where something shall be moved to."""

    def __init__(self, path: str) -> None:
        super().__init__(f"there is something at {path!r} already", path=path)


class TooManyEdits(KernelError):
    """As many edits of the caller are on their way as may be."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} edits of yours, or many bytes of them, are on their way; try again when they are done", limit=str(limit))


class FileTooLarge(KernelError):
    """A file, or a directory, is larger than the call can bear."""

    def __init__(self, path: str, *, limit: int) -> None:
        super().__init__(f"{path!r} is larger than {limit:,} bytes", path=path, limit=str(limit))


class FileUnusable(KernelError):
    """The system does not let the server do this in a workspace: it is out of room, say, or nobody may read the file."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path!r}: {reason}", path=path, reason=reason)


class StateGone(KernelError):
    """What the session held at this point is not on this server, and could not be brought here."""

    def __init__(self, commit: str, reason: str = "", *, missing: str = "") -> None:
        """`missing`: the object that was looked for, where only that is known to be gone."""
        super().__init__(f"the session's state {commit[:12]} is not on this server{reason and f': {reason}'}", commit=commit)
        self.missing = missing


class WorkspaceElsewhere(KernelError):
    """A turn runs, and its workspace cannot be reached from here; what was committed can be read with `at`."""

    def __init__(self, turn_id: str) -> None:
        super().__init__("the workspace of the running turn cannot be reached from this server", turn_id=turn_id)


class TreeTooLarge(KernelError):
    """A directory holds more files than the call can look at."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"there are more than {limit:,} files; ask for a part of them", limit=str(limit))


class SearchTooSlow(KernelError):
    """What was asked for took more time or memory than it may."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"it took more than {seconds:g} s, or too much memory; ask for less", seconds=f"{seconds:g}")


# -- what the server cannot do now ------------------------------------------------------------------------------------------


class ShuttingDown(KernelError):
    """The server is about to stop; running turns are not affected."""

    def __init__(self) -> None:
        super().__init__("the server is shutting down; try again, a stream with Resume after its last event")


class StoreUnavailable(KernelError):
    """The database does not answer."""

    def __init__(self) -> None:
        super().__init__("the database does not answer; try again")


class StoreRejected(KernelError):
    """The database refused a statement: a defect, or damaged data. `reason` is for the server's log, not for callers."""

    def __init__(self, reason: str) -> None:
        super().__init__("the database refused a statement", reason=reason)


class CodeHostUnavailable(KernelError):
    """The code host does not answer, or with an error of its own."""

    def __init__(self, host: str, reason: str) -> None:
        super().__init__(f"{host} cannot be asked now: {reason}", host=host, reason=reason)


TOKEN_TROUBLE = (CredentialUnreadable, CredentialRejected, CodeHostLimited, CodeHostUnavailable)
"""Why a stored credential gives no token."""


class SlowConsumer(KernelError):
    """A follower did not read for too long, and was cut off to protect the others."""

    def __init__(self, after_seq: int) -> None:
        super().__init__(f"the stream was not read for too long; go on with Resume after {after_seq}", after_seq=str(after_seq))


class SecretUnreadable(KernelError):
    """A sealed secret is not what the vault made for its place, or was sealed under a key that this server does not have."""

    def __init__(self) -> None:
        super().__init__("a sealed secret cannot be opened")


class MirrorBusy(KernelError):
    """The session's files cannot be read or written at this moment: the disk is full, say, or too many others read."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the session's files cannot be used at this moment: {reason}", reason=reason)


class DownloadStalled(KernelError):
    """A client did not read what it asked for, for too long, and was cut off to protect the others."""

    def __init__(self) -> None:
        super().__init__("the stream was not read for too long")


class UploadSizeWrong(KernelError):
    """More or fewer bytes came than the upload's first message said."""

    def __init__(self, path: str, *, size: int, received: int) -> None:
        how = "more than" if received > size else f"{received:,} of"
        super().__init__(f"{how} {size:,} bytes of {path!r} came; nothing is kept: upload it again", path=path, size=str(size))


class UploadStalled(KernelError):
    """A client did not send what it had announced, for too long."""

    def __init__(self) -> None:
        super().__init__("no more of the upload came for too long; nothing is kept: upload it again")


# -- what ends or degrades a turn (never a call) ----------------------------------------------------------------------------


class Fenced(KernelError):
    """Another replica drives the session now; this one must stop touching it."""

    def __init__(self, session_id: str, epoch: int) -> None:
        super().__init__(f"epoch {epoch} of session {session_id} is over", session_id=session_id, epoch=str(epoch))


class WorkerProtocolBroken(KernelError):
    """A worker said something that no correct worker says."""


class LaunchFailed(KernelError):
    """No worker could be started."""


class NoRoom(LaunchFailed):
    """The worker does not run yet, mostly since no machine has room for it: whoever launches it again later may find it started."""


class WorkerLost(KernelError):
    """The worker died, or cannot be reached although it should be alive."""


class BudgetExhausted(KernelError):
    """What the turn, or its user on this day, may use of models is used up."""


class WorkspaceFailed(KernelError):
    """The workspace could not be built, or not be read back."""

    def __init__(self, message: str, *, missing: str = "") -> None:
        """`missing`: the object that the mirror has lost, where that is the reason."""
        super().__init__(message)
        self.missing = missing


class PushRefused(KernelError):
    """The push did not get through: `kind` says why, `reason` is what the remote said, without credentials. The commit is kept."""

    def __init__(self, reason: str, kind: PushRefusal, **metadata: str) -> None:
        super().__init__(f"push refused: {reason}", kind=str(kind), reason=reason, **metadata)
        self.kind = kind
        self.reason = reason


class ObjectNotFound(KernelError):
    """The object store holds no such object."""

    def __init__(self, key: str) -> None:
        super().__init__(f"object {key!r} does not exist", key=key)


class ObjectCorrupt(KernelError):
    """An object's bytes are not the ones that were stored."""

    def __init__(self, key: str) -> None:
        super().__init__(f"object {key!r} does not have the expected SHA-256", key=key)


class ObjectStoreUnavailable(KernelError):
    """The object store does not answer, or answers with a failure of its own."""
