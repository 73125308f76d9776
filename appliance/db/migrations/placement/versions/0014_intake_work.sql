-- Runs whose files are read elsewhere, by a connector worker that knows only the public contract.
-- One is taken for a while; `epoch` grows with each taking, and what comes under an older one is
-- refused. `reader` names the program that read: only the same one goes on where a dead one was.
CREATE TABLE intake_work (
  tenant_id uuid NOT NULL,
  run uuid NOT NULL,
  worker text NOT NULL,
  epoch int NOT NULL DEFAULT 0,
  reader text NOT NULL DEFAULT '',
  holder uuid,
  lease_until timestamptz,
  takes int NOT NULL DEFAULT 0,
  found bytea,
  mapping bytea,
  next int NOT NULL DEFAULT 0,
  bytes bigint NOT NULL DEFAULT 0,
  done bigint NOT NULL DEFAULT 0,
  total bigint NOT NULL DEFAULT 0,
  whole_at timestamptz,
  is_queued boolean NOT NULL DEFAULT false,
  offered_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, run)
);
CREATE INDEX intake_work_waiting ON intake_work (tenant_id, worker, offered_at);

-- The rows they have read, in the blocks in which they came, until the run is planned.
CREATE TABLE intake_frame (
  tenant_id uuid NOT NULL,
  run uuid NOT NULL,
  no int NOT NULL,
  data bytea NOT NULL,
  PRIMARY KEY (tenant_id, run, no)
);

DO $$
DECLARE tab text;
BEGIN
  FOREACH tab IN ARRAY ARRAY['intake_work','intake_frame'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', tab);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', tab);
    EXECUTE format('CREATE POLICY one_tenant ON %I USING (tenant_id = (SELECT '
      'NULLIF(current_setting(''nexus.tenant'', true), '''')::uuid))', tab);
    EXECUTE format('CREATE TRIGGER fence BEFORE INSERT OR UPDATE OR DELETE ON %I '
      'FOR EACH STATEMENT WHEN (current_user = ''nexus_app'') EXECUTE FUNCTION refuse_fenced()', tab);
    -- A site that gives a stream up writes anew what its rows have left.
    EXECUTE format('GRANT MAINTAIN ON %I TO nexus_app', tab);
  END LOOP;
END $$;
GRANT SELECT, INSERT, UPDATE, DELETE, MAINTAIN ON intake_work, intake_frame TO nexus_app;
