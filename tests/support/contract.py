"""Other versions of other packages: a name of `verbtrio.contract.check` gone, moved, or used in another way."""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any

from verbtrio.contract import check
from verbtrio.contract.uses import Attributes, Call, Refers, Use, find

PARTS: dict[str, tuple[Use, ...]] = {
    "TAKE_OVER": check.TAKE_OVER.uses,
    "TLS": check.TLS.uses,
    "NURSERY": check.NURSERY.uses,
    "UNWIND": check.UNWIND.uses,
    "ADDRESS": check.ADDRESS.uses,
    "STARLETTE": check.STARLETTE,
}
ALL: list[Use] = [use for uses in PARTS.values() for use in uses]
LISTED_NAMES = {
    name
    for use in ALL
    for name in (*use.path.replace(":", ".").split("."), *getattr(use, "names", "").split(), *getattr(use, "kinds", ()))
}
"""Every name in the list, whatever it is a name of."""


@dataclass(frozen=True)
class Piece:
    """One name of the list, which can be taken away."""

    part: str
    use: Use
    name: str

    def __str__(self) -> str:
        return f"{self.use.path} {self.name}" if self.name else self.use.path

    @property
    def said(self) -> str:
        """What a warning has to name."""
        return self.name or self.use.path.rpartition(".")[2].rpartition(":")[2]


def pieces(*parts: str) -> list[Piece]:
    """All names of these parts, each once."""
    found: dict[str, Piece] = {}
    for part in parts:
        for use in PARTS[part]:
            names = use.names.split() if isinstance(use, Attributes | Refers) else [""]
            for name in names:
                piece = Piece(part, use, name)
                found.setdefault(str(piece), piece)
    return list(found.values())


@contextmanager
def without(piece: Piece) -> Iterator[None]:
    """The name is gone while the block is entered. Nothing else may run in it that needs the name."""
    use, name = piece.use, piece.name
    with ExitStack() as stack:
        if isinstance(use, Refers):
            function = find(use.path)
            stack.callback(setattr, function, "__code__", function.__code__)
            function.__code__ = _renamed(function.__code__, name)
        elif isinstance(use, Attributes):
            _take_attribute(stack, use.make, name)
        else:
            parent, _, last = use.path.replace(":", ".").rpartition(".")
            path = use.path[: len(parent)]
            _take(stack, find(path), last, path)
        yield


def _take(stack: ExitStack, owner: Any, name: str, path: str) -> None:
    """Take `name` away from a module or a class."""
    if isinstance(owner, type) and issubclass(owner, Enum):  # members can't be deleted
        module = find(path.partition(":")[0])
        stack.callback(setattr, module, owner.__name__, owner)
        others = {member.name: member for member in owner if member.name != name}
        setattr(module, owner.__name__, types.SimpleNamespace(**others))
        return
    bases = owner.__mro__ if isinstance(owner, type) else (owner,)
    owners = [base for base in bases if name in vars(base) and base is not object]
    for having in owners:
        stack.callback(setattr, having, name, vars(having)[name])
        delattr(having, name)


def _take_attribute(stack: ExitStack, make: Callable[[], Any], name: str) -> None:
    """Take `name` away from what is made."""
    instance = make()
    if instance is make():  # it is there already
        stack.callback(setattr, instance, name, getattr(instance, name))
        delattr(instance, name)
        return
    kind = type(instance)
    if any(name in vars(base) for base in kind.__mro__):
        _take(stack, kind, name, "")
    original = vars(kind).get("__init__")
    if original is None:
        return

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if type(self) is kind:
            getattr(self, "__dict__", {}).pop(name, None)

    stack.callback(setattr, kind, "__init__", original)
    kind.__init__ = init


def _renamed(code: types.CodeType, name: str, to: str = "somewhere_else") -> types.CodeType:
    """`code`, with another name in it; in functions within it, too."""
    consts = tuple(_renamed(c, name, to) if isinstance(c, types.CodeType) else c for c in code.co_consts)
    names = tuple(to if n == name else n for n in code.co_names)
    return code.replace(co_names=names, co_consts=consts)


