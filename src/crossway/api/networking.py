"""The Networking API v2.0: every collection is served by the same few functions."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import cache, partial
from typing import Any, TypeVar
from urllib.parse import urlencode

from msgspec import Raw, ValidationError, structs
from starlette.requests import Request
from starlette.responses import Response

from crossway.api import body, openapi, query
from crossway.api.answer import Answer, answer, empty, encode
from crossway.api.body import BULK_MAX, SHORT, Shape, TooLarge
from crossway.api.extensions import EXTENSIONS, listed
from crossway.api.resources import Place, Shapes, path_of, place
from crossway.control import policy
from crossway.control.caller import ADMIN, HOST, MEMBER, Caller, host_caller, implied, may, seen, somewhere
from crossway.control.cloud import Cloud, Table
from crossway.control.collection import Checked, Collection
from crossway.control.collections import COLLECTIONS
from crossway.control.decision import Decision, decide, decide_in_portions
from crossway.control.tag import checked, set_tags
from crossway.errors import Fault, Invalid, NotFound
from crossway.model.kinds import BY_TABLE
from crossway.model.resource import Given, Resource
from crossway.model.who import Who
from crossway.portions import Portions

# What a caller says that takes JSON.
JSON = ("*/*", "application/json", "application/*")
# So many of one request, of so many bytes, are made at once; more are in portions, of a few requests at a time.
ALONE, LARGE = 50, 4
# Threads that look at large bodies. The interpreter is one: they are for others to have their turn, not for speed.
THREADS = 2
# Objects that are encoded before others have their turn.
TOGETHER = 100
# What If-Match names; other tags than ours are no business of ours.
REVISION = re.compile(r"revision_number=(\d{1,18})\b", re.ASCII)
T = TypeVar("T")
Verb = Callable[[Decision], Any]
Handler = Callable[[Request, Place, Caller], Awaitable[Response]]


class NotAllowed(Fault):
    """The resource is there, but not for this method."""

    status = 405


class NotAcceptable(Fault):
    """The caller takes no JSON, and there is nothing else."""

    status = 406


class Precondition(Fault):
    """The resource is not at the revision that the caller knows."""

    status = 412


def caller_of(request: Request) -> Caller:
    """Return who asks: as authentication found, or by the request's headers; without any it is an admin."""
    found = request.scope.get("crossway.caller")
    if isinstance(found, Caller):
        return found
    headers = request.headers
    project, roles = headers.get("x-project-id"), headers.get("x-roles")
    if project is None and roles is None:
        return Caller()
    if HOST in implied((roles or MEMBER).split(",")):
        return host_caller(headers.get("x-user-id", ""), (project or "").split(","))
    return Caller(
        project=project or ADMIN, user=headers.get("x-user-id", ""), roles=implied((roles or MEMBER).split(","))
    )


