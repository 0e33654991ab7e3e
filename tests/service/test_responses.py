"""The answer to a check that passes, in the form that the ASGI specification requires."""

from starlette.responses import Response

from service.responses import AllowedResponse

HEADERS = {"RateLimit": '"requests";r=1;t=2', "X-RateLimit-Key": "vk_1"}


def test_it_says_what_starlettes_own_would_say():
    json = Response(b"{}", headers=HEADERS, media_type="application/json")
    for ours, theirs in (
        (AllowedResponse(HEADERS, b"{}"), json),
        (AllowedResponse(HEADERS), Response(headers=HEADERS)),
    ):
        assert (ours.status_code, ours.body) == (theirs.status_code, theirs.body)
        assert ours.raw_headers == theirs.raw_headers


def test_a_header_can_be_added_to_it_afterwards():
    answer = AllowedResponse(HEADERS)
    answer.headers["X-Later"] = "yes"
    assert (b"x-later", b"yes") in answer.raw_headers
