"""Authentication by JSON Web Tokens. Only this package loads PyJWT.

auth = JWTAuth(key=os.environ["SECRET_KEY"])
app.ws("/ws", middleware=[auth])(chat)       # chat's `ws.user` is the token's claims
"""

from verbtrio.auth.jwt import JWTAuth as JWTAuth
