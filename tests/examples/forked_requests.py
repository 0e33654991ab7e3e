"""Import a web application, fork four processes, and print the statuses that 50 requests get in each.

The statuses of a request before the fork come first.

Arguments: the folder of the application, and the name of its module.
"""

import asyncio
import json
import multiprocessing
import sys

import httpx

from ratelimit import Limit

PROCESSES, REQUESTS, BURST = 4, 50, 100


def send_blocking(application, count):
    """Send requests to a WSGI application."""
    with httpx.Client(transport=httpx.WSGITransport(application), base_url="http://localhost") as client:
        return [client.get("/", headers={"X-Api-Key": "sk-demo"}).status_code for _ in range(count)]


def send_async(application, count):
    """Send requests to an ASGI application."""

    async def send():
        transport = httpx.ASGITransport(application)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            requests = (client.get("/", headers={"X-Api-Key": "sk-demo"}) for _ in range(count))
            return [answer.status_code for answer in await asyncio.gather(*requests)]

    return asyncio.run(send())


def main():
    """Print a list of statuses for each process."""
    folder, name = sys.argv[1:]
    sys.path.insert(0, folder)
    module = __import__(name)
    # A rate per week gives nothing back while the test runs.
    module.limiter.policy = Limit("requests", f"{BURST}/7d")
    application = getattr(module, "app", None) or module.application
    send = send_blocking if name in {"flask_app", "django_app"} else send_async
    # The limiter has a connection before the fork, which the children must not share.
    first = send(application, 1)

    fork = multiprocessing.get_context("fork")
    start, statuses = fork.Barrier(PROCESSES), fork.SimpleQueue()

    def serve():
        start.wait()
        statuses.put(send(application, REQUESTS))

    children = [fork.Process(target=serve) for _ in range(PROCESSES)]
    for child in children:
        child.start()
    json.dump([first, *(statuses.get() for _ in children)], sys.stdout)
    for child in children:
        child.join()


if __name__ == "__main__":
    main()
