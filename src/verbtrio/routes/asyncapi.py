"""An AsyncAPI 3.0 document (https://www.asyncapi.com/docs/reference/specification/v3.0.0) of an application's routes,
with JSON Schemas of their messages. Pure: types in, a dictionary out."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from verbtrio.messages.custom import members

SCHEMAS = "#/components/schemas/"


class ErrorMessage(msgspec.Struct, tag_field="type", tag="error"):
    """The answer to a message that the handler does not take."""

    message: str
    ref: str | int | float | msgspec.UnsetType = msgspec.UNSET


@dataclass(frozen=True, slots=True)
class Channel:
    """One route.

    Attributes:
        address: its path, `{name}` for a parameter.
        receives: the type of what clients send; `None`: they send nothing.
        sends: the type of what they are sent, if it has been declared.
        description: the handler's docstring.
    """

    address: str
    receives: Any = None
    sends: Any = None
    description: str | None = None


@dataclass(frozen=True, slots=True)
class _Message:
    """One of a channel's types."""

    type: Any
    content_type: str


def document(
    channels: Sequence[Channel], *, title: str, version: str, description: str | None = None
) -> dict[str, Any]:
    """The document that describes `channels`.

    The schemas are JSON Schema draft 7, as AsyncAPI's own schema object is.

    Raises:
        TypeError: msgspec has no JSON Schema for a message's type, and the type neither has a `model_json_schema`, as
            Pydantic's models do, nor is annotated with a schema (`msgspec.Meta(extra_json_schema=...)`).
    """
    directions = [(_inbound(channel.receives), _outbound(channel)) for channel in channels]
    messages = list(dict.fromkeys(message for pair in directions for part in pair for message in part))
    kinds = [message.type for message in messages]
    _, named = msgspec.json.schema_components(kinds, schema_hook=lambda kind: {"type": "object"})
    custom = _Custom(named)
    try:
        schemas, components = msgspec.json.schema_components(
            kinds, schema_hook=custom.schema, ref_template=SCHEMAS + "{name}"
        )
    except TypeError as error:
        if custom.without is None:
            raise
        raise TypeError(
            f"{custom.without!r} has no JSON Schema: annotate it with one, "
            f"Annotated[{custom.without.__name__}, msgspec.Meta(extra_json_schema={{...}})], or give the class a "
            f"method `model_json_schema`, as Pydantic's models have"
        ) from error
    components |= custom.components
    keys: dict[_Message, str] = {}
    for message, schema in zip(messages, schemas, strict=True):
        keys[message] = _unique(_message_key(message, schema), keys.values())
    result: dict[str, Any] = {
        "asyncapi": "3.0.0",
        "info": {"title": title, "version": version},
        "defaultContentType": "application/json",
        "channels": {},
        "operations": {},
        "components": {
            "messages": {
                keys[message]: {
                    "name": keys[message],
                    "contentType": message.content_type,
                    "payload": _payload(message, schema),
                }
                for message, schema in zip(messages, schemas, strict=True)
            },
            "schemas": {name: _draft7(schema) for name, schema in components.items()},
        },
    }
    if description is not None:
        result["info"]["description"] = description
    for channel, (inbound, outbound) in zip(channels, directions, strict=True):
        name = _unique(re.sub(r"\W+", "_", channel.address).strip("_") or "root", result["channels"])
        here = {keys[message] for message in (*inbound, *outbound)}
        result["channels"][name] = _channel(channel, sorted(here))
        for action, part in (("receive", inbound), ("send", outbound)):
            if part:
                result["operations"][f"{action}_{name}"] = {
                    "action": action,
                    "channel": {"$ref": f"#/channels/{name}"},
                    "messages": [{"$ref": f"#/channels/{name}/messages/{keys[message]}"} for message in part],
                }
    return result


