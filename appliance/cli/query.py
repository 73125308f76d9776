"""`nexus query`: ask the query language from the machine itself; the question is in the audit."""

from __future__ import annotations

import asyncio
import getpass

from appliance.audit import audit_calls
from appliance.base import limits
from appliance.base.clock import now
from appliance.base.ids import uuid7
from appliance.cli.node import Opened, opened, read_settings
from appliance.kernel.context import Ctx, Door
from appliance.kernel.kind import Schema
from appliance.kernel.profile import KindGrant, Mode, Profile, Scope, ScopeKind
from appliance.kernel.query_text import parse_text
from appliance.meta import load_schema
from appliance.read import stream


def query(text: str, *, tenant: str, limit: int = 1_000, data: str | None = None) -> None:
    """Print the rows of a query, one JSON object a line.

    Parameters
    ----------
    text: the query, such as: deal where amount >= 1000 sort -amount
    tenant: the tenant's short name.
    limit: how many rows at most.
    """

    async def go() -> None:
        async with opened(read_settings(data)) as node:
            await _print(node, tenant, text, limit)

    asyncio.run(go())


async def _print(node: Opened, slug: str, text: str, limit: int) -> None:
    tenant = node.db.routes.by_slug(slug).tenant
    schema = await load_schema(node.db, tenant)
    ctx = Ctx(
        tenant=tenant, origin=node.origin, actor=uuid7(), profile=_reader(schema), schema=schema,
        door=Door.SYSTEM, request_id=uuid7(), at=now(),
    )  # fmt: skip
    asked = parse_text(text)
    details: dict[str, object] = {"kind": asked.source, "account": getpass.getuser()}
    await node.db.read(tenant, *audit_calls(tenant, "node.queried", details=details))
    # A limit that the text says counts as well; a query without one has the default of a page.
    said = asked.limit != limits.PAGE_ROWS_DEFAULT
    left = min(limit, asked.limit) if said else limit
    async for _, rows in stream(node.db, ctx, asked):
        for row in rows[:left]:
            print(row.decode())
        left -= len(rows)
        if left <= 0:
            return


def _reader(schema: Schema) -> Profile:
    """Everything, read only: who can run this can read the data folder anyway."""
    read = {"read": Scope(ScopeKind.ALL), "export": Scope(ScopeKind.ALL)}
    grants = {
        key: KindGrant(read, {f.fid: Mode.READ for f in kind.fields})
        for key, kind in schema.kinds.items()
    }
    return Profile(id="operator", key="operator", grants=grants)
