"""What verbtrio logs where no logging is set up, and that it then writes nothing where logging is."""

from __future__ import annotations

import io
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import verbtrio
from verbtrio.base import logs

LINE = re.compile(
    rf"\[\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{{4}}\] \[{os.getpid()}\] \[(?P<level>\w+)\] (?P<message>.*)\n"
)
NAMES = sorted(
    {
        name
        for path in Path(verbtrio.__file__).parent.rglob("*.py")
        for name in re.findall(r'getLogger\("(verbtrio\.\w+)"\)', path.read_text())
    }
)
"""Every logger there is."""


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch) -> logging.Logger:
    """A root logger as in a program of its own: pytest's has handlers."""
    root = logging.RootLogger(logging.WARNING)
    for name in ("verbtrio", "chat"):
        monkeypatch.setattr(logging.getLogger(name), "parent", root)
    return root


def written(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    assert out == ""
    return err


def test_there_are_loggers() -> None:
    assert "verbtrio.connection" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_line_with_time_and_level(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    logging.getLogger(name).warning("look %s", "here")
    line = LINE.fullmatch(written(capsys))
    assert line is not None
    assert line.groupdict() == {"level": "WARNING", "message": "look here"}


def test_what_a_client_sends_is_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Not even in an exception's text."""
    forged = "x\n[2026-11-27 15:00:00 +0000] [1] [CRITICAL] all is lost\x1b[2J\u2028"
    try:
        raise ValueError(forged)
    except ValueError:
        logging.getLogger("verbtrio.connection").exception("the handler of %r raised", forged)
    first, *others = written(capsys).splitlines()
    assert LINE.fullmatch(first + "\n")
    assert others[-1] == "    [2026-11-27 15:00:00 +0000] [1] [CRITICAL] all is lost\\x1b[2J\\u2028"
    assert all(line.startswith("    ") for line in others)


def test_as_hypercorn_writes_it(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from hypercorn.config import Config

    hypercorns = logging.getLogger("hypercorn.error")
    monkeypatch.setattr(hypercorns, "handlers", [])
    Config().log  # noqa: B018 -- makes the logger
    record = hypercorns.makeRecord("verbtrio.hub", logging.WARNING, __file__, 1, "said", (), None)
    handler = hypercorns.handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(theirs := io.StringIO())
    handler.emit(record)
    logs.LastResort().emit(record)
    assert written(capsys) == theirs.getvalue()


@pytest.mark.parametrize(
    ("level", "is_written"),
    [(logging.DEBUG, False), (logging.INFO, False), (logging.WARNING, True), (logging.ERROR, True)],
)
def test_from_warnings_on(level: int, is_written: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """Python's own level, even where a logger's says more."""
    logger = logging.getLogger("verbtrio.hub")
    logger.setLevel(logging.DEBUG)
    try:
        logger.log(level, "said")
    finally:
        logger.setLevel(logging.NOTSET)
    assert bool(written(capsys)) == is_written


def test_a_traceback_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("verbtrio.connection").error("the handler raised", exc_info=ValueError("no"))
    first, *rest = written(capsys).splitlines()
    assert first.endswith("[ERROR] the handler raised")
    assert rest == ["    ValueError: no"]


def test_other_loggers_are_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("chat").warning("said")
    assert written(capsys) == "said\n"


# Where something else writes, or somebody wants silence


@pytest.mark.parametrize("where", ["", "verbtrio", "verbtrio.hub"])
@pytest.mark.parametrize("kind", ["stream", "null", "higher"])
def test_not_beside_another_handler(
    where: str, kind: str, root: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = io.StringIO()
    handler = logging.NullHandler() if kind == "null" else logging.StreamHandler(stream)
    if kind == "higher":
        handler.setLevel(logging.CRITICAL)
    logger = logging.getLogger(where) if where else root
    logger.addHandler(handler)
    try:
        logging.getLogger("verbtrio.hub").warning("said")
        assert written(capsys) == ""
        assert stream.getvalue() == ("said\n" if kind == "stream" else "")
        if where == "verbtrio.hub":
            logging.getLogger("verbtrio.rooms").warning("another's")
            assert "another's" in written(capsys)
    finally:
        logger.removeHandler(handler)


def test_a_logger_that_keeps_to_itself(
    root: logging.Logger, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The root logger's handlers are none of its records': Python's last resort would write them."""
    root.addHandler(logging.StreamHandler(stream := io.StringIO()))
    monkeypatch.setattr(logging.getLogger("verbtrio"), "propagate", False)
    logging.getLogger("verbtrio.hub").warning("said")
    assert LINE.fullmatch(written(capsys))
    assert stream.getvalue() == ""


def test_no_last_resort_is_wanted(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "lastResort", None)
    logging.getLogger("verbtrio.hub").error("said")
    assert written(capsys) == ""


def test_without_a_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    logging.getLogger("verbtrio.hub").error("said")


def test_pytest_still_sees_everything(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("verbtrio"), "parent", logging.getLogger())
    logging.getLogger("verbtrio.hub").warning("said")
    assert caplog.messages == ["said"]
    assert written(capsys) == ""


def test_once_is_enough() -> None:
    logs.set_up()
    handlers = logging.getLogger("verbtrio").handlers
    assert [type(handler) for handler in handlers] == [logs.LastResort]


SET_UP = "logging.basicConfig(format='set up: %(message)s')"


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (["import verbtrio"], r"\[.*\] \[\d+\] \[WARNING\] said"),
        ([SET_UP, "import verbtrio"], "set up: said"),
        (["import verbtrio", SET_UP], "set up: said"),
        (["import verbtrio", "logging.config.dictConfig({'version': 1, 'root': {'handlers': []}})"], r"\[.*\] said"),
    ],
)
def test_in_a_program(program: list[str], expected: str) -> None:
    """Whether the program sets logging up before it imports verbtrio, behind it, or not at all."""
    lines = ["import logging.config", *program, "log = logging.getLogger('verbtrio.app')", "log.disabled = False"]
    command = [sys.executable, "-c", "\n".join([*lines, "log.warning('said')"])]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout == ""
    assert re.fullmatch(expected + "\n", ended.stderr), ended.stderr
