"""What the middleware, the dependency and the sidecar have in common: keys of requests, checks, problems."""
