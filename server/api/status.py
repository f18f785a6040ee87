"""The one table from kernel errors to gRPC statuses, and how a status is written."""

from __future__ import annotations

from collections.abc import Mapping

import grpc
from google.protobuf.any_pb2 import Any
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status

from server.kernel import errors
from server.kernel.errors import KernelError

DOMAIN = "treadle"

STATUS: Mapping[type[KernelError], tuple[grpc.StatusCode, str]] = {
    errors.InvalidField: (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"),
    errors.RequestMalformed: (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_MALFORMED"),
    errors.RequestTooLarge: (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_TOO_LARGE"),
    errors.MessageTooLarge: (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_TOO_LARGE"),
    errors.CallUnknown: (grpc.StatusCode.UNIMPLEMENTED, "ROUTE_UNKNOWN"),
    errors.ProviderUnknown: (grpc.StatusCode.INVALID_ARGUMENT, "PROVIDER_UNKNOWN"),
    errors.ModelNotAllowed: (grpc.StatusCode.INVALID_ARGUMENT, "MODEL_NOT_ALLOWED"),
    errors.ProviderNotConfigured: (grpc.StatusCode.FAILED_PRECONDITION, "PROVIDER_NOT_CONFIGURED"),
    errors.HostNotAllowed: (grpc.StatusCode.INVALID_ARGUMENT, "HOST_NOT_ALLOWED"),
    errors.EgressNotConfigured: (grpc.StatusCode.FAILED_PRECONDITION, "EGRESS_NOT_CONFIGURED"),
    errors.CredentialNotFound: (grpc.StatusCode.NOT_FOUND, "CREDENTIAL_NOT_FOUND"),
    errors.CredentialUnreadable: (grpc.StatusCode.FAILED_PRECONDITION, "CREDENTIAL_UNREADABLE"),
    errors.CredentialMissing: (grpc.StatusCode.FAILED_PRECONDITION, "CREDENTIAL_MISSING"),
    errors.CredentialRejected: (grpc.StatusCode.FAILED_PRECONDITION, "CREDENTIAL_REJECTED"),
    errors.LoginExpired: (grpc.StatusCode.FAILED_PRECONDITION, "LOGIN_EXPIRED"),
    errors.LoginDenied: (grpc.StatusCode.FAILED_PRECONDITION, "LOGIN_DENIED"),
    errors.LoginTooSoon: (grpc.StatusCode.RESOURCE_EXHAUSTED, "LOGIN_TOO_SOON"),
    errors.TooManyLogins: (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_LOGINS"),
    errors.WebhooksNotConfigured: (grpc.StatusCode.FAILED_PRECONDITION, "WEBHOOKS_NOT_CONFIGURED"),
    errors.SignatureInvalid: (grpc.StatusCode.UNAUTHENTICATED, "SIGNATURE_INVALID"),
    errors.CodeHostForbidden: (grpc.StatusCode.PERMISSION_DENIED, "CODE_HOST_FORBIDDEN"),
    errors.CodeHostLimited: (grpc.StatusCode.RESOURCE_EXHAUSTED, "CODE_HOST_LIMITED"),
    errors.CodeHostRefused: (grpc.StatusCode.FAILED_PRECONDITION, "CODE_HOST_REFUSED"),
    errors.CodeHostUnavailable: (grpc.StatusCode.UNAVAILABLE, "CODE_HOST_UNAVAILABLE"),
    errors.UnsupportedByHost: (grpc.StatusCode.FAILED_PRECONDITION, "UNSUPPORTED_BY_HOST"),
    errors.RemoteNotFound: (grpc.StatusCode.NOT_FOUND, "REMOTE_NOT_FOUND"),
    errors.BranchExists: (grpc.StatusCode.ALREADY_EXISTS, "BRANCH_EXISTS"),
    errors.PullRequestExists: (grpc.StatusCode.ALREADY_EXISTS, "PULL_REQUEST_EXISTS"),
    errors.ContentChanged: (grpc.StatusCode.ABORTED, "CONTENT_CHANGED"),
    errors.ContentTooLarge: (grpc.StatusCode.FAILED_PRECONDITION, "CONTENT_TOO_LARGE"),
    errors.NoCommits: (grpc.StatusCode.FAILED_PRECONDITION, "NO_COMMITS"),
    errors.MergeConflict: (grpc.StatusCode.ABORTED, "MERGE_CONFLICT"),
    errors.NotMergeable: (grpc.StatusCode.FAILED_PRECONDITION, "NOT_MERGEABLE"),
    errors.MergeabilityUnknown: (grpc.StatusCode.DEADLINE_EXCEEDED, "MERGEABILITY_UNKNOWN"),
    errors.RepositoryNotAllowed: (grpc.StatusCode.INVALID_ARGUMENT, "REPOSITORY_NOT_ALLOWED"),
    errors.RepositoryUnreachable: (grpc.StatusCode.FAILED_PRECONDITION, "REPOSITORY_UNREACHABLE"),
    errors.BranchUnknown: (grpc.StatusCode.INVALID_ARGUMENT, "BRANCH_UNKNOWN"),
    errors.SessionNotFound: (grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"),
    errors.TurnActive: (grpc.StatusCode.FAILED_PRECONDITION, "TURN_ACTIVE"),
    errors.HeadMoved: (grpc.StatusCode.ABORTED, "HEAD_MOVED"),
    errors.SnapshotNotFound: (grpc.StatusCode.NOT_FOUND, "SNAPSHOT_NOT_FOUND"),
    errors.SnapshotExpired: (grpc.StatusCode.NOT_FOUND, "SNAPSHOT_EXPIRED"),
    errors.SnapshotUnavailable: (grpc.StatusCode.UNAVAILABLE, "SNAPSHOT_UNAVAILABLE"),
    errors.SnapshotDamaged: (grpc.StatusCode.DATA_LOSS, "SNAPSHOT_DAMAGED"),
    errors.InputNotFound: (grpc.StatusCode.NOT_FOUND, "INPUT_NOT_FOUND"),
    errors.InputNotQueued: (grpc.StatusCode.FAILED_PRECONDITION, "INPUT_NOT_QUEUED"),
    errors.TooManyInputs: (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_INPUTS"),
    errors.RequestNotFound: (grpc.StatusCode.NOT_FOUND, "REQUEST_NOT_FOUND"),
    errors.RequestResolved: (grpc.StatusCode.FAILED_PRECONDITION, "REQUEST_RESOLVED"),
    errors.RequestIdReused: (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"),
    errors.SequenceAhead: (grpc.StatusCode.OUT_OF_RANGE, "SEQUENCE_AHEAD"),
    errors.NothingToResume: (grpc.StatusCode.OUT_OF_RANGE, "SEQUENCE_AHEAD"),
    errors.PushRefused: (grpc.StatusCode.FAILED_PRECONDITION, "PUSH_REFUSED"),
    errors.VersionConflict: (grpc.StatusCode.ABORTED, "VERSION_CONFLICT"),
    errors.PathInvalid: (grpc.StatusCode.INVALID_ARGUMENT, "PATH_INVALID"),
    errors.PathNotFound: (grpc.StatusCode.NOT_FOUND, "FILE_NOT_FOUND"),
    errors.NotAFile: (grpc.StatusCode.FAILED_PRECONDITION, "NOT_A_FILE"),
    errors.NotADirectory: (grpc.StatusCode.FAILED_PRECONDITION, "NOT_A_DIRECTORY"),
    errors.FileChanged: (grpc.StatusCode.ABORTED, "FILE_CHANGED"),
    errors.FileExists: (grpc.StatusCode.ALREADY_EXISTS, "FILE_EXISTS"),
    errors.TooManyEdits: (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_EDITS"),
    errors.MirrorBusy: (grpc.StatusCode.UNAVAILABLE, "MIRROR_BUSY"),
    errors.FileTooLarge: (grpc.StatusCode.FAILED_PRECONDITION, "FILE_TOO_LARGE"),
    errors.FileUnusable: (grpc.StatusCode.FAILED_PRECONDITION, "FILE_UNUSABLE"),
    errors.StateGone: (grpc.StatusCode.FAILED_PRECONDITION, "STATE_GONE"),
    errors.WorkspaceElsewhere: (grpc.StatusCode.FAILED_PRECONDITION, "WORKSPACE_ELSEWHERE"),
    errors.TreeTooLarge: (grpc.StatusCode.RESOURCE_EXHAUSTED, "TREE_TOO_LARGE"),
    errors.SearchTooSlow: (grpc.StatusCode.RESOURCE_EXHAUSTED, "SEARCH_TOO_SLOW"),
    errors.TooManyTurns: (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_TURNS"),
    errors.StorageExhausted: (grpc.StatusCode.RESOURCE_EXHAUSTED, "STORAGE_QUOTA"),
    errors.TooManyStreams: (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS"),
    errors.ApiKeyMissing: (grpc.StatusCode.UNAUTHENTICATED, "API_KEY_MISSING"),
    errors.ApiKeyInvalid: (grpc.StatusCode.UNAUTHENTICATED, "API_KEY_INVALID"),
    errors.ApiKeyExpired: (grpc.StatusCode.UNAUTHENTICATED, "API_KEY_EXPIRED"),
    errors.TicketInvalid: (grpc.StatusCode.UNAUTHENTICATED, "TICKET_INVALID"),
    errors.ShuttingDown: (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN"),
    errors.StoreUnavailable: (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE"),
    errors.UploadSizeWrong: (grpc.StatusCode.INVALID_ARGUMENT, "UPLOAD_SIZE_WRONG"),
    errors.UploadStalled: (grpc.StatusCode.RESOURCE_EXHAUSTED, "UPLOAD_STALLED"),
    errors.DownloadStalled: (grpc.StatusCode.RESOURCE_EXHAUSTED, "SLOW_CONSUMER"),
    errors.SlowConsumer: (grpc.StatusCode.RESOURCE_EXHAUSTED, "SLOW_CONSUMER"),
}


def status_of(error: KernelError) -> tuple[grpc.StatusCode, Status]:
    """The gRPC status of an expected failure. Errors: KeyError for one that must never reach a caller."""
    code, reason = STATUS[type(error)]
    details: list[ErrorInfo | BadRequest] = [ErrorInfo(reason=reason, domain=DOMAIN, metadata=error.metadata)]
    if error.field:
        violation = BadRequest.FieldViolation(field=error.field, description=error.message, reason=reason)
        details.append(BadRequest(field_violations=[violation]))
    return code, _status(code, error.message, details)


def internal(error_id: str) -> tuple[grpc.StatusCode, Status]:
    """What a caller learns of a defect: where to look in the server's log, and nothing else."""
    info = ErrorInfo(reason="INTERNAL", domain=DOMAIN, metadata={"error_id": error_id})
    code = grpc.StatusCode.INTERNAL
    return code, _status(code, f"internal error; the server's log has it under error_id {error_id}", [info])


def _status(code: grpc.StatusCode, message: str, details: list[ErrorInfo | BadRequest]) -> Status:
    packed = []
    for detail in details:
        holder = Any()
        holder.Pack(detail)
        packed.append(holder)
    return Status(code=code.value[0], message=message, details=packed)
