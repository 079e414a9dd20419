"""How an app is served: its lifespan, and its connections, taken over or not."""
