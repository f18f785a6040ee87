"""What the protos promise to strangers; comments and names are checked by `buf lint` in `make check`."""

from __future__ import annotations

import pytest
from google.api import annotations_pb2
from google.protobuf.descriptor import MethodDescriptor

from treadle.session.v1 import session_service_pb2
from treadle.worker.v1 import worker_service_pb2

PUBLIC = list(session_service_pb2.DESCRIPTOR.services_by_name["SessionService"].methods)
PRIVATE = list(worker_service_pb2.DESCRIPTOR.services_by_name["WorkerService"].methods)


@pytest.mark.parametrize("method", PUBLIC, ids=lambda method: method.name)
def test_every_public_rpc_is_served_as_json(method: MethodDescriptor) -> None:
    rule = method.GetOptions().Extensions[annotations_pb2.http]
    pattern = rule.WhichOneof("pattern")
    assert pattern in {"get", "post", "put", "patch", "delete"}
    assert getattr(rule, pattern).startswith("/v1/")


def test_no_two_public_rpcs_share_a_route() -> None:
    rules = [method.GetOptions().Extensions[annotations_pb2.http] for method in PUBLIC]
    routes = [(rule.WhichOneof("pattern"), getattr(rule, rule.WhichOneof("pattern"))) for rule in rules]
    assert len(set(routes)) == len(routes)


@pytest.mark.parametrize("method", PRIVATE, ids=lambda method: method.name)
def test_no_rpc_of_a_worker_is_reachable_through_the_gateway(method: MethodDescriptor) -> None:
    assert not method.GetOptions().HasExtension(annotations_pb2.http)
