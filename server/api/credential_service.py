"""treadle.account.v1.CredentialService: gRPC to use cases, nothing else."""

from __future__ import annotations

from datetime import UTC

from server.api.convert import timestamp
from server.api.edge import Context
from server.kernel.credential import Credential, CredentialKind, Material
from server.kernel.credentials import Credentials, PutCredential
from server.kernel.errors import InvalidField
from server.kernel.identity import Principal
from server.kernel.ports.token_issuer import Pending
from treadle.account.v1 import credential_service_pb2 as pb

SERVICE = pb.DESCRIPTOR.services_by_name["CredentialService"]


class CredentialService:
    """See the comments of the proto for what each RPC promises."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    async def put_credential(self, principal: Principal, request: pb.PutCredentialRequest, _: Context) -> pb.PutCredentialResponse:
        """Store one."""
        return pb.PutCredentialResponse(credential=_message(await self._credentials.put(principal, _wanted(request))))

    async def start_login(self, principal: Principal, request: pb.StartLoginRequest, _: Context) -> pb.StartLoginResponse:
        """Begin one."""
        begun = await self._credentials.begin_login(principal, request.host)
        return pb.StartLoginResponse(
            login_id=begun.id,
            user_code=begun.user_code,
            verification_url=begun.url,
            expires_at=timestamp(begun.expires_at),
            interval_seconds=begun.interval,
        )

    async def finish_login(self, principal: Principal, request: pb.FinishLoginRequest, _: Context) -> pb.FinishLoginResponse:
        """Look whether it is done."""
        done = await self._credentials.finish_login(principal, request.login_id)
        if isinstance(done, Pending):
            return pb.FinishLoginResponse(interval_seconds=done.interval)
        return pb.FinishLoginResponse(credential=_message(done))

    async def list_credentials(self, principal: Principal, _: pb.ListCredentialsRequest, __: Context) -> pb.ListCredentialsResponse:
        """Read all."""
        return pb.ListCredentialsResponse(credentials=map(_message, await self._credentials.list(principal)))

    async def delete_credential(self, principal: Principal, request: pb.DeleteCredentialRequest, _: Context) -> pb.DeleteCredentialResponse:
        """Remove one."""
        await self._credentials.delete(principal, request.credential_id)
        return pb.DeleteCredentialResponse()


def _wanted(request: pb.PutCredentialRequest) -> PutCredential:
    """Errors: InvalidField."""
    given = [name for name in ("token", "github_oauth", "github_app") if (request.token if name == "token" else request.HasField(name))]
    if len(given) != 1:
        raise InvalidField("token", "give one of token, github_oauth and github_app")
    kind, material, expires_at = CredentialKind.TOKEN, Material(request.token), None
    if given == ["github_oauth"]:
        login = request.github_oauth
        kind, material = CredentialKind.GITHUB_OAUTH, Material(login.access_token, login.refresh_token)
        expires_at = login.expires_at.ToDatetime(UTC) if login.HasField("expires_at") else None
    elif given == ["github_app"]:
        app = request.github_app
        kind = CredentialKind.GITHUB_APP
        material = Material(app_id=app.app_id, installation_id=app.installation_id, private_key=app.private_key)
    return PutCredential(request.host, request.username, material, kind, expires_at, version=request.version)


def _message(value: Credential) -> pb.Credential:
    return pb.Credential(
        credential_id=value.id,
        host=value.host,
        kind=f"CREDENTIAL_KIND_{value.kind}",
        username=value.username,
        scopes=value.scopes,
        expires_at=timestamp(value.expires_at),
        created_at=timestamp(value.created_at),
        last_used_at=timestamp(value.last_used_at),
        version=value.version,
    )
