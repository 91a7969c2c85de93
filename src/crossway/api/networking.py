"""The Networking API v2.0: every collection is served by the same few functions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from crossway.api import query
from crossway.api.answer import ENCODER, Answer, answer, body, empty
from crossway.api.extensions import EXTENSIONS, listed
from crossway.api.resources import COLLECTIONS, Collection, Shapes
from crossway.control import group, router
from crossway.control.caller import ADMIN, Caller, seen
from crossway.control.cloud import Cloud, Table
from crossway.control.decision import Decision, decide
from crossway.control.tag import checked, set_tags
from crossway.errors import Fault, Invalid, NotFound
from crossway.model.resource import Resource

BULK_MAX = 10_000
# Objects that are encoded before others have their turn.
TOGETHER = 1_000
Verb = Callable[[Decision], Any]


class Precondition(Fault):
    """The resource is not at the revision that the caller knows."""

    status = 412


def caller_of(request: Request) -> Caller:
    """Return who asks, by the request's headers; without any it is an admin."""
    headers = request.headers
    project, roles = headers.get("x-project-id"), headers.get("x-roles")
    if project is None and roles is None:
        return Caller()
    admin = ADMIN in [role.strip().lower() for role in (roles or "").split(",")]
    return Caller(project=project or ADMIN, user=headers.get("x-user-id", ""), admin=admin)


