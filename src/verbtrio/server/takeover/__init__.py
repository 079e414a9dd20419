"""The take-over: the one place that knows hypercorn's insides."""
