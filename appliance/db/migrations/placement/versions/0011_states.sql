-- What stands for a log that is not here (any more): docs/adr/0019.

-- A record of which entries are missing in `change`: what is needed of those that are still live
-- (clock, author, what they replaced), by dot, in MessagePack. `part` is the piece of a snapshot it
-- came with, while entries that this piece knew already are still on their way (`stream_ahead`).
CREATE TABLE record_base (
  tenant_id uuid NOT NULL,
  record_id uuid NOT NULL,
  leaves bytea NOT NULL,
  part uuid,
  PRIMARY KEY (tenant_id, record_id)
);

-- Where the chain of an origin begins here: the last entry that is not in `change`, and its hash.
CREATE TABLE stream_base (
  tenant_id uuid NOT NULL,
  stream uuid NOT NULL,
  origin bigint NOT NULL,
  oseq bigint NOT NULL,
  hash bytea NOT NULL,
  PRIMARY KEY (tenant_id, stream, origin)
);

-- A snapshot that is being taken: its cut, and up to which id its pieces were joined.
CREATE TABLE stream_join (
  tenant_id uuid NOT NULL,
  stream uuid NOT NULL,
  cut bigint NOT NULL,
  tips bytea NOT NULL,
  part text NOT NULL DEFAULT 'record' CHECK (part IN ('record', 'entry', 'whole')),
  after uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
  began_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, stream)
);

-- What the hub had when it read a piece: entries up to there are in the states of that piece.
CREATE TABLE stream_ahead (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  known bytea NOT NULL,
  PRIMARY KEY (tenant_id, id)
);

-- How the last comparison of a stream with the hub's ended.
CREATE TABLE stream_check (
  tenant_id uuid NOT NULL,
  stream uuid NOT NULL,
  state text NOT NULL CHECK (state IN ('asked', 'even', 'mended', 'differs')),
  buckets int NOT NULL DEFAULT 0,
  records int NOT NULL DEFAULT 0,
  checked_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, stream)
);

-- At a hub: what a site said in the last file that was carried here, to answer by the next one.
CREATE TABLE carrier (
  tenant_id uuid NOT NULL,
  peer uuid NOT NULL,
  hello bytea NOT NULL,
  people_rev bigint NOT NULL DEFAULT 0,
  taken_up bytea NOT NULL DEFAULT '',
  at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, peer)
);

