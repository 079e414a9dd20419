"""Error messages that say what to write instead of another framework's arguments, or of what is nearly right. (For its
attributes: `habits`.) Pure."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import wraps
from typing import Any, TypeVar, cast

from starlette.middleware import Middleware

M = TypeVar("M", bound=Callable[..., Any])

_HOOK_NAMES = {
    **dict.fromkeys(("on_open", "onopen", "onOpen", "on_connect", "connect"), "open"),
    **dict.fromkeys(("on_message", "onmessage", "onMessage", "on_receive", "receive"), "message"),
    **dict.fromkeys(("on_close", "onclose", "onClose", "on_disconnect", "disconnect"), "close"),
    **dict.fromkeys(("on_error", "onerror", "onError"), "error"),
}
"""Other frameworks' names for the hooks."""
_KEYWORDS = {
    **_HOOK_NAMES,
    **dict.fromkeys(("dependencies", "middlewares", "guards", "before"), "middleware"),
    **dict.fromkeys(("max_size", "max_message_size", "max_payload"), "limits"),
    **dict.fromkeys(("ping_interval", "ping_timeout"), "heartbeat"),
    **dict.fromkeys(("origin", "origins", "cors"), "allowed_origins"),
    "protocols": "subprotocols",
    **dict.fromkeys(("public", "allow_subscribe_for_client"), "subscribe"),
    **dict.fromkeys(("allow_publish_for_client", "allow_publish_for_subscriber", "writable"), "publish"),
    **dict.fromkeys(("private", "subscription_token", "require_token"), "token"),
    **dict.fromkeys(("allow_presence_for_client", "allow_presence_for_subscriber"), "presence"),
    **dict.fromkeys(("history_size", "history_ttl", "remember", "replay"), "history"),
    **dict.fromkeys(("auth", "authorize", "allow", "permission", "permissions", "can_join", "middleware"), "guard"),
    **dict.fromkeys(("capacity", "limit", "max_clients", "max_users"), "max_members"),
}
"""Other frameworks' names for keywords."""
_CLIENT_KEYWORDS = {
    **dict.fromkeys(("jwt", "tokens", "authenticator", "authenticate", "authorize"), "auth"),
    **dict.fromkeys(("heartbeat", "ping_interval"), "ping"),
    **dict.fromkeys(("ping_timeout", "heartbeat_timeout"), "pong_timeout"),
    **dict.fromkeys(("open", "on_open", "on_connecting"), "connect"),
    **dict.fromkeys(("allow_anonymous", "anonymous_users", "allow_anonymous_connect_without_token"), "anonymous"),
    **dict.fromkeys(("user_personal_channel", "personal_channel"), "personal"),
    **dict.fromkeys(("guard", "guards"), "middleware"),
}
"""The same for `app.centrifuge`, where the first table has none that it takes."""
_RESPONSE = "the handler returns a response with its status, headers and type"
_NO_DOCUMENT = "leave it out: HTTP routes have no OpenAPI document"
_NO_KEYWORDS = {
    **dict.fromkeys(("response_model", "response_class", "status_code", "responses", "headers"), _RESPONSE),
    **dict.fromkeys(("tags", "summary", "description", "operation_id", "deprecated"), _NO_DOCUMENT),
    "include_in_schema": _NO_DOCUMENT,
    **dict.fromkeys(("methods", "method"), "each method has its own: get, post, put, patch and delete"),
    **dict.fromkeys(("endpoint", "handler", "func", "route"), "a handler is decorated"),
    "timeout": "callers say how long they wait, and `Limits.call_timeout` bounds it",
    **dict.fromkeys(("rpc", "calls", "namespaces"), "what clients may do is declared by `@app.call` and `app.rooms`"),
}
"""Keywords of other frameworks for which there is no keyword here."""
NO_DECORATORS = ("sse", "group", "centrifuge")
_PATH = ("path", '"/path"')
_FIRST = {"pattern": ("pattern", '"game:{id}"'), "name": ("name", '"rename"')}
"""What the first argument of a method is called, and an example of it. (Not "{room}", which is what a room's task
calls its first parameter.)"""
_AMBIGUOUS = {"connect", "receive", "disconnect"}
"""Names that methods other than hooks may well have."""


def no_injection(marker: str, name: str, receiver: str) -> str | None:
    """What to do instead of declaring a parameter with FastAPI's `marker`."""
    match marker:
        case "Depends" | "Security":
            return f"have middleware put it into {receiver}.state, or give it by functools.partial(..., {name}=...)"
        case "Query":
            return f"read {receiver}.query_params[{name!r}]"
        case "Header":
            return f"read {receiver}.headers"
        case "Cookie":
            return f"read {receiver}.cookies"
        case "Path":
            return f"the annotation is enough, `{name}: int` or `{name}: Annotated[int, msgspec.Meta(ge=1)]`"
        case "Body" | "Form" | "File":
            return "read `await request.json()` or `await request.form()`; a WebSocket's messages are `WebSocket[T]`"
    return None


