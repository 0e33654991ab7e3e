"""The sidecar: serves checks over HTTP, and leaves every decision to `ratelimit`."""
