"""The sidecar on a cluster and behind Sentinels: the same answers, over HTTP, with two workers."""

import json

import pytest

from ..processes import run_ratelimit

ADMIN = {"Authorization": "Bearer admin-token"}
POLICY = """
default_plan: free
plans:
  free:
    limits:
      requests: {rate: 5/day, on_outage: deny}
      tokens: {unit: tokens, rate: 1000/day}
      everyone: {rate: 1000/day, per: []}
  pro: {limits: {requests: {rate: 50/day}}}
"""


@pytest.mark.parametrize("kind", ["cluster", "sentinel"])
def test_a_sidecar_answers_as_on_one_server(request, start_sidecar, open_client, kind):
    url = request.getfixturevalue(f"{kind}_url")
    open_client(url).flushall()
    sidecar = start_sidecar("--redis", url, "--workers", "2", "--admin-token", "admin-token", policy=POLICY)
    post = sidecar.client.post
    assert sidecar.client.get("/readyz").status_code == 200
    statuses = [sidecar.check("vk_a").status_code for _ in range(6)]
    assert statuses == [200] * 5 + [429]
    body = sidecar.check("vk_b", reserve=True, cost={"tokens": 100}).json()
    assert [limit["remaining"] for limit in body["limits"]] == [4, 900, 994]
    settled = post("/v1/settle", json={"reservation": body["reservation"], "input_tokens": 40}).json()
    assert [limit["remaining"] for limit in settled["limits"]] == [4, 960, 994]
    batch = post("/v1/check/batch", json=[{"key": f"vk_{number}"} for number in range(50)]).json()
    assert {decision["source"] for decision in batch} == {"store"}
    assert sidecar.client.put("/v1/keys/vk_a", json={"plan": "pro"}, headers=ADMIN).status_code == 200
    assert sidecar.client.delete("/v1/keys/vk_a", headers=ADMIN).status_code == 204
    used = run_ratelimit("usage", "--json", RATELIMIT_REDIS=url)
    assert [(row["key"], row["input_tokens"]) for row in json.loads(used.stdout)] == [("vk_b", 40)]