def explained(*keywords: str) -> Callable[[M], M]:
    """Decorate a method that adds something for a path, a pattern of room names, or a name. If it is called with wrong
    arguments, the error says what to write instead.

    Args:
        keywords: the keywords that it takes. Default: those of its signature.

    Raises:
        TypeError: the first argument is missing or not a `str`; or the method does not take an argument.
        ValueError: the path does not begin with "/".
    """

    def decorate(method: M) -> M:
        name = method.__name__
        _, first, *others = inspect.signature(method).parameters.values()
        known = keywords or tuple(other.name for other in others if other.kind is other.KEYWORD_ONLY)

        @wraps(method)
        def call(self: Any, *positional: Any, **options: Any) -> Any:
            for habit in options:
                if habit not in known and habit != first.name:
                    raise TypeError(f"app.{name}() takes no {habit!r}: {_keyword(habit, known)}")
            given = (*positional, *(options[key] for key in options if key == first.name))
            what, example = _FIRST.get(first.name, _PATH)
            if not given:
                raise TypeError(f"app.{name} takes a {what}: app.{name}({example})")
            if not isinstance(given[0], str):
                raise TypeError(_no_text(name, given[0], what, example))
            if first.name == "path" and not given[0].startswith("/"):
                raise ValueError(
                    f'a path begins with "/": write app.{name}("/{given[0]}"), not app.{name}({given[0]!r})'
                )
            if len(given) > 1:
                raise TypeError(_one_too_many(name, given[1], what))
            return method(self, *positional, **options)

        return cast("M", call)

    return decorate


def _no_text(method: str, given: object, what: str, example: str) -> str:
    if callable(given) and method not in NO_DECORATORS:
        name = getattr(given, "__name__", "handler")
        return f"app.{method} takes a {what}: write @app.{method}({example}) above {name}"
    return f"app.{method} takes a {what}, a str: app.{method}({example}), not {given!r:.100}"


def _keyword(habit: str, known: Sequence[str]) -> str:
    """What to write instead of the keyword `habit`."""
    near = [_KEYWORDS.get(habit), _CLIENT_KEYWORDS.get(habit), *get_close_matches(habit, known, n=1)]
    name = next((one for one in near if one in known), None)
    instead = _NO_KEYWORDS.get(habit, "leave it out") if name is None else f"write `{name}=`"
    return f"{instead} (it takes {', '.join(known) or 'nothing else'})"


def _one_too_many(method: str, extra: object, what: str) -> str:
    text = f"app.{method}() takes everything but the {what} by keyword"
    if method in NO_DECORATORS:
        return f"{text}: not {extra!r:.100}"
    name = getattr(extra, "__name__", "handler")
    hooks = "; hooks are keywords: app.ws(path, open=..., message=...)" if method == "ws" else ""
    return f"{text}: write @app.{method}({what}) above {name}, or app.{method}({what})({name}){hooks}"


def check_list(middleware: object) -> None:
    """Raise `TypeError` for middleware that is not a list."""
    single = callable(middleware) or isinstance(middleware, Middleware | str | Mapping)
    if single or not isinstance(middleware, Iterable):
        name = getattr(middleware, "__name__", "...")
        raise TypeError(f"middleware is a list: middleware=[{name}], not {middleware!r:.100}")


def check_hook_names(
    target: type, hooks: Mapping[str, tuple[str, ...]], name: str, called: Collection[str] = ()
) -> None:
    """Raise `TypeError` for a handler class with methods that look like hooks and would never be called.

    Args:
        hooks: the hooks' names, and the arguments of each.
        called: other methods that are called, whatever their names.
    """
    for method, value in inspect.getmembers_static(target, _is_method):
        hook = _HOOK_NAMES.get(method)
        if method in hooks or method in called or method.startswith("_"):
            continue
        if hook is None or method in _AMBIGUOUS:  # an error only if it fits a hook that is missing
            near = [hook] if hook else get_close_matches(method, hooks, n=1, cutoff=0.8)
            hook = next((one for one in near if not hasattr(target, one) and _fits(value, hooks[one])), None)
        if hook is not None:
            arguments = ", ".join(("self", *hooks[hook]))
            raise TypeError(f"{name}.{method} is not a hook, and is never called: name it `{hook}({arguments})`")


def check_made(target: type, name: str) -> None:
    """Raise `TypeError` for a handler class that can't be instantiated for a connection."""
    if inspect.isabstract(target):
        missing = ", ".join(sorted(getattr(target, "__abstractmethods__", ())))
        raise TypeError(f"{name} is abstract and can't be instantiated for a connection: it lacks {missing}")
    try:
        inspect.signature(target).bind()
    except TypeError as error:
        raise TypeError(
            f"{name} is instantiated without arguments for each connection, and its __init__ has no defaults: {error}. "
            f"What connections share belongs in ws.app.state, or in a class made by a function"
        ) from None
    except ValueError:
        pass  # a built-in without a signature


def _is_method(value: object) -> bool:
    return inspect.isfunction(value) or isinstance(value, staticmethod | classmethod)


def _fits(value: Any, arguments: tuple[str, ...]) -> bool:
    """Whether a method can be called with a hook's arguments, and only with them."""
    function: Callable[..., Any] = getattr(value, "__func__", value)
    own = () if isinstance(value, staticmethod) else ("self",)
    try:
        inspect.signature(function).bind(*own, *arguments)
    except (TypeError, ValueError):
        return False
    return True
