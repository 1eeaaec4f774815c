"""The types of answers make the schemas that the API's document is of."""

import importlib
import pkgutil
from typing import Any

import msgspec
import pytest

import cromford.answers
from cromford.answers.index import BY_ROLE

TEMPLATE = "#/components/schemas/{name}"


def every_type() -> list[type]:
    modules = [
        importlib.import_module(f"cromford.answers.{found.name}")
        for found in pkgutil.iter_modules(cromford.answers.__path__)
    ]
    return [
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == module.__name__
    ]


def schemas_of(types: list[type]) -> dict[str, Any]:
    _, components = msgspec.json.schema_components(types, ref_template=TEMPLATE)
    return components


def reached(name: str, schemas: dict[str, Any]) -> set[str]:
    """Return the schemas that one refers to, through others too, and itself."""
    found, waiting = set[str](), [name]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            text = msgspec.json.encode(schemas[name]).decode()
            waiting += [other for other in schemas if f'"{TEMPLATE.format(name=other)}"' in text]
    return found


def test_every_type_makes_a_schema_under_its_own_name() -> None:
    types = every_type()
    schemas = schemas_of(types)
    assert set(schemas) == {one.__name__ for one in types}
    assert all(schema["type"] == "object" for schema in schemas.values())


def test_every_schema_is_described_in_words_of_its_own() -> None:
    described = [schema["description"] for schema in schemas_of(every_type()).values()]
    assert len(set(described)) == len(described)


def test_every_type_is_part_of_what_a_method_or_a_command_answers() -> None:
    answers = {one for types in BY_ROLE.values() for one in types.values()} - {str}
    schemas = schemas_of(every_type())
    used = set[str]().union(*(reached(one.__name__, schemas) for one in answers))
    # What others are made of, each with a field or two more, and no answer itself.
    parts = {
        name
        for name, schema in schemas.items()
        for other in used
        if schema["properties"].keys() < schemas[other]["properties"].keys()
    }
    assert set(schemas) - used - parts == {"BroadcastPackage"}  # of `client exit broadcast`


@pytest.mark.parametrize("role", BY_ROLE)
def test_an_amount_says_its_unit(role: str) -> None:
    schemas = schemas_of([one for one in BY_ROLE[role].values() if one is not str])
    units = {"_sat": "sat", "_msat": "msat", "_blocks": "blocks", "_sat_per_vb": "sat per"}
    silent = [
        f"{name}.{field}"
        for name, schema in schemas.items()
        for field, told in schema["properties"].items()
        for ending, unit in units.items()
        if field.endswith(ending) and unit not in msgspec.json.encode(told).decode()
    ]
    assert silent == []
