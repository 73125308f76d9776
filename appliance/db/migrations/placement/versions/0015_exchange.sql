-- Files that 1C asked to be imported, by the key that it came with (exchange/packages).
CREATE TABLE exchange_package (
  tenant_id uuid NOT NULL,
  session_id uuid NOT NULL,
  sort text NOT NULL CHECK (sort IN ('catalog', 'sale')),
  name text NOT NULL,
  id uuid NOT NULL,
  source text NOT NULL DEFAULT '',
  actor uuid NOT NULL,
  profile_id uuid NOT NULL,
  units uuid[] NOT NULL DEFAULT '{}',
  state text NOT NULL DEFAULT 'taking' CHECK (state IN ('taking', 'taken', 'failed')),
  detail text NOT NULL DEFAULT '',
  run uuid,
  job_id uuid,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, session_id, sort, name)
);
CREATE UNIQUE INDEX exchange_package_id ON exchange_package (tenant_id, id);

-- Which version of an order a base has confirmed, and which it was told last (exchange/orders).
CREATE TABLE exchange_order (
  tenant_id uuid NOT NULL,
  session_id uuid NOT NULL,
  record_id uuid NOT NULL,
  told text,
  telling text,
  PRIMARY KEY (tenant_id, session_id, record_id)
);

DO $$
DECLARE tab text;
BEGIN
  FOREACH tab IN ARRAY ARRAY['exchange_package', 'exchange_order'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', tab);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', tab);
    EXECUTE format('CREATE POLICY one_tenant ON %I USING (tenant_id = (SELECT '
      'NULLIF(current_setting(''nexus.tenant'', true), '''')::uuid))', tab);
    EXECUTE format('CREATE TRIGGER fence BEFORE INSERT OR UPDATE OR DELETE ON %I '
      'FOR EACH STATEMENT WHEN (current_user = ''nexus_app'') EXECUTE FUNCTION refuse_fenced()', tab);
  END LOOP;
END $$;
GRANT SELECT, INSERT, UPDATE, DELETE, MAINTAIN ON exchange_package, exchange_order TO nexus_app;
