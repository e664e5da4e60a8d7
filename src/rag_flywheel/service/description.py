"""The OpenAPI description of the service: names of operations, scopes of keys, headers and examples."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from rag_flywheel.service.problems import MEDIA_TYPE, Problem
from rag_flywheel.service.repeats import HEADER, OnceRoute

DESCRIPTION = """\
Everything that a `Flywheel` does, over HTTP. Each path is that of the first index; the same below
`/v1/indexes/{name}/` is for another one. Bodies are JSON in UTF-8, in which an unknown field is an error.
Errors are problems (RFC 9457): `title` is the name of the library's error, `detail` its message."""
TAGS = {
    "retrieval": "Questions, and an application's own candidates.",
    "feedback": "What users say of answers.",
    "browser": "What pages send themselves, by feedback tokens and public keys.",
    "ubi": "Queries and events as User Behavior Insights has them.",
    "passages": "Texts to retrieve, one by one and as lines of JSON.",
    "uploads": "Files, to be cut into passages, and of known answers.",
    "knowledge": "Known answers, pins, the review queue and gaps.",
    "log": "What was asked and voted, and by whom.",
    "operations": "Refreshes and other long work, versions, privacy requests, the state of the index.",
}
_KEYS = "An API key, made by `rag-flywheel keys add`. On loopback none is needed until the first one is made."
_SECURITY = {
    "HTTPBearer": {"type": "http", "description": _KEYS, "scheme": "bearer"},
    "APIKeyHeader": {
        "type": "apiKey",
        "description": _KEYS,
        "in": "header",
        "name": "X-API-Key",
    },
}
"""How a request names its key; `calls.key_in` reads it."""
_EXAMPLES: dict[str, Any] = {
    "retrieval_id": "0c5f2b6d0e8a4b71a2c3d4e",
    "passage_id": "reset",
    "query": "I forgot my password",
    "text": "To get a new password, open the settings.",
    "score": 1.5,
    "used": True,
    "token": "eyJpIjoia2IifQ.c2lnbmVk",
}
_REPEATED = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "A new one for each thing to be done; the same request under the same key is done once.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 5000},
}
_TIMING = {
    "Server-Timing": {
        "description": "Milliseconds that the library took, as retrieve;dur=4.2.",
        "schema": {"type": "string"},
    }
}
_RETRIEVAL_ID = {
    "X-Retrieval-Id": {
        "description": "The id of the answer, where it was recorded.",
        "schema": {"type": "string"},
    }
}
Schema = dict[str, Any]


def install(app: FastAPI, routers: Sequence[APIRouter], prefix: str) -> None:
    """Make the application describe itself in full; it is computed once, when it is first asked for.

    routers: whose operations are described, below this prefix.
    """
    app.servers = [{"url": "/", "description": "The service that this description comes from."}]
    app.description = DESCRIPTION
    generate = app.openapi
    routes = {
        (f"{prefix}{route.path_format}", method.lower()): route
        for router in routers
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }

    def described() -> Schema:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(generate(), routes)
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]


def _completed(schema: Schema, routes: Mapping[tuple[str, str], APIRoute]) -> Schema:
    components = schema.setdefault("components", {}).setdefault("schemas", {})
    components["Problem"] = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schema["components"]["securitySchemes"] = _SECURITY
    names = set[str]()
    used = set[str]()
    for path, method, operation in operations(schema):
        route = routes[path, method]
        tag = operation["tags"][0]
        used.add(tag)
        name = route.name if route.name not in names else f"{tag}_{route.name}"
        names.add(name)
        operation["operationId"] = name
        operation["summary"] = operation["description"].split("\n")[0].rstrip(".")
        _name_scope(operation, scope_of(route))
        _name_headers(operation, route, method)
        _point_to_problem(operation)
        _give_example(operation, components)
    schema["tags"] = [{"name": n, "description": said} for n, said in TAGS.items() if n in used]
    return schema


def operations(schema: Schema) -> Iterator[tuple[str, str, Schema]]:
    """Yield (path, method, operation) of every operation that is described."""
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def scope_of(route: APIRoute) -> str | None:
    """The scope that a key needs for a route; None: it needs no key."""
    if "browser" in route.tags:  # any key that may vote, and a public one
        return "vote"
    found = (getattr(call, "scope", None) for call in _dependencies(route.dependant))
    return next((str(scope) for scope in found if scope is not None), None)


def _dependencies(dependant: Dependant) -> Iterator[Any]:
    for each in dependant.dependencies:
        yield each.call
        yield from _dependencies(each)


def _name_scope(operation: Schema, scope: str | None) -> None:
    """Roles of a security requirement, which OpenAPI 3.1 has for keys too, and a sentence."""
    if scope is None:
        return
    operation["security"] = [{name: [scope]} for name in _SECURITY]
    operation["description"] += f"\n\nNeeds a key with the scope `{scope}`."


def _name_headers(operation: Schema, route: APIRoute, method: str) -> None:
    if isinstance(route, OnceRoute) and method != "get":
        operation.setdefault("parameters", []).append(_REPEATED)
    if "retrieval" in operation["tags"]:
        one = route.name in ("retrieve", "rerank")
        operation["responses"]["200"]["headers"] = {**_TIMING, **(_RETRIEVAL_ID if one else {})}


def _point_to_problem(operation: Schema) -> None:
    for response in operation["responses"].values():
        if MEDIA_TYPE in response.get("content", {}):
            response["content"][MEDIA_TYPE]["schema"] = {"$ref": "#/components/schemas/Problem"}


def _give_example(operation: Schema, components: Schema) -> None:
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if content is not None and "example" not in content:
        content["example"] = example_of(content["schema"], components)


def example_of(schema: Schema, components: Schema) -> Any:
    """A value of a schema, with what is required and what has an example."""
    if "$ref" in schema:
        return example_of(components[schema["$ref"].rpartition("/")[2]], components)
    if schema.get("examples"):
        return schema["examples"][0]
    if schema.get("type") == "array":
        return [example_of(schema.get("items", {}), components)]
    if "properties" in schema:
        needed = schema.get("required", [])
        return {
            name: _EXAMPLES.get(name) if not _tells(each) else example_of(each, components)
            for name, each in schema["properties"].items()
            if name in needed or each.get("examples")
        }
    return None


def _tells(schema: Schema) -> bool:
    return any(key in schema for key in ("$ref", "examples", "items", "properties"))
