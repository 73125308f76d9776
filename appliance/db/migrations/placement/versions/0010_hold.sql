-- What this node holds of a tenant, as the hub has said; no row where it holds everything.
CREATE TABLE hold (
  tenant_id uuid PRIMARY KEY,
  node_id uuid NOT NULL,
  epoch int NOT NULL,
  -- NULL are all.
  unit_ids uuid[],
  masks jsonb NOT NULL DEFAULT '{}',
  is_leaving boolean NOT NULL DEFAULT false,
  -- When the hub was heard last, and which of its people are known here.
  heard_at timestamptz NOT NULL DEFAULT now(),
  people_rev bytea NOT NULL DEFAULT ''
);
ALTER TABLE hold ENABLE ROW LEVEL SECURITY;
ALTER TABLE hold FORCE ROW LEVEL SECURITY;
CREATE POLICY one_tenant ON hold USING (tenant_id = (SELECT
  NULLIF(current_setting('nexus.tenant', true), '')::uuid));
CREATE TRIGGER fence BEFORE INSERT OR UPDATE OR DELETE ON hold
  FOR EACH STATEMENT WHEN (current_user = 'nexus_app') EXECUTE FUNCTION refuse_fenced();
GRANT SELECT, INSERT, UPDATE, DELETE ON hold TO nexus_app;
