"""Rows of one tenant in every table, with values that break careless copying."""

import psycopg

from appliance.tenancy import activate, create_tenant
from appliance.tenancy.copy import digest_table
from appliance.tenancy.servers import connect, entered
from appliance.tenancy.tables import load_tables

NASTY = "tab\there 'quote' \"double\" back\\slash new\nline \\. \\N Їжак 价格 \U0001f600 %s {x}"

FILL = """
INSERT INTO tenant_state (tenant_id, log_key, template, settings)
  VALUES (%(t)s, '\\x00ff27', NULL, jsonb_build_object('n', %(x)s::text));
INSERT INTO stream (tenant_id, id, name, origin) VALUES (%(t)s, %(t)s, 'shared', 1);
INSERT INTO stream_vector VALUES (%(t)s, %(t)s, 7, 3, '\\x01');
INSERT INTO change SELECT %(t)s, %(t)s, n, 1, n, 1, n, n, %(t)s, 'http', 'deal',
  gen_random_uuid(), 'put', 1, %(t)s, convert_to(%(x)s, 'UTF8'), '\\x02'
  FROM generate_series(1, %(rows)s) AS n;
INSERT INTO record (tenant_id, id, kind, stream, number, data, stamps, created_at, created_by,
    updated_at, updated_by, search, t1, n1, d1, r1)
  SELECT %(t)s, gen_random_uuid(), 'deal', %(t)s, CASE WHEN n > 1 THEN 'N-' || n END,
  jsonb_build_object('name', %(x)s::text, 'amount', '10.50', 'n', n), '1.' || n,
  '2026-11-20 10:00:00.000001+02', %(t)s, 'infinity', %(t)s, to_tsvector('nexus', %(x)s), %(x)s,
  -9223372036854775808, '2026-03-29 01:00:00+00', NULL FROM generate_series(1, %(rows)s) AS n;
INSERT INTO entry (tenant_id, id, kind, stream, data, stamps, created_at, created_by, updated_at,
    updated_by, at, key)
  SELECT %(t)s, gen_random_uuid(), 'price', %(t)s, '{}', '1.' || n, now(), %(t)s, now(), %(t)s,
  now(), %(t)s FROM generate_series(1, %(rows)s) AS n;
INSERT INTO turnover (tenant_id, kind, key, month, unit_id, n1)
  VALUES (%(t)s, 'stock_move', %(t)s, '2026-11-01Z', %(t)s, 5);
INSERT INTO slot VALUES (%(t)s, 'deal', 'name', 't1', true, false);
INSERT INTO record_link SELECT %(t)s, 'deal', 'tags', v, %(t)s
  FROM unnest(ARRAY['Б', 'a', 'B', 'а', '', %(x)s]) AS v;
INSERT INTO unique_claim VALUES (%(t)s, 'deal', 'name', %(x)s, %(t)s);
INSERT INTO pending_ref VALUES (%(t)s, %(t)s, %(t)s, 'customer');
INSERT INTO number_series VALUES (%(t)s, 'D', '2026', 12);
INSERT INTO outbox (tenant_id, topic, payload)
  SELECT %(t)s, 'record.changed', '{"a": 1}' FROM generate_series(1, %(rows)s);
INSERT INTO job (tenant_id, id, job_kind, outbox_id) VALUES (%(t)s, %(t)s, 'mail', 9007199254740993);
INSERT INTO command VALUES (%(t)s, %(t)s, '\\x', '\\xdeadbeef', now());
INSERT INTO credential (tenant_id, person_id, email, recovery_hashes)
  VALUES (%(t)s, %(t)s, 'owner@example.org', ARRAY['\\x00'::bytea, '\\x5c'::bytea]);
INSERT INTO session (tenant_id, secret_hash, id, person_id, profile_id, sort, unit_ids, networks,
    epoch, expires_at)
  SELECT %(t)s, decode(md5(s), 'hex'), gen_random_uuid(), %(t)s, %(t)s, s, ARRAY[%(t)s::uuid],
  ARRAY['10.0.0.0/8'], 0, 'infinity' FROM unnest(ARRAY['login', 'api_key']) AS s;
INSERT INTO one_time_code VALUES (%(t)s, '\\x01', 'invite', %(t)s, now(), NULL);
INSERT INTO staff_grant VALUES (%(t)s, %(t)s, %(t)s, 'Support', 'ticket', %(t)s, %(t)s, now(), now());
INSERT INTO staff_request VALUES (%(t)s, %(t)s, %(t)s, 'Support', 'ticket', 4, now());
INSERT INTO sign_in_delay VALUES (%(t)s, '\\x04', 3, now());
INSERT INTO intake_run (tenant_id, id, connector, source, file_name, sha256, size, created_by,
    profile_id, units)
  VALUES (%(t)s, %(t)s, 'price_list', 'Supplier', %(x)s, 'ab', 7, %(t)s, %(t)s, ARRAY[%(t)s::uuid]);
INSERT INTO intake_row (tenant_id, run, no, sheet, line, entity, key, data)
  SELECT %(t)s, %(t)s, n, %(x)s, n, %(x)s, 'sku:' || n, '{}' FROM generate_series(1, %(rows)s) AS n;
INSERT INTO exchange_package (tenant_id, session_id, sort, name, id, actor, profile_id)
  VALUES (%(t)s, %(t)s, 'catalog', %(x)s, %(t)s, %(t)s, %(t)s);
INSERT INTO exchange_order VALUES (%(t)s, %(t)s, %(t)s, %(x)s, NULL);
INSERT INTO webhook (tenant_id, id, secret, former, former_until, cursors, rest_until)
  VALUES (%(t)s, %(t)s, '\\x00ff', NULL, 'infinity', jsonb_build_object(%(t)s::text, 7), now());
INSERT INTO webhook_event (tenant_id, webhook, id, kind, record_id, action, fids, actor, change_set,
    occurred_at, code)
  SELECT %(t)s, %(t)s, gen_random_uuid(), 'deal', %(t)s, 'updated', ARRAY[%(x)s, '@unit'], %(t)s,
  %(t)s, now(), %(x)s FROM generate_series(1, %(rows)s);
INSERT INTO webhook_seen VALUES (%(t)s, %(t)s, %(t)s);
INSERT INTO channel_offer (tenant_id, channel_id, product_id, variant_id, product_at, sku, revision,
    changed_at, price) VALUES (%(t)s, %(t)s, %(t)s, %(t)s, now(), 'm-1', 'r', now(), 10.25);
INSERT INTO channel_feed (tenant_id, channel_id, form, sight, actor, profile_id, units, made_at)
  VALUES (%(t)s, %(t)s, 'yml', 'ab', %(t)s, %(t)s, ARRAY[%(t)s::uuid], 'infinity');
INSERT INTO channel_report (tenant_id, id, channel_id, actor, detail, started_at)
  VALUES (%(t)s, %(t)s, %(t)s, %(t)s, %(x)s, now());
INSERT INTO channel_fault (tenant_id, channel_id, form, sku, report_id, code, detail)
  VALUES (%(t)s, %(t)s, 'yml', %(x)s, %(t)s, 'missing', %(x)s);
INSERT INTO intake_work (tenant_id, run, worker, found, lease_until)
  VALUES (%(t)s, %(t)s, 'books', '\\x00ff', 'infinity');
INSERT INTO intake_frame SELECT %(t)s, %(t)s, n, '\\x00ff' FROM generate_series(1, %(rows)s) AS n;
INSERT INTO intake_source (tenant_id, key, worker, instance, lease_until, created_by, units, told)
  VALUES (%(t)s, 'bank', 'books', 'ab', 'infinity', %(t)s, ARRAY[%(t)s::uuid], '{"files": 1}');
INSERT INTO intake_lost (tenant_id, id, source_key, name, source, connector, code, detail, failed_at,
    created_by, units)
  VALUES (%(t)s, %(t)s, 'bank', %(x)s, %(x)s, 'mt940', 'truncated', '', now(), %(t)s, '{}');
INSERT INTO intake_tally VALUES (%(t)s, 'mt940', 'applied', 1, 7, 12);
INSERT INTO conflict VALUES (%(t)s, %(t)s, 'field', 'name', 'deal', %(t)s, '[]', now());
INSERT INTO parked (tenant_id, id, stream, origin, oseq, peer, entries, reason, body, is_logged)
  VALUES (%(t)s, %(t)s, %(t)s, 2, 1, 2, 1, 'poison', '\\x00', true);
INSERT INTO early VALUES (%(t)s, %(t)s);
INSERT INTO peer_stream (tenant_id, peer, stream) VALUES (%(t)s, 2, %(t)s);
INSERT INTO hold (tenant_id, node_id, epoch) VALUES (%(t)s, %(t)s, 1);
INSERT INTO withdrawal (tenant_id, stream, epoch) VALUES (%(t)s, %(t)s, 1);
INSERT INTO known_person VALUES (%(t)s, %(t)s, '\\x05');
INSERT INTO clock_cut VALUES (%(t)s, %(t)s, 2, 1, 99);
INSERT INTO file_copy (tenant_id, file_id, here_at) VALUES (%(t)s, %(t)s, now());
INSERT INTO record_base VALUES (%(t)s, %(t)s, '\\x80', NULL);
INSERT INTO stream_base VALUES (%(t)s, %(t)s, 2, 7, '\\x01');
INSERT INTO stream_join (tenant_id, stream, cut, tips) VALUES (%(t)s, %(t)s, 7, '\\x80');
INSERT INTO stream_ahead VALUES (%(t)s, %(t)s, '\\x80');
INSERT INTO stream_check (tenant_id, stream, state) VALUES (%(t)s, %(t)s, 'even');
INSERT INTO carrier (tenant_id, peer, hello) VALUES (%(t)s, %(t)s, '\\x80');
INSERT INTO audit VALUES (%(t)s, %(t)s, now(), NULL, 'session.opened', '', NULL, 'done', '{}');
INSERT INTO audit_seal VALUES (%(t)s, 1, ARRAY[%(t)s::uuid], now(), '\\x03');
INSERT INTO audit_unsealed VALUES (%(t)s, %(t)s);
"""


