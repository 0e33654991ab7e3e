"""A drain over gRPC: health says that the service is ending, and calls are still answered."""

import signal

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from ..processes import wait_until
from ..rls_client import run_rls_sidecar
from .conftest import POLICY


def test_health_ends_first_and_calls_are_still_answered():
    with run_rls_sidecar("--drain", "60s", policy=POLICY) as (sidecar, client, _):
        health = HealthStub(client.channel)

        def status():
            return health.Check(HealthCheckRequest(), timeout=20).status

        assert status() == HealthCheckResponse.SERVING
        sidecar.process.send_signal(signal.SIGTERM)
        wait_until(lambda: status() == HealthCheckResponse.NOT_SERVING)
        assert client.ask({"key": "k"}).statuses[0].code == 1
        sidecar.process.send_signal(signal.SIGTERM)
        assert sidecar.process.wait(20) == 0
        with pytest.raises(grpc.RpcError) as ended:
            status()
        assert ended.value.code() == grpc.StatusCode.UNAVAILABLE