@contextmanager
def moved(module: str, name: str) -> Iterator[None]:
    """An attribute that a package keeps to itself has another name, throughout the module: all goes on as ever, but for
    who knows the old name."""
    to = f"{name}_moved"
    with ExitStack() as stack:
        file = sys.modules[module].__file__
        for kind in [kind for kind in vars(sys.modules[module]).values() if isinstance(kind, type)]:
            for key, value in list(vars(kind).items()):
                functions = (value.fget, value.fset, value.fdel) if isinstance(value, property) else (value,)
                for function in map(inspect.unwrap, filter(callable, functions)):
                    if isinstance(function, types.FunctionType) and function.__code__.co_filename == file:
                        stack.callback(setattr, function, "__code__", function.__code__)
                        function.__code__ = _renamed(function.__code__, name, to)
                if key == name:
                    stack.callback(setattr, kind, name, value)
                    stack.callback(delattr, kind, to)
                    setattr(kind, to, value)
                    delattr(kind, name)
        yield


Change = Callable[[inspect.Signature, Call], inspect.Signature | None]


def more(signature: inspect.Signature, use: Call, *, optional: bool, by_position: bool = False) -> inspect.Signature:
    """A parameter has been added, behind the others of its kind."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD if by_position else inspect.Parameter.KEYWORD_ONLY
    default = None if optional else inspect.Parameter.empty
    parameters = list(signature.parameters.values())
    at = sum(parameter.kind <= kind for parameter in parameters)  # the kinds stand in order
    return signature.replace(
        parameters=[*parameters[:at], inspect.Parameter("added", kind, default=default), *parameters[at:]]
    )


def names_of(signature: inspect.Signature, use: Call) -> list[str]:
    """What is passed, but for `self`, and for what `*args` would take."""
    names = [name.strip(" =") for name in use.arguments.split(",") if name.strip() not in ("", "self")]
    takes_any = any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in signature.parameters.values())
    return [] if takes_any else names


def fewer(signature: inspect.Signature, use: Call) -> inspect.Signature | None:
    """One that is passed has gone."""
    names = names_of(signature, use)
    if not names:
        return None
    parameters = [parameter for parameter in signature.parameters.values() if parameter.name != names[-1]]
    return signature.replace(parameters=parameters)


def renamed(signature: inspect.Signature, use: Call) -> inspect.Signature | None:
    """One that is passed has another name."""
    names = names_of(signature, use)
    if not names:
        return None
    parameters = [
        parameter.replace(name="another") if parameter.name == names[-1] else parameter
        for parameter in signature.parameters.values()
    ]
    return signature.replace(parameters=parameters)


BREAKING: dict[str, Change] = {"more": partial(more, optional=False), "fewer": fewer, "renamed": renamed}


@contextmanager
def replaced(use: Call, signature: inspect.Signature, *, is_async: bool) -> Iterator[None]:
    """What is called has another signature while the block is entered."""
    found = find(use.path)
    parent, _, name = use.path.replace(":", ".").rpartition(".")
    owner = find(use.path[: len(parent)])
    substitute: Any
    if isinstance(found, type):
        substitute = types.new_class(found.__name__, (found,), {}, lambda body: body.update(__signature__=signature))
    elif is_async:

        async def substitute(*args: Any, **kwargs: Any) -> Any:
            """Never called."""

    else:

        def substitute(*args: Any, **kwargs: Any) -> Any:
            """Never called."""

    substitute.__signature__ = signature
    before = vars(owner).get(name)
    setattr(owner, name, staticmethod(substitute) if isinstance(owner, type) else substitute)
    try:
        yield
    finally:
        if before is None:
            delattr(owner, name)
        else:
            setattr(owner, name, before)
