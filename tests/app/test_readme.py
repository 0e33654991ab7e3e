"""The example for FastAPI in the README: it is short, and it limits."""

import asyncio
import re
from pathlib import Path

from .requests import SECRET, open_browser

README = Path(__file__).parents[2] / "README.md"
[EXAMPLE] = re.findall(r"```python\n([^`]*ratelimit\.fastapi[^`]*)```", README.read_text())


def test_the_example_has_at_most_twelve_lines():
    assert len(EXAMPLE.splitlines()) <= 12


def test_the_example_limits(url):
    names = {}
    exec(EXAMPLE.replace("redis://localhost:6379", url), names)  # noqa: S102 - the README's own

    async def run():
        app = names["app"]

        @app.get("/")
        async def answer() -> int:
            return 1

        async with names["limiter"], open_browser(app) as browser:
            return [(await browser.get("/", headers=SECRET)).status_code for _ in range(22)]

    assert sorted(set(asyncio.run(run()))) == [200, 429]
