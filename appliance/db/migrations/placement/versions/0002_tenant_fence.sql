-- A row here says: this placement does not (yet, any more) take writes of this tenant. Routes are
-- polled, so a process may hold an old one for seconds; the fence is what makes a move lose nothing.
CREATE TABLE tenant_fence (
  tenant_id uuid PRIMARY KEY,
  reason text NOT NULL CHECK (reason IN ('leaving', 'arriving')),
  at timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE tenant_fence ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenant_fence FORCE ROW LEVEL SECURITY;
CREATE POLICY one_tenant ON tenant_fence USING (tenant_id = (SELECT
  NULLIF(current_setting('nexus.tenant', true), '')::uuid));
-- Healing after a killed move starts from the fences that stand here.
CREATE POLICY owner_counts ON tenant_fence FOR SELECT TO nexus_owner USING (true);
GRANT SELECT ON tenant_fence TO nexus_app;

CREATE FUNCTION refuse_fenced() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM public.tenant_fence WHERE tenant_id =
      NULLIF(current_setting('nexus.tenant', true), '')::uuid) THEN
    RAISE EXCEPTION 'tenant is being moved' USING ERRCODE = 'NX001';
  END IF;
  RETURN NULL;
END $$;

-- Not on record, change and the other tables of the write path: their rows change only in a
-- transaction that also moves a stream's head, so the trigger on stream stops them, and 14 µs per
-- statement are paid once. outbox and command rows that leave late are sent or kept twice at most.
DO $$
DECLARE tab text;
BEGIN
  FOREACH tab IN ARRAY ARRAY['tenant_state','stream','slot','credential','session',
      'one_time_code','staff_grant','audit','audit_seal','audit_unsealed','job'] LOOP
    EXECUTE format('CREATE TRIGGER fence BEFORE INSERT OR UPDATE OR DELETE ON %I '
      'FOR EACH STATEMENT WHEN (current_user = ''nexus_app'') EXECUTE FUNCTION refuse_fenced()', tab);
  END LOOP;
END $$;
