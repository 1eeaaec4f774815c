"""The OpenAPI 3.1 document of a daemon's API, made of what the daemon serves by."""

import re
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, Final

import msgspec

from cromford.codec.decoders import decoded
from cromford.daemon.api.application import STREAM_TYPE
from cromford.daemon.api.calling import JSON_TYPE, ErrorBody
from cromford.daemon.api.endpoints import Answers, Described, ServedOperation, described
from cromford.daemon.api.handlers import Params
from cromford.daemon.api.operations import BY_ROLE, INCLUDED, Scope

# Raised in its first number where something that was there is gone or means something else, and
# then `/v1` becomes `/v2`; in its second where something is new.
API_VERSION: Final = "1.0"
OPENAPI_VERSION: Final = "3.1.0"
ERROR: Final = "Error"
TOKEN: Final = "token"  # noqa: S105 - the name of a scheme
STREAMED: Final = frozenset({"events"})
_REF: Final = "#/components/schemas/{name}"
_DECODER: Final = msgspec.json.Decoder(dict[str, Any])
_WHAT: Final = """\
The API of a Cromford daemon: on its unix socket, whose file permissions are the key, and on TCP \
where `--api-listen` says so, with a bearer token. Amounts carry their unit in their name. \
An answer may get new fields within a version; nothing that is there goes or changes its meaning.\
"""


def document(role: str, operations: Iterable[Described]) -> dict[str, Any]:
    """Return the document of a role, as plain data.

    Args:
        role: Whose API it is.
        operations: What it serves.
    """
    served = tuple(operations)
    schemas = _Schemas([one.answer for one in served])
    paths: dict[str, dict[str, Any]] = {}
    for one in served:
        operation = one.operation
        paths.setdefault(operation.path, {})[operation.verb.lower()] = _operation(one, schemas)
    whole = {
        "openapi": OPENAPI_VERSION,
        "info": {
            "title": f"Cromford {role}",
            "version": API_VERSION,
            "description": _WHAT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "responses": {
                ERROR: {
                    "description": "Why it failed; every status from 400 on.",
                    "content": {JSON_TYPE: {"schema": {"$ref": _REF.format(name=ERROR)}}},
                }
            },
            "securitySchemes": {
                TOKEN: {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "On TCP only; over the unix socket no token is needed. "
                    + _scopes_in_words(),
                }
            },
        },
    }
    # As a reader of JSON has it, whatever the types of defaults are here.
    read: dict[str, Any] = decoded(_DECODER, msgspec.json.encode(whole))
    return read


def operations_of(role: str, *, params: Params, answers: Answers) -> list[Described]:
    """Return the operations of a role as it has them, from the role's tables."""
    return [described(one.name, params, answers) for one in BY_ROLE[role]]


def document_of(role: str, served: Iterable[ServedOperation]) -> Callable[[], bytes]:
    """Return what gives the document of a daemon as JSON; it is made when it is first asked for."""

    @cache
    def encoded() -> bytes:
        return msgspec.json.encode(document(role, (one.described for one in served)))

    return encoded


def _scopes_in_words() -> str:
    told = [
        f"`{scope}` includes {', '.join(f'`{one}`' for one in Scope if one in included - {scope})}"
        for scope, included in INCLUDED.items()
        if included != {scope}
    ]
    return f"Of the scopes {'; '.join(told)}."


class _Schemas:
    """The schemas of the answers, by their types, and all that they are made of."""

    def __init__(self, answers: Iterable[Any]) -> None:
        kinds = list(answers)
        self._schemas, found = msgspec.json.schema_components(
            [*kinds, ErrorBody], ref_template=_REF
        )
        self._of = dict(zip(map(repr, kinds), self._schemas, strict=False))
        self.components = {
            (ERROR if name == ErrorBody.__name__ else name): schema
            for name, schema in found.items()
        }

    def of(self, answer: Any) -> dict[str, Any]:  # noqa: ANN401 - a type, as msgspec takes it
        """Return the schema of an answer."""
        return self._of[repr(answer)]


def _operation(one: Described, schemas: _Schemas) -> dict[str, Any]:
    operation = one.operation
    content: dict[str, Any] = {operation.media_type: {"schema": schemas.of(one.answer)}}
    if operation.name in STREAMED:
        content[STREAM_TYPE] = {"schema": {"type": "string"}}
    fields, required = _fields_of(one.params)
    told: dict[str, Any] = {"operationId": operation.name, "summary": operation.summary}
    where = {
        name: "path" if name in operation.places else "query"
        for name in fields
        if name in operation.places or not operation.has_body
    }
    if where:
        told["parameters"] = [
            {
                "name": name,
                "in": place,
                "required": place == "path" or name in required,
                "schema": _in_text(fields[name]),
            }
            for name, place in where.items()
        ]
    in_body = {name: schema for name, schema in fields.items() if name not in where}
    if in_body:
        body: dict[str, Any] = {
            "type": "object",
            "properties": in_body,
            "additionalProperties": False,
        }
        needed = [name for name in required if name in in_body]
        if needed:
            body["required"] = needed
        told["requestBody"] = {
            "required": bool(needed),
            "content": {JSON_TYPE: {"schema": body}},
        }
    told["responses"] = {
        "200": {"description": "Done.", "content": content},
        "default": {"$ref": f"#/components/responses/{ERROR}"},
    }
    if operation.scope is None:
        told["description"] = "Over the unix socket only."
        told["security"] = [{}]
    else:
        told["description"] = f"Needs the scope `{operation.scope}`."
        told["security"] = [{}, {TOKEN: [str(operation.scope)]}]
    return told


def _fields_of(params: type[msgspec.Struct] | None) -> tuple[dict[str, Any], list[str]]:
    """Return the schema of each parameter by its name, and the names of those that have to be."""
    if params is None:
        return {}, []
    _, found = msgspec.json.schema_components([params], ref_template=_REF)
    schemas = {name: schema for name, schema in found.items() if "enum" in schema}
    whole = next(schema for schema in found.values() if "properties" in schema)
    inlined = {name: _inlined(schema, schemas) for name, schema in whole["properties"].items()}
    return inlined, whole.get("required", [])


def _inlined(schema: Any, known: dict[str, Any]) -> Any:  # noqa: ANN401 - any part of a schema
    """Return a schema with its few named parts in place: a parameter is plain data."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            name = re.sub(r".*/", "", schema["$ref"])
            return {key: value for key, value in known[name].items() if key == "enum"}
        return {key: _inlined(value, known) for key, value in schema.items()}
    if isinstance(schema, list):
        return [_inlined(item, known) for item in schema]
    return schema


def _in_text(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema of what stands in a path or a query: there is no null, one leaves it out."""
    kinds = schema.get("anyOf", [])
    real = [kind for kind in kinds if kind != {"type": "null"}]
    if len(real) != 1 or len(real) == len(kinds):
        return schema
    alone: dict[str, Any] = real[0]
    return alone
