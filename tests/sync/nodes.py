"""Sites in the control plane, and a tenant that is held in part."""

import contextlib

import psycopg
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from psycopg.conninfo import make_conninfo

from appliance.base.ids import uuid7
from appliance.db import migrate
from appliance.db.database import Database
from appliance.sync.nodes import ISSUE_ORIGIN


async def add_site(dsns, tenant, units=None, masks="{}"):
    """A site with a scope in a tenant; its id and its private key."""
    ident, key = uuid7(), Ed25519PrivateKey.generate()
    raw = serialization.Encoding.Raw, serialization.PublicFormat.Raw
    control = dsns.superuser.replace("nexus_pool", "nexus_control")
    async with await psycopg.AsyncConnection.connect(control, autocommit=True) as conn:
        issued = await conn.execute(ISSUE_ORIGIN)
        (origin,) = await issued.fetchone()
        await conn.execute(
            "INSERT INTO node (id, origin, role, prefix, name, public_key) VALUES (%s, %s, 'site', "
            "%s, %s, %s)",
            (
                ident,
                origin,
                ident.hex[-6:].upper(),
                f"site {ident.hex[-12:]}",
                key.public_key().public_bytes(*raw),
            ),
        )
        await conn.execute(
            "INSERT INTO node_scope (node_id, tenant_id, unit_ids, masks) VALUES (%s, %s, %s, %s)",
            (ident, tenant, units, masks),
        )
    return ident, key


_sites = iter(range(1000))
# What a site has of a tenant by the log; here it is copied.
COPIED = ("tenant_state", "slot", "stream", "record", "record_link")


@contextlib.asynccontextmanager
async def opened_site(dsns, tenant, slug):
    """A site of its own databases that has the tenant's records and nobody's secrets."""
    n = next(_sites)
    control, pool = f"site_control_{n}", f"site_pool_{n}"
    for name in (control, pool):
        with psycopg.connect(dsns.superuser, autocommit=True) as conn:
            conn.execute(f"CREATE DATABASE {name} OWNER nexus_owner")

    def at(dsn, name):
        return make_conninfo(dsn, dbname=name)

    with psycopg.connect(at(dsns.superuser, pool), autocommit=True) as conn:
        conn.execute("ALTER FUNCTION ts_match_vq(tsvector, tsquery) LEAKPROOF")
    migrate.upgrade(at(dsns.control_owner, control), migrate.CONTROL)
    migrate.upgrade(at(dsns.pool_owner, pool), migrate.PLACEMENT)
    with psycopg.connect(at(dsns.superuser, control), autocommit=True) as conn:
        conn.execute(
            "INSERT INTO placement VALUES (gen_random_uuid(), 'pool', 'pooled', %s)", [pool]
        )
        conn.execute("INSERT INTO tenant SELECT %s, %s, 'Site', id FROM placement", [tenant, slug])
    with (
        psycopg.connect(dsns.superuser) as there,
        psycopg.connect(at(dsns.superuser, pool)) as here,
    ):
        for table in COPIED:
            rows = f"COPY (SELECT * FROM {table} WHERE tenant_id = '{tenant}') TO STDOUT"
            with there.cursor().copy(rows) as out:
                with here.cursor().copy(f"COPY {table} FROM STDIN") as into:
                    for piece in out:
                        into.write(piece)
        here.commit()
    db = Database(at(dsns.control_dsn, control), at(dsns.pool_dsn, pool))
    await db.start()
    try:
        yield db
    finally:
        await db.stop()
