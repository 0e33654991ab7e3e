"""The sidecar's settings. Only this module reads them from the environment."""

from __future__ import annotations

import os
import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    PlainValidator,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from ratelimit.decision.headers import Dialect
from ratelimit.history import HistoryRecorder
from ratelimit.limiters.arguments import MAX_USAGE_AGE, MAX_USAGE_LENGTH, USAGE_AGE, USAGE_LENGTH
from ratelimit.stores import StoreURL
from ratelimit.stores.security import OPTIONS, add_security

_DURATION = re.compile(r"(?P<number>[0-9]+(\.[0-9]+)?)\s*(?P<unit>ms|s|m|h|d)?")
_SECONDS = {"ms": 0.001, "s": 1, None: 1, "m": 60, "h": 3600, "d": 86_400}


def parse_duration(value: object) -> object:
    """Parse `50ms`, `5s`, `1m`, `1h`, `30d` or plain seconds into seconds. Return what is not text unchanged.

    Raises:
        ValueError: the text is not a duration.
    """
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value.strip())
    if match is None:
        raise ValueError(f"{value!r} is not a duration; write 50ms, 5s, 1m, 1h or 30d")
    return float(match["number"]) * _SECONDS[match["unit"]]


def _parse_max_skew(value: object) -> object:
    return None if value == "none" else parse_duration(value)


def _split_list(value: object) -> object:
    return [item.strip() for item in value.split(",") if item.strip()] if isinstance(value, str) else value


Network = Annotated[
    IPv4Network | IPv6Network,
    # Pydantic's own two parsers, one for each version of IP, would report each mistake twice.
    PlainValidator(ip_network),
]


def list_setting_faults(error: ValidationError) -> list[str]:
    """Return a line for each setting that is wrong: its flag, its variable, and what is allowed."""
    lines = []
    for detail in error.errors(include_url=False):
        # Only the check of the whole store URL is about several settings.
        name = str(detail["loc"][0]) if detail["loc"] else "redis"
        message = detail["msg"].removeprefix("Value error, ").removeprefix("redis: ")
        if detail["type"] == "missing":
            message = "required: the policy file to serve"
        lines.append(f"--{name.replace('_', '-')} (RATELIMIT_{name.upper()}): {message}")
    return lines


class StoreSettings(BaseSettings):
    """Where the store is, and how connections to it are secured; see `Settings`."""

    model_config = SettingsConfigDict(
        env_prefix="RATELIMIT_", extra="forbid", frozen=True, hide_input_in_errors=True
    )

    redis: Annotated[str, Field(repr=False)] = "embedded://"
    redis_ca: Path | None = None
    redis_cert: Path | None = None
    redis_key: Path | None = None
    redis_server_name: str | None = None
    redis_password: SecretStr | None = None
    redis_password_file: Path | None = None

    @property
    def store_url(self) -> str:
        """The whole URL of the store: with its password, so it is never shown.

        Raises:
            InvalidRequest: two settings exclude each other.
        """
        options = {name: getattr(self, f"redis_{name}") for name in OPTIONS}
        password = self.redis_password.get_secret_value() if self.redis_password else None
        given = {name: None if value is None else str(value) for name, value in options.items()}
        return add_security(self.redis, given, password)

    @field_validator("redis")
    @classmethod
    def _validate_redis(cls, value: str) -> str:
        StoreURL.parse(value)  # The validator below does not run if another setting is wrong.
        return value

    @model_validator(mode="after")
    def _validate_store_url(self) -> Self:
        StoreURL.parse(self.store_url)
        return self

    @field_validator("redis_password")
    @classmethod
    def _refuse_empty_password(cls, value: SecretStr | None) -> SecretStr | None:
        return refuse_empty(value)


def refuse_empty(value: SecretStr | None) -> SecretStr | None:
    """Return a secret; raise ValueError if it is empty."""
    if value is not None and not value.get_secret_value().strip():
        raise ValueError("must not be empty; leave it out instead")
    return value


