"""The tokens of gateways and operators."""

import pytest
from pydantic import SecretStr
from starlette.requests import HTTPConnection

from ratelimit.web.problems import Problem
from service.tokens import GATEWAY_HEADER, require_gateway_token

TOKEN = SecretStr("gateway-token-4711")


def require(*sent):
    headers = [(GATEWAY_HEADER.lower().encode(), token.encode()) for token in sent]
    require_gateway_token(HTTPConnection({"type": "http", "headers": headers}), TOKEN)


def test_the_token_is_accepted():
    require("gateway-token-4711")


@pytest.mark.parametrize("sent", ["", "g", "gateway-token-471", "gateway-token-47110", "GATEWAY-TOKEN-4711"])
def test_p10_a_token_counts_only_as_a_whole_and_no_error_tells_it(sent):
    with pytest.raises(Problem) as raised:
        require(sent)
    assert raised.value.status == 401
    assert TOKEN.get_secret_value() not in str(raised.value.detail)


def test_p10_without_a_token_nothing_is_accepted():
    with pytest.raises(Problem):
        require()
