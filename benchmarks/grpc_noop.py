"""`python -m benchmarks.grpc_noop PORT`: a rate-limit service on grpcio that decides nothing."""

import sys
from typing import Any

import grpc
import uvloop
from envoy.service.ratelimit.v3 import rls_pb2, rls_pb2_grpc

from service.cli.serve import freeze_startup_objects


class Noop(rls_pb2_grpc.RateLimitServiceServicer):  # type: ignore[misc] # without types
    async def ShouldRateLimit(self, _request: Any, _context: Any) -> Any:  # noqa: N802 - the protocol's name
        return rls_pb2.RateLimitResponse(overall_code=rls_pb2.RateLimitResponse.OK)


async def main() -> None:
    server = grpc.aio.server()
    rls_pb2_grpc.add_RateLimitServiceServicer_to_server(Noop(), server)
    server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
    await server.start()
    freeze_startup_objects()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(main())