class Settings(StoreSettings):
    """The settings of `ratelimit serve`: a flag each, or `RATELIMIT_<NAME>` in the environment.

    Attributes:
        policy: the policy file.
        redis: the store's URL, without what the settings below add to it.
        redis_ca: the file with the certificates of the authorities that the store's certificate may be from.
        redis_cert: the file with this client's certificate.
        redis_key: the file with its private key.
        redis_server_name: the name that the store's certificate must have, instead of the URL's host.
        redis_password: the password for the store.
        redis_password_file: the file with this password, which is read again for each connection.
        host: the address to listen on.
        port: the TCP port to listen on; 0 chooses a free one.
        grpc_port: the TCP port of Envoy's rate-limit service; 0 turns it off.
        grpc_domains: the domains that the rate-limit service knows; empty means every domain.
        uds: the path of a Unix socket to listen on, instead of host and port.
        workers: how many processes answer requests.
        admin_token: the token of the operators' endpoints, which do not exist (404) without it.
        gateway_token: the token that all other /v1 calls must carry in X-RateLimit-Gateway-Token.
        key_pepper: the secret key of the hash that turns secrets into keys. All sidecars need the same
            pepper; without one each start makes a random one.
        deadline: seconds that one call to the store may take.
        max_skew: seconds that a timestamp may be ahead of the store's clock; None accepts every
            timestamp.
        drain: seconds for which requests are still answered after SIGTERM.
        remember: seconds for which reservations can be settled, and repeated checks and settlements
            get their first answer.
        usage_length: how many usage records the store keeps; 0 writes none.
        usage_age: seconds for which the store keeps a usage record.
        dialect: the dialects of RateLimit headers.
        log_format: `console` or `json`.
        history: the file to which every decision and settlement is written, for `ratelimit verify`.
        trusted_proxies: networks of the proxies whose X-Forwarded-For is trusted.
        last_policy: the file in which `serve` saves the last valid policy, for workers that start while
            the policy file has faults.
    """

    policy: Path
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    grpc_port: Annotated[int, Field(ge=0, le=65535)] = 8081
    grpc_domains: Annotated[list[str], NoDecode, BeforeValidator(_split_list)] = []
    uds: Path | None = None
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    admin_token: SecretStr | None = None
    gateway_token: SecretStr | None = None
    key_pepper: SecretStr | None = None
    deadline: Annotated[float, BeforeValidator(parse_duration), Field(gt=0, le=10)] = 0.05
    max_skew: Annotated[Annotated[float, Field(ge=0, le=86_400)] | None, BeforeValidator(_parse_max_skew)] = (
        5.0
    )
    drain: Annotated[float, BeforeValidator(parse_duration), Field(ge=0, le=600)] = 0.0
    remember: Annotated[float, BeforeValidator(parse_duration), Field(ge=1, le=86_400)] = 600.0
    usage_length: Annotated[int, Field(ge=0, le=MAX_USAGE_LENGTH)] = USAGE_LENGTH
    usage_age: Annotated[float, BeforeValidator(parse_duration), Field(ge=1, le=MAX_USAGE_AGE)] = USAGE_AGE
    dialect: Annotated[list[Dialect], NoDecode, BeforeValidator(_split_list), Field(min_length=1)] = ["ietf"]
    log_format: Literal["console", "json"] = "console"
    history: Path | None = None
    trusted_proxies: Annotated[list[Network], NoDecode, BeforeValidator(_split_list)] = [
        ip_network("127.0.0.0/8"),
        ip_network("::1/128"),
    ]

    last_policy: Path | None = None

    @field_validator("history")
    @classmethod
    def _require_writable(cls, value: Path | None) -> Path | None:
        if value is not None:
            try:
                HistoryRecorder(value).close()
            except OSError as error:
                reason = os.strerror(error.errno) if error.errno else error
                raise ValueError(f"{value} cannot be written: {reason}") from None
        return value

    @field_validator("admin_token", "gateway_token", "key_pepper")
    @classmethod
    def _refuse_empty(cls, value: SecretStr | None) -> SecretStr | None:
        return refuse_empty(value)
