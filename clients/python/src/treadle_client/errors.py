"""Everything that this package raises on purpose. What a server refuses has a class per reason; the reason's facts are in `metadata`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, cast

import grpc
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status


class TreadleError(Exception):
    """The root."""


# -- what went wrong on this side ---------------------------------------------------------------------------------------------


class ConfigurationError(TreadleError):
    """The address or the API key is missing or malformed."""


class ClientClosed(TreadleError):
    """The client was closed, perhaps while this call was waiting."""

    def __init__(self) -> None:
        super().__init__("the client is closed")


class SequenceBroken(TreadleError):
    """The server broke its promise that events are numbered without gap or repetition. Nothing of the frame was handed out."""

    def __init__(self, session_id: str, *, expected: int, got: int) -> None:
        super().__init__(f"session {session_id}: event {expected} was due, and {got} came")
        self.session_id = session_id
        self.expected = expected
        self.got = got


# -- what a server answered ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FieldViolation:
    """A field of the request that is wrong."""

    field: str
    description: str
    reason: str


class CallFailed(TreadleError):
    """A call was answered with a failure; the subclasses say which. `reason` is the server's stable word for it, empty when the answer
    came from something else than a Treadle server."""

    retryable: ClassVar[bool] = False
    """Whether the same call may be right a moment later."""

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: tuple[FieldViolation, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.metadata: Mapping[str, str] = metadata or {}
        self.violations = violations


class NotTreadle(CallFailed):
    """Whoever answers at the address does not know the call: something else than Treadle, or a version before this client's."""


class InvalidRequest(CallFailed):
    """The request is wrong in itself; nothing was created. `violations` names the fields."""


class InvalidField(InvalidRequest):
    """A field is missing or malformed."""


class RequestMalformed(InvalidRequest):
    """The bytes are no message of this call."""


class RequestTooLarge(InvalidRequest):
    """A field is larger than it may be. Metadata: size, limit."""


class ProviderUnknown(InvalidRequest):
    """The server has no such agent. Metadata: provider, known."""


class ModelNotAllowed(InvalidRequest):
    """The server does not let the agent use this model. Metadata: model."""


class ProviderNotConfigured(CallFailed):
    """The agent needs a model, and the server has no credential for one. Metadata: provider, variables."""


class HostNotAllowed(InvalidRequest):
    """The server does not let workers connect to this host. Metadata: host."""


class EgressNotConfigured(CallFailed):
    """The server lets no worker out."""


class CredentialNotFound(CallFailed):
    """There is no such credential, or it belongs to somebody else. Metadata: credential_id."""


class CredentialUnreadable(CallFailed):
    """The server has lost the key of a stored credential; store it again. Metadata: host."""


class CredentialMissing(CallFailed):
    """You have stored no credential for the host. Metadata: host."""


class CredentialRejected(CallFailed):
    """The host does not take your credential: it was revoked, has expired, or a single sign-on is due. Metadata: host, reason, sso_url."""


class LoginExpired(CallFailed):
    """The code was not entered in time. Metadata: host."""


class LoginDenied(CallFailed):
    """The user has refused it on the host's page. Metadata: host."""


class LoginTooSoon(CallFailed):
    """It is not time yet to ask whether the code was entered. Metadata: host, retry_after_seconds."""


class TooManyLogins(CallFailed):
    """You have as many logins open as may be, or have begun as many in a short time. Metadata: retry_after_seconds."""


class CodeHostForbidden(CallFailed):
    """Your credential may not do this. Metadata: host, reason."""


class CodeHostLimited(CallFailed):
    """The host takes no more requests of you for now. Metadata: host, retry_after_seconds."""


class CodeHostRefused(CallFailed):
    """The host refused, for a reason of its own. Metadata: host, reason."""


class UnsupportedByHost(CallFailed):
    """The host is spoken to by Git alone, which cannot do that. Metadata: host."""


class RemoteNotFound(CallFailed):
    """The host has no such thing, or does not show it to you. Metadata: what."""


class BranchExists(CallFailed):
    """There is a branch with this name. Metadata: branch."""


class PullRequestExists(CallFailed):
    """There is an open pull request for these branches. Metadata: head, base."""


class ContentChanged(CallFailed):
    """The file is not what you have seen. Metadata: path."""


class ContentTooLarge(CallFailed):
    """The file is larger than what is given out. Metadata: path, size, limit."""


class NoCommits(CallFailed):
    """There is nothing to merge. Metadata: head, base."""


class MergeConflict(CallFailed):
    """The branches cannot be merged without a person. Metadata: into, from."""


class NotMergeable(CallFailed):
    """The host does not let the pull request be merged. Metadata: number, reason."""


