"""The OpenAPI documents: what the daemons serve, and nothing that was there goes."""

import json
from pathlib import Path
from typing import Any

import pytest

from cromford.cli.api_reference import _PARAMS, document_of_role, reference
from cromford.daemon.api.operations import BY_ROLE, OPERATIONS, Scope

REPOSITORY = Path(__file__).parents[3]
FROZEN = REPOSITORY / "tests" / "vectors" / "api-v1"
Document = dict[str, Any]


def operations_in(document: Document) -> dict[tuple[str, str], Document]:
    return {
        (path, verb): told
        for path, verbs in document["paths"].items()
        for verb, told in verbs.items()
    }


def params_of(told: Document) -> dict[str, tuple[bool, Any]]:
    """Return what an operation takes: whether each has to be said, and its schema."""
    found = {
        param["name"]: (param["required"], param["schema"]) for param in told.get("parameters", [])
    }
    if "requestBody" in told:
        body = told["requestBody"]["content"]["application/json"]["schema"]
        found |= {
            name: (name in body.get("required", []), schema)
            for name, schema in body["properties"].items()
        }
    return found


def without_words(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {
            key: without_words(value)
            for key, value in schema.items()
            if key not in {"description", "title"}
        }
    return [without_words(one) for one in schema] if isinstance(schema, list) else schema


def breaks(old: Document, new: Document) -> list[str]:
    """Return what a caller that knows one document can no longer do with the other."""
    found = []
    now = operations_in(new)
    for (path, verb), told in operations_in(old).items():
        name = told["operationId"]
        if (path, verb) not in now:
            found.append(f"{name}: {verb} {path} is gone")
            continue
        before, after = params_of(told), params_of(now[path, verb])
        found += [f"{name}: {one} is not taken any more" for one in before.keys() - after.keys()]
        found += [
            f"{name}: {one} has to be said"
            for one, (is_required, _) in after.items()
            if is_required and not before.get(one, (False, None))[0]
        ]
        found += [
            f"{name}: {one} means something else"
            for one, (_, schema) in before.items()
            if one in after and without_words(schema) != without_words(after[one][1])
        ]
        found += _lost_fields(name, answer_of(told), answer_of(now[path, verb]), (old, new))
    return found


def answer_of(told: Document) -> Document:
    content = told["responses"]["200"]["content"]
    answer: Document = content.get("application/json", content.get("image/svg+xml"))["schema"]
    return answer


def _lost_fields(
    where: str, old: Document, new: Document, both: tuple[Document, Document]
) -> list[str]:
    if "$ref" not in old:
        return []
    if "$ref" not in new:
        return [f"{where}: its type is gone"]
    before, after = (
        whole["components"]["schemas"][one["$ref"].rpartition("/")[2]]
        for one, whole in zip((old, new), both, strict=True)
    )
    found = []
    for field, schema in before["properties"].items():
        if field not in after["properties"]:
            found.append(f"{where}: {field} is gone")
        elif field in before.get("required", []) and field not in after.get("required", []):
            found.append(f"{where}: {field} may be missing")
        elif "$ref" in schema:
            found += _lost_fields(f"{where}.{field}", schema, after["properties"][field], both)
    return found


@pytest.mark.parametrize("role", BY_ROLE)
def test_nothing_that_was_there_in_this_version_goes(role: str) -> None:
    old = json.loads((FROZEN / f"{role}.json").read_text(encoding="utf-8"))
    assert breaks(old, document_of_role(role)) == []


def test_what_goes_is_noticed() -> None:
    whole = json.loads(json.dumps(document_of_role("client")))
    changed = json.loads(json.dumps(whole))
    del changed["paths"]["/v1/balance"]
    status = changed["components"]["schemas"]["ClientStatus"]
    del status["properties"]["connected"]
    changed["components"]["schemas"]["WalletBalance"]["required"].remove("free_sat")
    body = changed["paths"]["/v1/payments"]["post"]["requestBody"]["content"]["application/json"]
    del body["schema"]["properties"]["dry_run"]
    body["schema"]["required"].append("fee_max_msat")
    body["schema"]["properties"]["wait_seconds"] = {"type": "string"}
    assert set(breaks(whole, changed)) >= {
        "balance: get /v1/balance is gone",
        "status: connected is gone",
        "wallet_balance: free_sat may be missing",
        "pay: dry_run is not taken any more",
        "pay: fee_max_msat has to be said",
        "pay: wait_seconds means something else",
    }
    assert breaks(whole, whole) == []


@pytest.mark.parametrize("role", BY_ROLE)
def test_a_document_says_what_openapi_asks_for(role: str) -> None:
    document = document_of_role(role)
    assert document["openapi"] == "3.1.0"
    assert document["info"]["version"]
    names = [told["operationId"] for told in operations_in(document).values()]
    assert sorted(names) == sorted(one.name for one in BY_ROLE[role])
    for (path, _), told in operations_in(document).items():
        in_path = {one["name"] for one in told.get("parameters", []) if one["in"] == "path"}
        assert in_path == {part[1:-1] for part in path.split("/") if part.startswith("{")}
        assert set(told["responses"]) == {"200", "default"}
    text = json.dumps(document)
    for name in document["components"]["schemas"]:
        assert name.isidentifier()
        assert not name.startswith("_")
    referred = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert referred <= set(document["components"]["schemas"])


@pytest.mark.parametrize("role", BY_ROLE)
def test_what_takes_parameters_is_an_operation_of_the_role(role: str) -> None:
    assert set(_PARAMS[role]) <= {one.name for one in BY_ROLE[role]}


def test_no_answer_has_a_field_for_a_secret() -> None:
    """Beside a new token, which is shown this once."""
    words = {"seed", "seckey", "phrase", "mnemonic", "passphrase", "private_key"}
    for role in BY_ROLE:
        for name, schema in document_of_role(role)["components"]["schemas"].items():
            fields = {field for field in schema.get("properties", {}) if field in words}
            assert fields <= {"seed"} if name == "BackupStatus" else not fields, name


def test_a_token_never_does_what_the_socket_alone_may() -> None:
    local = {one.name for one in OPERATIONS.values() if one.scope is None}
    assert local == {
        *("token_add", "tokens", "token_revoke"),
        *("webhook_add", "webhooks", "webhook_remove"),
    }
    scopes = {one.scope for one in OPERATIONS.values()} - {None}
    assert scopes == set(Scope)


def test_the_page_about_the_api_is_what_the_documents_give() -> None:
    page = (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8")
    assert page == reference(), "run: python -m cromford.cli.api_reference > docs/api.md"
