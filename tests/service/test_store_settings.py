"""`redis_ca`, `redis_password` and the other settings of the store: for the sidecar, workers and commands."""

import secrets
import ssl
from pathlib import Path

import pytest
import redis
import trustme
from typer.testing import CliRunner

from ratelimit import InvalidRequest
from service.cli.commands import app
from service.settings import Settings, StoreSettings, list_setting_faults

from ..processes import run_ratelimit
from ..store.tls import TlsTerminator
from .conftest import POLICY

NAME = "store.example"
USER = "settings-user"
PASSWORD = f"p/@:?#%&= {secrets.token_hex(8)}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a policy, and with the files of a client."""
    folder = tmp_path_factory.mktemp("store")
    (folder / "policy.yaml").write_text(POLICY)
    return folder


@pytest.fixture(scope="module")
def terminator(folder, valkey_url):
    """A TLS server that wants a certificate, in front of a Valkey with a user of its own."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    client = authority.issue_cert("client.example")
    client.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    client.private_key_pem.write_to_path(folder / "key.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    authority.issue_cert(NAME).configure_cert(context)
    terminator = TlsTerminator(valkey_url.removeprefix("unix://"), context)
    with redis.Redis.from_url(valkey_url) as admin:
        admin.execute_command("ACL", "SETUSER", USER, "reset", "on", f">{PASSWORD}", "~*", "+@all")
        yield terminator
        admin.execute_command("ACL", "DELUSER", USER)
    terminator.close()


@pytest.fixture
def variables(terminator, folder):
    return {
        "RATELIMIT_REDIS": f"rediss://{USER}@127.0.0.1:{terminator.port}/0",
        "RATELIMIT_REDIS_CA": str(folder / "ca.pem"),
        "RATELIMIT_REDIS_CERT": str(folder / "cert.pem"),
        "RATELIMIT_REDIS_KEY": str(folder / "key.pem"),
        "RATELIMIT_REDIS_SERVER_NAME": NAME,
        "RATELIMIT_REDIS_PASSWORD": PASSWORD,
        "RATELIMIT_DEADLINE": "5s",  # a handshake of TLS on a busy machine takes a while
    }


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_sidecar_and_its_workers_use_all_settings_and_show_no_password(
    start_sidecar, variables, key, workers
):
    sidecar = start_sidecar("--workers", workers, **variables)
    for _ in range(5):
        assert sidecar.check(key).json()["source"] == "store"
    shown = sidecar.output + sidecar.client.get("/readyz").text + _read_command_lines(sidecar.pid)
    assert PASSWORD not in shown
    assert PASSWORD[-16:] not in shown
    assert (
        f"rediss://{USER}:***@127.0.0.1:{variables['RATELIMIT_REDIS'].rpartition(':')[2]}" in sidecar.output
    )


def _read_command_lines(pid):
    """Return the command lines of a process and of its children, as `ps` shows them."""
    tasks = [pid, *Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return "".join(Path(f"/proc/{task}/cmdline").read_text() for task in tasks)


def test_flags_say_the_same(start_sidecar, variables, key):
    flags = [
        word
        for name, value in variables.items()
        for word in (f"--{name.removeprefix('RATELIMIT_').lower().replace('_', '-')}", value)
    ]
    assert start_sidecar(*flags).check(key).json()["source"] == "store"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_password_file_is_used_instead(start_sidecar, variables, key, tmp_path, workers):
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n")
    del variables["RATELIMIT_REDIS_PASSWORD"]
    sidecar = start_sidecar("--workers", workers, **variables, RATELIMIT_REDIS_PASSWORD_FILE=str(file))
    assert sidecar.check(key).json()["source"] == "store"


@pytest.mark.parametrize(
    "command",
    [
        ["check", "vk_settings"],
        ["keys", "show", "vk_settings"],
        ["keys", "reset", "vk_settings"],
        ["usage"],
        ["top", "--once"],
    ],
    ids=" ".join,
)
def test_commands_take_the_settings_from_the_environment(variables, folder, command):
    variables = {**variables, "RATELIMIT_POLICY": str(folder / "policy.yaml")}
    done = CliRunner().invoke(app, [*command, "--json"], env=variables)
    assert done.exit_code == 0, done.output
    assert PASSWORD not in done.output
    for missing in ({"CA"}, {"CERT", "KEY"}, {"SERVER_NAME"}, {"PASSWORD"}):
        without = {**variables, **{f"RATELIMIT_REDIS_{name}": None for name in missing}}
        refused = CliRunner().invoke(app, [*command, "--json"], env=without)
        assert refused.exit_code != 0 or '"source": "outage"' in refused.output, (missing, refused.output)


FAULTS = [
    (
        {"REDIS": "redis://:s3cret@h", "REDIS_PASSWORD": "an0ther"},
        "has a password in the URL and in redis_password",
    ),
    ({"REDIS_PASSWORD": "an0ther"}, "embedded:// has no password; leave redis_password out"),
    ({"REDIS": "redis://h", "REDIS_PASSWORD": "an0ther", "REDIS_PASSWORD_FILE": "/f"}, "give one of them"),
    (
        {"REDIS": "redis://h", "REDIS_CA": "/f"},
        "the option ca is for TLS only; use rediss:// instead of redis://",
    ),
    ({"REDIS": "rediss://h", "REDIS_KEY": "/f"}, "the option key needs the option cert"),
    (
        {"REDIS": "rediss://h", "REDIS_CA": "/nowhere/f"},
        "ca: cannot read /nowhere/f: No such file or directory",
    ),
    ({"REDIS": "redis://h", "REDIS_PASSWORD_FILE": "/nowhere/f"}, "password_file: cannot read /nowhere/f"),
    ({"REDIS": "http://h"}, "names no store"),
    ({"REDIS": "redis://h", "REDIS_PASSWORD": " "}, "(RATELIMIT_REDIS_PASSWORD): must not be empty"),
]


@pytest.mark.parametrize(("settings", "complaint"), FAULTS)
@pytest.mark.parametrize("command", [["serve", "--port", "0"], ["usage"]], ids=["serve", "usage"])
def test_a_wrong_setting_is_one_line_without_a_secret(folder, settings, complaint, command):
    variables = {"RATELIMIT_REDIS": "embedded://"}
    variables |= {f"RATELIMIT_{name}": value for name, value in settings.items()}
    if command[0] == "serve":
        variables["RATELIMIT_POLICY"] = str(folder / "policy.yaml")
    done = run_ratelimit(*command, **variables)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "s3cret" not in done.stderr
    assert "an0ther" not in done.stderr


def test_p10_settings_do_not_show_the_password(folder):
    settings = Settings(policy=folder / "policy.yaml", redis="redis://u@h", redis_password="an0ther")
    assert settings.store_url == "redis://u:an0ther@h"
    for shown in (repr(settings), str(settings), settings.model_dump_json()):
        assert "an0ther" not in shown
    with pytest.raises(ValueError, match="redis_password") as refused:
        StoreSettings(redis="redis://:s3cret@h", redis_password="an0ther")
    assert not isinstance(refused.value, InvalidRequest)
    assert "s3cret" not in str(refused.value)
    assert not {"s3cret", "an0ther"} & set(" ".join(list_setting_faults(refused.value)).split())


def test_p10_settings_do_not_show_a_password_in_the_url(folder):
    settings = Settings(policy=folder / "policy.yaml", redis="redis://:s3cret@h")
    assert settings.store_url == "redis://:s3cret@h"
    for shown in (repr(settings), str(settings)):
        assert "s3cret" not in shown
