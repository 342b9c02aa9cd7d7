"""Why values of a type could never arrive as they were, as far as its classes say that, and what to give instead."""

from __future__ import annotations

import dataclasses
import importlib
import typing
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

import msgspec
from msgspec import inspect as types

from chancy.options.phrases import one_line

from .arrival import fields_of, is_model, parts, reached, walked, within

_NO_VALUES = (type, Callable, Iterator, Generator, AsyncIterator)
_COLLECTIONS = ("builtins", "collections", "collections.abc")
_OF_ONE_PROCESS = ("_io", "asyncpg", "psycopg", "psycopg2", "psycopg_pool", "socket", "sqlalchemy", "threading")
_TABLE_OF_ROWS = ("db_table", "table_name", "tablename")
"""What Django and Tortoise, peewee and Piccolo call it."""
_SECRET = "a secret says asterisks in JSON: pass where it is kept"  # noqa: S105
_UNIONS = "Type unions may not contain more than one"
_USED_UP = "an InitVar is used up when the object is made, and its JSON does not have it: make it a field"


def no_json(kind: Any) -> str:
    """Of a class that neither msgspec nor Pydantic carries: what to pass in its place."""
    name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    if is_row(kind):
        return f"{name} is a row of your database: pass its id"
    if kind.__module__.partition(".")[0] in _OF_ONE_PROCESS:
        return f"{name} belongs to this process: make one in the function, or open one there"
    if kind in _NO_VALUES:
        return f"{name} is made of code, and has no JSON: pass what the function needs to find it"
    if issubclass(kind, PurePath):
        return f"{name}: pass its text, a str"
    if issubclass(kind, Iterable) and kind.__module__ in _COLLECTIONS:
        return f"{name}: annotate a list, a dict or a set"
    return f"{name}: pass a text, a number or an id, or make it a dataclass, a Struct or a model of Pydantic"


def unfit(annotation: Any) -> str | None:
    """Why msgspec does not carry a type without models, and what to do."""
    for part in parts(annotation):
        if (found := _unfit(part)) is not None:
            return found
    try:
        msgspec.json.Decoder(annotation)
        nodes = list(walked(types.type_info(annotation)))
    except Exception as error:
        said = str(error)
        if not said.startswith(_UNIONS):
            return said
        apart = "take one of them" if "str-like" in said else "make them models of Pydantic, or Structs with tag=True"
        return f"{said}; JSON cannot tell them apart: {apart}"
    return next((no_json(node.cls) for node in nodes if isinstance(node, types.CustomType)), kept_back(nodes))


def _unfit(part: Any) -> str | None:
    """What msgspec would say in words that help nobody, or would take and could not read."""
    kind = typing.get_origin(part) or part
    if isinstance(part, dataclasses.InitVar):
        return _USED_UP
    if isinstance(kind, type) and is_row(kind):
        return no_json(kind)
    for attribute in getattr(kind, "__attrs_attrs__", ()):
        if getattr(attribute.default, "takes_self", False):
            return (
                f"{kind.__qualname__} makes the default of {attribute.name!r} of its other fields: set it in "
                f"__attrs_post_init__"
            )
    return None


def is_row(kind: Any) -> bool:
    """Whether it is a class of rows: of SQLAlchemy, Django, peewee, Tortoise or Piccolo."""
    about = getattr(kind, "_meta", None)
    return hasattr(kind, "__mapper__") or any(hasattr(about, name) for name in _TABLE_OF_ROWS)


def kept_back(nodes: Iterable[types.Type]) -> str | None:
    """Of classes of attrs: msgspec does not write what they keep to themselves."""
    for node in nodes:
        if isinstance(node, types.DataclassType) and hasattr(node.cls, "__attrs_attrs__"):
            for field in node.fields:
                if field.required and field.name.startswith("_"):
                    return f"{node.cls.__qualname__} keeps {field.name!r} to itself, and needs it: rename it"
    return None


def flaws(annotation: Any) -> Iterator[str]:
    """Of types of Pydantic's."""
    for kind in parts(annotation):
        if isinstance(kind, dataclasses.InitVar):
            yield _USED_UP
        if isinstance(kind, type) and hasattr(kind, "__pydantic_validator__"):
            yield from (f"{kind.__qualname__}: {found}" for found in _flaws_of(kind))
    if _hides([annotation]):
        yield _SECRET
    for part in reached(annotation, within):
        if typing.get_origin(part) in _NO_VALUES:
            yield f"{part!r} is made of code, and has no JSON"


def _flaws_of(kind: Any) -> Iterator[str]:
    """Of a model, or a dataclass of Pydantic."""
    config = getattr(kind, "model_config", None) or getattr(kind, "__pydantic_config__", None) or {}
    if is_model(kind):
        if kind.__module__.startswith("pydantic.") and not fields_of(kind):
            yield "it is the base of all models: annotate the model"
        if config.get("table"):
            yield "it is a row of your database: pass its id"
        if lacking := _lacks(kind):
            yield f"it is not fully defined ({lacking}): define what it names before the task"
            return
    elif config.get("extra") == "allow":
        yield "a dataclass with extra='allow' does not write what it has beside its fields: make it a model"
    rules = kind.__pydantic_decorators__
    if (
        rules.model_serializers
        or config.get("json_encoders")
        or any(each.info.mode != "after" for each in rules.model_validators.values())
    ):
        return  # it has words of its own, which are tried at each submit
    said = {name for each in rules.field_serializers.values() for name in each.info.fields}
    for name, field in fields_of(kind).items():
        if getattr(field, "init_var", None):
            yield f"field {name!r}: {_USED_UP}"
        if "*" in said or name in said:
            continue
        if field.exclude is True and field.is_required():
            yield f"field {name!r} is required, and exclude=True keeps it out of its JSON"
        elif not _reads_what_it_writes(name, field, config):
            yield (
                f"field {name!r} is written as {field.serialization_alias or name!r}, and not read by that name: give "
                f"it one alias= in place of the two, and have it read by that (validate_by_alias)"
            )
        elif _hides([field.annotation, *field.metadata]):
            yield f"field {name!r}: {_SECRET}"


def _lacks(model: Any) -> str | None:
    """What keeps a model from being read; it may have waited for somebody who asks."""
    if model.__pydantic_complete__:
        return None
    try:
        model.model_rebuild()
    except Exception as error:
        return one_line(str(error).partition("\n")[0])
    return None


def _reads_what_it_writes(name: str, field: Any, config: Mapping[str, Any]) -> bool:
    written = field.serialization_alias or name
    by_name = field.validation_alias is None or config.get("populate_by_name") or config.get("validate_by_name")
    by_alias = config.get("validate_by_alias", True)
    return bool(by_alias and written in aliases(field)) or bool(by_name and written == name)


def _hides(spelled: Iterable[Any]) -> bool:
    """Whether a secret is in it, with nothing beside it that says it."""
    pydantic: Any = importlib.import_module("pydantic")
    secrets = tuple(
        getattr(pydantic, name) for name in ("SecretStr", "SecretBytes", "Secret") if hasattr(pydantic, name)
    )
    inner = [part for each in spelled for part in reached(each, within)]
    kinds = [typing.get_origin(part) or part for part in inner]
    hidden = any(isinstance(kind, type) and issubclass(kind, secrets) for kind in kinds)
    return hidden and not any(type(part).__name__.endswith("Serializer") for part in inner)


def aliases(field: Any) -> list[str]:
    """The names by which it is read, beside its own."""
    alias = field.validation_alias
    if isinstance(alias, str):
        return [alias]
    return [each for each in getattr(alias, "choices", ()) if isinstance(each, str)]
