"""The shipped configurations of gateways, as the benchmark `gateways` runs them, and the gateways alone.

Changed are the addresses, the API's answer, which the gateway then gives itself, and the timeouts: a busy
machine is not an outage, and what passes without a check is no figure of a limiter. Alone, a gateway has no
limiter.
"""

from collections.abc import Mapping
from typing import Any, Final

import yaml

from benchmarks import BenchmarkError
from benchmarks.programs import HOST, ROOT

_EXAMPLES: Final = ROOT / "examples"
ANSWER: Final = "empty_gif;"  # nginx's own; not `return`, which nginx obeys before it asks any limiter
_HAPROXY: Final = _EXAMPLES / "haproxy"
_FILTERS: Final = "http_filters"


def nginx(port: int, upstream: str | None) -> str:
    server = f"server {upstream};" if upstream else ""
    changes = {
        "listen 8000;": f"listen {HOST}:{port};",
        "proxy_pass http://api;": ANSWER,
        "proxy_connect_timeout 50ms;": "proxy_connect_timeout 5s;",
        "proxy_send_timeout    50ms;": "proxy_send_timeout 5s;",
        "proxy_read_timeout    100ms;": "proxy_read_timeout 5s;",
        "server 127.0.0.1:8080;" if upstream else "auth_request     /_ratelimit;": server,
    }
    return _change(_EXAMPLES / "nginx" / "nginx.conf", changes)


def caddy(port: int, sidecar: str | None) -> str:
    if sidecar is None:
        return f"{{\nauto_https off\nadmin off\n}}\n:{port} {{\nbind {HOST}\nrespond 200\n}}\n"
    changes = {
        "\n:8000 {": f"\n:{port} {{\n\tbind {HOST}",
        "\tlog\n\tlog_append": "\tlog_append",  # nobody reads it
        "reverse_proxy 127.0.0.1:8080 {": f"reverse_proxy {sidecar} {{",
        "(api) {\n": "(api) {\n\trespond 200\n",
        "dial_timeout 50ms": "dial_timeout 5s",
        "response_header_timeout 100ms": "response_header_timeout 5s",
    }
    return _change(_EXAMPLES / "caddy" / "Caddyfile", changes)


def haproxy(port: int, sidecar: str | None) -> dict[str, str]:
    """Return the configuration and the script that it loads, with a socket between them of its own."""
    checks = {"abns@ratelimit-checks": f"abns@ratelimit-checks-{port}"}
    changes = {
        "bind :8000": f"bind {HOST}:{port}",
        "log stdout format raw local0": "no log",  # nobody reads it
        "    default_backend api\n": "    http-request return status 200\n",
        "server sidecar 127.0.0.1:8080": f"server sidecar {sidecar or '127.0.0.1:8080'}",
        "timeout connect 50ms": "timeout connect 5s",
        "timeout server  100ms": "timeout server 5s",
        **checks,
    }
    if sidecar is None:
        changes["    http-request lua.ratelimit\n"] = ""
    script = _change(_HAPROXY / "ratelimit.lua", checks)
    return {"haproxy.cfg": _change(_HAPROXY / "haproxy.cfg", changes), "ratelimit.lua": script}


def envoy(port: int, file: str, sidecar: int | None, api: int) -> str:
    """Return a shipped configuration of Envoy for a sidecar's port; without one, Envoy alone.

    Behind each is an API: Envoy asks its rate-limit service about no request that it answers itself.
    """
    shipped = (_EXAMPLES / "envoy" / file).read_text(encoding="utf-8")
    config: dict[str, Any] = yaml.safe_load(shipped)
    resources = config["static_resources"]
    (listener,), clusters = resources["listeners"], {one["name"]: one for one in resources["clusters"]}
    listener["address"]["socket_address"] = {"address": HOST, "port_value": port}
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    manager.pop("access_log", None)  # nobody reads it
    if sidecar is None:
        manager[_FILTERS] = manager[_FILTERS][-1:]
    for one in manager[_FILTERS]:
        if "timeout" in one["typed_config"]:
            one["typed_config"]["timeout"] = "5s"
        if "timeout" in (uri := one["typed_config"].get("http_service", {}).get("server_uri", {})):
            uri["timeout"] = "5s"
    clusters["ratelimit_sidecar"]["connect_timeout"] = "5s"
    for name, to in (("ratelimit_sidecar", sidecar or 1), ("api", api)):
        (endpoint,) = clusters[name]["load_assignment"]["endpoints"][0]["lb_endpoints"]
        endpoint["endpoint"]["address"]["socket_address"]["port_value"] = to
    return yaml.safe_dump(config)


def _change(path: Any, changes: Mapping[str, str]) -> str:
    text = str(path.read_text(encoding="utf-8"))
    for shipped, here in changes.items():
        if text.count(shipped) != 1:
            raise BenchmarkError(f"{path.name} must have one line {shipped!r}")
        text = text.replace(shipped, here)
    return text
