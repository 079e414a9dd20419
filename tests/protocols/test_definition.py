"""client.proto: its fields are those of the structs, and client_pb2.py is what protoc makes of it."""

from __future__ import annotations

import re
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, get_args, get_origin

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from msgspec import Raw, Struct

from tests.support.protocols import fields
from verbtrio.protocols import client_pb2, codes, commands, replies

DEFINITION = Path(commands.__file__).with_name("client.proto").read_text()
OWN = 1000
"""Numbers beyond are verbtrio's own."""

MESSAGE = re.compile(r"^message (\w+) \{\n(.*?)^\}$", re.DOTALL | re.MULTILINE)
FIELD = re.compile(r"^  (repeated )?(\w+|map<\w+, \w+>) (\w+) = (\d+);$")
RESERVED = re.compile(r"^  reserved ([\d, ]+);  // .+$")

messages: Any = client_pb2
GENERATED: dict[str, Descriptor] = dict(messages.DESCRIPTOR.message_types_by_name)
STRUCTS: dict[str, type[Struct]] = {
    name: kind
    for module in (codes, commands, replies)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and issubclass(kind, Struct) and kind is not Struct
}
SCALARS = ["string", "bytes", "bool", "double", "uint32", "int32", "uint64", "int64"]


def defined() -> dict[str, tuple[dict[str, tuple[str, int]], set[int]]]:
    """Of each message: the types and numbers of its fields, and the numbers that are reserved."""
    found = {}
    for name, body in MESSAGE.findall(DEFINITION):
        types: dict[str, tuple[str, int]] = {}
        reserved: set[int] = set()
        for line in body.splitlines():
            if match := RESERVED.match(line):
                reserved.update(map(int, match[1].split(",")))
            else:
                match = FIELD.match(line)
                assert match, line
                types[match[3]] = ((match[1] or "") + match[2], int(match[4]))
        found[name] = (types, reserved)
    return found


DEFINED = defined()


def generated_type(field: Any) -> str:
    """The type of a generated message's field, as the definition puts it."""
    names = {getattr(FieldDescriptor, f"TYPE_{name.upper()}"): name for name in SCALARS}
    if (message := field.message_type) is None:
        return names[field.type]
    if message.GetOptions().map_entry:
        key, value = message.fields
        return f"map<{generated_type(key)}, {generated_type(value)}>"
    # (Its property for it has another name in version 7.)
    return f"repeated {message.name}" if field.default_value == [] else str(message.name)


def struct_type(hint: Any) -> str:
    """The type of a struct's field, as the definition puts it, but for the size of an integer."""
    if get_origin(hint) in (Annotated, UnionType):
        hint = get_args(hint)[0]
    if get_origin(hint) is list:
        return f"repeated {struct_type(get_args(hint)[0])}"
    if get_origin(hint) is dict:
        key, value = map(struct_type, get_args(hint))
        return f"map<{key}, {value}>"
    if issubclass(hint, Struct):
        return str(hint.__name__)
    return {str: "string", bool: "bool", Raw: "bytes", float: "double", int: "int"}[hint]


def test_every_message_is_defined() -> None:
    assert DEFINED.keys() == GENERATED.keys() == STRUCTS.keys() | {"EmulationRequest"}
    assert DEFINITION.count("\nmessage ") == len(DEFINED)


@pytest.mark.parametrize("name", DEFINED)
def test_generated_from_the_definition(name: str) -> None:
    """As far as that can be told without protoc."""
    types, reserved = DEFINED[name]
    generated = GENERATED[name]
    assert {field.name: (generated_type(field), field.number) for field in generated.fields} == types
    assert not reserved & {number for _, number in types.values()}
    assert [field.number for field in generated.fields] == sorted(field.number for field in generated.fields)


@pytest.mark.parametrize("name", STRUCTS)
def test_every_field_has_its_number(name: str) -> None:
    types = {field: re.sub(r"\bu?int(32|64)\b", "int", kind) for field, (kind, _) in DEFINED[name][0].items()}
    if name == "Reply":  # in JSON, a push has a wrapping of its own
        assert types.pop("push") == "Push"
    assert {field: struct_type(hint) for field, hint in fields(STRUCTS[name]).items()} == types


def test_verbtrio_s_own_numbers() -> None:
    own = {
        (name, field) for name, (types, _) in DEFINED.items() for field, (_, number) in types.items() if number > OWN
    }
    assert own == {("SendRequest", "cancel"), ("RPCRequest", "timeout")}


def test_the_file_has_a_name_of_its_own() -> None:
    """All packages of a process share one pool of definitions, the SDK with its client.proto among them."""
    assert messages.DESCRIPTOR.name == "verbtrio/protocols/client.proto"
    assert messages.DESCRIPTOR.package == "verbtrio.protocols"
