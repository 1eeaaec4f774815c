"""docs/api.md, generated from the OpenAPI documents: `python -m cromford.cli.api_reference`.

With the name of a role it gives that role's document itself.
"""

import sys
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

import msgspec

from cromford.agent import agentd
from cromford.answers.index import BY_ROLE
from cromford.daemon import clientd, lspd
from cromford.daemon.api.document import document, operations_of
from cromford.daemon.api.handlers import Params
from cromford.daemon.api.operations import JSON

HEADING: Final = """\
# The API

Generated from the OpenAPI documents by `python -m cromford.cli.api_reference > docs/api.md`; a test
keeps it so. `python -m cromford.cli.api_reference client` gives a document itself, as
`GET /openapi.json` of a running daemon does. How it is used, with examples:
[using the API](using-the-api.md).
"""
_PARAMS: Final[dict[str, Params]] = {
    "lsp": lspd.PARAMS,
    "client": clientd.PARAMS,
    "agent": agentd.PARAMS,
}
_TITLES: Final = {"lsp": "An LSP", "client": "A client", "agent": "An exit agent"}
Document = dict[str, Any]


@cache
def document_of_role(role: str) -> Document:
    """Return the OpenAPI document of a role."""
    return document(role, operations_of(role, params=_PARAMS[role], answers=BY_ROLE[role]))


def reference() -> str:
    """Return the whole page."""
    return HEADING + "".join(part for role in _TITLES for part in _sections(role))


def _sections(role: str) -> Iterator[str]:
    whole = document_of_role(role)
    yield f"\n## {_TITLES[role]}\n"
    yield "\n| operation | | needs | what it does |\n|---|---|---|---|\n"
    for path, verb, told in _operations(whole):
        scope = next((one["token"][0] for one in told["security"] if "token" in one), "the socket")
        what = f"[`{told['operationId']}`](#{role}-{told['operationId']})"
        yield f"| {what} | `{verb} {path}` | {scope} | {told['summary']} |\n"
    for path, verb, told in _operations(whole):
        yield f"\n### {role}: {told['operationId']}\n"
        yield f"\n`{verb} {path}`: {told['summary']} {told['description']}\n"
        yield from _params(told)
        yield from _answer(told, whole["components"]["schemas"])


def _operations(whole: Document) -> Iterator[tuple[str, str, Document]]:
    for path, verbs in whole["paths"].items():
        for verb, told in verbs.items():
            yield path, verb.upper(), told


def _params(told: Document) -> Iterator[str]:
    rows = [
        (param["name"], param["in"], param["schema"], param["required"])
        for param in told.get("parameters", [])
    ]
    if "requestBody" in told:
        ((_, content),) = told["requestBody"]["content"].items()
        body = content["schema"]
        needed = body.get("required", [])
        rows += [
            (name, "body", schema, name in needed) for name, schema in body["properties"].items()
        ]
    if rows:
        yield "\n| parameter | in | type | |\n|---|---|---|---|\n"
    for name, where, schema, is_required in rows:
        default = "" if "default" not in schema else f"default {_json(schema['default'])}"
        yield f"| `{name}` | {where} | {_kind(schema)} | {'needed' if is_required else default} |\n"


def _answer(told: Document, schemas: Document) -> Iterator[str]:
    content = told["responses"]["200"]["content"]
    if JSON not in content:
        yield f"\nAnswers with {' or '.join(f'`{kind}`' for kind in content)}.\n"
        return
    answer = content[JSON]["schema"]
    if "$ref" not in answer:
        return
    name = _name_of(answer)
    yield f"\nAnswers with `{name}`.\n"
    described = schemas[name].get("description", "")
    if described:
        yield f"\n> {' '.join(described.split())}\n"
    yield "\n| field | type |\n|---|---|\n"
    for field, schema in schemas[name]["properties"].items():
        yield f"| `{field}` | {_kind(schema)} |\n"


def _kind(schema: Document) -> str:
    """Return a type in words."""
    if "$ref" in schema:
        return f"`{_name_of(schema)}`"
    if "enum" in schema:
        return " or ".join(f"`{_json(value)}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{_json(schema['const'])}`"
    if "anyOf" in schema:
        return " or ".join(map(_kind, schema["anyOf"]))
    kind: str = schema.get("type", "anything")
    if kind == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    return kind


def _name_of(schema: Document) -> str:
    name: str = schema["$ref"].rpartition("/")[2]
    return name


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def main(role: str | None) -> None:
    """Write the page, or the document of a role."""
    if role is None:
        sys.stdout.write(reference())
        return
    text = msgspec.json.format(msgspec.json.encode(document_of_role(role)), indent=2)
    sys.stdout.write(text.decode() + "\n")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
