"""What was typed into a form, as the job that is meant; and a job, as it would be typed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from chancy.carried.secrets import HIDDEN, at, hidden, secrets_in
from chancy.errors import InvalidArguments
from chancy.job import NewJob
from chancy.model import HIGHEST_PRIORITY, LOWEST_PRIORITY, MOST_ATTEMPTS

from .fields import AnyTask, FormField, fields_of, typed
from .values import as_called, plain_value, value_typed, words

OPTION = "option-"
"""Before the name of an option, where a name might be an argument's."""
NOT_SHOWN = "a secret is not shown: type it again"

NOT_REPEATED = "is not what the task takes; what was typed is a secret, so it is not said what is wrong with it"
MISSING = "is missing"
_OWN_WORDS = frozenset({MISSING, "expected a number", "expected a whole number", "expected true or false"})
_TYPES_NAMED = (
    r"`(?:(?:str|int|float|bool|null|array|object|bytes|date|time|datetime|duration|uuid|decimal)(?: \| )?)+`"
)
_WITHOUT_VALUES = re.compile(
    rf"(?:Expected {_TYPES_NAMED}(?: [<>]=? -?[\d.]+)?(?:, got {_TYPES_NAMED})?"
    r"|Object missing required field `\w+`)(?: - at `[^`]*`)?"
    r"|expected JSON, in which a text has quotes: (?:JSON is malformed: [\w ()]+|Input data was truncated)"
)

OPTIONS: tuple[FormField, ...] = (
    FormField("queue", "text", required=False),
    FormField("priority", "number", required=False, least=str(LOWEST_PRIORITY), most=str(HIGHEST_PRIORITY), step="1"),
    FormField("max_attempts", "number", required=False, least="1", most=str(MOST_ATTEMPTS), step="1"),
    FormField("delay", "number", required=False, least="0", step="any", doc="Seconds from now."),
    FormField("run_at", "datetime", required=False, doc="With a time zone: 2026-11-25T18:00Z."),
)
"""What may be said besides of one submit. Nothing typed leaves it to the task."""
_TYPES: Mapping[str, Any] = {"queue": str, "priority": int, "max_attempts": int, "delay": float, "run_at": datetime}


def read(
    task: AnyTask, texts: Mapping[str, str], options: Mapping[str, str] | None = None
) -> NewJob[Any] | dict[str, str]:
    """The job that is meant by what was typed for each argument, and for each option; or what is wrong, by the names
    of the fields, those of options behind `OPTION`, since an argument may be called like one. What is wrong with none
    of them alone is under the empty name. Never raises for what was typed.
    """
    values, wrong = _arguments(task, texts)
    given, wrong_options = _options(options or {})
    chosen = task
    try:
        chosen = task.using(**given)
    except InvalidArguments as error:
        wrong_options[OPTION + (error.argument or "")] = error.reason
    if wrong or wrong_options:
        return _untold(task, wrong) | wrong_options
    try:
        by_position, by_name = as_called(task, values)
        new = chosen.bind(*by_position, **by_name)
    except InvalidArguments as error:
        return _untold(task, {error.argument or "": error.reason})
    said = msgspec.json.decode(new.arguments)
    return {way[0]: NOT_SHOWN for way in secrets_in(task.function).arguments if HIDDEN in at(said, way)} or new


def _untold(task: AnyTask, wrong: Mapping[str, str]) -> dict[str, str]:
    """The same, but for words that may repeat a secret: what a type or the task's own check says of a value may."""
    secrets = {way[0] for way in secrets_in(task.function).arguments}
    hushed = secrets | {""} if secrets else secrets
    return {
        name: said if name not in hushed or said in _OWN_WORDS or _WITHOUT_VALUES.fullmatch(said) else NOT_REPEATED
        for name, said in wrong.items()
    }


def typed_before(task: AnyTask, texts: Mapping[str, str]) -> dict[str, str]:
    """What was typed for each argument, to be shown once more: of secrets nothing, and nothing of a text with a secret
    within, where that cannot be told from the rest.
    """
    secrets = secrets_in(task.function).arguments
    shown = {}
    for field in fields_of(task):
        text, within = texts.get(field.name, ""), [way[1:] for way in secrets if way[0] == field.name]
        if field.secret:
            text = ""
        elif within and text:
            try:
                msgspec.json.decode(text, type=msgspec.Raw)
                text = typed(hidden(text.encode(), within), field.kind)
            except (msgspec.DecodeError, ValueError, RecursionError):
                text = ""
        shown[field.name] = text
    return shown


def _arguments(task: AnyTask, texts: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The values, and what is wrong."""
    values: dict[str, Any] = {}
    wrong: dict[str, str] = {}
    for field in fields_of(task):
        text = texts.get(field.name)
        try:
            if text is None or (text == "" and (field.kind != "text" or field.nullable or field.secret)):
                if text is not None and field.nullable:
                    values[field.name] = None
                elif field.required:
                    wrong[field.name] = MISSING
            else:
                values[field.name] = value_typed(task, field, text)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            wrong[field.name] = words(field, error)
    return values, wrong


def _options(texts: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The same of options. Others than there are raise `KeyError`."""
    given: dict[str, Any] = {}
    wrong: dict[str, str] = {}
    fields = {field.name: field for field in OPTIONS}
    for option, text in texts.items():
        kind = _TYPES[option]
        try:
            if text.strip():
                given[option] = plain_value(text.strip(), kind)
        except (msgspec.DecodeError, ValueError) as error:
            wrong[OPTION + option] = words(fields[option], error)
    return given, wrong


def typed_again(task: AnyTask, payload: bytes) -> dict[str, str]:
    """What would have been typed for a job with these arguments; of secrets nothing. Raises `InvalidArguments` where
    they are no JSON.
    """
    try:
        said: dict[str, msgspec.Raw] = msgspec.json.decode(payload, type=dict[str, msgspec.Raw])
        secrets = secrets_in(task.function).arguments
        texts = {}
        for field in fields_of(task):
            if field.name in said and not field.secret:
                within = [way[1:] for way in secrets if way[0] == field.name]
                texts[field.name] = typed(hidden(bytes(said[field.name]), within), field.kind)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise InvalidArguments(task.name, None, f"they cannot be read: {error}") from None
    return texts
