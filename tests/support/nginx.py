"""A real nginx in front of a server, configured as docs/security.md says."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.process import ROOT, Server, free_port, running

SBIN = "/usr/sbin"
"""Where Debian puts it: not on everybody's PATH."""
TIMES = "client_header_timeout 1s;\nclient_body_timeout 1s;\nkeepalive_timeout 1s;\nlingering_timeout 1s;\n"
"""So that a test need not wait for long where nginx waits for more."""
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def find_nginx() -> str | None:
    """The command, if there is one."""
    return shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", ""), SBIN]))


def require_nginx() -> str:
    """The command. Skip where there is none; but where CI promises one, a skip would pass for success."""
    command = find_nginx()
    if command is None:
        reason = "THE TESTS BEHIND A PROXY DID NOT RUN: nginx not installed (Debian: nginx-light)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return command


def snippet() -> str:
    """What docs/security.md tells people to write into nginx's `http` block."""
    page = (ROOT / "docs" / "security.md").read_text()
    section = page[page.index("## Behind a reverse proxy") :]
    found = re.findall(r"```nginx\n(.*?)```", section[: section.index("\n## ", 1)], re.DOTALL)
    assert len(found) == 1, "docs/security.md has one snippet for nginx, behind which the tests run"
    return str(found[0])


def configuration(folder: Path, port: int, upstream: int, text: str) -> str:
    """A whole nginx.conf around the snippet, with `/admin` closed to everybody."""
    for old, new in (
        ("server 127.0.0.1:8000;", f"server 127.0.0.1:{upstream};"),
        ("listen 80;", f"listen 127.0.0.1:{port};\n    location /admin {{ deny all; }}"),
    ):
        assert text.count(old) == 1, f"the snippet has {old!r}, which is replaced here"
        text = text.replace(old, new)
    paths = "".join(f"{name}_temp_path {folder}/{name};\n" for name in TEMPORARY)
    return (
        f"daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log stderr;\nlock_file {folder}/lock;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{paths}{TIMES}{text}}}\n"
    )


@contextmanager
def nginx(folder: Path, upstream: int, text: str | None = None) -> Iterator[Server]:
    """An nginx of one process, in front of the server at port `upstream`; all its files are in `folder`."""
    command = require_nginx()
    port = free_port()
    file = folder / "nginx.conf"
    file.write_text(configuration(folder, port, upstream, snippet() if text is None else text))
    with running([command, "-p", str(folder), "-c", str(file), "-e", "stderr"], port) as server:
        yield server