DO $$
DECLARE tab text;
BEGIN
  FOREACH tab IN ARRAY ARRAY['record_base','stream_base','stream_join','stream_ahead',
      'stream_check','carrier'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', tab);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', tab);
    EXECUTE format('CREATE POLICY one_tenant ON %I USING (tenant_id = (SELECT '
      'NULLIF(current_setting(''nexus.tenant'', true), '''')::uuid))', tab);
    EXECUTE format('CREATE TRIGGER fence BEFORE INSERT OR UPDATE OR DELETE ON %I '
      'FOR EACH STATEMENT WHEN (current_user = ''nexus_app'') EXECUTE FUNCTION refuse_fenced()', tab);
    EXECUTE format('GRANT MAINTAIN ON %I TO nexus_app', tab);
  END LOOP;
END $$;
GRANT SELECT, INSERT, UPDATE, DELETE ON record_base, stream_base, stream_join, stream_ahead,
  stream_check, carrier TO nexus_app;

-- Takes some entries out of the log, oldest first, and raises the stream's floor; how many. Refuses
-- what is younger than `keep`, what waits for a decision or a creation, and what one of the peers
-- named has not taken. The caller has kept what of it is live (record_base).
CREATE FUNCTION compact_log(of_stream uuid, upto bigint, keep interval, most int)
  RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
  tenant uuid := NULLIF(current_setting('nexus.tenant', true), '')::uuid;
  counter stream%ROWTYPE;
  last bigint;
  n bigint;
BEGIN
  SELECT * INTO counter FROM stream s WHERE s.tenant_id = tenant AND s.id = of_stream FOR UPDATE;
  last := LEAST(upto, counter.floor + most, counter.head);
  IF last IS NULL OR last <= counter.floor THEN
    RETURN 0;
  END IF;
  IF EXISTS (SELECT FROM change c WHERE c.tenant_id = tenant AND c.stream = of_stream
      AND c.seq > counter.floor AND c.seq <= last
      AND (c.ehlc >> 16) > extract(epoch FROM now() - GREATEST(keep, interval '0')) * 1000)
    OR EXISTS (SELECT FROM parked p JOIN change c ON c.tenant_id = tenant AND c.stream = p.stream
      AND c.origin = p.origin AND c.oseq = p.oseq WHERE p.tenant_id = tenant
      AND p.stream = of_stream AND p.is_logged AND p.state = 'waiting' AND c.seq <= last)
    OR EXISTS (SELECT FROM early e JOIN change c ON c.tenant_id = tenant
      AND c.record_id = e.record_id WHERE e.tenant_id = tenant AND c.stream = of_stream
      AND c.seq <= last)
    OR EXISTS (SELECT FROM change c WHERE c.tenant_id = tenant AND c.stream = of_stream
      AND c.seq > counter.floor AND c.seq <= last AND NOT EXISTS (SELECT FROM record_base b
        WHERE b.tenant_id = tenant AND b.record_id = c.record_id)
      AND EXISTS (SELECT FROM record r WHERE r.tenant_id = tenant AND r.id = c.record_id))
    OR EXISTS (SELECT FROM peer_stream p WHERE p.tenant_id = tenant AND p.stream = of_stream
      AND p.seen_at > now() - GREATEST(keep, interval '1 day') AND p.cursor < last)
  THEN
    RAISE EXCEPTION 'the log is needed from here on' USING ERRCODE = 'NX002';
  END IF;
  INSERT INTO stream_base (tenant_id, stream, origin, oseq, hash)
    SELECT tenant, of_stream, f.origin, f.oseq, f.hash FROM (
      SELECT DISTINCT ON (c.origin) c.origin, c.oseq, c.hash FROM change c
      WHERE c.tenant_id = tenant AND c.stream = of_stream AND c.seq <= last
      ORDER BY c.origin, c.oseq DESC) AS f
    ON CONFLICT (tenant_id, stream, origin) DO UPDATE SET oseq = EXCLUDED.oseq,
      hash = EXCLUDED.hash WHERE stream_base.oseq < EXCLUDED.oseq;
  DELETE FROM change c WHERE c.tenant_id = tenant AND c.stream = of_stream AND c.seq <= last;
  GET DIAGNOSTICS n = ROW_COUNT;
  UPDATE stream s SET floor = last WHERE s.tenant_id = tenant AND s.id = of_stream;
  RETURN n;
END $$;
REVOKE ALL ON FUNCTION compact_log FROM PUBLIC;
GRANT EXECUTE ON FUNCTION compact_log TO nexus_app;

-- Deletes some of what is left of a stream; how many rows. Zero: nothing is left.
CREATE FUNCTION purge_some(gone uuid, most int) RETURNS bigint
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
  tenant uuid := NULLIF(current_setting('nexus.tenant', true), '')::uuid;
  ids uuid[];
  deleted bigint := 0;
  upto bigint;
  n bigint;
  tab text;
BEGIN
  PERFORM FROM withdrawal w WHERE w.tenant_id = tenant AND w.stream = gone
    AND w.state = 'purging' FOR UPDATE;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'stream is not withdrawn' USING ERRCODE = 'NX002';
  END IF;
  SELECT COALESCE(array_agg(r.id), '{}') INTO ids FROM (
    SELECT id FROM record WHERE tenant_id = tenant AND stream = gone LIMIT most) AS r;
  DELETE FROM record_link WHERE tenant_id = tenant AND record_id = ANY(ids);
  DELETE FROM unique_claim WHERE tenant_id = tenant AND record_id = ANY(ids);
  DELETE FROM pending_ref WHERE tenant_id = tenant AND record_id = ANY(ids);
  DELETE FROM early WHERE tenant_id = tenant AND record_id = ANY(ids);
  DELETE FROM conflict WHERE tenant_id = tenant AND record_id = ANY(ids);
  DELETE FROM record_base WHERE tenant_id = tenant AND record_id = ANY(ids);
  DELETE FROM record WHERE tenant_id = tenant AND id = ANY(ids);
  deleted := cardinality(ids);
  SELECT COALESCE(array_agg(r.id), '{}') INTO ids FROM (
    SELECT id FROM entry WHERE tenant_id = tenant AND stream = gone LIMIT most) AS r;
  DELETE FROM early WHERE tenant_id = tenant AND record_id = ANY(ids);
  DELETE FROM conflict WHERE tenant_id = tenant AND record_id = ANY(ids);
  DELETE FROM record_link WHERE tenant_id = tenant AND record_id = ANY(ids);
  DELETE FROM entry WHERE tenant_id = tenant AND id = ANY(ids);
  deleted := deleted + cardinality(ids);
  -- By a range of the key: the planner must not need to know how many rows there are.
  SELECT max(c.seq) INTO upto FROM (SELECT seq FROM change WHERE tenant_id = tenant
    AND stream = gone ORDER BY seq LIMIT most) AS c;
  DELETE FROM change WHERE tenant_id = tenant AND stream = gone AND seq <= upto;
  GET DIAGNOSTICS n = ROW_COUNT;
  deleted := deleted + n;
  DELETE FROM turnover WHERE tenant_id = tenant AND unit_id = gone;
  GET DIAGNOSTICS n = ROW_COUNT;
  deleted := deleted + n;
  FOREACH tab IN ARRAY ARRAY['conflict', 'parked', 'peer_stream', 'clock_cut', 'stream_vector',
      'stream_base', 'stream_join', 'stream_check'] LOOP
    EXECUTE format('DELETE FROM %I WHERE tenant_id = $1 AND stream = $2', tab) USING tenant, gone;
    GET DIAGNOSTICS n = ROW_COUNT;
    deleted := deleted + n;
  END LOOP;
  UPDATE withdrawal w SET rows = w.rows + deleted WHERE w.tenant_id = tenant AND w.stream = gone;
  RETURN deleted;
END $$;
REVOKE ALL ON FUNCTION purge_some FROM PUBLIC;
GRANT EXECUTE ON FUNCTION purge_some TO nexus_app;