class Networking:
    """Answers requests for resources out of a cloud."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.shapes = Shapes(cloud)

    async def versions(self, request: Request) -> Response:
        return answer({"versions": [_version(request)]})

    async def version(self, request: Request) -> Response:
        """Tell the version, and the collections under it as links."""
        base = str(request.base_url).rstrip("/")
        resources = [
            {"name": kind.name, "collection": plural, "links": [{"rel": "self", "href": f"{base}/v2.0/{plural}"}]}
            for plural, kind in ((plural, collection.kind) for plural, collection in COLLECTIONS.items())
        ]
        return answer({"version": _version(request), "versions": [_version(request)], "resources": resources})

    async def extensions(self, request: Request) -> Response:
        alias = request.path_params.get("alias")
        if alias is None:
            return answer({"extensions": listed()})
        if alias not in EXTENSIONS:
            raise NotFound("extension", alias)
        return answer({"extension": next(e for e in listed() if e["alias"] == alias)})

    async def index(self, request: Request) -> Response:
        collection, caller = _collection(request), caller_of(request)
        if collection.table == "group" and caller.project not in self.cloud.defaults:
            await decide(self.cloud, lambda decision: group.default(decision, caller.project))
        asked = query.read(collection, request.query_params.multi_items(), caller.admin)
        page = query.run(self.cloud, collection, caller, asked)
        plural = collection.kind.plural
        if asked.fields:
            shapes = [self.shapes.fields(collection, found, caller.admin, asked.fields) for found in page.found]
            parts = [ENCODER.encode(shapes)]
        else:
            parts = [b"[", b",".join(await self._encoded(collection, page.found, caller.admin)), b"]"]
        links = _links(request, asked, page)
        tail = [b',"%s_links":%s' % (plural.encode(), ENCODER.encode(links))] if links else []
        return Answer(b"".join([b'{"%s":' % plural.encode(), *parts, *tail, b"}"]))

    async def _encoded(self, collection: Collection, found: list[Any], admin: bool) -> list[bytes]:
        """Encode many objects, letting others have the loop now and then."""
        encoded: list[bytes] = []
        for start in range(0, len(found), TOGETHER):
            if start:
                await asyncio.sleep(0)
            encoded += [self.shapes.encode(collection, one, admin) for one in found[start : start + TOGETHER]]
        return encoded

    async def create(self, request: Request) -> Response:
        """Make one, or several all or none."""
        collection, caller = _collection(request), caller_of(request)
        kind = collection.kind
        asked = await body(request)
        if isinstance(asked, dict) and len(asked) == 1:
            if kind.name in asked:
                given = kind.given(asked[kind.name], caller.admin)
                made = await decide(self.cloud, lambda decision: collection.create(decision, caller, given))
                return self._one(collection, made, caller, 201)
            if isinstance(asked.get(kind.plural), list):
                return await self._create_all(collection, caller, asked[kind.plural])
        raise Invalid(f"The body should be {{'{kind.name}': {{…}}}} or {{'{kind.plural}': [{{…}}, …]}}")

    async def _create_all(self, collection: Collection, caller: Caller, bodies: list[Any]) -> Response:
        if not 0 < len(bodies) <= BULK_MAX:
            raise Invalid(f"{collection.kind.plural} has {len(bodies)} entries; should be from 1 to {BULK_MAX}")
        all_given = [collection.kind.given(one, caller.admin) for one in bodies]

        def create(decision: Decision) -> list[Resource]:
            return [collection.create(decision, caller, dict(given)) for given in all_given]

        made = await decide(self.cloud, create)
        encoded = b",".join(
            [self.shapes.encode(collection, one, caller.admin) for one in self._fresh(collection, made)]
        )
        return Answer(b'{"%s":[%s]}' % (collection.kind.plural.encode(), encoded), 201)

    async def show(self, request: Request) -> Response:
        collection, caller = _collection(request), caller_of(request)
        found = self._seen(collection, caller, request.path_params["id"])
        fields = [f for value in request.query_params.getlist("fields") for f in value.split(",") if f]
        if fields:
            return answer({collection.kind.name: self.shapes.fields(collection, found, caller.admin, fields)})
        return self._one(collection, found, caller, 200)

    async def update(self, request: Request) -> Response:
        collection, caller, id = _collection(request), caller_of(request), request.path_params["id"]
        kind = collection.kind
        asked = await body(request)
        if not isinstance(asked, dict) or kind.name not in asked or len(asked) != 1:
            raise Invalid(f"The body should be {{'{kind.name}': {{…}}}}")
        given = kind.given(asked[kind.name], caller.admin, update=True)
        verb = self._matching(request, collection, id, lambda d: collection.update(d, caller, id, given))
        return self._one(collection, await decide(self.cloud, verb), caller, 200)

    async def delete(self, request: Request) -> Response:
        collection, caller, id = _collection(request), caller_of(request), request.path_params["id"]
        await decide(self.cloud, self._matching(request, collection, id, lambda d: collection.delete(d, caller, id)))
        return empty()

    async def act(self, request: Request) -> Response:
        """Add or remove a router's interface."""
        collection, caller, id = _collection(request), caller_of(request), request.path_params["id"]
        verbs = {"add_router_interface": router.add_interface, "remove_router_interface": router.remove_interface}
        verb = verbs.get(request.path_params["action"])
        if verb is None or collection.table != "router":
            raise NotFound("action", request.path_params["action"])
        asked = await body(request)
        return answer(await decide(self.cloud, lambda decision: verb(decision, caller, id, asked)))

    async def tags(self, request: Request) -> Response:
        """Show, replace or drop all tags of a resource."""
        collection, caller, id = _collection(request), caller_of(request), request.path_params["id"]
        if request.method == "GET":
            return answer({"tags": self._seen(collection, caller, id).tags})
        wanted: tuple[str, ...] = ()
        if request.method == "PUT":
            asked = await body(request)
            if not isinstance(asked, dict) or asked.keys() != {"tags"}:
                raise Invalid("The body should be {'tags': […]}")
            wanted = checked(asked["tags"])
        tags = await self._tag(collection, caller, id, lambda old: wanted)
        return empty() if request.method == "DELETE" else answer({"tags": tags})

    async def tag(self, request: Request) -> Response:
        """Ask for, put or drop one tag."""
        collection, caller, id = _collection(request), caller_of(request), request.path_params["id"]
        (tag,) = checked([request.path_params["tag"]])
        if request.method != "PUT" and tag not in self._seen(collection, caller, id).tags:
            raise NotFound("tag", tag)
        if request.method == "PUT":
            await self._tag(collection, caller, id, lambda old: (*old, tag))
            return empty(201)
        if request.method == "DELETE":
            await self._tag(collection, caller, id, lambda old: tuple(t for t in old if t != tag))
        return empty()

    async def _tag(
        self, collection: Collection, caller: Caller, id: str, turn: Callable[[tuple[str, ...]], tuple[str, ...]]
    ) -> tuple[str, ...]:
        table: Table[Resource] = self.shapes.table(collection)
        return await decide(self.cloud, lambda d: set_tags(d, caller, table, collection.kind.name, id, turn))

    def _matching(self, request: Request, collection: Collection, id: str, verb: Verb) -> Verb:
        """Have the verb done only if the resource is at the revision that If-Match names."""
        wanted = request.headers.get("if-match")
        if wanted is None:
            return verb
        name, _, number = wanted.partition("=")
        if name != "revision_number" or not number.isdecimal():
            raise Invalid(f"If-Match '{wanted}' should be revision_number=NUMBER")

        def match(decision: Decision) -> Any:
            found = decision.read(self.shapes.table(collection), id)
            if found is not None and found.revision_number != int(number):
                raise Precondition(
                    f"Constrained to {number}, but current revision is {found.revision_number}",
                    type="RevisionNumberConstraintFailed",
                )
            return verb(decision)

        return match

    def _seen(self, collection: Collection, caller: Caller, id: str) -> Any:
        return seen(self.cloud, caller, collection.kind.name, id, self.shapes.table(collection).get(id))

    def _fresh(self, collection: Collection, made: list[Resource]) -> list[Resource]:
        """Return the copy's own objects where they are still what was made, so that their JSON is kept."""
        rows = self.shapes.table(collection).rows
        return [row if (row := rows.get(one.id)) == one and row is not None else one for one in made]

    def _one(self, collection: Collection, found: Resource, caller: Caller, status: int) -> Answer:
        (fresh,) = self._fresh(collection, [found])
        encoded = self.shapes.encode(collection, fresh, caller.admin)
        return Answer(b'{"%s":%s}' % (collection.kind.name.encode(), encoded), status)


def _collection(request: Request) -> Collection:
    collection = COLLECTIONS.get(request.path_params["collection"].replace("-", "_"))
    if collection is None:
        raise NotFound("resource", request.path_params["collection"])
    return collection


def _version(request: Request) -> dict[str, Any]:
    href = f"{str(request.base_url).rstrip('/')}/v2.0/"
    return {"id": "v2.0", "status": "CURRENT", "links": [{"rel": "self", "href": href}]}


def _links(request: Request, asked: query.Query, page: query.Page) -> list[dict[str, str]]:
    """Return where the next and the previous page are."""
    if not asked.limit or not page.found:
        return []
    links = []
    for there, rel, marker, reverse in (
        (page.more, "next", page.found[-1].id, False),
        (page.before, "previous", page.found[0].id, True),
    ):
        if there:
            params = [(k, v) for k, v in request.query_params.multi_items() if k not in ("marker", "page_reverse")]
            params.append(("marker", marker))
            if reverse:
                params.append(("page_reverse", "True"))
            links.append({"rel": rel, "href": f"{str(request.url).partition('?')[0]}?{urlencode(params)}"})
    return links
