"""The ASGI middleware, around applications without a framework: whose request, headers, denials, outages."""

import asyncio

import pytest

from ratelimit import InvalidRequest, Limit, Policy
from ratelimit.asgi import RateLimitMiddleware
from ratelimit.request.privacy import identifier_of

from .requests import KEYED, PEPPER, SECRET, THREE, WITH_ANONYMOUS, find_key, open_browser, play


async def answer(scope, receive, send):
    if scope["type"] == "lifespan":
        await send({"type": "lifespan.startup.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-own", b"1")]})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


@pytest.fixture
def ask(open_limiter):
    """Send requests to an application with the middleware; return the answers."""

    def send_all(*requests, policy=THREE, **options):
        async def run():
            async with (
                open_limiter(policy) as limiter,
                open_browser(RateLimitMiddleware(answer, limiter, **options)) as browser,
            ):
                return [await browser.get(path, headers=headers) for path, headers in requests]

        return asyncio.run(run())

    return send_all


def test_every_answer_has_the_headers_and_a_denial_is_a_problem(ask):
    *passed, denied = ask(*[("/chat", SECRET)] * 4, dialects=("ietf", "openai"), **KEYED)
    assert [answer.status_code for answer in passed] == [200] * 3
    assert [answer.headers["ratelimit"][:14] for answer in passed] == [
        f'"requests";r={left}' for left in (2, 1, 0)
    ]
    assert passed[0].headers["x-own"] == "1"
    assert passed[0].headers["x-ratelimit-remaining-requests"] == "2"
    assert passed[0].text == "/chat"
    assert denied.status_code == 429
    assert denied.headers["content-type"] == "application/problem+json"
    assert int(denied.headers["retry-after"]) > 10_000_000
    assert "ratelimit-policy" in denied.headers
    problem = denied.json()
    assert problem["type"].endswith("#quota-exceeded")
    assert problem["violated-policies"] == ["requests"]


def test_without_dialects_an_answer_has_no_headers_but_a_denial_says_when_to_retry(ask):
    *passed, denied = ask(*[("/", SECRET)] * 4, dialects=[], **KEYED)
    assert "ratelimit" not in passed[0].headers
    assert denied.status_code == 429
    assert "retry-after" in denied.headers


def test_p10_a_secret_is_never_the_key_and_is_that_of_the_sidecar(ask, open_client, url):
    ask(("/", SECRET), **KEYED)
    [stored] = open_client(url).keys("*")
    assert identifier_of("sk-test", PEPPER) in stored
    assert "sk-test" not in stored


def test_a_bearer_token_is_the_secret_without_its_scheme(ask, open_client, url):
    ask(("/", {"Authorization": "bearer sk-test"}), key="Authorization", pepper=PEPPER)
    assert identifier_of("sk-test", PEPPER) in open_client(url).keys("*")[0]


def test_a_request_without_a_key_counts_for_its_address_on_the_plan_anonymous(ask):
    statuses = ask(("/", {}), ("/", {}), ("/", SECRET), policy=WITH_ANONYMOUS, **KEYED)
    assert [answer.status_code for answer in statuses] == [200, 429, 200]
    assert statuses[0].headers["ratelimit-policy"].startswith('"requests";q=1;')


def test_the_plan_of_a_request_without_a_key_is_not_computed(ask):
    calls = []
    statuses = ask(("/", {}), ("/", SECRET), policy=WITH_ANONYMOUS, plan=calls.append, **KEYED)
    assert [answer.status_code for answer in statuses] == [200, 200]
    assert len(calls) == 1


def test_a_request_without_a_key_is_refused_where_no_plan_is_for_it(ask):
    [refused] = ask(("/", {}), **KEYED)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    assert "no plan `anonymous`" in refused.json()["detail"]


def test_a_header_with_a_secret_that_was_sent_twice_is_refused(ask):
    [refused] = ask(("/", [("X-Api-Key", "sk-one"), ("X-Api-Key", "sk-two")]), **KEYED)
    assert refused.status_code == 400


def test_an_unknown_secret_follows_the_policy(ask):
    policy = Policy.from_text("""
        default_plan: free
        plans: {free: {limits: {requests: {rate: 3/365d}}}}
        unknown_keys: deny
    """)

    [unsure] = ask(("/", SECRET), policy=policy, refresh=None, **KEYED)
    assert unsure.status_code == 503
    [refused] = ask(("/", SECRET), policy=policy, **KEYED)
    assert refused.status_code == 401


def test_without_a_key_all_requests_count_for_their_address(ask):
    answers = ask(*[("/", {})] * 4, pepper=PEPPER)
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]


def test_p1_a_forged_address_counts_only_behind_a_trusted_proxy(ask):
    forged = [("/", {"X-Forwarded-For": f"198.51.100.{number}"}) for number in range(4)]
    assert ask(*forged, pepper=PEPPER)[-1].status_code == 429
    assert ask(*forged, pepper=PEPPER, trusted_proxies=["203.0.113.0/24"])[-1].status_code == 200


