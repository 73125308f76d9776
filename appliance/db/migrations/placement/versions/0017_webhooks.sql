-- What this node delivers to whom: one row beside each sys.webhook record. The record says what
-- is wanted and replicates; this is the delivering node's own business and does not.
CREATE TABLE webhook (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'paused', 'failing', 'disabled')),
  reason text NOT NULL DEFAULT '',
  -- Sealed with the node's key (webhooks/secrets); the former one signs too until its time is over.
  secret bytea NOT NULL,
  former bytea,
  former_until timestamptz,
  -- How far the log was read: stream id to seq. A stream that is not named is read from its start.
  cursors jsonb NOT NULL DEFAULT '{}',
  -- Entries had left the log before they were read: when that was seen.
  missed_at timestamptz,
  failures int NOT NULL DEFAULT 0,
  failing_since timestamptz,
  rest_until timestamptz,
  delivered bigint NOT NULL DEFAULT 0,
  failed bigint NOT NULL DEFAULT 0,
  last_at timestamptz,
  last_ok_at timestamptz,
  runner uuid,
  lease_until timestamptz,
  PRIMARY KEY (tenant_id, id)
);

-- Events made of log entries: which record, never what it holds. `no` is the order of delivery.
CREATE TABLE webhook_event (
  tenant_id uuid NOT NULL,
  webhook uuid NOT NULL,
  id uuid NOT NULL,
  no bigint GENERATED ALWAYS AS IDENTITY,
  kind text NOT NULL,
  record_id uuid NOT NULL,
  action text NOT NULL,
  fids text[] NOT NULL DEFAULT '{}',
  actor uuid NOT NULL,
  change_set uuid NOT NULL,
  occurred_at timestamptz NOT NULL,
  stream uuid,
  seq bigint,
  state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'delivered', 'dead')),
  attempts int NOT NULL DEFAULT 0,
  due_at timestamptz NOT NULL DEFAULT now(),
  first_at timestamptz,
  last_at timestamptz,
  status int,
  code text NOT NULL DEFAULT '',
  duration_ms int,
  PRIMARY KEY (tenant_id, webhook, id)
);
CREATE INDEX webhook_event_waiting ON webhook_event (tenant_id, webhook, record_id, no)
  WHERE state = 'waiting';
CREATE INDEX webhook_event_newest ON webhook_event (tenant_id, webhook, no);

-- Which records a receiver has been told of, so that it hears when one leaves its sight.
CREATE TABLE webhook_seen (
  tenant_id uuid NOT NULL,
  webhook uuid NOT NULL,
  record_id uuid NOT NULL,
  PRIMARY KEY (tenant_id, webhook, record_id)
);

DO $$
DECLARE tab text;
BEGIN
  FOREACH tab IN ARRAY ARRAY['webhook', 'webhook_event', 'webhook_seen'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', tab);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', tab);
    EXECUTE format('CREATE POLICY one_tenant ON %I USING (tenant_id = (SELECT '
      'NULLIF(current_setting(''nexus.tenant'', true), '''')::uuid))', tab);
    EXECUTE format('CREATE TRIGGER fence BEFORE INSERT OR UPDATE OR DELETE ON %I '
      'FOR EACH STATEMENT WHEN (current_user = ''nexus_app'') EXECUTE FUNCTION refuse_fenced()', tab);
  END LOOP;
END $$;
GRANT SELECT, INSERT, UPDATE, DELETE, MAINTAIN ON webhook, webhook_event, webhook_seen TO nexus_app;

-- Which tenants have something to deliver is asked before any of them is entered, as with the
-- outbox (0001); so are the counts for an operator.
CREATE POLICY owner_counts ON webhook FOR SELECT TO nexus_owner USING (true);
CREATE POLICY owner_counts ON webhook_event FOR SELECT TO nexus_owner USING (true);
CREATE POLICY owner_counts ON stream FOR SELECT TO nexus_owner USING (true);
CREATE FUNCTION tenants_with_webhooks() RETURNS TABLE (tenant_id uuid, is_due boolean)
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public AS $$
  SELECT w.tenant_id, bool_or(
    coalesce(w.lease_until NOT BETWEEN now() AND now() + interval '1 minute', true)
    AND coalesce(w.rest_until NOT BETWEEN now() AND now() + interval '25 hours', true)
    AND (EXISTS (SELECT FROM webhook_event e WHERE e.tenant_id = w.tenant_id AND e.webhook = w.id
        AND e.state = 'waiting' AND e.due_at NOT BETWEEN now() AND now() + interval '25 hours')
      OR EXISTS (SELECT FROM stream s WHERE s.tenant_id = w.tenant_id
        AND s.head > coalesce((w.cursors->>s.id::text)::bigint, 0))))
  FROM webhook w WHERE w.state = 'active' GROUP BY w.tenant_id
$$;
CREATE FUNCTION webhook_figures() RETURNS TABLE (state text, webhooks bigint, delivered bigint,
    failed bigint, waiting bigint, dead bigint, lag_s float8)
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public AS $$
  SELECT w.state, count(*), sum(w.delivered)::bigint, sum(w.failed)::bigint,
    sum(e.waiting)::bigint, sum(e.dead)::bigint,
    coalesce(extract(epoch FROM now() - min(e.oldest)), 0)::float8
  FROM webhook w CROSS JOIN LATERAL (SELECT count(*) FILTER (WHERE v.state = 'waiting') AS waiting,
    count(*) FILTER (WHERE v.state = 'dead') AS dead,
    min(v.occurred_at) FILTER (WHERE v.state = 'waiting') AS oldest
    FROM webhook_event v WHERE v.tenant_id = w.tenant_id AND v.webhook = w.id
    AND v.state <> 'delivered') e
  GROUP BY w.state
$$;
