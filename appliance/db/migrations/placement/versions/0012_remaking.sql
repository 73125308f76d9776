-- What refers to a record that goes is found by that record.
CREATE INDEX pending_ref_record ON pending_ref (tenant_id, record_id);

-- Entries whose names are another's at the hub get new ones in their places: this node was put back
-- from a backup or copied, or its hub was (docs/branches.md). The application cannot change the log
-- itself; it calls this, on a site only, and says so in the audit. How many.
CREATE FUNCTION rename_entries(s uuid, places bigint[], origins bigint[], oseqs bigint[],
  txs bigint[], bodies bytea[], hashes bytea[]) RETURNS bigint
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
  tenant uuid := NULLIF(current_setting('nexus.tenant', true), '')::uuid;
  moved change[];
  n bigint;
BEGIN
  IF NOT EXISTS (SELECT FROM hold WHERE tenant_id = tenant) THEN
    RAISE EXCEPTION 'this node is no site' USING ERRCODE = 'NX002';
  END IF;
  PERFORM FROM stream WHERE tenant_id = tenant AND id = s FOR UPDATE;
  SELECT array_agg(c) INTO moved FROM change c
    WHERE c.tenant_id = tenant AND c.stream = s AND c.seq = ANY(places);
  IF cardinality(moved) IS DISTINCT FROM cardinality(places) THEN
    RAISE EXCEPTION 'no such entries' USING ERRCODE = 'NX002';
  END IF;
  DELETE FROM change WHERE tenant_id = tenant AND stream = s AND seq = ANY(places);
  INSERT INTO change (tenant_id, stream, seq, origin, oseq, tx, hlc, ehlc, actor, door, kind,
      record_id, op, schema_rev, change_set, body, hash)
    SELECT tenant, s, m.seq, u.o, u.q, u.t, m.hlc, m.ehlc, m.actor, m.door, m.kind, m.record_id,
      m.op, m.schema_rev, m.change_set, u.b, u.h
    FROM unnest(places, origins, oseqs, txs, bodies, hashes) AS u(p, o, q, t, b, h)
    JOIN unnest(moved) AS m ON m.seq = u.p;
  GET DIAGNOSTICS n = ROW_COUNT;
  UPDATE entry e SET stamps = u.o || '.' || u.q
    FROM unnest(places, origins, oseqs) AS u(p, o, q) JOIN unnest(moved) AS m ON m.seq = u.p
    WHERE e.tenant_id = tenant AND e.id = m.record_id AND e.stamps = m.origin || '.' || m.oseq;
  RETURN n;
END $$;
REVOKE ALL ON FUNCTION rename_entries FROM PUBLIC;
GRANT EXECUTE ON FUNCTION rename_entries TO nexus_app;
