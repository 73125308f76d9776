-- What this node holds of a tenant, as the hub has said; no row where it holds everything.
CREATE TABLE hold (
  tenant_id uuid PRIMARY KEY,
  node_id uuid NOT NULL,
  epoch int NOT NULL,
  -- NULL are all.
  unit_ids uuid[],
  masks jsonb NOT NULL DEFAULT '{}',
  is_leaving boolean NOT NULL DEFAULT false,
  -- When the hub was heard last, and at which revision its people are known here.
  heard_at timestamptz NOT NULL DEFAULT now(),
  people_rev bigint NOT NULL DEFAULT 0
);

-- Streams that have to leave this node. `own_oseq` is what this node had made of a stream: should
-- it be granted again, nothing is written there before that much has come back.
CREATE TABLE withdrawal (
  tenant_id uuid NOT NULL,
  stream uuid NOT NULL,
  epoch int NOT NULL,
  state text NOT NULL DEFAULT 'closing' CHECK (state IN ('closing', 'purging', 'purged', 'proved')),
  own_origin bigint NOT NULL DEFAULT 0,
  own_oseq bigint NOT NULL DEFAULT 0,
  files int NOT NULL DEFAULT 0,
  rows bigint NOT NULL DEFAULT 0,
  is_scrubbed boolean NOT NULL DEFAULT false,
  told_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, stream)
);

-- The hub's digest of each sign-in as it was taken here: another digest is a change, ours or its.
CREATE TABLE known_person (
  tenant_id uuid NOT NULL,
  person_id uuid NOT NULL,
  mark bytea NOT NULL,
  PRIMARY KEY (tenant_id, person_id)
);

DO $$
DECLARE tab text;
BEGIN
  FOREACH tab IN ARRAY ARRAY['hold','withdrawal','known_person'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', tab);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', tab);
    EXECUTE format('CREATE POLICY one_tenant ON %I USING (tenant_id = (SELECT '
      'NULLIF(current_setting(''nexus.tenant'', true), '''')::uuid))', tab);
    EXECUTE format('CREATE TRIGGER fence BEFORE INSERT OR UPDATE OR DELETE ON %I '
      'FOR EACH STATEMENT WHEN (current_user = ''nexus_app'') EXECUTE FUNCTION refuse_fenced()', tab);
  END LOOP;
END $$;
GRANT SELECT, INSERT, UPDATE, DELETE ON hold, withdrawal, known_person TO nexus_app;

-- The application may not delete from the log, and need not be able to: these functions run as the
-- owner and refuse whatever the hub has not withdrawn.

-- From here on nothing can be written to the stream: its counter is gone. False while the hub
-- (origin `hub`) has not said that it has everything of this node's up to the stream's end.
CREATE FUNCTION begin_purge(gone uuid, hub bigint) RETURNS boolean
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
  tenant uuid := NULLIF(current_setting('nexus.tenant', true), '')::uuid;
  counter stream%ROWTYPE;
BEGIN
  PERFORM FROM withdrawal w WHERE w.tenant_id = tenant AND w.stream = gone
    AND w.state = 'closing' FOR UPDATE;
  IF NOT FOUND THEN
    RETURN true;
  END IF;
  SELECT * INTO counter FROM stream s WHERE s.tenant_id = tenant AND s.id = gone FOR UPDATE;
  IF hub IS NOT NULL AND EXISTS (SELECT FROM change c WHERE c.tenant_id = tenant
      AND c.stream = gone AND c.seq > COALESCE((SELECT p.acked
        FROM peer_stream p WHERE p.tenant_id = tenant AND p.stream = gone AND p.peer = hub), 0))
  THEN
    RETURN false;
  END IF;
  UPDATE withdrawal w SET state = 'purging', own_origin = COALESCE(counter.origin, own_origin),
    own_oseq = COALESCE(counter.oseq, own_oseq) WHERE w.tenant_id = tenant AND w.stream = gone;
  DELETE FROM stream s WHERE s.tenant_id = tenant AND s.id = gone;
  RETURN true;
END $$;

-- Sign-ins of all but these people leave a node that holds a part of the tenant; how many.
CREATE FUNCTION keep_people(kept uuid[]) RETURNS bigint
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
  tenant uuid := NULLIF(current_setting('nexus.tenant', true), '')::uuid;
  n bigint;
BEGIN
  IF NOT EXISTS (SELECT FROM hold WHERE tenant_id = tenant) THEN
    RAISE EXCEPTION 'this node holds everything' USING ERRCODE = 'NX002';
  END IF;
  DELETE FROM session WHERE tenant_id = tenant AND sort <> 'staff' AND person_id <> ALL(kept);
  DELETE FROM one_time_code WHERE tenant_id = tenant AND person_id <> ALL(kept);
  DELETE FROM known_person WHERE tenant_id = tenant AND person_id <> ALL(kept);
  DELETE FROM credential WHERE tenant_id = tenant AND person_id <> ALL(kept);
  GET DIAGNOSTICS n = ROW_COUNT;
  RETURN n;
END $$;

-- Everything of a tenant that leaves this node as a whole; how many rows. What says so goes last.
CREATE FUNCTION purge_tenant(most int) RETURNS bigint
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
  tenant uuid := NULLIF(current_setting('nexus.tenant', true), '')::uuid;
  deleted bigint := 0;
  n bigint;
  tab text;
BEGIN
  IF NOT EXISTS (SELECT FROM hold WHERE tenant_id = tenant AND is_leaving) THEN
    RAISE EXCEPTION 'tenant is not withdrawn' USING ERRCODE = 'NX002';
  END IF;
  FOR tab IN SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace
      AND c.relkind = 'r' AND c.relname NOT IN ('hold', 'withdrawal', 'tenant_state', 'stream')
      AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid
        AND a.attname = 'tenant_id' AND NOT a.attisdropped) LOOP
    EXECUTE format('DELETE FROM %1$I WHERE ctid = ANY(ARRAY(SELECT ctid FROM %1$I '
      'WHERE tenant_id = $1 LIMIT $2))', tab) USING tenant, most;
    GET DIAGNOSTICS n = ROW_COUNT;
    deleted := deleted + n;
  END LOOP;
  UPDATE tenant_state SET log_key = '', settings = '{}', template = NULL WHERE tenant_id = tenant
    AND log_key <> '';
  RETURN deleted;
END $$;
CREATE FUNCTION forget_hold() RETURNS void
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
  tenant uuid := NULLIF(current_setting('nexus.tenant', true), '')::uuid;
BEGIN
  IF NOT EXISTS (SELECT FROM hold WHERE tenant_id = tenant AND is_leaving) THEN
    RAISE EXCEPTION 'tenant is not withdrawn' USING ERRCODE = 'NX002';
  END IF;
  DELETE FROM stream WHERE tenant_id = tenant;
  DELETE FROM withdrawal WHERE tenant_id = tenant;
  DELETE FROM hold WHERE tenant_id = tenant;
  DELETE FROM tenant_state WHERE tenant_id = tenant;
END $$;

REVOKE ALL ON FUNCTION begin_purge, keep_people, purge_tenant, forget_hold FROM PUBLIC;
GRANT EXECUTE ON FUNCTION begin_purge, keep_people, purge_tenant, forget_hold TO nexus_app;

-- Deleted rows stay in a table's file until it is written anew, which the worker does.
DO $$
DECLARE tab text;
BEGIN
  FOR tab IN SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace
      AND c.relkind = 'r' LOOP
    EXECUTE format('GRANT MAINTAIN ON %I TO nexus_app', tab);
  END LOOP;
END $$;
