"""The site's end of 1C's exchange with a web site: `/exchange/1c` (research/connectors 3).

1C is the client and shows people the body: so every answer is text/plain with status 200, its
first line `success`, `progress` or `failure` exactly. 1C signs in with HTTP Basic (any user name,
an API key as the password) and may come back with our cookie, with `sessid`, or with Basic again.
`import` answers at once; 1C asks until the package was read whole.
"""

from __future__ import annotations

import time
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl
from uuid import UUID

from litestar.response.base import ASGIResponse

from appliance.access.session import ended
from appliance.base.errors import ApplianceError, Clash, Invalid, Refused, Unauthenticated
from appliance.base.ids import uuid7
from appliance.db.wire import Call
from appliance.exchange import orders, packages
from appliance.exchange.box import Box
from appliance.exchange.documents import write_orders
from appliance.http.answers import raw
from appliance.http.ask import Ask
from appliance.http.credentials import check_transport, read_basic
from appliance.http.route import Book
from appliance.http.routes.intake import approve_run
from appliance.http.uploads import pieces_of
from appliance.http.visit import address_of
from appliance.intake import runs
from appliance.kernel.kind import Json

book = Book("exchange")
PATH = "/exchange/1c"
COOKIE = "nexus-1c"
SORTS = ("catalog", "sale")
_COOKIE_BINDING = b"exchange/1c cookie"
_PARAMS_MAX = 40


def find_key(ask: Ask) -> str:
    """The API key of a request: Basic, our cookie, or sessid. Raises Unauthenticated."""
    check_transport(ask.scope)
    given = ask.header("authorization")
    if given is not None:
        return read_basic(given)
    try:
        cookie = SimpleCookie(ask.header("cookie") or "").get(COOKIE)
    except CookieError:
        cookie = None
    if cookie is not None:
        return _open(ask, cookie.value, _COOKIE_BINDING)
    session = _query(ask).get("sessid")
    if session:
        return _open(ask, session, _session_binding(ask))
    raise Unauthenticated("Sign in with an API key as the password.", code="session.missing")


def refuse(ask: Ask, error: ApplianceError) -> ASGIResponse:
    """What 1C shows: `failure` and the reason. Only who has sent nothing is asked to sign in."""
    ask.visit.code = error.code
    if isinstance(error, Unauthenticated) and ask.header("authorization") is None:
        headers = {"WWW-Authenticate": 'Basic realm="Nexus", charset="UTF-8"'}
        return _say(ask, "failure", error.detail, status=401, headers=headers)
    said = [error.detail, *(f.detail for f in getattr(error, "faults", ()))]
    return _say(ask, "failure", *dict.fromkeys(said))


@book.route("GET", PATH, capability="import.run", answers={200: str}, media=("text/plain",),
            token=find_key, refuse=refuse)  # fmt: skip
async def talk(ask: Ask) -> ASGIResponse:
    """One step of 1C's exchange: `type` catalog or sale; `mode` checkauth, init, import,
    deactivate, complete, for sale also query and success; `filename` for import.
    """
    given = _query(ask)
    sort = _sort(given)
    match given.get("mode", ""):
        case "checkauth":
            return _check_in(ask)
        case "init":
            return await _init(ask, sort)
        case "import":
            return await _import(ask, sort, _name(given))
        case "query" if sort == "sale":
            return await _tell_orders(ask)
        case "success" if sort == "sale":
            return await _confirm(ask)
        case "deactivate" | "complete":
            # What is gone is told by full packages alone; these only say that 1C has finished.
            return _say(ask, "success")
        case mode:
            raise Invalid(f"The mode {mode[:40]} is not one of this exchange.")


@book.route("POST", PATH, capability="import.run", answers={200: str}, media=("text/plain",),
            token=find_key, refuse=refuse)  # fmt: skip
async def take_part(ask: Ask) -> ASGIResponse:
    """`mode=file`: a part of `filename`, appended to what came before."""
    given = _query(ask)
    sort = _sort(given)
    if given.get("mode") == "import":
        return await _import(ask, sort, _name(given))
    if given.get("mode") != "file":
        raise Invalid("A body is taken with mode=file alone.")
    limits = ask.node.settings.exchange
    await _box(ask, sort).append(_name(given), pieces_of(ask), most=limits.box_bytes_max)
    return _say(ask, "success")


def _check_in(ask: Ask) -> ASGIResponse:
    key = find_key(ask)
    cookie = ask.node.cursors.seal([key], "", _COOKIE_BINDING)
    session = ask.node.cursors.seal([key], "", _session_binding(ask))
    return _say(
        ask, "success", COOKIE, cookie, f"sessid={session}", f"timestamp={int(time.time())}"
    )


async def _init(ask: Ask, sort: str) -> ASGIResponse:
    """Begin anew: what is left of an exchange that was broken off goes."""
    if not await packages.is_taking(ask.node.db, ask.ctx, sort):
        _box(ask, sort).clear()
    await _run(ask, packages.forget_call(ask.ctx, sort))
    lines = ["zip=yes", f"file_limit={ask.node.settings.exchange.part_bytes_max}"]
    if "version" in _query(ask):
        session = ask.node.cursors.seal([find_key(ask)], "", _session_binding(ask))
        lines += [f"sessid={session}", "version=2.08"]
    return _say(ask, *lines)


