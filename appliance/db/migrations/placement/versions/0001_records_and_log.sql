-- One placement: records of all kinds of its tenants, the log they are a projection of, and what
-- a session needs. tenant_id leads every key; every table is under forced row-level security.

CREATE TEXT SEARCH DICTIONARY nexus_ru (TEMPLATE = snowball, Language = russian);
CREATE TEXT SEARCH DICTIONARY nexus_en (TEMPLATE = snowball, Language = english);
-- No stop words: "IT" is a company, "Она" may be a name.
CREATE TEXT SEARCH CONFIGURATION nexus (COPY = simple);
ALTER TEXT SEARCH CONFIGURATION nexus
  ALTER MAPPING FOR asciiword, asciihword, hword_asciipart WITH nexus_en;
ALTER TEXT SEARCH CONFIGURATION nexus
  ALTER MAPPING FOR word, hword, hword_part WITH nexus_ru;

-- Per tenant: revisions that every request compares with its caches, and the log's salt key.
CREATE TABLE tenant_state (
  tenant_id uuid PRIMARY KEY,
  state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'suspended', 'moved')),
  schema_rev bigint NOT NULL DEFAULT 1,
  rights_rev bigint NOT NULL DEFAULT 1,
  log_key bytea NOT NULL,
  template text,
  settings jsonb NOT NULL DEFAULT '{}',
  created_at timestamptz NOT NULL DEFAULT now()
);

-- The log: one row for each change of each record; written once (no UPDATE, no DELETE granted).
CREATE TABLE stream (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  name text NOT NULL,
  head bigint NOT NULL DEFAULT 0,
  origin bigint NOT NULL,
  oseq bigint NOT NULL DEFAULT 0,
  hash bytea NOT NULL DEFAULT '\x',
  PRIMARY KEY (tenant_id, id)
) WITH (fillfactor = 10);

-- Peers' entries: how far each other origin of a stream is known here (own origin: stream.oseq).
CREATE TABLE stream_vector (
  tenant_id uuid NOT NULL,
  stream uuid NOT NULL,
  origin bigint NOT NULL,
  got bigint NOT NULL,
  hash bytea NOT NULL,
  PRIMARY KEY (tenant_id, stream, origin)
);

CREATE TABLE change (
  tenant_id uuid NOT NULL,
  stream uuid NOT NULL,
  seq bigint NOT NULL,
  origin bigint NOT NULL,
  oseq bigint NOT NULL,
  tx bigint NOT NULL,
  hlc bigint NOT NULL,
  ehlc bigint NOT NULL,
  actor uuid NOT NULL,
  door text NOT NULL,
  kind text NOT NULL,
  record_id uuid NOT NULL,
  op text NOT NULL CHECK (op IN ('new', 'put', 'del', 'undel', 'move', 'arrive', 'redirect', 'resolve',
    'blob', 'grant', 'schema', 'redact')),
  schema_rev bigint NOT NULL,
  change_set uuid NOT NULL,
  body bytea NOT NULL,
  hash bytea NOT NULL,
  PRIMARY KEY (tenant_id, stream, seq),
  UNIQUE (tenant_id, stream, origin, oseq)
);
CREATE INDEX change_history ON change (tenant_id, record_id, hlc);
CREATE INDEX change_by_set ON change (tenant_id, change_set);

