-- What replication keeps beside the log: docs/adr/0017.

-- A newer peer's operation has to be storable before this program knows it: it is parked.
ALTER TABLE change DROP CONSTRAINT change_op_check;
-- Below it only states are left; see sync/compaction.
ALTER TABLE stream ADD COLUMN floor bigint NOT NULL DEFAULT 0;

-- What concurrent entries have left in a record; NULL while nobody has written beside another.
ALTER TABLE record ADD COLUMN open bytea;
ALTER TABLE entry ADD COLUMN open bytea;

-- Values that wait for somebody to decide: a projection of records, claims and balances.
CREATE TABLE conflict (
  tenant_id uuid NOT NULL,
  record_id uuid NOT NULL,
  sort text NOT NULL CHECK (sort IN ('field', 'edit_vs_delete', 'proposal', 'unique',
    'dangling_ref', 'negative_stock', 'schema')),
  register text NOT NULL,
  kind text NOT NULL,
  stream uuid NOT NULL,
  sides jsonb NOT NULL,
  since timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, record_id, sort, register)
);
CREATE INDEX conflict_newest ON conflict (tenant_id, since, record_id);

-- Transactions of peers that were not applied: with their place in the chain (is_logged), or held
-- before it, as what a revoked node still sends.
CREATE TABLE parked (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  stream uuid NOT NULL,
  origin bigint NOT NULL,
  oseq bigint NOT NULL,
  peer bigint NOT NULL,
  entries int NOT NULL,
  reason text NOT NULL,
  detail text NOT NULL DEFAULT '',
  body bytea NOT NULL,
  is_logged boolean NOT NULL,
  state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'released', 'skipped')),
  at timestamptz NOT NULL DEFAULT now(),
  decided_by uuid,
  decided_at timestamptz,
  PRIMARY KEY (tenant_id, id)
);
CREATE UNIQUE INDEX parked_place ON parked (tenant_id, stream, origin, oseq);
CREATE INDEX parked_waiting ON parked (tenant_id, at) WHERE state = 'waiting';

-- Records of which entries came before their creation did.
CREATE TABLE early (
  tenant_id uuid NOT NULL,
  record_id uuid NOT NULL,
  PRIMARY KEY (tenant_id, record_id)
);

-- How far each peer and this node are with each other, by the peer's origin.
CREATE TABLE peer_stream (
  tenant_id uuid NOT NULL,
  peer bigint NOT NULL,
  stream uuid NOT NULL,
  cursor bigint NOT NULL DEFAULT 0,
  acked bigint NOT NULL DEFAULT 0,
  epoch int NOT NULL DEFAULT 0,
  seen_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, peer, stream)
);

-- The hub's word on the time of entries whose author's clock was ahead; the log is never updated.
CREATE TABLE clock_cut (
  tenant_id uuid NOT NULL,
  stream uuid NOT NULL,
  origin bigint NOT NULL,
  oseq bigint NOT NULL,
  ehlc bigint NOT NULL,
  PRIMARY KEY (tenant_id, stream, origin, oseq)
);

DO $$
DECLARE tab text;
BEGIN
  FOREACH tab IN ARRAY ARRAY['conflict','parked','early','peer_stream','clock_cut'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', tab);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', tab);
    EXECUTE format('CREATE POLICY one_tenant ON %I USING (tenant_id = (SELECT '
      'NULLIF(current_setting(''nexus.tenant'', true), '''')::uuid))', tab);
    EXECUTE format('CREATE TRIGGER fence BEFORE INSERT OR UPDATE OR DELETE ON %I '
      'FOR EACH STATEMENT WHEN (current_user = ''nexus_app'') EXECUTE FUNCTION refuse_fenced()', tab);
  END LOOP;
END $$;

GRANT SELECT, INSERT, UPDATE, DELETE ON conflict, parked, early, peer_stream, clock_cut TO nexus_app;
