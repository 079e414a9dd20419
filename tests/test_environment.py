"""Secrets: in production none but one's own."""

from __future__ import annotations

import pytest

from verbtrio.environment import secret

DEMO = "for the demo only: everybody can read this key"
OWN = "a secret of thirty-two bytes, or more"


def test_outside_production(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.delenv("ENVIRONMENT", raising=False)
    monkeypatch.setenv("SECRET_KEY", OWN)
    assert secret("SECRET_KEY", demo=DEMO) == OWN
    assert caplog.records == []
    monkeypatch.delenv("SECRET_KEY")
    assert secret("SECRET_KEY", demo=DEMO) == DEMO
    assert "SECRET_KEY is not set" in caplog.text
    assert DEMO not in caplog.text


@pytest.mark.parametrize("production", ["production", "PRODUCTION", " production "])
def test_in_production(production: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENVIRONMENT", production)
    monkeypatch.setenv("SECRET_KEY", OWN)
    assert secret("SECRET_KEY", demo=DEMO) == OWN
    for value, problem in (("", "is not set"), (DEMO, "is the demo key"), ("short", "less than 32 bytes")):
        monkeypatch.setenv("SECRET_KEY", value)
        with pytest.raises(SystemExit, match=problem) as refusal:
            secret("SECRET_KEY", demo=DEMO)
        assert "token_urlsafe" in str(refusal.value)
        assert DEMO not in str(refusal.value)
