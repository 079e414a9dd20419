"""Key pairs for tests, and the JWKS document that gives their public halves."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm


@cache
def private_key(name: str) -> rsa.RSAPrivateKey:
    """One for each name."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def public_pem(name: str) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return private_key(name).public_key().public_bytes(serialization.Encoding.PEM, form)


def private_pem(name: str) -> bytes:
    form, encryption = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return private_key(name).private_bytes(serialization.Encoding.PEM, form, encryption)


def public_jwk(name: str, **more: Any) -> dict[str, Any]:
    jwk: dict[str, Any] = json.loads(RSAAlgorithm.to_jwk(private_key(name).public_key()))
    return {**jwk, "kid": name, "alg": "RS256", **more}


def document(*names: str) -> dict[str, Any]:
    return {"keys": [public_jwk(name) for name in names]}


def signed_with(name: str, claims: dict[str, Any], **headers: Any) -> str:
    return jwt.encode(claims, private_pem(name), algorithm="RS256", headers={"kid": name, **headers})
