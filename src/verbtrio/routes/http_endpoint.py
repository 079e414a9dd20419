"""HTTP handlers that take the path's parameters as arguments, as WebSocket handlers do."""

from __future__ import annotations

import inspect
from functools import partial, wraps
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request

from verbtrio.connection.parameters import Convertors, ParameterError, Parameters


def http_endpoint(endpoint: Any, path: Convertors) -> Any:
    """`endpoint` as Starlette calls it: with the request alone. An ASGI application, or a class, stays as it is.

    Raises:
        TypeError: see `Parameters`.
    """
    function = endpoint
    while isinstance(function, partial):
        function = function.func
    if not (inspect.isfunction(function) or inspect.ismethod(function)):
        return endpoint
    parameters = Parameters(endpoint, path, first="request")
    if not parameters:
        return endpoint

    @wraps(endpoint)
    async def call(request: Request) -> Any:
        try:
            positional, named = parameters.arguments(request.path_params)
        except ParameterError as error:
            raise HTTPException(404) from error
        if inspect.iscoroutinefunction(endpoint):
            return await endpoint(request, *positional, **named)
        return await run_in_threadpool(endpoint, request, *positional, **named)

    call.__name__ = getattr(endpoint, "__name__", type(endpoint).__name__)  # what Starlette names the route by
    return call
