"""How an app is served: by hypercorn's worker, taken over or not, with the application's own tasks."""
