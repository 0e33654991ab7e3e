"""A client of Envoy's rate-limit service."""

from contextlib import contextmanager

import grpc
from envoy.service.ratelimit.v3.rls_pb2 import RateLimitRequest
from envoy.service.ratelimit.v3.rls_pb2_grpc import RateLimitServiceStub
from google.protobuf.wrappers_pb2 import UInt64Value

from .processes import find_free_port
from .sidecars import run_sidecar

METHOD = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"


def make_request(*descriptors, domain="tests", hits_addend=0):
    """Make a request; a descriptor is a dictionary of entries, or a pair of that and its `hits_addend`."""
    request = RateLimitRequest(domain=domain, hits_addend=hits_addend)
    for descriptor in descriptors:
        entries, addend = descriptor if isinstance(descriptor, tuple) else (descriptor, None)
        added = request.descriptors.add()
        for name, value in entries.items():
            added.entries.add(key=name, value=value)
        if addend is not None:
            added.hits_addend.CopyFrom(UInt64Value(value=addend))
    return request


class RateLimitClient:
    """A client of the service on a port."""

    def __init__(self, port):
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self._stub = RateLimitServiceStub(self.channel)

    def send(self, request, **metadata):
        """Send a request with metadata, whose names may have `_` for `-`; return the response."""
        pairs = [(name.replace("_", "-"), value) for name, value in metadata.items()]
        return self._stub.ShouldRateLimit(request, metadata=pairs, timeout=20)

    def send_bytes(self, message):
        """Send any bytes as a request; return those of the response."""
        return self.channel.unary_unary(METHOD)(message, timeout=20)

    def ask(self, *descriptors, **options):
        """Send a request with these descriptors; return the response."""
        return self.send(make_request(*descriptors, **options))


@contextmanager
def run_rls_sidecar(*flags, policy, **variables):
    """Run a sidecar with the rate-limit service; gives the sidecar, a client and the port.

    Args:
        flags: flags of `ratelimit serve`.
        policy: the text of its policy file.
        variables: environment variables to add.
    """
    port = find_free_port()
    flags = ("--grpc-port", str(port), "--deadline", "5s", *flags)
    with run_sidecar(*flags, policy=policy, **variables) as sidecar:
        sidecar.grpc_port = port
        client = RateLimitClient(port)
        grpc.channel_ready_future(client.channel).result(timeout=20)
        try:
            yield sidecar, client, port
        finally:
            client.channel.close()