class MergeabilityUnknown(CallFailed):
    """The host did not find out in time whether the pull request can be merged. Metadata: number."""


class RepositoryNotAllowed(InvalidRequest):
    """The server does not fetch from such an address. Metadata: reason."""


class BranchUnknown(InvalidRequest):
    """The repository has no such base branch. Metadata: branch."""


class RepositoryUnreachable(CallFailed):
    """Git cannot read the repository. Metadata: reason, in Git's words."""


class SessionNotFound(CallFailed):
    """The session does not exist, or belongs to somebody else. Metadata: session_id."""


class TurnActive(CallFailed):
    """The session's turn has not ended yet. Metadata: session_id, turn_id."""


class HeadMoved(CallFailed):
    """The session's newest commit is another one than was given. Metadata: given, current."""


class SnapshotNotFound(CallFailed):
    """The session has no such snapshot, or no such turn that has ended. Metadata: snapshot."""


class SnapshotExpired(CallFailed):
    """The snapshot was older than the server keeps them. Metadata: snapshot."""


class SnapshotDamaged(CallFailed):
    """What was stored of a commit is damaged. Metadata: commit, reason."""


class PushRefused(CallFailed):
    """The remote did not take the push; the commit is kept. Metadata: session_id, kind (a PushRefusal without its prefix), reason."""


class InputNotFound(CallFailed):
    """The session has no such input. Metadata: input_id."""


class InputNotQueued(CallFailed):
    """An agent has the input already, or it was cancelled. Metadata: input_id, state, turn_id."""


class TooManyInputs(CallFailed):
    """The session's queue is full. Metadata: limit."""


class RequestNotFound(CallFailed):
    """The session's agents have asked nothing under this id. Metadata: request_id."""


class AlreadyResolved(CallFailed):
    """Somebody else was first, or nobody waits for the answer any more. Metadata: request_id, outcome, resolved_by."""


class RequestIdReused(CallFailed):
    """The request_id was used before, for a different request. Metadata: request_id."""


class SequenceAhead(CallFailed):
    """`after_seq` is beyond the end of the log (metadata: after_seq, last_seq), or there is nothing yet to go on behind."""


class VersionConflict(CallFailed):
    """Somebody else changed the session meanwhile. Metadata: given, current."""


class TooManyTurns(CallFailed):
    """As many turns of yours, or of your tenant, wait for a place as may. Metadata: limit, whose."""


class StorageExhausted(CallFailed):
    """The snapshots of your tenant take what they may. Metadata: used, limit (bytes)."""


class TooManyStreams(CallFailed):
    """The server has as many such streams open as it may, for callers that it does not know. Metadata: limit."""


class FileProblem(CallFailed):
    """A file, or what is at its path, is not as the call needs it; the subclasses say what is the matter."""


class PathInvalid(InvalidRequest):
    """No such path can be in a session, or not with such content. Metadata: path, reason."""


class FileNotFound(FileProblem):
    """There is nothing at the path. Metadata: path."""


class NotAFile(FileProblem):
    """There is something else at the path, such as a directory or a link. Metadata: path, kind."""


class NotADirectory(FileProblem):
    """The path leads through a file or a link. Metadata: path."""


class FileExists(FileProblem):
    """There is something at the path already. Metadata: path."""


class FileConflict(FileProblem):
    """The file is not as `expected_etag` says. Metadata: path, etag (its current one; empty for none)."""


class UploadBroken(FileProblem):
    """Other bytes came than were announced, or none for too long; nothing is kept: upload it again. Metadata: path, size."""


class FileTooLarge(FileProblem):
    """The file is larger than the call can bear. Metadata: path, limit."""


class FileUnusable(FileProblem):
    """The system does not let the server do this in a running turn's workspace. Metadata: path, reason."""


class TreeTooLarge(FileProblem):
    """There are more files than the call can look at. Metadata: limit."""


class StateGone(FileProblem):
    """The server does not hold this state of the session any more. Metadata: commit."""


class WorkspaceElsewhere(FileProblem):
    """A turn runs, and its workspace cannot be reached from the server. Metadata: turn_id."""


class SearchTooSlow(CallFailed):
    """What was asked for takes too much time or memory: ask for less. Metadata: seconds."""


class TooManyEdits(CallFailed):
    """As many edits of yours are on their way as may be. Metadata: limit."""


class RouteUnknown(CallFailed):
    """There is no such call: the gateway or the server is older than this client, or the address is another service's."""


class UpgradeRefused(CallFailed):
    """The gateway speaks no WebSocket, which this client does not ask for."""


class NotAuthenticated(CallFailed):
    """The server does not know who calls."""


