"""Messages that two servers may read differently, each with a request hidden in what may be its body."""

HIDDEN_HEAD = (
    b"POST /v1/settle HTTP/1.1\r\nHost: %(host)s\r\n%(hidden_headers)sContent-Length: %(size)d\r\n\r\n"
)
"""The head of the hidden request."""

_END = b"0\r\n\r\n"  # of a chunked body
_CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"

AMBIGUOUS = {
    "CL.TE": b"Content-Length: %(with_end)d\r\nTransfer-Encoding: chunked\r\n\r\n" + _END + b"%(hidden)s",
    "TE.CL": b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n%(length)x\r\n%(hidden)s\r\n" + _END,
    "two lengths": b"Content-Length: 0\r\nContent-Length: %(length)d\r\n\r\n%(hidden)s",
    "a list of lengths": b"Content-Length: 0, %(length)d\r\n\r\n%(hidden)s",
    "length with plus": b"Content-Length: +%(length)d\r\n\r\n%(hidden)s",
    "length in hex": b"Content-Length: 0x%(length)x\r\n\r\n%(hidden)s",
    "space after the name": b"Content-Length : %(length)d\r\n\r\n%(hidden)s",
    "folded length": b"Content-Length:\r\n %(length)d\r\n\r\n%(hidden)s",
    "length after a bare line feed": b"X-A: y\nContent-Length: %(length)d\r\n\r\n%(hidden)s",
    "length after a bare return": b"X-A: y\rContent-Length: %(length)d\r\n\r\n%(hidden)s",
    "xchunked": b"Transfer-Encoding: xchunked\r\n\r\n" + _END + b"%(hidden)s",
    "identity": b"Transfer-Encoding: identity\r\n\r\n%(hidden)s",
    "chunked, identity": b"Transfer-Encoding: chunked, identity\r\n\r\n" + _END + b"%(hidden)s",
    "chunked and identity": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n"
    + _END
    + b"%(hidden)s",
    "chunked after a vertical tab": b"Transfer-Encoding: \x0bchunked\r\n\r\n" + _END + b"%(hidden)s",
    "space before the colon": b"Transfer-Encoding : chunked\r\n\r\n" + _END + b"%(hidden)s",
    "folded chunked": b"Transfer-Encoding:\r\n chunked\r\n\r\n" + _END + b"%(hidden)s",
    "a huge chunk": _CHUNKED + b"fffffffffffffffff1\r\n%(hidden)s",
    "a negative chunk": _CHUNKED + b"-1\r\n\r\n%(hidden)s",
    "a chunk in hex": _CHUNKED + b"0x0\r\n\r\n%(hidden)s",
    "a chunk that is too short": _CHUNKED + b"1\r\nxx\r\n" + _END + b"%(hidden)s",
    "a chunk after a bare line feed": _CHUNKED + b"0;x\n\r\n%(hidden)s",
    "a zero byte": b"X-A: a\x00b\r\nContent-Length: 0\r\n\r\n%(hidden)s",
    "a header without a colon": b"X-Nothing\r\nContent-Length: %(length)d\r\n\r\n%(hidden)s",
    "an upgrade": b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: %(length)d\r\n\r\n%(hidden)s",
    "a body": b"Content-Length: %(length)d\r\n\r\n%(hidden)s",
    "a body that is expected": b"Expect: 100-continue\r\nContent-Length: %(length)d\r\n\r\n%(hidden)s",
    "a chunked body": _CHUNKED + b"%(length)x\r\n%(hidden)s\r\n" + _END,
    "the path of a key": b"Content-Length: 40\r\n\r\nPUT /v1/keys/vk_smuggled HTTP/1.1\r\nX: yy\r\n",
}
"""Where the head of a message ends in each, and the hidden request begins."""

PIPELINED = b"Content-Length: 0\r\n\r\n%(hidden)s"
"""No smuggling: two requests, for everyone."""


def write_message(
    end, *, path=b"/v1/authorize", host=b"x", headers=b"", hidden_headers=b"", name=b"vk_smuggled"
):
    """Return a message with a hidden request.

    Args:
        end: one of the ends above.
        path: the target of the message itself.
        host: the Host of both.
        headers: more lines for the head of the message, each with its end.
        hidden_headers: more lines for the head of the hidden request.
        name: the key that the hidden request settles.
    """
    body = b'{"key": "%s", "input_tokens": 5, "status": 500}' % name
    hidden = HIDDEN_HEAD % {b"host": host, b"hidden_headers": hidden_headers, b"size": len(body)} + body
    fields = {b"hidden": hidden, b"length": len(hidden), b"with_end": len(_END + hidden)}
    return b"POST %s HTTP/1.1\r\nHost: %s\r\n%s" % (path, host, headers) + end % fields