class Turns:
    """Work of which one for each of those who ask is done at a time, and *most* in all, in the order of asking."""

    def __init__(self, most: int) -> None:
        self._all = asyncio.Semaphore(most)
        self._each: dict[object, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def of(self, who: object) -> AsyncIterator[None]:
        """Wait for one's turn, and have it."""
        lock, count = self._each.get(who, (None, 0))
        lock = lock or asyncio.Lock()
        self._each[who] = lock, count + 1
        try:
            # Only then is there a place among all: whoever asks often waits for itself.
            async with lock, self._all:
                yield
        finally:
            _, count = self._each.pop(who)
            if count > 1:
                self._each[who] = lock, count - 1


class Networking:
    """Answers requests for resources out of a cloud."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.shapes = Shapes(cloud)
        self._large = Turns(LARGE)
        self._in_threads = Turns(THREADS)
        # Not those of the loop, which look up names: Keystone's, too.
        self._threads = ThreadPoolExecutor(THREADS, "body")

    def close(self) -> None:
        """End the threads that look at bodies."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _in_thread(self, caller: Caller, look: Callable[[], T]) -> T:
        """Look at a large body beside the loop; it knows nothing of the cloud."""
        async with self._in_threads.of(body.payer(caller)):
            return await asyncio.get_running_loop().run_in_executor(self._threads, look)

    async def versions(self, request: Request) -> Response:
        return answer({"versions": [_version(request)]})

    async def version(self, request: Request) -> Response:
        """Tell the version, and the collections under it as links."""
        base = str(request.base_url).rstrip("/")
        resources = [
            {
                "name": c.kind.name,
                "collection": c.kind.plural,
                "links": [{"rel": "self", "href": f"{base}/v2.0/{path_of(c)}"}],
            }
            for c in COLLECTIONS
        ]
        return answer({"version": _version(request), "versions": [_version(request)], "resources": resources})

    async def openapi(self, request: Request) -> Response:
        """Tell all that can be asked, as OpenAPI has it."""
        return Answer(_openapi())

    async def extensions(self, request: Request) -> Response:
        alias = request.path_params.get("alias")
        if alias is None:
            return answer({"extensions": listed()})
        if alias not in EXTENSIONS:
            raise NotFound("extension", alias)
        return answer({"extension": next(e for e in listed() if e["alias"] == alias)})

    async def dispatch(self, request: Request) -> Response:
        """Find what a path below /v2.0/ names, and do there what the method says."""
        accept = request.headers.get("accept")
        if accept and not any(kind in accept for kind in JSON):
            raise NotAcceptable(f"Accept '{accept}' should allow application/json", type="HTTPNotAcceptable")
        at = place(request.path_params["path"])
        if at is None:
            raise NotFound("resource", request.url.path)
        verb = self._verb(at, request.method)
        if verb is None:
            raise NotAllowed(f"{request.method} is not possible on {request.url.path}", type="HTTPMethodNotAllowed")
        caller = caller_of(request)
        if request.method == "GET" and at.id in at.collection.questions and at.action is None:
            return answer(at.collection.questions[at.id](caller))
        if at.id and at.collection.named is not None:
            at = structs.replace(at, id=at.collection.named(caller, at.id))
        return await verb(request, at, caller)

    def _verb(self, at: Place, method: str) -> Handler | None:
        collection = at.collection
        if method == "HEAD":
            method = "GET"
        if at.action is not None:
            return self.act if method == at.action.method else None
        if at.tag is not None:
            if at.tag:
                return self.tag if method in ("GET", "PUT", "DELETE") else None
            return self.tags if method in ("GET", "PUT", "POST", "DELETE") else None
        if at.id:
            verbs: dict[str, tuple[Any, Handler]] = {
                "GET": (True, self.show),
                "PUT": (collection.update, self.update),
                "DELETE": (collection.delete, self.delete),
            }
        else:
            verbs = {"GET": (True, self.index), "POST": (collection.create, self.create)}
        possible, verb = verbs.get(method, (None, self.show))
        return verb if possible else None

    async def index(self, request: Request, at: Place, caller: Caller) -> Response:
        collection = at.collection
        if at.parent:
            self._parent(at, caller)
        asked = query.read(collection, request.query_params.multi_items(), caller)
        if collection.prepare and (first := collection.prepare(self.cloud, caller, asked.filters)):
            await decide(self.cloud, first)
        found = await query.run_in_portions(self.cloud, collection, caller, asked, at.parent)
        plural = collection.kind.plural
        if asked.fields:
            encoded = []
            portions = Portions()
            for one in found:
                encoded.append(encode(self.shapes.fields(collection, one, caller, asked.fields)))
                if portions.due:
                    await portions.turn()
        else:
            encoded = await self._encoded(collection, found, caller)
        links = _links(request, asked, found)
        head = b'{"%s":[' % plural.encode()
        tail = b',"%s_links":%s}' % (plural.encode(), encode(links)) if links else b"}"
        # Joined once: a long list is a megabyte.
        encoded[:1] = [head + (encoded[0] if encoded else b"")]
        encoded[-1] += b"]" + tail
        return Answer(b",".join(encoded))

    async def _encoded(self, collection: Collection, found: list[Any], caller: Caller) -> list[bytes]:
        """Encode many objects, letting others have the loop now and then."""
        encoded: list[bytes] = []
        portions = Portions()
        for start in range(0, len(found), TOGETHER):
            if portions.due:
                await portions.turn()
            encoded += self.shapes.encode_all(collection, found[start : start + TOGETHER], caller)
        return encoded

    async def create(self, request: Request, at: Place, caller: Caller) -> Response:
        """Make one, or several all or none."""
        kind = at.collection.kind
        self._may_begin(at, caller, kind.create, f"create_{kind.name}")
        raw = await body.read(request, body.payer(caller), bulk=True)
        try:
            asked = body.decode(raw, Shape)
            # What else stands beside is nobody's business, as in Neutron.
            if kind.name in asked and kind.plural not in asked:
                if len(raw) > (most := body.limits(request).single):
                    raise TooLarge(f"The body has {len(raw)} bytes; should be at most {most} for one {kind.name}")
                (made,) = await self._create(at, caller, [asked[kind.name]], len(raw), alone=True)
                return self._one(at.collection, made, caller, 201)
            if kind.plural in asked:
                if len(raw) > SHORT:
                    await asyncio.sleep(0)
                bodies = body.decode(asked[kind.plural], list[Raw])
                if not 0 < len(bodies) <= BULK_MAX:
                    raise Invalid(f"{kind.plural} has {len(bodies)} entries; should be from 1 to {BULK_MAX}")
                single = body.limits(request).single
                if (longest := max(map(_size, bodies))) > single:
                    raise TooLarge(f"One {kind.name} has {longest} bytes; should have at most {single}")
                all_made = self._fresh(at.collection, await self._create(at, caller, bodies, len(raw)))
                encoded = b",".join(await self._encoded(at.collection, all_made, caller))
                return Answer(b'{"%s":[%s]}' % (kind.plural.encode(), encoded), 201)
        except ValidationError:
            pass
        raise Invalid(f"The body should be {{'{kind.name}': {{…}}}} or {{'{kind.plural}': [{{…}}, …]}}")

    async def _create(
        self, at: Place, caller: Caller, bodies: list[Raw], size: int, *, alone: bool = False
    ) -> list[Resource]:
        """Make what bodies of so many bytes say, all or none; many, or long ones, are looked at in portions."""
        if len(bodies) > ALONE or (len(bodies) > 1 and size > SHORT):
            async with self._large.of(body.payer(caller)):
                return await self._create_many(at, caller, bodies)
        create = at.collection.create
        assert create is not None
        if size > SHORT:
            # One of long lists.
            read = [await self._in_thread(caller, partial(_given, at, bodies[0], alone=alone))]
        else:
            read = [_given(at, one, alone=alone) for one in bodies]

        if at.collection.together is not None:
            at.collection.together([given for _, given in read])

        def verb(decision: Decision) -> list[Resource]:
            made = []
            for asked, given in read:
                policy.create(decision, caller, at.collection, asked, given)
                made.append(create(decision, caller, dict(given)))
            return made

        return await decide(self.cloud, verb)

    async def _create_many(self, at: Place, caller: Caller, bodies: list[Raw]) -> list[Resource]:
        create, portions, loop = at.collection.create, Portions(), asyncio.get_running_loop()
        assert create is not None

        async def looked_at(one: Raw) -> tuple[Any, Given]:
            if _size(one) > SHORT:
                return await loop.run_in_executor(self._threads, _given, at, one)
            return _given(at, one)

        # What can never be right is said before anything is decided. It is read anew then: kept, it would be large.
        together: list[Given] = []
        for one in bodies:
            _, given = await looked_at(one)
            if at.collection.together is not None:
                together.append(given)
            if portions.due:
                await portions.turn()
        if at.collection.together is not None:
            at.collection.together(together)

        async def verb(decision: Decision) -> list[Resource]:
            made = []
            for one in bodies:
                asked, given = await looked_at(one)
                policy.create(decision, caller, at.collection, asked, given)
                made.append(create(decision, caller, given))
                if portions.due:
                    await portions.turn()
            return made

        return await decide_in_portions(self.cloud, verb)

    def _may_begin(self, at: Place, caller: Caller, who: Who, rule: str) -> None:
        """Refuse whom no role allows it, whatever it is about, before its body is read."""
        if somewhere(caller, who):
            return
        if at.id:
            found = self._seen(at, caller)
            if at.collection.kind.absent and found.project_id != caller.project:
                raise NotFound(at.collection.kind.name, at.id)
        raise policy.refused(rule, who)

    async def show(self, request: Request, at: Place, caller: Caller) -> Response:
        collection = at.collection
        fields = [f for value in request.query_params.getlist("fields") for f in value.split(",") if f]
        if (verb := collection.show) is not None:
            told = await decide(self.cloud, lambda decision: verb(decision, caller, at.id, fields))
            return answer({collection.kind.name: told})
        found = self._seen(at, caller)
        if fields:
            return answer({collection.kind.name: self.shapes.fields(collection, found, caller, fields)})
        return self._one(collection, found, caller, 200)

    async def update(self, request: Request, at: Place, caller: Caller) -> Response:
        collection, kind, change = at.collection, at.collection.kind, at.collection.update
        assert change is not None
        self._may_begin(at, caller, kind.update, f"update_{kind.name}")
        raw = await body.read(request, body.payer(caller))
        asked = body.decode(raw)
        if not isinstance(asked, dict) or kind.name not in asked or kind.plural in asked:
            raise Invalid(f"The body should be {{'{kind.name}': {{…}}}}")
        # What can never be right is said before what is not there.
        if len(raw) > SHORT:
            given = await self._in_thread(caller, partial(kind.given, asked[kind.name], update=True))
        else:
            given = kind.given(asked[kind.name], update=True)
        self._seen(at, caller)

        def verb(decision: Decision) -> Any:
            policy.update(decision, caller, collection, at.id, asked[kind.name], given)
            return change(decision, caller, at.id, given) if given or collection.bare else self._seen(at, caller)

        return self._one(collection, await decide(self.cloud, self._matching(request, at, verb)), caller, 200)

    async def delete(self, request: Request, at: Place, caller: Caller) -> Response:
        remove = at.collection.delete
        assert remove is not None
        # What asking makes need not be there; its verbs ask themselves who may.
        there = at.collection.show is None
        if there:
            self._seen(at, caller)

        def verb(decision: Decision) -> Any:
            if there:
                policy.delete(decision, caller, at.collection, at.id)
            remove(decision, caller, at.id)

        await decide(self.cloud, self._matching(request, at, verb))
        return empty()

    async def act(self, request: Request, at: Place, caller: Caller) -> Response:
        """Do one of a collection's own actions on a resource."""
        action = at.action
        assert action is not None
        asked = given = None
        if action.method != "GET":
            self._may_begin(at, caller, action.who, policy.rule_of(at.collection.kind, at.name, action))
            raw = await body.read(request, body.payer(caller))
            asked = given = body.decode(raw) if raw else {}
            if action.check is not None and len(raw) > SHORT:
                given = Checked(await self._in_thread(caller, partial(action.check, asked)))
        resource = self._seen(at, caller)

        def verb(decision: Decision) -> Any:
            policy.act(decision, caller, at.collection, at.id, at.name, action, asked)
            return action.verb(decision, caller, at.id, given)

        if action.before and may(self.cloud, caller, action.who, resource):
            await action.before(self.cloud, at.id)
        done = await decide(self.cloud, self._matching(request, at, verb))
        if isinstance(done, Resource):
            return self._one(at.collection, done, caller, action.status)
        return answer(done, action.status) if action.status != 204 else empty()

    async def tags(self, request: Request, at: Place, caller: Caller) -> Response:
        """Show, add to, replace or drop all tags of a resource."""
        if request.method in ("GET", "HEAD"):
            return answer({"tags": self._seen(at, caller).tags})
        wanted: tuple[str, ...] = ()
        kind = at.collection.kind
        self._may_begin(at, caller, kind.update, f"update_{kind.name}:tags")
        if request.method in ("PUT", "POST"):
            asked = await body.json(request, body.payer(caller))
            if not isinstance(asked, dict) or "tags" not in asked:
                raise Invalid("The body should be {'tags': […]}", type="InvalidInput")
            wanted = checked(asked["tags"])
        more = request.method == "POST"
        tags = await self._tag(at, caller, lambda old: (*old, *wanted) if more else wanted)
        return empty() if request.method == "DELETE" else answer({"tags": tags}, 201 if more else 200)

    async def tag(self, request: Request, at: Place, caller: Caller) -> Response:
        """Ask for, put or drop one tag."""
        (tag,) = checked([at.tag])
        if request.method != "PUT" and tag not in self._seen(at, caller).tags:
            raise NotFound("tag", tag)
        if request.method == "PUT":
            await self._tag(at, caller, lambda old: (*old, tag))
            return empty(201)
        if request.method == "DELETE":
            await self._tag(at, caller, lambda old: tuple(t for t in old if t != tag))
        return empty()

    async def _tag(
        self, at: Place, caller: Caller, turn: Callable[[tuple[str, ...]], tuple[str, ...]]
    ) -> tuple[str, ...]:
        table: Table[Resource] = self.shapes.table(at.collection)
        return await decide(self.cloud, lambda d: set_tags(d, caller, table, at.collection.kind.name, at.id, turn))

    def _matching(self, request: Request, at: Place, verb: Verb) -> Verb:
        """Have the verb done only if the resource is at the revision that If-Match names."""
        wanted = request.headers.get("if-match")
        if wanted is None or "revision_number" not in wanted:
            return verb
        found = REVISION.search(wanted)
        if found is None:
            raise Invalid(f"Bad if-match request: '{wanted}' should be revision_number=NUMBER.", type="BadRequest")
        number = found[1]

        def match(decision: Decision) -> Any:
            found = decision.read(self.shapes.table(at.collection), at.id)
            if found is not None and found.revision_number != int(number):
                raise Precondition(
                    f"Constrained to {number}, but current revision is {found.revision_number}",
                    type="RevisionNumberConstraintFailed",
                )
            return verb(decision)

        return match

    def _parent(self, at: Place, caller: Caller) -> None:
        """Raise NotFound if there is no such parent, or none that the caller may see."""
        parent = at.collection.kind.parent
        assert parent is not None
        table = self.cloud.tables[parent[1]]
        seen(self.cloud, caller, BY_TABLE[parent[1]].name, at.parent, table.get(at.parent))

    def _seen(self, at: Place, caller: Caller) -> Any:
        collection = at.collection
        if at.parent:
            self._parent(at, caller)
        if collection.below is not None:
            found = next((row for row in collection.below(self.cloud, at.parent) if row.id == at.id), None)
        elif collection.rows is not None:
            found = next((row for row in collection.rows(self.cloud, caller) if row.id == at.id), None)
        else:
            found = self.shapes.table(collection).get(at.id)
            if found is None and collection.absent is not None:
                found = collection.absent(at.id)
        if found is not None and at.parent and collection.kind.parent:
            found = found if getattr(found, collection.kind.parent[0]) == at.parent else None
        return seen(self.cloud, caller, collection.kind.name, at.id, found)

    def _fresh(self, collection: Collection, made: list[Resource]) -> list[Resource]:
        """Return the copy's own objects where they are still what was made, so that their JSON is kept."""
        if collection.rows is not None or collection.below is not None:
            return made
        rows = self.shapes.table(collection).rows
        return [row if (row := rows.get(one.id)) == one and row is not None else one for one in made]

    def _one(self, collection: Collection, found: Resource, caller: Caller, status: int) -> Answer:
        (fresh,) = self._fresh(collection, [found])
        encoded = self.shapes.encode(collection, fresh, caller)
        return Answer(b'{"%s":%s}' % (collection.kind.name.encode(), encoded), status)


def _size(raw: Raw) -> int:
    return memoryview(raw).nbytes


def _given(at: Place, raw: Raw, *, alone: bool = False) -> tuple[Any, Given]:
    """Return what one is asked to be, as it was said and as it was checked."""
    kind = at.collection.kind
    asked = body.decode(raw)
    if not alone and isinstance(asked, dict) and kind.name in asked:
        # Each of several may be in a body of its own, as it would be alone.
        asked = asked[kind.name]
    given = kind.given(asked)
    if kind.parent and at.parent:
        given[kind.parent[0]] = at.parent
    return asked, given


@cache
def _openapi() -> bytes:
    return encode(openapi.document())


def _version(request: Request) -> dict[str, Any]:
    href = f"{str(request.base_url).rstrip('/')}/v2.0/"
    return {"id": "v2.0", "status": "CURRENT", "links": [{"rel": "self", "href": href}]}


def _links(request: Request, asked: query.Query, page: list[Any]) -> list[dict[str, str]]:
    """Return where the next and the previous page are. Where a page is not full, there is none in its direction."""
    if not asked.limit:
        return []
    links, full = [], len(page) >= asked.limit
    for there, rel, end in ((full or asked.reverse, "next", -1), (full or not asked.reverse, "previous", 0)):
        if there:
            params = [(k, v) for k, v in request.query_params.multi_items() if k not in ("marker", "page_reverse")]
            if page:
                params.append(("marker", page[end].id))
            if rel == "previous":
                params.append(("page_reverse", "True"))
            links.append({"rel": rel, "href": f"{str(request.url).partition('?')[0]}?{urlencode(params)}"})
    return links
