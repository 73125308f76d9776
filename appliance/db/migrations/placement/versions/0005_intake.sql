-- One import, whatever its format: what came in, how it is read, what it would do, what it did.
CREATE TABLE intake_run (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  connector text NOT NULL,
  source text NOT NULL,
  file_name text NOT NULL,
  sha256 text NOT NULL,
  size bigint NOT NULL,
  state text NOT NULL DEFAULT 'received' CHECK (state IN ('received', 'preparing', 'planned',
    'applying', 'applied', 'failed', 'cancelled', 'reverting', 'reverted')),
  detail text NOT NULL DEFAULT '',
  inspection jsonb,
  mapping jsonb,
  options jsonb NOT NULL DEFAULT '{}',
  counts jsonb NOT NULL DEFAULT '{}',
  held_by jsonb NOT NULL DEFAULT '[]',
  job_id uuid,
  change_sets uuid[] NOT NULL DEFAULT '{}',
  -- In whose name and under which rights it writes.
  created_by uuid NOT NULL,
  profile_id uuid NOT NULL,
  units uuid[] NOT NULL,
  approved_by uuid,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id)
);
CREATE INDEX intake_run_newest ON intake_run (tenant_id, created_at, id);
CREATE INDEX intake_run_file ON intake_run (tenant_id, connector, source, sha256);

-- Its rows as they were read, and what the plan says of each.
CREATE TABLE intake_row (
  tenant_id uuid NOT NULL,
  run uuid NOT NULL,
  no int NOT NULL,
  sheet text NOT NULL,
  line int NOT NULL,
  key text NOT NULL,
  data jsonb NOT NULL,
  faults jsonb NOT NULL DEFAULT '[]',
  sort text NOT NULL DEFAULT 'staged' CHECK (sort IN ('staged', 'new', 'changed', 'unchanged', 'gone',
    'suspicious', 'faulty')),
  target uuid,
  changes jsonb NOT NULL DEFAULT '[]',
  PRIMARY KEY (tenant_id, run, no)
);
CREATE INDEX intake_row_sort ON intake_row (tenant_id, run, sort, no);

DO $$
DECLARE tab text;
BEGIN
  FOREACH tab IN ARRAY ARRAY['intake_run','intake_row'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', tab);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', tab);
    EXECUTE format('CREATE POLICY one_tenant ON %I USING (tenant_id = (SELECT '
      'NULLIF(current_setting(''nexus.tenant'', true), '''')::uuid))', tab);
    EXECUTE format('CREATE TRIGGER fence BEFORE INSERT OR UPDATE OR DELETE ON %I '
      'FOR EACH STATEMENT WHEN (current_user = ''nexus_app'') EXECUTE FUNCTION refuse_fenced()', tab);
  END LOOP;
END $$;
GRANT SELECT, INSERT, UPDATE, DELETE ON intake_run, intake_row TO nexus_app;
-- An import may multiply a table within seconds: the worker that did it has it counted again, or
-- the planner goes on believing in one row until the next automatic look.
GRANT MAINTAIN ON entry, record, change TO nexus_app;
