"""What error replies mean: the script has not run, or the store refuses a user; and what people read."""

import hiredis
import pytest
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ExecAbortError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ResponseError,
)

from ratelimit.stores.failures import classify_error, explain_error, is_refusal
from ratelimit.stores.refusals import explain_refusal, find_refusal
from ratelimit.stores.scripts import CHECK, REPORT, SETTLE
from ratelimit.stores.transport import proves_no_run, raise_error_reply

NO_RUN = [
    "NOSCRIPT No matching script. Please use EVAL.",  # Redis, Valkey
    "NOSCRIPT No matching script.",  # ElastiCache Serverless
    "ERR NOSCRIPT No matching script. Please use EVAL",  # Kvrocks in 2022
    "No matching script. Please use EVAL.",  # ClauDB in 2018
    "ERR No matching script. Please use EVAL.",
    "ERR unknown command `EVALSHA`, with args beginning with: `0a1b`, `1`, ",  # Redis to 6.2, renamed
    "ERR unknown command 'evalsha', with args beginning with: '0a1b' '1' ",  # Redis from 7, Valkey; Envoy
    "ERR unknown command ' evalsha '",  # Tencent Cloud
    "ERR unknown command EVALSHA",
    "unsupported command 'evalsha'",  # Envoy in 2021
]

MAY_HAVE_RUN = [
    "ERR internal error",
    "ERR unknown command `EVAL`, with args beginning with: `EVALSHA`, ",
    "ERR unknown command 'EVALSHA_RO'",
    "ERR Error running script (call to f_0a): @user_script:3: NOSCRIPT No matching script",
    "ERR user_script:3: Unknown Redis command called from script script: 0a, on @user_script:3.",
    "ERR upstream failure: unknown command 'EVALSHA'",
    "NOPERM User u has no permissions to run the 'evalsha' command",
    "NOSCRIPTS are fine",
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "TIMEOUT",
    "",
]


@pytest.mark.parametrize("text", NO_RUN)
def test_replies_that_prove_that_the_script_did_not_run(text):
    assert proves_no_run(text)
    with pytest.raises(NoScriptError):
        raise_error_reply(hiredis.ReplyError(text))


@pytest.mark.parametrize("text", MAY_HAVE_RUN)
def test_p6_all_other_replies_leave_open_whether_the_script_ran(text):
    assert not proves_no_run(text)
    with pytest.raises((ResponseError, AuthenticationError)) as raised:
        raise_error_reply(hiredis.ReplyError(text))
    assert not isinstance(raised.value, NoScriptError)


def find_line(script, text):
    [line] = [number for number, each in enumerate(script.source.splitlines(), 1) if text in each]
    return line


COMMAND = "run this command or subcommand"
STORE_KEY = "access at least one of the keys mentioned in the command arguments"


def make_redis6_refusal(script, line, what=COMMAND, sha=None):
    """Return how Redis 6.2 refuses a command in a script."""
    place = f"(call to f_{sha or script.sha}): @user_script:{line}: @user_script: {line}:"
    return f"ERR Error running script {place} The user executing the script can't {what}"


REFUSALS = {
    "NOPERM User u has no permissions to run the 'xinfo|groups' command": "the command XINFO|GROUPS",
    "NOPERM this user has no permissions to run the 'unlink' command or its subcommand": "the command UNLINK",
    "ERR ACL failure in script: User u has no permissions to run the 'set' command on": "the command SET",
    "NOPERM No permissions to access a key": "a store key: it needs ~rl1:*",
    "NOPERM this user has no permissions to access one of the keys used as arguments": "a store key",
    "ERR ACL failure in script: No permissions to access a key script: on @user_script:2.": "a store key",
    make_redis6_refusal(SETTLE, find_line(SETTLE, "XADD")): "the command XADD",
    make_redis6_refusal(SETTLE, find_line(SETTLE, "GROUPS")): "the command XINFO|GROUPS",
    make_redis6_refusal(CHECK, find_line(CHECK, "PTTL"), STORE_KEY): "a store key",
}


@pytest.mark.parametrize(("text", "explanation"), REFUSALS.items())
def test_a_refusal_names_what_is_not_allowed(text, explanation):
    with pytest.raises(NoPermissionError) as raised:
        raise_error_reply(hiredis.ReplyError(text))
    assert (is_refusal(raised.value), classify_error(raised.value)) == (True, "refused")
    assert explain_error(raised.value).startswith(f"the store's ACL does not allow this user {explanation}")


@pytest.mark.parametrize(
    "text",
    [
        make_redis6_refusal(CHECK, 1, sha="0" * 40),
        make_redis6_refusal(CHECK, 1),
        make_redis6_refusal(CHECK, 99_999),
        "NOPERM something new",
    ],
)
def test_a_refusal_of_an_unknown_form_is_shown_as_it_is(text):
    with pytest.raises(NoPermissionError) as raised:
        raise_error_reply(hiredis.ReplyError(text))
    assert explain_error(raised.value) == text


@pytest.mark.parametrize(
    "text", ["NOAUTH Authentication required.", "WRONGPASS invalid username-password pair"]
)
def test_a_store_that_wants_another_password_refuses(text):
    with pytest.raises(AuthenticationError) as raised:
        raise_error_reply(hiredis.ReplyError(text))
    assert classify_error(raised.value) == "refused"


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (
            OutOfMemoryError(
                "Command # 1 (HSET rl1:keys vk_secret_1 {}) of pipeline caused error: OOM not allowed."
            ),
            "OOM not allowed",
        ),
        (
            ResponseError("ERR unknown command 'UNLINK', with args beginning with: 'rl1:{vk_secret_1}' "),
            "ERR unknown command 'UNLINK'",
        ),
        (
            ResponseError("unknown command `UNLINK`, with args beginning with: `rl1:{vk_secret_1}`, "),
            "unknown command `UNLINK`",
        ),
        (
            NoPermissionError(
                "Command # 2 (HSET rl1:keys vk_secret_1 {}) of pipeline caused error: User u has no"
                " permissions to run the 'hset' command"
            ),
            "the store's ACL does not allow this user the command HSET",
        ),
        (
            ExecAbortError(
                "Transaction discarded because of: NOPERM User u has no permissions to run the 'exec' command"
            ),
            "the store's ACL does not allow this user the command EXEC",
        ),
        (ResponseError("EXEC without MULTI"), "the store has refused the command MULTI"),
    ],
)
def test_p10_an_error_never_quotes_the_arguments_of_a_command(error, shown):
    assert explain_error(error) == shown


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (BusyLoadingError("Redis is loading the dataset in memory", status_code="LOADING"), "error"),
        (OutOfMemoryError("command not allowed", status_code="OOM"), "error"),
        (ConnectionError("Connection closed by server."), "connection"),
        (TimeoutError(), "timeout"),
    ],
)
def test_an_answer_of_the_store_is_no_failure_of_the_connection(error, reason):
    assert classify_error(error) == reason
    assert getattr(error, "status_code", None) is None or error.status_code in explain_error(error)


def test_redis_7_0_says_only_which_line_of_which_script_was_refused():
    [line] = [number for number, text in enumerate(REPORT.source.splitlines(), 1) if "call('HSET'" in text]
    text = (
        "ERR The user executing the script can't run this command or subcommand"
        f" script: {REPORT.sha}, on @user_script:{line}."
    )
    assert isinstance(find_refusal(text), NoPermissionError)
    assert explain_refusal(text) == "the store's ACL does not allow this user the command HSET"
