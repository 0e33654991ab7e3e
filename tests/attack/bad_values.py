"""Values that no field, header or body may have."""

BAD_NUMBERS = [
    "1e400",
    "-1e400",
    "-1",
    "NaN",
    "Infinity",
    "1" * 5_000,
    "1e13",
    "true",
    '"5"',
    "[]",
    "{}",
    "0x10",
]
BAD_NUMBERS += ["1.", ".5", "+1", "01", "1e", "--1", "1_000", "-0.0001", "1000000000001", "\u0661"]
BAD_TEXTS = [
    "",
    " ",
    "a b",
    "a\x00b",
    "a\r\nb",
    "\x1b[31mred",
    "schlüssel",
    "κλειδί",
    "vk_\u0430",
    "🔑",
    "a\u2028b",
]
BAD_TEXTS += ["x" * 257, "x" * 5_000, "\ufeffvk", "vk\u200b", "a\u0301", "\u202evk", "\uff56k"]
BAD_VALUES = [5, 1.5, True, [], {}, ["vk"], {"vk": 1}, *BAD_TEXTS]
BAD_TIMES = [
    "",
    "now",
    "2026-02-20T15:30:00",
    "2026-02-30T00:00:00Z",
    "1e400",
    -1,
    10**30,
    True,
    [],
    "9999-12-31T23:59:59Z",
]
UNKNOWN_FIELDS = [
    "prompt",
    "messages",
    "Key",
    "KEY",
    "key ",
    "__proto__",
    "constructor",
    "\x00",
    "k" * 3_000,
    "ключ",
    "input",
]
NO_JSON = [
    b"",
    b"{",
    b"[",
    b"nul",
    b"'key'",
    b"key=vk",
    b"<key/>",
    b"\xff\xfe",
    b"\x00",
    b"[" * 60_000,
    b'{"a":' * 9_000,
]
BROKEN_UTF8 = [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x28\xa1", b"\x80", b"\xc3"]
BAD_HEADERS = [
    *(
        b"X-RateLimit-Key: " + value
        for value in (b"a b", b"\xff", b"a\tb", b"\xc3\xa4", b"x" * 257, b"x" * 9_000)
    ),
    *(
        b"X-RateLimit-Plan: " + value
        for value in (b"gold", b"free,pro", b'"free"', b"Free", b"\xe9", b"x" * 65)
    ),
    *(b"X-RateLimit-Model: " + value for value in (b"a b", b"\xff\xfe", b"x" * 300)),
    *(b"X-RateLimit-Tenant: " + value for value in (b"a b", b"\xf0\x9f\x94\x91", b"x" * 300)),
    *(b"X-RateLimit-Request-Id: " + value for value in (b"a b", b"\xa0b", b"x" * 129)),
    *(b"X-RateLimit-Reserve: " + value for value in (b"1", b"true", b"?2", b"?1?1", b"?1, ?1", b"\xff")),
    *(
        b"X-RateLimit-Timestamp: " + value
        for value in (b"now", b"1e400", b"nan", b"-1", b"0x10", b"2026-02-20T15:30:00")
    ),
    *(
        b"X-RateLimit-Cost: tokens=" + number.encode()
        for number in BAD_NUMBERS
        if number not in {"1e13", "true", "01"}
    ),
    *(
        b"X-RateLimit-Cost: " + value
        for value in (b"tokens", b"=", b"(1 2)", b"tokens=?1", b"bananas=1", b"tokens=1;;")
    ),
    *(
        b"X-RateLimit-Cost: " + value
        for value in (b"tokens=1,", b"tokens=@1", b"tokens=:YQ==:", b"\xff=1", b"a" * 9_000)
    ),
    b"X-Api-Key: one\r\nX-Api-Key: two",
    b"Authorization: Bearer one\r\nauthorization: Bearer two",
    b"X-RateLimit-Cost: tokens=1\r\nx-ratelimit-cost: tokens=2",
    b"X-RateLimit-Plan: free\r\nX-RATELIMIT-PLAN: free",
]
NO_HTTP = [
    b"\x16\x03\x01\x02\x00\x01\x00",
    b"\x00" * 64,
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
]
NO_HTTP += [
    b"GET /v1/check HTTP/1.1\r\nX y: z\r\n\r\n",
    b"GE\x00T / HTTP/1.1\r\n\r\n",
    b"EHLO x\r\n",
    b"*1\r\n$8\r\nFLUSHALL\r\n",
]
