-- Where the bytes of files are, as far as this node has found out: its own content plane is the
-- truth of `here_at`, the hub of `hub_at`. Nothing of it replicates.
CREATE TABLE file_copy (
  tenant_id uuid NOT NULL,
  file_id uuid NOT NULL,
  here_at timestamptz,
  hub_at timestamptz,
  -- Somebody here wants to read it; it was read; it was let go to make room.
  asked_at timestamptz,
  read_at timestamptz,
  dropped_at timestamptz,
  tries int NOT NULL DEFAULT 0,
  due timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, file_id)
);
CREATE INDEX file_copy_away ON file_copy (tenant_id, due) WHERE here_at IS NULL;
CREATE INDEX file_copy_unsent ON file_copy (tenant_id, due) WHERE here_at IS NOT NULL AND hub_at IS NULL;

ALTER TABLE file_copy ENABLE ROW LEVEL SECURITY;
ALTER TABLE file_copy FORCE ROW LEVEL SECURITY;
CREATE POLICY one_tenant ON file_copy USING (tenant_id = (SELECT
  NULLIF(current_setting('nexus.tenant', true), '')::uuid));
CREATE TRIGGER fence BEFORE INSERT OR UPDATE OR DELETE ON file_copy
  FOR EACH STATEMENT WHEN (current_user = 'nexus_app') EXECUTE FUNCTION refuse_fenced();

GRANT SELECT, INSERT, UPDATE, DELETE ON file_copy TO nexus_app;
