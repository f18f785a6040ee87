"""treadle.git.v1.WebhookService: gRPC to use cases, nothing else."""

from __future__ import annotations

from server.api.edge import Context, metadata
from server.kernel.identity import Principal
from server.kernel.ports.webhook_reader import Posted
from server.kernel.webhooks import Webhooks
from treadle.git.v1 import webhook_service_pb2 as pb

SERVICE = pb.DESCRIPTOR.services_by_name["WebhookService"]


class WebhookService:
    """See the comments of the proto for what each RPC promises."""

    def __init__(self, webhooks: Webhooks) -> None:
        self._webhooks = webhooks

    async def receive_github_event(
        self, _: Principal, request: pb.ReceiveGithubEventRequest, context: Context
    ) -> pb.ReceiveGithubEventResponse:
        """Take a delivery."""
        posted = Posted(
            body=request.payload.data,
            event=metadata(context, "x-github-event"),
            delivery=metadata(context, "x-github-delivery"),
            signature=metadata(context, "x-hub-signature-256"),
        )
        outcome = await self._webhooks.take(posted)
        return pb.ReceiveGithubEventResponse(outcome=f"WEBHOOK_OUTCOME_{outcome}")
