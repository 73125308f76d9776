-- Failed sign-ins by hashed address, of people and of addresses nobody has alike.
CREATE TABLE sign_in_delay (
  tenant_id uuid NOT NULL,
  address_hash bytea NOT NULL,
  failures int NOT NULL,
  failed_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, address_hash)
);
CREATE INDEX sign_in_delay_age ON sign_in_delay (tenant_id, failed_at);

-- What staff of the platform ask for; somebody in the tenant grants it or refuses.
CREATE TABLE staff_request (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  staff_id uuid NOT NULL,
  staff_name text NOT NULL,
  reason text NOT NULL,
  hours int NOT NULL CHECK (hours BETWEEN 1 AND 72),
  requested_at timestamptz NOT NULL DEFAULT now(),
  answered_at timestamptz,
  answered_by uuid,
  grant_id uuid,
  PRIMARY KEY (tenant_id, id)
);
-- The units of whoever granted it: nobody lends more than they have.
ALTER TABLE staff_grant ADD COLUMN unit_ids uuid[];

DO $$
DECLARE tab text;
BEGIN
  FOREACH tab IN ARRAY ARRAY['sign_in_delay','staff_request'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', tab);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', tab);
    EXECUTE format('CREATE POLICY one_tenant ON %I USING (tenant_id = (SELECT '
      'NULLIF(current_setting(''nexus.tenant'', true), '''')::uuid))', tab);
    EXECUTE format('CREATE TRIGGER fence BEFORE INSERT OR UPDATE OR DELETE ON %I '
      'FOR EACH STATEMENT WHEN (current_user = ''nexus_app'') EXECUTE FUNCTION refuse_fenced()', tab);
  END LOOP;
END $$;
GRANT SELECT, INSERT, UPDATE, DELETE ON sign_in_delay TO nexus_app;
GRANT SELECT, INSERT, UPDATE ON staff_request TO nexus_app;
