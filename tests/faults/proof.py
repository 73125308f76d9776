"""What must be true of the tables after the kills, each as one query and one sentence."""

import json
import time

TORN = {
    "a record without its creation in the log": (
        "SELECT count(*) FROM record r WHERE r.kind = 'customer' AND NOT EXISTS (SELECT 1 FROM change c "
        "WHERE c.tenant_id = r.tenant_id AND c.record_id = r.id AND c.op = 'new')"
    ),
    "a creation in the log without its record": (
        "SELECT count(*) FROM change c WHERE c.op = 'new' AND c.kind = 'customer' AND NOT EXISTS "
        "(SELECT 1 FROM record r WHERE r.tenant_id = c.tenant_id AND r.id = c.record_id)"
    ),
    "a record created twice": (
        "SELECT count(*) FROM (SELECT 1 FROM change WHERE op = 'new' AND kind = 'customer' "
        "GROUP BY tenant_id, record_id HAVING count(*) > 1) twice"
    ),
    "a stream with a gap, or a head that is not its last entry": (
        "SELECT count(*) FROM (SELECT s.head, count(c.seq) AS n, COALESCE(max(c.seq), 0) AS last FROM stream s "
        "LEFT JOIN change c ON c.tenant_id = s.tenant_id AND c.stream = s.id GROUP BY s.tenant_id, s.id, s.head) x "
        "WHERE n <> last OR last <> head"
    ),
    "a dead letter": "SELECT count(*) FROM outbox WHERE dead_reason IS NOT NULL",
}  # fmt: skip


def find_torn(node):
    """Which of the sentences are true; none should be."""
    return [f"{n} x {what}" for what, text in TORN.items() if (n := node.sql(text)[0][0])]


def find_lost_or_doubled(node, load):
    """Acknowledged writes that are not there exactly once, or not as acknowledged."""
    rows = node.sql(
        "SELECT data->>'name', id::text, data->>'city', (SELECT count(*) FROM change c "
        "WHERE c.tenant_id = r.tenant_id AND c.record_id = r.id AND c.op = 'put') "
        "FROM record r WHERE kind = 'customer' AND data->>'name' = ANY(%s)", sorted(load.tried),
    )  # fmt: skip
    stored, bad = {}, []
    for name, ident, city, puts in rows:
        if name in stored:
            bad.append(f"{name} is there twice")
        stored[name] = (ident, city, puts)
    for name, record in load.records.items():
        if name not in stored:
            bad.append(f"{name} was acknowledged and is not there")
            continue
        ident, city, puts = stored[name]
        if ident != record.id:
            bad.append(f"{name} has another id than was acknowledged")
        if name not in load.in_doubt and (city, puts) != (record.city, record.updates):
            bad.append(
                f"{name}: {puts} updates to {city}, acknowledged {record.updates} to {record.city}"
            )
    bad += [
        f"{n} was refused and is there"
        for n in stored
        if n not in load.records and n not in load.in_doubt
    ]
    return bad


def wait_drained(node, seconds=60.0):
    """Until the outbox is empty; how long it took."""
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        if node.sql("SELECT count(*) FROM outbox WHERE dead_reason IS NULL")[0][0] == 0:
            return time.monotonic() - begun
        time.sleep(0.1)
    raise AssertionError("the outbox did not empty: the relay did not recover")


def find_unannounced(node, ids):
    """Which of these records' changes did not reach the tenant's stream."""
    client, seen = node.redis(), set()
    for key in client.scan_iter(match="events:*"):
        for _, entry in client.xrange(key):
            seen |= {c["id"] for c in json.loads(entry[b"data"])["changes"]}
    client.close()
    return sorted(set(ids) - seen)