class _Custom:
    """The schemas of types that msgspec has none for, but which bring their own, as Pydantic's models do."""

    def __init__(self, taken: Collection[str]) -> None:
        self.components: dict[str, Any] = {}
        self.without: type | None = None  # the last one that has no schema of its own
        self._taken = taken  # the names of other components
        self._refs: dict[type, dict[str, Any]] = {}

    def schema(self, kind: type) -> dict[str, Any]:
        """A reference to the type's schema. The schema, and what it refers to, is then among the components."""
        if kind not in self._refs:
            make = getattr(kind, "model_json_schema", None)
            if make is None:
                self.without = kind
                raise NotImplementedError  # msgspec then looks for an annotation with one
            name = _unique(re.sub(r"\W+", "_", kind.__name__), {*self._taken, *self.components})
            self._refs[kind] = {"$ref": SCHEMAS + name}
            schema = make(ref_template=f"{SCHEMAS}{name}.{{model}}")
            for part, definition in schema.pop("$defs", {}).items():
                self.components[f"{name}.{part}"] = definition
            self.components[name] = schema
        return self._refs[kind]


def _channel(channel: Channel, keys: Sequence[str]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "address": channel.address,
        "messages": {key: {"$ref": f"#/components/messages/{key}"} for key in keys},
    }
    if parameters := re.findall(r"{(\w+)}", channel.address):
        described["parameters"] = {name: {} for name in parameters}
    if channel.description:
        described["description"] = inspect.cleandoc(channel.description)
    return described


def _inbound(kind: Any) -> list[_Message]:
    """What a handler takes: `str` and `bytes` as they come, else JSON (see `messages.Decoder`)."""
    if kind is None:
        return []
    if kind in (str, bytes, str | bytes):
        return [_raw(member) for member in members(kind)]
    return [_Message(member, "application/json") for member in members(kind)]


def _outbound(channel: Channel) -> list[_Message]:
    """What clients are sent: `str` and `bytes` as they are, else JSON; and the framework's own errors."""
    kinds = [] if channel.sends is None else list(members(channel.sends))
    found = [_raw(kind) if kind in (str, bytes) else _Message(kind, "application/json") for kind in kinds]
    if channel.receives is not None and channel.receives != str | bytes:
        found.append(_Message(ErrorMessage, "application/json"))
    return list(dict.fromkeys(found))


def _raw(kind: Any) -> _Message:
    return _Message(kind, "text/plain" if kind is str else "application/octet-stream")


def _message_key(message: _Message, schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).removeprefix(SCHEMAS)
    if message.content_type != "application/json":
        return "text" if message.type is str else "binary"
    return str(schema.get("type", "any"))


def _unique(name: str, taken: Any) -> str:
    count, candidate = 1, name
    while candidate in taken:
        count += 1
        candidate = f"{name}_{count}"
    return candidate


def _payload(message: _Message, schema: dict[str, Any]) -> dict[str, Any]:
    if message.content_type == "application/octet-stream":
        return {"type": "string", "format": "binary"}  # not base64, as in JSON
    payload: dict[str, Any] = _draft7(schema)
    return payload


def _draft7(schema: Any) -> Any:
    """msgspec's schema (2020-12, with OpenAPI's discriminator) as one of draft 7, with AsyncAPI's discriminator."""
    if not isinstance(schema, dict):
        return schema
    result: dict[str, Any] = {}
    for key, value in schema.items():
        match key:
            case "properties":
                result[key] = {name: _draft7(part) for name, part in value.items()}
            case "anyOf" | "oneOf" | "allOf":
                result[key] = [_draft7(part) for part in value]
            case "discriminator":
                result[key] = value["propertyName"]
            case "prefixItems":
                result["items"] = [_draft7(part) for part in value]
            case "items" if "prefixItems" in schema:
                result["additionalItems"] = _draft7(value)
            case "items" | "additionalProperties" | "propertyNames":
                result[key] = _draft7(value)
            case _:
                result[key] = value
    return result
