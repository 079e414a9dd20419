"""What a client can make hypercorn and Trio log: one line each, and rarely. (On the wire: tests/robustness.)"""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hypercorn.config import Config
from hypothesis import given
from hypothesis import strategies as st

from verbtrio import App
from verbtrio.base.logs import escape
from verbtrio.server.takeover.logs import ACCEPT_LOGGER, ACCEPT_SECONDS, AcceptErrorLimit, Escaping, escape_access_log


def record(args: Any = (), created: float = 0.0) -> logging.LogRecord:
    made = logging.LogRecord("name", logging.ERROR, "file", 1, "message", args, (ValueError, ValueError(), None))
    made.created = created
    return made


class TestEscaping:
    @given(st.text())
    def test_a_line_stays_a_line(self, text: str) -> None:
        assert len(f"x{escape(text)}x".splitlines()) == 1
        assert "\x1b" not in escape(text)

    def test_what_is_no_harm_stays(self) -> None:
        assert escape("GET /é€/a%0a?") == "GET /é€/a%0a?"
        assert escape("a\r\n\x1b[31m\x9b\u2028") == "a\\r\\n\\x1b[31m\\x9b\\u2028"

    def test_the_atoms_of_a_record(self) -> None:
        atoms = {"r": "GET /\n", "D": 1, "{user-agent}i": "\x1b"}
        line = record((atoms,))
        assert Escaping().filter(line)
        assert line.args == {"r": "GET /\\n", "D": 1, "{user-agent}i": "\\x1b"}

    def test_it_is_put_on_once(self) -> None:
        config = Config()
        config.accesslog = logging.getLogger("test_hypercorn_logs")
        for _ in range(3):
            escape_access_log(config)
        assert len(config.accesslog.filters) == 1

    def test_no_access_log(self) -> None:
        escape_access_log(Config())


class TestAcceptErrorLimit:
    def test_one_line_a_second_without_a_traceback(self) -> None:
        limit = AcceptErrorLimit()
        lines = [record(created=n * ACCEPT_SECONDS / 10) for n in range(25)]
        let_through = [line for line in lines if limit.filter(line)]
        assert [line.created for line in let_through] == pytest.approx([0, ACCEPT_SECONDS, 2 * ACCEPT_SECONDS])
        assert all(line.exc_info is None for line in let_through)

    async def test_for_as_long_as_the_application_lives(self) -> None:
        before = list(ACCEPT_LOGGER.filters)
        async with App().lifespan():
            assert any(isinstance(each, AcceptErrorLimit) for each in ACCEPT_LOGGER.filters)
        assert ACCEPT_LOGGER.filters == before
