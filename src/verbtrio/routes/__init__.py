"""From a path to a handler: WebSocket and event stream routes, groups, and the document about them."""
