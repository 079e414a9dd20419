"""Authentication by JSON Web Tokens.

    auth = JWTAuth(key=os.environ["SECRET_KEY"])
    app.ws("/ws", middleware=[auth])(chat)       # in `chat`, `ws.user` is the token's claims

Only this package loads PyJWT.
"""

from verbtrio.auth.jwt import JWTAuth as JWTAuth
