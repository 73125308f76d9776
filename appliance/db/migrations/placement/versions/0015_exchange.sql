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

ALTER TABLE exchange_package ENABLE ROW LEVEL SECURITY;
ALTER TABLE exchange_package FORCE ROW LEVEL SECURITY;
CREATE POLICY one_tenant ON exchange_package USING (tenant_id = (SELECT
  NULLIF(current_setting('nexus.tenant', true), '')::uuid));
CREATE TRIGGER fence BEFORE INSERT OR UPDATE OR DELETE ON exchange_package
  FOR EACH STATEMENT WHEN (current_user = 'nexus_app') EXECUTE FUNCTION refuse_fenced();
GRANT SELECT, INSERT, UPDATE, DELETE ON exchange_package TO nexus_app;
