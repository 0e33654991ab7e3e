"""Envoy's rate-limit service (gRPC), answered by the same limiter as HTTP."""
