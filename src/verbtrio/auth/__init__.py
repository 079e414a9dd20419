"""A public door: `from verbtrio.auth import JWTAuth`. Nothing else loads PyJWT."""

from verbtrio.auth.jwt import JWTAuth as JWTAuth