-- Records: `data` is the truth as the log says it, everything right of it is its projection.
CREATE TABLE record (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  kind text NOT NULL,
  stream uuid NOT NULL,
  unit_id uuid,
  owner_id uuid,
  number text,
  data jsonb NOT NULL,
  stamps text NOT NULL,
  created_at timestamptz NOT NULL,
  created_by uuid NOT NULL,
  updated_at timestamptz NOT NULL,
  updated_by uuid NOT NULL,
  deleted_at timestamptz,
  deleted_by uuid,
  search tsvector,
  t1 text, t2 text, t3 text, t4 text, t5 text, t6 text, t7 text, t8 text, t9 text, t10 text,
  n1 bigint, n2 bigint, n3 bigint, n4 bigint, n5 bigint, n6 bigint, n7 bigint, n8 bigint,
  d1 timestamptz, d2 timestamptz, d3 timestamptz, d4 timestamptz, d5 timestamptz, d6 timestamptz,
  r1 uuid, r2 uuid, r3 uuid, r4 uuid, r5 uuid, r6 uuid, r7 uuid, r8 uuid,
  PRIMARY KEY (tenant_id, id)
);
CREATE INDEX record_created ON record (tenant_id, kind, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX record_updated ON record (tenant_id, kind, updated_at, id) WHERE deleted_at IS NULL;
CREATE INDEX record_unit ON record (tenant_id, kind, unit_id, id) WHERE deleted_at IS NULL;
CREATE INDEX record_owner ON record (tenant_id, kind, owner_id, id) WHERE deleted_at IS NULL;
CREATE INDEX record_number ON record (tenant_id, kind, number, id) WHERE number IS NOT NULL;
CREATE INDEX record_search ON record USING gin (search) WITH (fastupdate = on);
DO $$
DECLARE slot text;
BEGIN
  FOREACH slot IN ARRAY ARRAY['t1','t2','t3','t4','t5','t6','t7','t8','t9','t10',
      'n1','n2','n3','n4','n5','n6','n7','n8','d1','d2','d3','d4','d5','d6',
      'r1','r2','r3','r4','r5','r6','r7','r8'] LOOP
    EXECUTE format('CREATE INDEX record_%1$s ON record (tenant_id, kind, %1$s, id) '
                   'WHERE %1$s IS NOT NULL', slot);
  END LOOP;
END $$;
CREATE STATISTICS record_tenant_kind (dependencies, ndistinct, mcv) ON tenant_id, kind FROM record;

-- Which slot of its kind a filterable field has on this node (a projection detail, so per node).
CREATE TABLE slot (
  tenant_id uuid NOT NULL,
  kind text NOT NULL,
  fid text NOT NULL,
  slot text NOT NULL,
  is_ready boolean NOT NULL DEFAULT true,
  is_retired boolean NOT NULL DEFAULT false,
  PRIMARY KEY (tenant_id, kind, fid)
);
CREATE UNIQUE INDEX slot_taken ON slot (tenant_id, kind, slot);

-- Members of set-valued fields (multi-choice, reference to many), for "any of" and reverse paths.
CREATE TABLE record_link (
  tenant_id uuid NOT NULL,
  kind text NOT NULL,
  fid text NOT NULL,
  value text NOT NULL,
  record_id uuid NOT NULL,
  PRIMARY KEY (tenant_id, kind, fid, value, record_id)
);
CREATE INDEX record_link_of ON record_link (tenant_id, record_id, fid);

-- Uniqueness is a claim, not an index: applying a peer's entry must be unable to fail.
CREATE TABLE unique_claim (
  tenant_id uuid NOT NULL,
  kind text NOT NULL,
  rule text NOT NULL,
  value text NOT NULL,
  record_id uuid NOT NULL,
  PRIMARY KEY (tenant_id, kind, rule, value, record_id)
);
CREATE INDEX unique_claim_of ON unique_claim (tenant_id, record_id);
-- References whose target is not here (yet): a placeholder until it arrives.
CREATE TABLE pending_ref (
  tenant_id uuid NOT NULL,
  target uuid NOT NULL,
  record_id uuid NOT NULL,
  fid text NOT NULL,
  PRIMARY KEY (tenant_id, target, record_id, fid)
);

CREATE TABLE number_series (
  tenant_id uuid NOT NULL,
  series text NOT NULL,
  period text NOT NULL,
  last bigint NOT NULL,
  PRIMARY KEY (tenant_id, series, period)
);

-- The only way out of a transaction: the relay moves rows to Redis and deletes them when done.
CREATE TABLE outbox (
  tenant_id uuid NOT NULL,
  id bigint GENERATED ALWAYS AS IDENTITY,
  topic text NOT NULL,
  payload jsonb NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  sent_at timestamptz,
  -- Not sent (again) before this moment: a sent job's next chance, a failed one's back-off.
  due_at timestamptz NOT NULL DEFAULT now(),
  attempts int NOT NULL DEFAULT 0,
  dead_reason text,
  PRIMARY KEY (tenant_id, id)
);
CREATE INDEX outbox_due ON outbox (due_at) WHERE dead_reason IS NULL;

-- What people see of background work. The outbox row is the work itself and leaves with the
-- effect; `runner` and `lease_until` say which process holds it, `resume_at` where it goes on.
CREATE TABLE job (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  outbox_id bigint,
  job_kind text NOT NULL,
  state text NOT NULL DEFAULT 'queued'
    CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled')),
  progress int NOT NULL DEFAULT 0,
  total int,
  detail text NOT NULL DEFAULT '',
  resume_at text NOT NULL DEFAULT '',
  cancel_asked boolean NOT NULL DEFAULT false,
  runner uuid,
  lease_until timestamptz,
  created_by uuid,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id)
);
CREATE UNIQUE INDEX job_outbox ON job (tenant_id, outbox_id) WHERE outbox_id IS NOT NULL;
CREATE INDEX job_newest ON job (tenant_id, created_at, id);

-- Stored outcomes by command id, for answering a repeated command.
CREATE TABLE command (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  fingerprint bytea NOT NULL,
  outcome bytea NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id)
);
CREATE INDEX command_age ON command (created_at);

-- People log in here; the person itself is a sys.person record.
CREATE TABLE credential (
  tenant_id uuid NOT NULL,
  person_id uuid NOT NULL,
  email text NOT NULL,
  password_hash text,
  totp_secret bytea,
  totp_step bigint NOT NULL DEFAULT 0,
  recovery_hashes bytea[] NOT NULL DEFAULT '{}',
  state text NOT NULL DEFAULT 'active' CHECK (state IN ('invited', 'active', 'suspended', 'locked')),
  must_change boolean NOT NULL DEFAULT false,
  failures int NOT NULL DEFAULT 0,
  failed_at timestamptz,
  session_epoch int NOT NULL DEFAULT 0,
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, person_id)
);
CREATE UNIQUE INDEX credential_email ON credential (tenant_id, email);

