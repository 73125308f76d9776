"""Sites as rows of the hub's control plane, and what they send."""

import contextlib
import json
import os
from itertools import count
from urllib.parse import urlsplit
from uuid import UUID

import psycopg

from appliance.base.ids import uuid7
from appliance.sync import signing
from appliance.sync.keys import NodeKey
from appliance.sync.nodes import ISSUE_ORIGIN, run_control

_numbers = count(1)
_PLACE = "UPDATE node SET origin = %s, prefix = %s, is_self = %s, role = %s WHERE id = %s"


class Site:
    """A site that joined, with its key."""

    def __init__(self, ident, key, tenant, name, prefix):
        self.id, self.key, self.tenant, self.name, self.prefix = ident, key, tenant, name, prefix

    def conversation(self, session=b"", tenant=None):
        return signing.Conversation(self.key, self.id, tenant or self.tenant, session)


async def site(db, *tenants, units=None):
    number = next(_numbers)
    seed = number.to_bytes(32, "big")
    made = Site(uuid7(), NodeKey(seed), tenants[0], f"site {uuid7()}", f"Z{number}")
    (origin,) = (await run_control(db, ISSUE_ORIGIN))[0]
    await run_control(
        db, "INSERT INTO node (id, origin, role, prefix, name, public_key, joined_at) "
        "VALUES (%s, %s, 'site', %s, %s, %s, now())",
        made.id, origin, made.prefix, made.name, made.key.public,
    )  # fmt: skip
    for tenant in tenants:
        await run_control(
            db, "INSERT INTO node_scope (node_id, tenant_id, unit_ids) VALUES (%s, %s, %s::uuid[])",
            made.id, tenant, units,
        )  # fmt: skip
    made.origin = origin
    return made


@contextlib.asynccontextmanager
async def hub_row(db, dsns, prefix=""):
    """The row of this node itself, as a hub, for as long as the block lasts; what other tests have
    left of such rows stands aside meanwhile.
    """
    ident = uuid7()
    control = dsns.superuser.replace("nexus_pool", "nexus_control")
    async with await psycopg.AsyncConnection.connect(control, autocommit=True) as conn:
        found = await conn.execute(
            "SELECT origin, prefix, is_self, role, id FROM node "
            "WHERE is_self OR role <> 'site' OR origin = 1 OR prefix = %s", (prefix,),
        )  # fmt: skip
        aside = await found.fetchall()
        first = 4_000_000_000 + int.from_bytes(os.urandom(3))
        for number, row in enumerate(aside):
            place = (first + number, f"YY{number}", False, "site", row[-1])
            await conn.execute(_PLACE, place)
        await run_control(
            db, "INSERT INTO node (id, origin, role, prefix, name, is_self) "
            "VALUES (%s, 1, 'hub', %s, 'hub', true)", ident, prefix,
        )  # fmt: skip
        try:
            yield ident
        finally:
            await conn.execute("DELETE FROM node WHERE id = %s", (ident,))
            for row in aside:
                await conn.execute(_PLACE, row)


def scope_of(headers, *, method="POST", target="/api/v1/sync/exchange"):
    """The ASGI scope of a request."""
    parts = urlsplit(target)
    return {
        "type": "http", "method": method, "path": parts.path, "raw_path": parts.path.encode(),
        "query_string": parts.query.encode(),
        "headers": [(k.encode(), v.encode("latin-1")) for k, v in headers.items()],
    }  # fmt: skip


def reasons(text):
    """The reasons of refusals in a captured log."""
    lines = (json.loads(line) for line in text.splitlines() if line.startswith("{"))
    return [line.get("reason") for line in lines if line["event"] == "sync.request_refused"]


NOBODY = UUID(int=7)
