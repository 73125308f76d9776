-- Entries of ledgers: facts that nobody edits. The columns are those of `record`, so that one
-- compiler reads both; what differs is that a fact is never updated and never deleted.
CREATE TABLE entry (
  LIKE record,
  -- When it holds or happened, and what its key fields say, from the declaration of its kind.
  at timestamptz NOT NULL,
  key uuid NOT NULL,
  reverses uuid,
  PRIMARY KEY (tenant_id, id)
);
CREATE INDEX entry_key ON entry (tenant_id, kind, key, at, id);
CREATE INDEX entry_at ON entry (tenant_id, kind, at, id);
CREATE INDEX entry_reverses ON entry (tenant_id, kind, reverses) WHERE reverses IS NOT NULL;
CREATE INDEX entry_created ON entry (tenant_id, kind, created_at, id);
DO $$
DECLARE slot text;
BEGIN
  FOREACH slot IN ARRAY ARRAY['r1','r2','r3','r4','r5','r6','r7','r8'] LOOP
    EXECUTE format('CREATE INDEX entry_%1$s ON entry (tenant_id, kind, %1$s, at, id) '
                   'WHERE %1$s IS NOT NULL', slot);
  END LOOP;
END $$;
CREATE STATISTICS entry_tenant_kind (dependencies, ndistinct, mcv) ON tenant_id, kind FROM entry;

-- What came and went by key and month: a balance is a sum over months and the rest of one month.
-- A projection of entries, so several units may stand under one key.
CREATE TABLE turnover (
  tenant_id uuid NOT NULL,
  kind text NOT NULL,
  key uuid NOT NULL,
  month timestamptz NOT NULL,
  -- Entries of no unit stand under the nil id: a key has no holes.
  unit_id uuid NOT NULL,
  t1 text, t2 text, t3 text, t4 text, t5 text, t6 text, t7 text, t8 text, t9 text, t10 text,
  n1 bigint, n2 bigint, n3 bigint, n4 bigint, n5 bigint, n6 bigint, n7 bigint, n8 bigint,
  d1 timestamptz, d2 timestamptz, d3 timestamptz, d4 timestamptz, d5 timestamptz, d6 timestamptz,
  r1 uuid, r2 uuid, r3 uuid, r4 uuid, r5 uuid, r6 uuid, r7 uuid, r8 uuid,
  PRIMARY KEY (tenant_id, kind, key, month, unit_id)
) WITH (fillfactor = 70);
DO $$
DECLARE slot text;
BEGIN
  FOREACH slot IN ARRAY ARRAY['r1','r2','r3','r4'] LOOP
    EXECUTE format('CREATE INDEX turnover_%1$s ON turnover (tenant_id, kind, %1$s, month) '
                   'WHERE %1$s IS NOT NULL', slot);
  END LOOP;
END $$;

DO $$
DECLARE tab text;
BEGIN
  FOREACH tab IN ARRAY ARRAY['entry','turnover'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', tab);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', tab);
    EXECUTE format('CREATE POLICY one_tenant ON %I USING (tenant_id = (SELECT '
      'NULLIF(current_setting(''nexus.tenant'', true), '''')::uuid))', tab);
  END LOOP;
END $$;

-- Slots and the search vector are a projection and may move; the facts may not.
GRANT SELECT, INSERT, UPDATE (search,
  t1, t2, t3, t4, t5, t6, t7, t8, t9, t10, n1, n2, n3, n4, n5, n6, n7, n8,
  d1, d2, d3, d4, d5, d6, r1, r2, r3, r4, r5, r6, r7, r8) ON entry TO nexus_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON turnover TO nexus_app;