CREATE TABLE session (
  tenant_id uuid NOT NULL,
  secret_hash bytea NOT NULL,
  id uuid NOT NULL,
  person_id uuid NOT NULL,
  profile_id uuid NOT NULL,
  sort text NOT NULL DEFAULT 'login' CHECK (sort IN ('login', 'api_key', 'staff')),
  label text NOT NULL DEFAULT '',
  unit_ids uuid[],
  networks text[] NOT NULL DEFAULT '{}',
  epoch int NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  seen_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  ended_at timestamptz,
  ended_reason text,
  staff_grant_id uuid,
  PRIMARY KEY (tenant_id, secret_hash)
);
CREATE UNIQUE INDEX session_id ON session (tenant_id, id);
CREATE INDEX session_person ON session (tenant_id, person_id) WHERE ended_at IS NULL;

CREATE TABLE one_time_code (
  tenant_id uuid NOT NULL,
  code_hash bytea NOT NULL,
  purpose text NOT NULL CHECK (purpose IN ('invite', 'reset')),
  person_id uuid NOT NULL,
  expires_at timestamptz NOT NULL,
  used_at timestamptz,
  PRIMARY KEY (tenant_id, code_hash)
);

-- Staff of the platform see this tenant only under such a grant, which the tenant sees too.
CREATE TABLE staff_grant (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  staff_id uuid NOT NULL,
  staff_name text NOT NULL,
  reason text NOT NULL,
  profile_id uuid NOT NULL,
  granted_by uuid NOT NULL,
  granted_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  revoked_at timestamptz,
  PRIMARY KEY (tenant_id, id)
);

-- Audit: facts that are not changes of records (who signed in, exported, was refused).
CREATE TABLE audit (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  at timestamptz NOT NULL,
  actor uuid,
  action text NOT NULL,
  subject text NOT NULL DEFAULT '',
  request_id uuid,
  outcome text NOT NULL DEFAULT 'done',
  details jsonb NOT NULL DEFAULT '{}',
  PRIMARY KEY (tenant_id, id)
);
CREATE TABLE audit_seal (
  tenant_id uuid NOT NULL,
  no bigint NOT NULL,
  ids uuid[] NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  hash bytea NOT NULL,
  PRIMARY KEY (tenant_id, no)
);
-- What is not sealed yet; rows leave when the sealer has covered them.
CREATE TABLE audit_unsealed (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  PRIMARY KEY (tenant_id, id)
);

DO $$
DECLARE tab text;
BEGIN
  FOREACH tab IN ARRAY ARRAY['tenant_state','stream','stream_vector','change','record','slot',
      'record_link','unique_claim','pending_ref','number_series','outbox','command','credential',
      'session','one_time_code','staff_grant','audit','audit_seal','audit_unsealed','job'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', tab);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', tab);
    -- NULLIF: after the first transaction an unset setting reads '' and not NULL. The sub-select
    -- is evaluated once per statement instead of once per row.
    EXECUTE format('CREATE POLICY one_tenant ON %I USING (tenant_id = (SELECT '
      'NULLIF(current_setting(''nexus.tenant'', true), '''')::uuid))', tab);
  END LOOP;
END $$;

-- The relay and the sealer ask which tenants have work before they enter one. The functions run
-- as the owner, who may see nothing but these columns' rows: forced security binds it as well.
CREATE POLICY owner_counts ON outbox FOR SELECT TO nexus_owner USING (true);
CREATE POLICY owner_counts ON audit_unsealed FOR SELECT TO nexus_owner USING (true);
CREATE FUNCTION tenants_with_work() RETURNS TABLE (tenant_id uuid, waiting bigint)
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public AS $$
  SELECT o.tenant_id, count(*) FROM outbox o
  WHERE o.dead_reason IS NULL AND o.due_at <= now() GROUP BY o.tenant_id
$$;
CREATE FUNCTION outbox_state() RETURNS TABLE (waiting bigint, dead bigint, oldest_s float8)
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public AS $$
  SELECT count(*) FILTER (WHERE o.dead_reason IS NULL),
    count(*) FILTER (WHERE o.dead_reason IS NOT NULL),
    COALESCE(extract(epoch FROM now() - min(o.created_at) FILTER (WHERE o.dead_reason IS NULL)), 0)
  FROM outbox o
$$;
CREATE FUNCTION tenants_with_unsealed() RETURNS TABLE (tenant_id uuid)
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public AS $$
  SELECT DISTINCT a.tenant_id FROM audit_unsealed a
$$;

GRANT SELECT, INSERT, UPDATE, DELETE ON record, slot, record_link, unique_claim, pending_ref,
  number_series, outbox, job, command, session, one_time_code, audit_unsealed TO nexus_app;
GRANT SELECT, INSERT, UPDATE ON tenant_state, stream, stream_vector, credential,
  staff_grant TO nexus_app;
GRANT SELECT, INSERT ON change, audit, audit_seal TO nexus_app;
