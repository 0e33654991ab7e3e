"""How much of the usage stream is kept, and the metric of what nobody has read."""

from ..processes import wait_until

METRIC = "ratelimit_usage_trimmed_unread_records"


def read_metric(sidecar):
    lines = sidecar.client.get("/metrics").text.splitlines()
    [value] = [line.split()[1] for line in lines if line.startswith(f"{METRIC} ")]
    return float(value)


def test_the_settings_bound_the_stream_and_the_metric_counts_what_went_unread(
    start_sidecar, valkey_url, open_client
):
    client = open_client(valkey_url)
    client.flushall()
    sidecar = start_sidecar("--redis", valkey_url, "--usage-length", "20", RATELIMIT_USAGE_AGE="2d")
    assert read_metric(sidecar) == 0
    for _ in range(121):
        assert sidecar.client.post("/v1/settle", json={"key": "vk", "input_tokens": 1}).status_code == 200
    assert client.xlen("rl1:usage") == 20
    assert client.pttl("rl1:usage") > 86_400_000
    wait_until(lambda: read_metric(sidecar) == 101)


def test_a_length_of_zero_writes_no_record(start_sidecar, valkey_url, open_client):
    client = open_client(valkey_url)
    client.flushall()
    sidecar = start_sidecar("--redis", valkey_url, "--usage-length", "0")
    assert sidecar.client.post("/v1/settle", json={"key": "vk", "input_tokens": 1}).status_code == 200
    assert not client.exists("rl1:usage")
