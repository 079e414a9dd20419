"""The example wss: a script that serves under TLS, and does not start without a certificate."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import trustme

from tests.support.peers import connect
from tests.support.process import ROOT, free_port, running


async def test_it_is_served_under_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    port = free_port()
    environment = {"PORT": str(port), "CERTFILE": f"{tmp_path}/cert.pem", "KEYFILE": f"{tmp_path}/key.pem"}
    with running([sys.executable, "examples/wss.py"], port, tls=True, **environment) as server:
        async with connect(f"wss://127.0.0.1:{port}/ws", tls=context) as peer:
            assert await peer.receive() == {"type": "welcome", "scheme": "wss"}
            await peer.send({"a": 1})
            assert await peer.receive() == {"type": "echo", "data": {"a": 1}}
        async with httpx.AsyncClient(verify=context) as client:
            assert "strict-transport-security" in (await client.get(server.url)).headers
        async with httpx.AsyncClient() as client:
            with pytest.raises(httpx.TransportError):
                await client.get(f"http://127.0.0.1:{port}/")


def test_not_without_a_certificate() -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("CERTFILE", "KEYFILE")}
    run = subprocess.run(
        [sys.executable, "examples/wss.py"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30
    )
    assert run.returncode == 1
    assert "mkcert" in run.stderr
    assert "Traceback" not in run.stderr
