"""compose.yaml: valid, and right about the sidecar and the store."""

import json
from importlib.resources import files
from ipaddress import ip_network

import jsonschema
import pytest
import yaml

from ratelimit import Policy
from service.settings import Settings

from .shipped import DEPLOY, MIN_STOP, SETTINGS, read_seconds

SECRETS = {"RATELIMIT_ADMIN_TOKEN", "RATELIMIT_GATEWAY_TOKEN", "RATELIMIT_KEY_PEPPER"}


@pytest.fixture
def compose():
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


@pytest.fixture
def sidecar(compose):
    return compose["services"]["ratelimit"]


@pytest.fixture
def validator():
    schema = files("check_jsonschema").joinpath("builtin_schemas", "vendor", "compose-spec.json").read_text()
    return jsonschema.validators.validator_for(json.loads(schema))(json.loads(schema))


def test_the_file_is_valid(compose, validator):
    validator.validate(compose)


def test_a_misspelt_field_is_not_valid(compose, validator):
    compose["services"]["valkey"]["comand"] = []
    assert not validator.is_valid(compose)


def test_every_variable_is_a_setting_with_a_value_that_it_takes(sidecar, tmp_path):
    variables = sidecar["environment"]
    assert variables.keys() <= SETTINGS
    plain = {name: value for name, value in variables.items() if name not in SECRETS}
    Settings(**{name.removeprefix("RATELIMIT_").lower(): value for name, value in plain.items()})


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_a_secret_comes_from_the_environment_and_has_no_default(sidecar, name):
    assert sidecar["environment"][name].startswith(f"${{{name}:?")
    assert name.removeprefix("RATELIMIT_") in (DEPLOY / "README.md").read_text()


def test_env_files_are_neither_committed_nor_sent_to_docker():
    ignored = (DEPLOY.parents[1] / ".gitignore").read_text().splitlines()
    assert ".env" in ignored


def test_the_store_never_evicts_and_survives_a_restart(compose):
    store = compose["services"]["valkey"]
    flags = dict(zip(store["command"][1::2], store["command"][2::2], strict=True))
    assert flags["--maxmemory-policy"] == "noeviction"
    assert flags["--appendonly"] == "yes"
    assert store["volumes"] == ["store:/data"]
    assert "store" in compose["volumes"]


def test_the_sidecar_starts_once_the_store_is_healthy(compose, sidecar):
    assert sidecar["depends_on"] == {"valkey": {"condition": "service_healthy"}}
    assert compose["services"]["valkey"]["healthcheck"]["test"] == ["CMD", "valkey-cli", "ping"]
    assert sidecar["environment"]["RATELIMIT_REDIS"].startswith("redis://valkey:")


def test_only_the_sidecar_reaches_the_store(compose):
    networks = {name: service["networks"] for name, service in compose["services"].items()}
    assert networks == {"valkey": ["store"], "ratelimit": ["gateway", "store"]}
    assert compose["networks"]["store"]["internal"] is True
    assert "ports" not in compose["services"]["valkey"]


def test_only_this_machine_reaches_the_sidecar(sidecar):
    assert sidecar["ports"] == ["127.0.0.1:8080:8080", "127.0.0.1:8081:8081"]


def test_the_policy_is_mounted_read_only_from_a_folder_that_exists(sidecar):
    [mount] = sidecar["volumes"]
    assert mount["read_only"] is True
    folder = DEPLOY / mount["source"]
    assert folder.is_dir()
    policy = sidecar["environment"]["RATELIMIT_POLICY"]
    assert policy.startswith(mount["target"])
    Policy.from_file(folder / policy.removeprefix(mount["target"] + "/"))


def test_the_gateways_network_is_trusted(compose, sidecar):
    [config] = compose["networks"]["gateway"]["ipam"]["config"]
    assert ip_network(config["subnet"]) == ip_network(sidecar["environment"]["RATELIMIT_TRUSTED_PROXIES"])


def test_the_grace_period_is_longer_than_the_drain(sidecar):
    drain = read_seconds(sidecar["environment"]["RATELIMIT_DRAIN"])
    assert read_seconds(sidecar["stop_grace_period"]) > drain + MIN_STOP > MIN_STOP


def test_it_is_built_from_the_dockerfile_beside_it(sidecar):
    context = DEPLOY / sidecar["build"]["context"]
    assert (context / sidecar["build"]["dockerfile"]).samefile(DEPLOY / "Dockerfile")


def test_the_sidecar_may_change_nothing(sidecar):
    assert sidecar["read_only"] is True
    assert sidecar["cap_drop"] == ["ALL"]
    assert sidecar["security_opt"] == ["no-new-privileges:true"]
    assert sidecar["tmpfs"] == ["/tmp"]  # noqa: S108 - a path in the container