class ApiKeyMissing(NotAuthenticated):
    """The call carried no API key; something between here and the server took it away."""


class ApiKeyInvalid(NotAuthenticated):
    """The API key is malformed, unknown or revoked."""


class ApiKeyExpired(NotAuthenticated):
    """The API key was made for a time, which is over."""


class TicketInvalid(NotAuthenticated):
    """The ticket for an event stream is not valid for this session, or is over."""


class ServerDefect(CallFailed):
    """The server has a defect. Metadata: error_id, under which its log tells more."""


class Unavailable(CallFailed):
    """The server cannot serve now. Streams, reads and creates try again by themselves, and raise this when it took too long."""

    retryable = True


class Unreachable(Unavailable):
    """No Treadle server answered: the connection was refused, cut, or silent."""


class ServerUnreachable(Unreachable):
    """The gateway answered, and no server behind it did."""


class RateLimited(Unavailable):
    """The gateway lets no more requests through for now. Nothing was carried out."""


class RequestTooSlow(Unavailable):
    """The request did not reach the gateway in time. Nothing was carried out."""


class DeadlineExceeded(Unavailable):
    """The gateway waited too long for the server's answer. The call may have been carried out."""


class ShuttingDown(Unavailable):
    """The server is about to stop. Turns go on."""


class StoreUnavailable(Unavailable):
    """The server's database does not answer."""


class SnapshotUnavailable(Unavailable):
    """A commit cannot be fetched from the object store now. Metadata: commit, reason."""


class CodeHostUnavailable(Unavailable):
    """The code host does not answer, or with an error of its own. Whether a change was made is not known. Metadata: host, reason."""


class MirrorBusy(Unavailable):
    """The session's files cannot be used at this moment. Metadata: reason."""


class SlowConsumer(Unavailable):
    """The stream was not read for so long that the server ended it. Metadata: after_seq."""


BY_REASON: Mapping[str, type[CallFailed]] = {
    "INVALID_FIELD": InvalidField,
    "REQUEST_MALFORMED": RequestMalformed,
    "REQUEST_TOO_LARGE": RequestTooLarge,
    "PROVIDER_UNKNOWN": ProviderUnknown,
    "MODEL_NOT_ALLOWED": ModelNotAllowed,
    "PROVIDER_NOT_CONFIGURED": ProviderNotConfigured,
    "HOST_NOT_ALLOWED": HostNotAllowed,
    "EGRESS_NOT_CONFIGURED": EgressNotConfigured,
    "CREDENTIAL_NOT_FOUND": CredentialNotFound,
    "CREDENTIAL_UNREADABLE": CredentialUnreadable,
    "CREDENTIAL_MISSING": CredentialMissing,
    "CREDENTIAL_REJECTED": CredentialRejected,
    "LOGIN_EXPIRED": LoginExpired,
    "LOGIN_DENIED": LoginDenied,
    "LOGIN_TOO_SOON": LoginTooSoon,
    "TOO_MANY_LOGINS": TooManyLogins,
    "CODE_HOST_FORBIDDEN": CodeHostForbidden,
    "CODE_HOST_LIMITED": CodeHostLimited,
    "CODE_HOST_REFUSED": CodeHostRefused,
    # Of code hosts, which are no clients of this kind.
    "WEBHOOKS_NOT_CONFIGURED": CallFailed,
    "SIGNATURE_INVALID": NotAuthenticated,
    "UNSUPPORTED_BY_HOST": UnsupportedByHost,
    "REMOTE_NOT_FOUND": RemoteNotFound,
    "BRANCH_EXISTS": BranchExists,
    "PULL_REQUEST_EXISTS": PullRequestExists,
    "CONTENT_CHANGED": ContentChanged,
    "CONTENT_TOO_LARGE": ContentTooLarge,
    "NO_COMMITS": NoCommits,
    "MERGE_CONFLICT": MergeConflict,
    "NOT_MERGEABLE": NotMergeable,
    "MERGEABILITY_UNKNOWN": MergeabilityUnknown,
    "CODE_HOST_UNAVAILABLE": CodeHostUnavailable,
    "REPOSITORY_NOT_ALLOWED": RepositoryNotAllowed,
    "REPOSITORY_UNREACHABLE": RepositoryUnreachable,
    "BRANCH_UNKNOWN": BranchUnknown,
    "SESSION_NOT_FOUND": SessionNotFound,
    "TURN_ACTIVE": TurnActive,
    "HEAD_MOVED": HeadMoved,
    "SNAPSHOT_NOT_FOUND": SnapshotNotFound,
    "SNAPSHOT_EXPIRED": SnapshotExpired,
    "SNAPSHOT_DAMAGED": SnapshotDamaged,
    "SNAPSHOT_UNAVAILABLE": SnapshotUnavailable,
    "PUSH_REFUSED": PushRefused,
    "INPUT_NOT_FOUND": InputNotFound,
    "INPUT_NOT_QUEUED": InputNotQueued,
    "TOO_MANY_INPUTS": TooManyInputs,
    "REQUEST_NOT_FOUND": RequestNotFound,
    "REQUEST_RESOLVED": AlreadyResolved,
    "REQUEST_ID_REUSED": RequestIdReused,
    "SEQUENCE_AHEAD": SequenceAhead,
    "VERSION_CONFLICT": VersionConflict,
    "STORAGE_QUOTA": StorageExhausted,
    "TOO_MANY_STREAMS": TooManyStreams,
    "TOO_MANY_TURNS": TooManyTurns,
    "API_KEY_MISSING": ApiKeyMissing,
    "API_KEY_INVALID": ApiKeyInvalid,
    "API_KEY_EXPIRED": ApiKeyExpired,
    "TICKET_INVALID": TicketInvalid,
    "INTERNAL": ServerDefect,
    "PATH_INVALID": PathInvalid,
    "FILE_NOT_FOUND": FileNotFound,
    "NOT_A_FILE": NotAFile,
    "NOT_A_DIRECTORY": NotADirectory,
    "FILE_EXISTS": FileExists,
    "FILE_CHANGED": FileConflict,
    "FILE_TOO_LARGE": FileTooLarge,
    "UPLOAD_SIZE_WRONG": UploadBroken,
    "UPLOAD_STALLED": UploadBroken,
    "FILE_UNUSABLE": FileUnusable,
    "TREE_TOO_LARGE": TreeTooLarge,
    "STATE_GONE": StateGone,
    "WORKSPACE_ELSEWHERE": WorkspaceElsewhere,
    "SEARCH_TOO_SLOW": SearchTooSlow,
    "TOO_MANY_EDITS": TooManyEdits,
    "MIRROR_BUSY": MirrorBusy,
    "SHUTTING_DOWN": ShuttingDown,
    "STORE_UNAVAILABLE": StoreUnavailable,
    "SLOW_CONSUMER": SlowConsumer,
    # The gateway's own, beside REQUEST_MALFORMED, REQUEST_TOO_LARGE and INTERNAL.
    "RATE_LIMITED": RateLimited,
    "SERVER_UNREACHABLE": ServerUnreachable,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "REQUEST_TOO_SLOW": RequestTooSlow,
    "ROUTE_UNKNOWN": RouteUnknown,
    "UPGRADE_REFUSED": UpgradeRefused,
    "ANSWER_UNREADABLE": ServerDefect,
}
"""The class of every reason that a server or its gateway gives."""