def test_functions_say_key_cost_plan_model_and_tenant(ask):
    policy = Policy.from_text("""
        default_plan: free
        models: {s: [small]}
        plans:
          free: {limits: {tokens: {unit: tokens, rate: 10/365d}}}
          pro: {limits: {tokens: {unit: tokens, per: [tenant, model], rate: {s: 100/365d, other: 50/365d}}}}
    """)
    options = {
        "key": lambda scope: scope["path"].strip("/"),
        "cost": lambda _: {"tokens": 7},
        "plan": lambda _: "pro",
        "model": lambda _: "small",
        "tenant": lambda _: "acme",
    }
    answers = ask(("/vk_one", {}), ("/vk_two", {}), policy=policy, **options)
    assert [answer.headers["ratelimit"][:13] for answer in answers] == ['"tokens";r=93', '"tokens";r=86']


def test_a_field_that_a_function_reads_from_a_bad_request_is_answered_with_422(ask):
    [refused] = ask(("/", {}), key=find_key, model=lambda _: "no such\nmodel")
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == "model"


def test_excluded_paths_pass_without_headers(ask):
    paths = [("/healthz", {}), ("/static/a.js", {}), ("/healthz/no", {}), ("/static", {})]
    answers = ask(*paths, exclude=["/healthz", "/static/"], **KEYED)
    assert [answer.status_code for answer in answers] == [200, 200, 401, 401]
    assert "ratelimit" not in answers[0].headers


def test_the_application_finds_the_decision(open_limiter):
    async def run():
        async with open_limiter(THREE) as limiter:
            state = {}
            await play(RateLimitMiddleware(answer, limiter, key=find_key), state=state)
            return state["rate_limit"]

    assert asyncio.run(run()).allowed


def test_a_lifespan_passes_through(open_limiter):
    async def run():
        async with open_limiter(THREE) as limiter:
            return await play(RateLimitMiddleware(answer, limiter, **KEYED), type="lifespan")

    assert asyncio.run(run()) == [{"type": "lifespan.startup.complete"}]


@pytest.mark.parametrize(("on_outage", "status"), [("allow", 200), ("deny", 503)])
def test_an_outage_follows_the_policy(open_limiter, short_dir, on_outage, status):
    limit = Limit("requests", "3/365d", on_outage=on_outage)

    async def run():
        limiter = open_limiter(limit, store=f"unix://{short_dir}/nothing-listens.sock")
        async with limiter, open_browser(RateLimitMiddleware(answer, limiter, **KEYED)) as browser:
            return await browser.get("/", headers=SECRET)

    answered = asyncio.run(run())
    assert answered.status_code == status
    if on_outage == "deny":
        assert answered.json()["type"].endswith("#temporary-reduced-capacity")


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"keys": "X-Api-Key"}, TypeError, "did you mean 'key'?"),
        ({"key": "X-Api-Key"}, InvalidRequest, "pepper: required"),
        ({}, InvalidRequest, "pepper: required"),
        ({"key": 7, "pepper": "p"}, InvalidRequest, "key: must be the name of a header"),
        ({"key": "X Api", "pepper": "p"}, InvalidRequest, "key: must be the name of a header"),
        ({**KEYED, "cost": 7}, InvalidRequest, "cost: must be amounts by unit"),
        ({**KEYED, "plan": 7}, InvalidRequest, "plan: must be a name or a function"),
        ({**KEYED, "model": "m"}, InvalidRequest, "model: must be a function"),
        ({**KEYED, "dialects": "ietf"}, InvalidRequest, "any of: ietf, openai, venice"),
        ({**KEYED, "dialects": ["none"]}, InvalidRequest, "any of: ietf, openai, venice"),
        ({**KEYED, "exclude": "/healthz"}, InvalidRequest, "exclude: must be a list"),
        ({**KEYED, "trusted_proxies": ["all"]}, InvalidRequest, "networks such as 10.0.0.0/8"),
        ({**KEYED, "usage": len}, InvalidRequest, "usage: needs reserve=True"),
        ({**KEYED, "reserve": True, "body_tail": -1}, InvalidRequest, "body_tail: must be a whole number"),
        ({**KEYED, "cost": answer}, InvalidRequest, "cost: must be a plain function"),
    ],
)
def test_a_wrong_option_says_what_is_allowed(open_limiter, options, error, told):
    with pytest.raises(error) as caught:
        RateLimitMiddleware(answer, open_limiter(THREE), **options)
    assert told in str(caught.value)


def test_a_limiter_for_threads_is_refused(make_limits):
    with pytest.raises(InvalidRequest, match="needs an AsyncLimiter, not Limiter"):
        RateLimitMiddleware(answer, make_limits(THREE), **KEYED)


@pytest.mark.parametrize(("root", "path"), [("", "/health"), ("/api", "/api/health"), ("/api", "/health")])
def test_a_path_is_left_out_wherever_the_application_is_mounted(open_limiter, root, path):
    async def run():
        async with open_limiter(Limit("requests", "1/365d")) as limiter:
            app = RateLimitMiddleware(answer, limiter, exclude=["/health"], **KEYED)
            statuses = []
            for asked in (path, path, f"{path}/more"):
                start, *_ = await play(app, path=asked, root_path=root, client=("203.0.113.7", 1))
                statuses.append(start["status"])
            return statuses

    assert asyncio.run(run()) == [200, 200, 401]