async def _import(ask: Ask, sort: str, name: str) -> ASGIResponse:
    """Have a file taken over, or say how far it is."""
    db, ctx = ask.node.db, ask.ctx
    found = await packages.find_package(db, ctx, sort, name)
    drop = _box(ask, sort).find(name)
    if drop is not None and (found is None or found.name != drop.name or found.state != "taking"):
        ident = uuid7()
        await _run(ask, packages.begin_call(ctx, sort, drop, ident))
        await _enqueue(ask, ident)
        return _say(ask, "progress", f"{drop.name}: taken, {drop.size} bytes are being checked.")
    if found is None:
        raise Refused(f"There is no file {name}; send it first.", code="exchange.file_unknown")
    if found.state == "failed":
        raise Clash(f"{found.name}: {found.detail}", code="exchange.refused")
    if found.run is None:
        if found.job is None and drop is not None:
            # Whoever noted it has died before it was queued.
            await _enqueue(ask, found.id)
        return _say(ask, "progress", f"{found.name}: being checked.")
    return await _tell(ask, await runs.get_run(db, ctx.tenant, found.run))


async def _tell(ask: Ask, run: runs.IntakeRun) -> ASGIResponse:
    """How a run stands, in 1C's words; one that nothing holds is approved by a key that may."""
    may = ask.ctx.profile.may("import.approve") and not run.options.four_eyes
    if run.state == "planned" and not run.held_by and may:
        await approve_run(ask, run, suspicious=False)
        run = await runs.get_run(ask.node.db, ask.ctx.tenant, run.id)
    counted = ", ".join(f"{n} {sort}" for sort, n in sorted(run.counts.items()) if n)
    match run.state:
        case "received":
            return _say(ask, "progress", "The file is being checked.")
        case "preparing":
            return _say(ask, "progress", "The file is being read.")
        case "planned":
            why = "; ".join(run.held_by) or "a person has to approve it"
            return _say(ask, "success", f"Read: {counted}.", f"It waits: {why}.")
        case "failed" | "cancelled":
            raise Clash(run.detail or f"The import is {run.state}.", code="exchange.refused")
        case _:
            return _say(ask, "success", f"Read: {counted}.")


async def _tell_orders(ask: Ask) -> ASGIResponse:
    """Orders that this base has not confirmed in their present version, as CommerceML."""
    found, note = await orders.due_orders(ask.node.db, ask.ctx)
    if found:
        await _run(ask, note)
    body = write_orders(ask.ctx, found).encode()
    return raw(body, 200, media="application/xml; charset=utf-8")


async def _confirm(ask: Ask) -> ASGIResponse:
    await _run(ask, orders.confirm_call(ask.ctx))
    return _say(ask, "success")


async def _enqueue(ask: Ask, ident: UUID) -> None:
    payload: dict[str, Json] = {"package": str(ident)}
    job = await ask.node.jobs.enqueue(ask.ctx.tenant, "exchange.take", payload, ask.ctx.actor)
    await _run(ask, packages.job_call(ask.ctx.tenant, ident, job))


async def _run(ask: Ask, call: Call) -> None:
    async with ask.node.db.transaction(ask.ctx.tenant) as tx:
        await tx.run(call, commit=True)


def _box(ask: Ask, sort: str) -> Box:
    session = ask.ctx.session
    assert session is not None, "a key is a session"
    return Box(ask.node.settings.data_dir, ask.ctx.tenant, session, sort)


def _query(ask: Ask) -> dict[str, str]:
    """The query; older 1C writes names in windows-1251, which no UTF-8 reads as."""
    raw_query: bytes = ask.scope["query_string"]
    for charset in ("utf-8", "cp1251"):
        try:
            pairs = parse_qsl(
                raw_query.decode("ascii"), keep_blank_values=True, encoding=charset,
                errors="strict", max_num_fields=_PARAMS_MAX,
            )  # fmt: skip
        except UnicodeDecodeError:
            continue
        except ValueError:
            break
        return dict(pairs)
    raise Invalid("The query string cannot be read.")


def _sort(given: dict[str, str]) -> str:
    sort = given.get("type", "")
    if sort not in SORTS:
        raise Invalid(f"The type of an exchange is one of: {', '.join(SORTS)}.")
    return sort


def _name(given: dict[str, str]) -> str:
    name = given.get("filename", "").strip()
    if not name or "\0" in name:
        raise Invalid("Name the file: filename=import.xml.")
    return name


def _session_binding(ask: Ask) -> bytes:
    """Sessid stands in addresses, which are logged on the way: it works from one machine alone."""
    return b"exchange/1c sessid " + address_of(ask.scope).encode()


def _open(ask: Ask, sealed: str, binding: bytes) -> str:
    try:
        (key,), _ = ask.node.cursors.open(sealed, binding)
    except (Invalid, ValueError):
        raise ended() from None
    return str(key)


def _say(
    ask: Ask, *lines: str, status: int = 200, headers: dict[str, str] | None = None
) -> ASGIResponse:
    charset = ask.node.settings.exchange.charset
    text = "\n".join(" ".join(line.split()) for line in lines) + "\n"
    body = text.encode(charset, "replace")
    return raw(body, status, headers, media=f"text/plain; charset={charset}")
