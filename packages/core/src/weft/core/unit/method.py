"""From words to configurations: one method or a composition, validated with all faults at once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NoReturn

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from weft.core.errors import ConfigError, faults_of, unknown
from weft.core.unit.protocol import UnitConfig, units


def parse_method(value: Any) -> tuple[UnitConfig, ...]:
    """Validate a method.

    Args:
        value: A dictionary with `method`, a unit's configuration, or a list of them, which is a composition.

    Returns:
        The configurations, in order.

    Raises:
        ConfigError: If anything is wrong; the message lists every fault, with near matches.

    >>> parse_method({"method": "bottleneck", "bottleneck_size": 16, "sharing": "half"})[0].bottleneck_size
    16
    """
    try:
        return _validate(value)
    except ValidationError as error:
        raise ConfigError("\n".join(["the method is wrong:", *faults_of(error)])) from None


def _validate(value: Any) -> tuple[UnitConfig, ...]:
    if isinstance(value, UnitConfig | Mapping):
        return (_one(value),)
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        example = '{"method": "bottleneck", "bottleneck_size": 96}'
        message = f"a method must be a mapping with `method`, but is {value!r}. Write {example}."
        _fail([_fault((), value, message)])
    faults: list[InitErrorDetails] = []
    configs: list[UnitConfig] = []
    for index, item in enumerate(value):
        try:
            configs.append(_one(item))
        except ValidationError as error:
            faults += [_fault((index, *f["loc"]), f["input"], f["msg"]) for f in error.errors()]
    labels = [config.label for config in configs]
    for label in sorted({label for label in labels if labels.count(label) > 1}):
        message = f"`name` must be unique within a composition, but {label!r} occurs twice."
        faults.append(_fault(("name",), value, message))
    if faults:
        _fail(faults)
    return tuple(configs)


def _one(value: Any) -> UnitConfig:
    if isinstance(value, UnitConfig):
        return value
    if not isinstance(value, Mapping):
        _fail([_fault((), value, f"a method must be a mapping with `method`, but is {value!r}.")])
    known = units()
    method = value.get("method")
    if method not in known:
        _fail([_fault(("method",), method, unknown("`method`", method, known))])
    config = known[str(method)]
    try:
        return config.model_validate(dict(value))
    except ValidationError as error:
        _fail([_explained(config, fault) for fault in error.errors(include_url=False)])


def _explained(config: type[UnitConfig], fault: Any) -> InitErrorDetails:
    place, message = fault["loc"], fault["msg"]
    if fault["type"] == "extra_forbidden" and len(place) == 1:
        names = set(config.model_fields)
        message = unknown(f"a key of method {config.model_fields['method'].default!r}", place[0], names)
    elif fault["type"] == "literal_error":
        names = set(re.findall(r"'([^']*)'", str(fault["ctx"]["expected"])))
        message = unknown(f"`{place[0]}`", fault["input"], names)
    else:
        message = message.removeprefix("Value error, ")
    return _fault(place, fault["input"], message)


def _fault(place: tuple[int | str, ...], value: Any, message: str) -> InitErrorDetails:
    error = PydanticCustomError("method", "{message}", {"message": message})
    return InitErrorDetails(type=error, loc=place, input=value)


def _fail(faults: list[InitErrorDetails]) -> NoReturn:
    raise ValidationError.from_exception_data("method", faults)


class _MethodSchema:
    """Lets other pydantic models hold a method: faults keep their place, third-party units are known."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def dump(configs: tuple[UnitConfig, ...]) -> Any:
            words = [config.model_dump(mode="json", exclude_defaults=False) for config in configs]
            return words[0] if len(words) == 1 else words

        return core_schema.no_info_plain_validator_function(
            _validate, serialization=core_schema.plain_serializer_function_ser_schema(dump)
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        each = [handler(config.__pydantic_core_schema__) for config in units().values()]
        return {"oneOf": [*each, {"type": "array", "minItems": 1, "items": {"oneOf": each}}]}


MethodConfig = Annotated[tuple[UnitConfig, ...], _MethodSchema()]
"""Type of a field that holds a method: it takes what `parse_method` takes and gives a tuple of
configurations."""