_BY_CODE: Mapping[grpc.StatusCode, type[CallFailed]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.UNAUTHENTICATED: NotAuthenticated,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.UNIMPLEMENTED: NotTreadle,
}
"""For reasons that are newer than this client, and answers without one."""

_CUT = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.CANCELLED,
)
"""How gRPC shows that the connection, and not a server, ended a call: there is no reason then."""


def unreachable(message: str) -> Unreachable:
    """For an end that gRPC itself does not see as a failure."""
    return Unreachable(message, code=grpc.StatusCode.UNAVAILABLE)


def failure_of(error: grpc.RpcError) -> CallFailed:
    """What gRPC raised, as one of ours."""
    # What gRPC raises is the call as well; its types do not say so.
    call = cast("grpc.Call", error)
    code, message = call.code(), call.details() or call.code().name
    info, violations = _details(call)
    if not info.reason and code is grpc.StatusCode.UNIMPLEMENTED:
        message = f"what answers there is not Treadle, or an older version of it ({message})"
    if not info.reason:
        return (Unreachable if code in _CUT else _BY_CODE.get(code, CallFailed))(message, code=code, violations=violations)
    kind = BY_REASON.get(info.reason) or _BY_CODE.get(code, CallFailed)
    return kind(message, code=code, reason=info.reason, metadata=dict(info.metadata), violations=violations)


def _details(call: grpc.Call) -> tuple[ErrorInfo, tuple[FieldViolation, ...]]:
    info, violations = ErrorInfo(), BadRequest()
    trailing = cast("Iterable[tuple[str, str | bytes]]", call.trailing_metadata() or ())
    for key, value in trailing:
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            for detail in Status.FromString(value).details:
                if not detail.Unpack(info):
                    detail.Unpack(violations)
    found = violations.field_violations
    return info, tuple(FieldViolation(one.field, one.description, one.reason) for one in found)
