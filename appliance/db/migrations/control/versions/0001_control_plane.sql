-- The control plane: which tenants there are, where each one lives, which nodes form the
-- installation, and the staff of the platform with their time-boxed grants.

CREATE TABLE node (
  id uuid PRIMARY KEY,
  origin bigint NOT NULL UNIQUE CHECK (origin BETWEEN 1 AND 4294967295),
  role text NOT NULL CHECK (role IN ('solo', 'hub', 'site')),
  prefix text NOT NULL UNIQUE CHECK (prefix ~ '^[A-Z0-9]{0,6}$'),
  name text NOT NULL,
  is_self boolean NOT NULL DEFAULT false,
  state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'revoked')),
  created_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX node_one_self ON node (is_self) WHERE is_self;

CREATE TABLE placement (
  id uuid PRIMARY KEY,
  name text NOT NULL UNIQUE CHECK (name ~ '^[a-z][a-z0-9_]{0,50}$'),
  sort text NOT NULL CHECK (sort IN ('pooled', 'dedicated')),
  -- The database name on this node's own server, or a key into [placements] of the settings:
  -- the row never holds a password.
  target text NOT NULL UNIQUE,
  created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE tenant (
  id uuid PRIMARY KEY,
  slug text NOT NULL UNIQUE CHECK (slug ~ '^[a-z0-9](-?[a-z0-9]){1,40}$'),
  name text NOT NULL,
  placement_id uuid NOT NULL REFERENCES placement (id),
  state text NOT NULL DEFAULT 'active'
    CHECK (state IN ('creating', 'active', 'suspended', 'moving', 'closed')),
  created_at timestamptz NOT NULL DEFAULT now()
);

-- One row whose number grows with every routing change: processes poll it (docs/tenancy.md).
CREATE TABLE routing (one boolean PRIMARY KEY DEFAULT true CHECK (one), rev bigint NOT NULL);
INSERT INTO routing (rev) VALUES (1);

CREATE FUNCTION bump_routing() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE routing SET rev = rev + 1;
  RETURN NULL;
END $$;
CREATE TRIGGER tenant_routes AFTER INSERT OR UPDATE OR DELETE ON tenant
  FOR EACH STATEMENT EXECUTE FUNCTION bump_routing();
CREATE TRIGGER placement_routes AFTER INSERT OR UPDATE OR DELETE ON placement
  FOR EACH STATEMENT EXECUTE FUNCTION bump_routing();

CREATE TABLE staff (
  id uuid PRIMARY KEY,
  email text NOT NULL UNIQUE,
  name text NOT NULL,
  password_hash text NOT NULL,
  totp_secret bytea,
  totp_step bigint NOT NULL DEFAULT 0,
  state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'suspended')),
  failures int NOT NULL DEFAULT 0,
  failed_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE staff_session (
  secret_hash bytea PRIMARY KEY,
  staff_id uuid NOT NULL REFERENCES staff (id),
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  ended_at timestamptz
);

-- When each schedule of this node ran last: a missed run is caught up once, none runs twice.
CREATE TABLE schedule_run (
  name text PRIMARY KEY,
  last_at timestamptz NOT NULL,
  took_ms int NOT NULL,
  outcome text NOT NULL
);

GRANT SELECT ON node, placement, tenant, routing TO nexus_app;
GRANT SELECT, INSERT, UPDATE ON staff, staff_session TO nexus_app;
GRANT SELECT, INSERT, UPDATE ON schedule_run TO nexus_app;