async def fill(servers, target, tenant, rows=50):
    """Rows in every table."""
    async with connect(servers.dsn(target)) as conn, entered(conn, tenant):
        async with psycopg.AsyncClientCursor(conn) as cursor:
            await cursor.execute(FILL, {"t": str(tenant), "x": NASTY, "rows": rows})


async def make(servers, slug, placement="pool", rows=50):
    """An active tenant with rows."""
    made = await create_tenant(servers, slug, f"Name of {slug}", placement)
    await fill(servers, made.target, made.id, rows)
    return await activate(servers, made.id)


async def sums(servers, target, tenant):
    """Count and hash by table, as the placement holds them now."""
    async with connect(servers.dsn(target)) as conn, entered(conn, tenant, snapshot=True):
        return {t.name: await digest_table(conn, t, tenant) for t in await load_tables(conn)}


async def count(servers, target, tenant):
    """Rows of a tenant in a placement, all tables, fences too."""
    found = await sums(servers, target, tenant)
    return sum(end.rows for end in found.values())


async def run(servers, target, tenant, text, *params):
    """One statement as the owner inside a tenant."""
    async with connect(servers.dsn(target)) as conn, entered(conn, tenant):
        cursor = await conn.execute(text, params)
        return await cursor.fetchall() if cursor.description else cursor.rowcount
