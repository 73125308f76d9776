"""OpenAPI 3.1 out of the declarations of the routes, so that it cannot tell of another program.

The common document describes a record's fields as an object; `for_tenant` adds, for one reader,
the kinds that they see with the fields they may write.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Sequence
from typing import Any, Union, get_args, get_origin

import msgspec

from appliance.http.problems import Problem
from appliance.http.route import API, NODE, PUBLIC, Route
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Field, Kind
from appliance.kernel.profile import Mode

Schema = dict[str, Any]
_REF = "#/components/schemas/{name}"
_JSON = "application/json"
_REASONS = {
    200: "Done", 201: "Made", 202: "Accepted", 204: "Done, nothing to tell", 304: "Not changed",
    400: "The request cannot be read", 401: "Sign in first", 403: "Not allowed",
    404: "Unknown, or not for you", 405: "Method not taken here", 406: "No such representation",
    409: "Conflict", 413: "Too large", 415: "Media type not taken", 422: "Content not acceptable",
    423: "Busy: another request is at it",
    429: "Too many, or too costly", 460: "Not the bytes of its checksum", 500: "A fault of the node", 503: "A dependency is down",
    507: "The disk is full",
}  # fmt: skip
_ABOUT = (
    "Records, queries and access of one node. Every refusal is a Problem. Every GET answers HEAD "
    "with the same status and headers and no body; HEAD is not listed apart."
)
_HEADERS: dict[str, Schema] = {
    "If-Match": {"type": "string", "description": "The version the author saw, in quotes."},
    "If-None-Match": {"type": "string", "description": "An ETag that is already known."},
    "If-Modified-Since": {"type": "string", "description": "An HTTP date; ETags go before it."},
    "Idempotency-Key": {
        "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[\\x21-\\x7e]+$",
        "description": "The same key again answers as the first time and does nothing.",
    },
    "Prefer": {"type": "string", "description": "return=minimal leaves the record out."},
    "Last-Event-ID": {"type": "string", "description": "Where to go on."},
    "Upload-Offset": {
        "type": "string", "pattern": "^[0-9]{1,18}$", "description": "Where the part begins, in bytes."
    },
    "Upload-Checksum": {
        "type": "string", "pattern": "^crc32 [A-Za-z0-9+/]{6}==$",
        "description": "CRC-32 of the part: a part that does not fit is not kept.",
    },
    "Accept": {"type": "string", "description": "Which representation to send."},
}  # fmt: skip
_SECURITY: dict[str, list[Schema]] = {PUBLIC: [], NODE: [{"node": []}]}
_PATH_PARTS: dict[str, Schema] = {
    "kind": {"type": "string", "pattern": "^(sys\\.)?[a-z][a-z0-9_]{0,39}$"},
    "field": {"type": "string", "pattern": "^[a-z][a-z0-9_]{0,39}$"},
}


def document(routes: Sequence[Route], version: str) -> Schema:
    """The document of all mounted routes."""
    shapes = _shapes(routes)
    components = _components(shapes)
    paths: dict[str, Schema] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Nexus", "version": version,
            "description": _ABOUT,
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in sorted({r.tag for r in routes})],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": "__Host-sid"},
                "node": {"type": "apiKey", "in": "header", "name": "Signature"},
            },
        },
    }  # fmt: skip


def _operation(route: Route) -> Schema:
    doc = (route.run.__doc__ or "").strip()
    operation: Schema = {
        "operationId": route.run.__name__,
        "summary": doc.partition("\n")[0],
        "description": doc,
        "tags": [route.tag],
        "x-capability": route.capability,
        "responses": _responses(route),
        "security": _SECURITY.get(route.capability, [{"bearer": []}, {"cookie": []}]),
    }
    parameters = [*_path_parameters(route), *_query_parameters(route), *_header_parameters(route)]
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        operation["requestBody"] = {
            "required": True, "content": {_JSON: {"schema": _schema_of(route.body)}}
        }  # fmt: skip
    return operation


def _responses(route: Route) -> Schema:
    found: Schema = {}
    for status, shape in route.answers.items():
        answer: Schema = {"description": _REASONS[status]}
        if shape is not None:
            answer["content"] = {
                media: {"schema": _schema_of(shape) if media == _JSON else {}}
                for media in route.media
            }
        found[str(status)] = answer
    problem = {"application/problem+json": {"schema": {"$ref": _REF.format(name="Problem")}}}
    for status in sorted(_refusals(route)):
        found.setdefault(str(status), {"description": _REASONS[status], "content": problem})
    return found


def _refusals(route: Route) -> set[int]:
    found = {400, 404, 429, 500, 503, *route.refuses}
    if route.capability != PUBLIC:
        found |= {401, 403}
    if route.method != "GET":
        found |= {413, 415, 403}
    if route.body is not None:
        # A body that names what is unknown, a sign-in that does not fit.
        found |= {401, 422}
    if route.params is not None or route.writes:
        found |= {422}
    if route.writes:
        found |= {409, 507}
    if len(route.media) > 1:
        found |= {406}
    return found


def _path_parameters(route: Route) -> list[Schema]:
    names = [part.partition("}")[0] for part in route.path.split("{")[1:]]
    uuid = {"type": "string", "format": "uuid"}
    return [
        {"name": n, "in": "path", "required": True, "schema": _PATH_PARTS.get(n, uuid)}
        for n in names
    ]


def _query_parameters(route: Route) -> list[Schema]:
    if route.params is None:
        return []
    schema = msgspec.json.schema_components([route.params], ref_template=_REF)[1]
    shape = schema[route.params.__name__]
    required = shape.get("required", [])
    return [
        {"name": name, "in": "query", "required": name in required, "schema": _plain(part)}
        for name, part in shape["properties"].items()
    ]


def _plain(part: Schema) -> Schema:
    """A parameter is text: that it may be left out is said by `required`, not by null."""
    options = [o for o in part.get("anyOf", ()) if o != {"type": "null"}]
    return options[0] if len(options) == 1 else part


def _header_parameters(route: Route) -> list[Schema]:
    return [
        {"name": n, "in": "header", "required": False, "schema": _HEADERS[n]} for n in route.headers
    ]


def _members(shape: Any) -> tuple[Any, ...]:
    """The alternatives of a union; the generator takes no union of plain structs."""
    return get_args(shape) if get_origin(shape) in (Union, types.UnionType) else (shape,)


def _shapes(routes: Iterable[Route]) -> list[Any]:
    found: list[Any] = [Problem]
    for route in routes:
        for shape in (route.body, *route.answers.values()):
            if shape is not None and shape is not bytes:
                found += _members(shape)
    return found


def _components(shapes: list[Any]) -> Schema:
    return dict(msgspec.json.schema_components(shapes, ref_template=_REF)[1])


def _schema_of(shape: Any) -> Schema:
    if shape is bytes:
        return {}
    members = _members(shape)
    found = [msgspec.json.schema_components([m], ref_template=_REF)[0][0] for m in members]
    return found[0] if len(found) == 1 else {"anyOf": found}


_TYPES: dict[str, Schema] = {
    "integer": {"type": "integer"},
    "yes_no": {"type": "boolean"},
    "date": {"type": "string", "format": "date"},
    "moment": {"type": "string", "format": "date-time"},
    "reference": {"type": "string", "format": "uuid"},
    "references": {"type": "array", "items": {"type": "string", "format": "uuid"}},
    "multi_choice": {"type": "array", "items": {"type": "string"}},
    "number": {"type": "string", "pattern": "^-?[0-9]+(\\.[0-9]+)?$"},
    "money": {"type": "string", "pattern": "^-?[0-9]+(\\.[0-9]+)?$"},
    "quantity": {},
    "json": {},
    "rollup": {},
}


def for_tenant(common: Schema, ctx: Ctx) -> Schema:
    """The document with a path and a schema for each kind the reader sees."""
    paths, schemas = dict(common["paths"]), dict(common["components"]["schemas"])
    for kind in sorted(ctx.schema.kinds.values(), key=lambda k: k.key):
        if not ctx.profile.sees(kind):
            continue
        readable, writable = (_fields_of(ctx, kind, m) for m in (Mode.MASKED, Mode.WRITE))
        name = "kind_" + kind.key.replace(".", "_")
        schemas[f"{name}_fields"] = readable
        schemas[f"{name}_new"] = _with_fields(schemas["NewRecord"], writable)
        schemas[name] = _with_fields(
            schemas["Record"], {"$ref": _REF.format(name=f"{name}_fields")}
        )
        for tail in ("", "/{id}"):
            generic = paths.get(f"{API}/records/{{kind}}{tail}", {})
            paths[f"{API}/records/{kind.key}{tail}"] = {
                method: _specialised(operation, name, kind.key)
                for method, operation in generic.items()
            }
    return {**common, "paths": paths, "components": {**common["components"], "schemas": schemas}}


def _fields_of(ctx: Ctx, kind: Kind, least: Mode) -> Schema:
    fields = [f for f in kind.fields if ctx.profile.mode(kind.key, f) >= least]
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {f.name: _field_schema(f) for f in fields},
    }


def _field_schema(field: Field) -> Schema:
    schema = dict(_TYPES.get(field.type, {"type": "string"}))
    if "type" in schema:
        schema["type"] = [schema["type"], "null"]
    choices = field.options.get("choices")
    if field.type == "choice" and isinstance(choices, list):
        schema["enum"] = [*(c.get("key") for c in choices if isinstance(c, dict)), None]
    return {**schema, "x-type": field.type}


def _with_fields(record: Schema, fields: Schema) -> Schema:
    return {**record, "properties": {**record["properties"], "fields": fields}}


def _specialised(operation: Schema, name: str, key: str) -> Schema:
    parameters = [p for p in operation.get("parameters", ()) if p["name"] != "kind"]
    found = {
        **operation,
        "operationId": f"{operation['operationId']}_{key}",
        "parameters": parameters,
    }
    if operation["operationId"] == "create_records":
        one = {"$ref": _REF.format(name=f"{name}_new")}
        schema = {"anyOf": [one, {"type": "array", "items": one}]}
        found["requestBody"] = {"required": True, "content": {_JSON: {"schema": schema}}}
    elif operation["operationId"] == "read_record":
        answer = {"description": _REASONS[200],
                  "content": {_JSON: {"schema": {"$ref": _REF.format(name=name)}}}}  # fmt: skip
        found["responses"] = {**operation["responses"], "200": answer}
    return found
