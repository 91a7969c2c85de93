"""The OpenAPI 3.1 document of the Networking API, made from the declarations: `GET /v2.0/openapi.json`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any, get_type_hints

import msgspec

from crossway.api.body import BULK_MAX
from crossway.api.resources import path_of
from crossway.control.collection import Action, Collection
from crossway.control.collections import COLLECTIONS
from crossway.model.check import schema_of
from crossway.model.resource import REQUIRED, TAGS_MAX, Attribute, Kind
from crossway.model.who import Who

Schema = dict[str, Any]
PATH = "/v2.0/openapi.json"
# What any request may be answered with, whatever it asks.
ALWAYS = {
    400: "What was asked can never be right; the message names what is wrong.",
    401: "Nobody knows who asks.",
    403: "The caller may not do this.",
    404: "There is none, or none that the caller may see.",
    405: "It is there, but not for this method.",
    406: "The caller takes no JSON.",
    409: "Right in itself, but not now.",
    412: "It is not at the revision that If-Match names.",
    429: "The caller asks too often: Retry-After says when to come again.",
    431: "The headers are too large.",
    503: "A part that is needed does not answer.",
}
ERROR = {
    "type": "object",
    "required": ["NeutronError"],
    "properties": {
        "NeutronError": {
            "type": "object",
            "required": ["type", "message", "detail"],
            "properties": {name: {"type": "string"} for name in ("type", "message", "detail")},
        }
    },
}
PAGE: tuple[tuple[str, Schema, str], ...] = (
    ("fields", {"type": "array", "items": {"type": "string"}}, "Answer with these attributes only."),
    ("limit", {"type": "integer", "minimum": 0}, "At most so many on a page."),
    ("marker", {"type": "string"}, "The id after which the page begins."),
    ("page_reverse", {"type": "boolean"}, "Go back from the marker."),
    ("sort_dir", {"type": "array", "items": {"enum": ["asc", "desc"]}}, "One for each sort_key."),
)
TAGS = ("tags", "tags-any", "not-tags", "not-tags-any")
FAULT = {"$ref": "#/components/responses/fault"}
IF_MATCH = {"$ref": "#/components/parameters/if_match"}


def document() -> Schema:
    """Return the whole document as JSON values."""
    paths: dict[str, Schema] = {}
    schemas: dict[str, Schema] = {"fault": ERROR}
    for collection, base, parents in _placed():
        kind = collection.kind
        schemas.setdefault(f"{kind.name}", _answer(collection))
        paths.update(_of_collection(collection, base, parents))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Crossway: OpenStack's Networking API v2.0",
            "version": version("crossway"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": schemas,
            "responses": {"fault": {"description": "What is wrong.", "content": _json({"$ref": _ref("fault")})}},
            "parameters": {
                "if_match": {
                    "name": "If-Match",
                    "in": "header",
                    "required": False,
                    "description": "Do it only if the resource is at this revision: revision_number=NUMBER.",
                    "schema": {"type": "string", "pattern": "^revision_number=[0-9]+$"},
                }
            },
            "securitySchemes": {
                "token": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"},
                "basic": {"type": "http", "scheme": "basic"},
            },
        },
        "security": [{}, {"token": []}, {"basic": []}],
    }


def _placed(
    collections: tuple[Collection, ...] = COLLECTIONS, base: str = "/v2.0", parents: tuple[str, ...] = ()
) -> Iterator[tuple[Collection, str, tuple[str, ...]]]:
    """Return each collection with its path, and the names in it that stand for the ids of parents."""
    for collection in collections:
        path = f"{base}/{path_of(collection)}"
        yield collection, path, parents
        # One name for each step, or a path would have one twice.
        name = f"{collection.kind.name}_id"
        yield from _placed(collection.children, f"{path}/{{{name}}}", (*parents, name))


def _of_collection(collection: Collection, base: str, parents: tuple[str, ...]) -> dict[str, Schema]:
    kind = collection.kind
    # A kind may stand in two places; each of its operations has a name of its own.
    of = "".join(f"_of_{name.removesuffix('_id')}" for name in parents)
    above = [_in_path(name) for name in parents]
    one = [*above, _in_path("id")]
    ref: Schema = {"$ref": _ref(kind.name)}
    many: Schema = {
        "type": "object",
        "required": [kind.plural],
        "properties": {
            kind.plural: {"type": "array", "items": ref},
            f"{kind.plural}_links": {"type": "array", "items": {"type": "object"}},
        },
    }
    whole: Schema = {"type": "object", "required": [kind.name], "properties": {kind.name: ref}}
    on_all: Schema = {
        "parameters": above,
        "get": _operation(
            f"list_{kind.plural}{of}", f"List {kind.plural}", kind.get, {200: many}, _filters(collection)
        ),
    }
    if collection.create:
        asked = _asked(kind, update=False)
        bulk = {
            "type": "object",
            "required": [kind.plural],
            "properties": {kind.plural: {"type": "array", "items": asked, "maxItems": BULK_MAX}},
        }
        on_all["post"] = _operation(
            f"create_{kind.name}{of}",
            f"Make a {kind.name}, or several, all or none",
            kind.create,
            {201: {"anyOf": [whole, many]}},
            body={"anyOf": [_within(kind.name, asked), bulk]},
        )
        # What was made can be shown, changed and deleted: by the id that the answer has.
        above_it = {name: f"$request.path.{name}" for name in parents}
        on_all["post"]["responses"]["201"]["links"] = {
            verb: {
                "operationId": f"{verb}_{kind.name}{of}",
                "parameters": {"id": f"$response.body#/{kind.name}/id", **above_it},
            }
            for verb, possible in (("show", True), ("update", collection.update), ("delete", collection.delete))
            if possible and "id" in kind.attributes
        }
    fields = [{"name": "fields", "in": "query", "required": False, "schema": PAGE[0][1], "description": PAGE[0][2]}]
    on_one: Schema = {
        "parameters": one,
        "get": _operation(f"show_{kind.name}{of}", f"Show a {kind.name}", kind.get, {200: whole}, fields),
    }
    if collection.update:
        on_one["put"] = _operation(
            f"update_{kind.name}{of}",
            f"Change a {kind.name}",
            kind.update,
            {200: whole},
            [IF_MATCH],
            _within(kind.name, _asked(kind, update=True)),
        )
    if collection.delete:
        on_one["delete"] = _operation(
            f"delete_{kind.name}{of}", f"Delete a {kind.name}", kind.delete, {204: None}, [IF_MATCH]
        )
    paths = {base: on_all, f"{base}/{{id}}": on_one}
    for name, action in collection.actions.items():
        paths[f"{base}/{{id}}/{name}"] = {"parameters": one, action.method.lower(): _acted(kind, name, action)}
    for word in collection.questions:
        paths[f"{base}/{word}"] = {
            "parameters": above,
            "get": _operation(f"show_{kind.name}_{word}", f"Tell the caller's {word}", kind.get, {200: {}}),
        }
    if "tags" in kind.attributes:
        paths.update(_tagged(kind, base, one))
    return paths


def _tagged(kind: Kind[Any], base: str, one: list[Schema]) -> dict[str, Schema]:
    several = {
        "type": "object",
        "required": ["tags"],
        "properties": {"tags": {"type": "array", "items": {"type": "string", "maxLength": 255}, "maxItems": TAGS_MAX}},
    }
    name = kind.name
    on_all = {
        "parameters": one,
        "get": _operation(f"list_tags_of_{name}", f"List the tags of a {name}", kind.get, {200: several}),
        "put": _operation(f"replace_tags_of_{name}", "Replace them all", kind.update, {200: several}, body=several),
        "post": _operation(f"add_tags_to_{name}", "Add some", kind.update, {201: several}, body=several),
        "delete": _operation(f"remove_tags_of_{name}", "Take them all off", kind.update, {204: None}),
    }
    on_one = {
        "parameters": [*one, _in_path("tag")],
        "get": _operation(f"show_tag_of_{name}", f"Say whether a {name} has a tag", kind.get, {204: None}),
        "put": _operation(f"add_tag_to_{name}", "Put a tag on", kind.update, {201: None}),
        "delete": _operation(f"remove_tag_of_{name}", "Take a tag off", kind.update, {204: None}),
    }
    return {f"{base}/{{id}}/tags": on_all, f"{base}/{{id}}/tags/{{tag}}": on_one}


def _acted(kind: Kind[Any], name: str, action: Action) -> Schema:
    id = f"{name.replace('-', '_')}_of_{kind.name}"
    body = (dict(action.body) or {"type": "object"}) if action.method != "GET" else None
    answer = None if action.status == 204 else dict(action.answer) or {"type": "object"}
    return _operation(
        id,
        f"{name.replace('_', ' ').replace('-', ' ')} of a {kind.name}",
        action.who,
        {action.status: answer},
        body=body,
    )


def _operation(
    id: str,
    summary: str,
    who: Who,
    answers: Mapping[int, Schema | None],
    parameters: list[Schema] | None = None,
    body: Schema | None = None,
) -> Schema:
    said = {
        str(status): {"description": "Done."} | ({"content": _json(schema)} if schema is not None else {})
        for status, schema in answers.items()
    }
    made: Schema = {
        "operationId": id,
        "summary": summary,
        "description": f"For {who}.",
        "responses": said | {str(status): FAULT for status in ALWAYS},
    }
    if parameters:
        made["parameters"] = parameters
    if body is not None:
        made["requestBody"] = {"required": True, "content": _json(body)}
    return made


def _filters(collection: Collection) -> list[Schema]:
    kind, found = collection.kind, {}
    for name, declared in kind.names.items():
        if declared.filter:
            found[name] = {"type": "array", "items": _asked_in_query(declared)}
    for name in collection.filters:
        found[name] = {"type": "array", "items": {"type": "string"}}
    if "tags" in kind.attributes:
        found |= {name: {"type": "string"} for name in TAGS}
    listed = [_in_query(name, schema, "") for name, schema in found.items()]
    listed += [_in_query(name, schema, said) for name, schema, said in PAGE if name not in found]
    keys = sorted(name for name, declared in kind.names.items() if declared.sort)
    listed.append(_in_query("sort_key", {"type": "array", "items": {"enum": keys}}, "In which order."))
    return listed


def _asked_in_query(declared: Attribute) -> Schema:
    schema = schema_of(declared.filter_check) if declared.filter_check else {}
    return schema or {"type": "string"}


def _asked(kind: Kind[Any], update: bool) -> Schema:
    """Return what POST, or PUT if *update*, takes of a resource."""
    taken = {wire: declared for wire, declared in kind.names.items() if (declared.put if update else declared.post)}
    schema: Schema = {
        "type": "object",
        "properties": {wire: _described(declared, update) for wire, declared in taken.items()},
        "additionalProperties": False,
    }
    if not update:
        schema["properties"] |= {wire: {"type": "string"} for wire in sorted(kind.forgets)}
    required = [wire for wire, declared in taken.items() if not update and declared.default is REQUIRED]
    return schema | ({"required": required} if required else {})


def _described(declared: Attribute, update: bool) -> Schema:
    schema = schema_of(declared.check)
    who = declared.update if update else declared.create
    return schema | ({"description": f"For {who}."} if who is not None else {})


def _answer(collection: Collection) -> Schema:
    """Return what a resource looks like in an answer."""
    kind = collection.kind
    hints = get_type_hints(kind.model, include_extras=False)
    shown = {wire: declared for wire, declared in kind.names.items() if declared.shown}
    properties = {
        wire: _type(hints[declared.field]) if wire not in collection.derived else {} for wire, declared in shown.items()
    }
    properties |= {name: properties.get(name, {}) for name in collection.derived}
    if kind.tells_shared:
        properties["shared"] = {"type": "boolean"}
    return {"type": "object", "properties": properties}


def _type(hint: Any) -> Schema:
    """Return the schema of a field's type, with what it refers to in it."""
    schema = msgspec.json.schema(hint)
    inner = schema.pop("$defs", {})

    def whole(value: Any) -> Any:
        if isinstance(value, dict):
            if "$ref" in value:
                return whole(inner[value["$ref"].rpartition("/")[2]])
            return {key: whole(item) for key, item in value.items() if key != "title"}
        return [whole(item) for item in value] if isinstance(value, list) else value

    found: Schema = whole(schema)
    return found


def _within(name: str, schema: Schema) -> Schema:
    # What else stands beside it is nobody's business.
    return {"type": "object", "required": [name], "properties": {name: schema}}


def _in_path(name: str) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _in_query(name: str, schema: Schema, said: str) -> Schema:
    made = {"name": name, "in": "query", "required": False, "schema": schema}
    return made | ({"description": said} if said else {})


def _json(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}


def _ref(name: str) -> str:
    return f"#/components/schemas/{name}"
