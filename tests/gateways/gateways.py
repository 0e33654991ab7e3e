"""Every gateway with a shipped configuration.

Each entry takes the port of a sidecar, the port of an API and an empty folder for its files, and runs
the gateway between the two until the end of the block. It gives the gateway's URL.
"""

from .run_caddy import run_caddy
from .run_envoy import run_envoy
from .run_haproxy import run_haproxy
from .run_nginx import run_nginx
from .run_nginx_njs import run_nginx_njs
from .run_traefik import run_traefik

GATEWAYS = {
    "nginx": run_nginx,
    "nginx-njs": run_nginx_njs,
    "envoy-http": run_envoy,
    "caddy": run_caddy,
    "haproxy": run_haproxy,
    "traefik": run_traefik,
}

NO_LIMITS_ON_200 = {
    "traefik": "ForwardAuth gives the headers of a 200 to the API only",
}
"""The gateways that cannot add the sidecar's headers to an answer of the API, and why."""

CLOSES_WITHOUT_SIDECAR = {}
"""The gateways whose shipped configuration refuses requests while no sidecar answers, and why."""

PASSES_TWO_AUTHORIZATIONS = {
    "traefik": "no rule of a router counts headers, and ForwardAuth copies every value",
}
"""The gateways that let a request with two `Authorization` headers pass, and why."""

TAKES_503_FOR_A_FAILURE = {
    "envoy-http": "ext_authz takes every 5xx for a failure, and failure_mode_allow decides",
}
"""The gateways that cannot tell a denial in an outage (`on_outage: deny`) from a failure, and why."""

SETTLES_ITSELF = {
    "nginx-njs": "it reserves every request, and settles when the response has ended",
}
"""The gateways that keep the reservation instead of giving it to the API, and why."""
