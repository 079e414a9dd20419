"""Secrets: in production none but one's own."""

from __future__ import annotations

import pytest

from verbtrio.environment import port, secret

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


class TestPort:
    def test_that_is_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("PORT", raising=False)
        assert port(3000) == 3000
        for text, number in (("", 3000), ("0", 0), ("8080", 8080), ("65535", 65535)):
            monkeypatch.setenv("PORT", text)
            assert port(3000) == number

    @pytest.mark.parametrize(
        "text", ["abc", "80a", "0x50", "8_080", "-1", "+80", " 80", "80.0", "٨٠", "²", " ", "tcp://x"]
    )
    def test_that_is_no_number(self, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PORT", text)
        with pytest.raises(
            ValueError, match=r"PORT is '.*', which is not a number: set it to a port, like PORT=3000"
        ) as caught:
            port(3000)
        assert repr(text) in str(caught.value)

    @pytest.mark.parametrize("text", ["65536", "99999999999999999999", "9" * 5000])
    def test_that_is_too_large(self, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PORT", text)
        with pytest.raises(ValueError, match="which is not a port: use 1 to 65535"):
            port(3000)
