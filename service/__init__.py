"""The sidecar: speaks HTTP to gateways and lets `ratelimit` decide."""
