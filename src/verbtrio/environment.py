"""Settings from environment variables: secrets, the port, and whether this is production.

    app = App(middleware=[JWTAuth(secret("SECRET_KEY", demo="for the demo only: everybody can read this key"))])
    app.listen(port(8000))

In production, that is under `ENVIRONMENT=production`, a missing or weak secret ends the program.
"""

from verbtrio.guards.environment import is_production as is_production
from verbtrio.guards.environment import port as port
from verbtrio.guards.environment import secret as secret
