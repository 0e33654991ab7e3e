"""Settles each reservation in a child of its own, which dies by SIGKILL before it reads the reply.

Usage: settling_process.py URL, with the ids of the reservations on standard input.
"""

import os
import signal
import sys

from ratelimit import Limit, Limiter, Usage
from ratelimit.engine.reservation_id import parse_reservation_id
from ratelimit.stores import transport

TOKENS = Limit("tokens", "1000000/365d", unit="tokens")
MILLISECONDS = 2000


def settle_and_die(url, reservation, *, waits):
    """Settle; die when the reply has arrived, or without waiting for it."""

    def die(connection):
        if waits:
            connection._poll.poll(MILLISECONDS)
        os.kill(os.getpid(), signal.SIGKILL)

    limiter = Limiter(url, TOKENS, deadline=5)
    limiter.peek(parse_reservation_id(reservation).tenant)  # Now the connection is open.
    transport._Connection.receive = die
    transport._Connection.spin = lambda _: False
    limiter.settle(Usage(input_tokens=3, output_tokens=4, status=200), reservation=reservation)


def main():
    url = sys.argv[1]
    for number, reservation in enumerate(sys.stdin.read().split()):
        child = os.fork()
        if child == 0:
            settle_and_die(url, reservation, waits=number % 2 == 0)
            os._exit(1)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            sys.exit(f"child {number} was not killed: {status}")


if __name__ == "__main__":
    main()
