"""A transaction that no node can apply, with its place in the chain: as from a newer program."""

from appliance.base.ids import uuid7
from appliance.kernel.change import Body, Entry, chain_hash, encode_body
from tests.branch.stand import connect

OP = "transmute"


def plant(node):
    """Put one into the shared stream of a node, past its program; its origin and oseq."""
    with connect(node) as conn, conn.transaction():
        stream, head, origin, oseq, digest, key, tenant = conn.execute(
            "SELECT s.id, s.head, s.origin, s.oseq, s.hash, t.log_key, s.tenant_id FROM stream s "
            "JOIN tenant_state t USING (tenant_id) WHERE s.name = 'shared' FOR UPDATE OF s"
        ).fetchone()
        hlc, record, actor, change_set = conn.execute(
            "SELECT hlc, record_id, actor, change_set FROM change WHERE stream = %s "
            "AND kind = 'customer' AND op = 'new' LIMIT 1", (stream,),
        ).fetchone()  # fmt: skip
        entry = Entry(
            stream=stream, origin=origin, oseq=oseq + 1, tx=oseq + 1, hlc=hlc + 1, actor=actor,
            door="http", kind="customer", record_id=record, op=OP, schema_rev=1,
            change_set=uuid7(), body=Body(fields={"name": "gold"}),
        )  # fmt: skip
        made = chain_hash(bytes(key), bytes(digest), entry)
        conn.execute(
            "INSERT INTO change (tenant_id, stream, seq, origin, oseq, tx, hlc, ehlc, actor, door, "
            "kind, record_id, op, schema_rev, change_set, body, hash) VALUES (%s, %s, %s, %s, %s, "
            "%s, %s, %s, %s, 'http', 'customer', %s, %s, 1, %s, %s, %s)",
            (tenant, stream, head + 1, origin, oseq + 1, oseq + 1, hlc + 1, hlc + 1, actor, record,
             OP, entry.change_set, encode_body(entry.body), made),
        )  # fmt: skip
        conn.execute(
            "UPDATE stream SET head = head + 1, oseq = oseq + 1, hash = %s WHERE tenant_id = %s "
            "AND id = %s", (made, tenant, stream),
        )  # fmt: skip
    return origin, oseq + 1
