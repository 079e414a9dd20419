"""An `App` in another framework's application, which enters its lifespan."""

from starlette.applications import Starlette
from starlette.routing import Mount

from verbtrio import App

chat = App()
app = Starlette(routes=[Mount("/chat", app=chat)], lifespan=chat.lifespan)
