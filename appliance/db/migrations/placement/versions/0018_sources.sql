-- Sources of connector workers as they say they are, and what people want of them: asked things
-- have numbers that only grow, and the worker says which it has carried out.
CREATE TABLE intake_source (
  tenant_id uuid NOT NULL,
  key text NOT NULL,
  worker text NOT NULL,
  -- The data folder of the worker that looks at it; another one stands by until the lease is over.
  instance text NOT NULL,
  lease_until timestamptz NOT NULL,
  -- Of the last report: what comes late is left out.
  no bigint NOT NULL DEFAULT 0,
  has_left boolean NOT NULL DEFAULT false,
  -- Who told it, and for which units: as with the runs that come of it.
  created_by uuid NOT NULL,
  units uuid[] NOT NULL,
  -- connectors.sdk.wire.SourceTold without what became of files.
  told jsonb NOT NULL,
  is_paused boolean NOT NULL DEFAULT false,
  look bigint NOT NULL DEFAULT 0,
  resume bigint NOT NULL DEFAULT 0,
  -- What was said of it last in the log.
  alerted text NOT NULL DEFAULT '',
  known_at timestamptz NOT NULL DEFAULT now(),
  told_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, key)
);

-- Files of sources that were not fetched or not taken, for good. One that was taken and cannot be
-- read is a failed run.
CREATE TABLE intake_lost (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  source_key text NOT NULL,
  name text NOT NULL,
  source text NOT NULL,
  connector text NOT NULL,
  state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'given', 'dismissed')),
  code text NOT NULL,
  detail text NOT NULL,
  tries int NOT NULL DEFAULT 1,
  failed_at timestamptz NOT NULL,
  -- What is wanted of the worker: '', replay, dismiss.
  wish text NOT NULL DEFAULT '' CHECK (wish IN ('', 'replay', 'dismiss')),
  asked bigint NOT NULL DEFAULT 0,
  note text NOT NULL DEFAULT '',
  created_by uuid NOT NULL,
  units uuid[] NOT NULL,
  PRIMARY KEY (tenant_id, id),
  UNIQUE (tenant_id, source_key, name)
);

-- What runs came to, by connector and end: counted once, when they come to it.
CREATE TABLE intake_tally (
  tenant_id uuid NOT NULL,
  connector text NOT NULL,
  ending text NOT NULL,
  runs bigint NOT NULL DEFAULT 0,
  rows bigint NOT NULL DEFAULT 0,
  ms bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (tenant_id, connector, ending)
);

-- Where a run comes from, when it was begun anew and came how far, what its reading cost, and that somebody has put
-- a failed one aside.
ALTER TABLE intake_run ADD COLUMN source_key text NOT NULL DEFAULT '',
  ADD COLUMN begun_at timestamptz,
  ADD COLUMN started_at timestamptz,
  ADD COLUMN read_at timestamptz,
  ADD COLUMN planned_at timestamptz,
  ADD COLUMN approved_at timestamptz,
  ADD COLUMN applied_at timestamptz,
  ADD COLUMN used jsonb NOT NULL DEFAULT '{}',
  ADD COLUMN dismissed_at timestamptz,
  ADD COLUMN dismissed_by uuid,
  ADD COLUMN note text NOT NULL DEFAULT '';
CREATE INDEX intake_run_from ON intake_run (tenant_id, source_key, file_name, id)
  WHERE source_key <> '';
CREATE INDEX intake_run_failed ON intake_run (tenant_id, id)
  WHERE state = 'failed' AND dismissed_at IS NULL;

DO $$
DECLARE tab text;
BEGIN
  FOREACH tab IN ARRAY ARRAY['intake_source', 'intake_lost', 'intake_tally'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', tab);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', tab);
    EXECUTE format('CREATE POLICY one_tenant ON %I USING (tenant_id = (SELECT '
      'NULLIF(current_setting(''nexus.tenant'', true), '''')::uuid))', tab);
    EXECUTE format('CREATE TRIGGER fence BEFORE INSERT OR UPDATE OR DELETE ON %I '
      'FOR EACH STATEMENT WHEN (current_user = ''nexus_app'') EXECUTE FUNCTION refuse_fenced()', tab);
  END LOOP;
END $$;
GRANT SELECT, INSERT, UPDATE, DELETE, MAINTAIN ON intake_source, intake_lost, intake_tally
  TO nexus_app;
