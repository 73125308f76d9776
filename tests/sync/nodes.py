"""Sites in the control plane, and a tenant that is held in part."""

import psycopg
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.base.ids import uuid7


async def add_site(dsns, tenant, units=None, masks="{}"):
    """A site with a scope in a tenant; its id and its private key."""
    ident, key = uuid7(), Ed25519PrivateKey.generate()
    raw = serialization.Encoding.Raw, serialization.PublicFormat.Raw
    control = dsns.superuser.replace("nexus_pool", "nexus_control")
    async with await psycopg.AsyncConnection.connect(control, autocommit=True) as conn:
        await conn.execute(
            "INSERT INTO node (id, origin, role, prefix, name, public_key) VALUES (%s, "
            "(SELECT coalesce(max(origin), 1) + 1 FROM node), 'site', "
            "'S' || (SELECT count(*) FROM node), 'site', %s)",
            (ident, key.public_key().public_bytes(*raw)),
        )
        await conn.execute(
            "INSERT INTO node_scope (node_id, tenant_id, unit_ids, masks) VALUES (%s, %s, %s, %s)",
            (ident, tenant, units, masks),
        )
    return ident, key
