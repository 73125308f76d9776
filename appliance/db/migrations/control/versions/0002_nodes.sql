-- The nodes of an installation: who they are, what they may hold, how they prove themselves.

ALTER TABLE node
  ADD COLUMN public_key bytea,
  ADD COLUMN url text NOT NULL DEFAULT '',
  ADD COLUMN incarnation int NOT NULL DEFAULT 1,
  ADD COLUMN former_origins bigint[] NOT NULL DEFAULT '{}',
  ADD COLUMN joined_at timestamptz,
  ADD COLUMN seen_at timestamptz,
  ADD COLUMN revoked_at timestamptz,
  ADD COLUMN revoked_reason text NOT NULL DEFAULT '';

-- What a node holds of a tenant: NULL units are all. `epoch` grows with every change of it.
CREATE TABLE node_scope (
  node_id uuid NOT NULL REFERENCES node (id),
  tenant_id uuid NOT NULL,
  unit_ids uuid[],
  masks jsonb NOT NULL DEFAULT '{}',
  epoch int NOT NULL DEFAULT 1,
  state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'withdrawn', 'purged')),
  changed_at timestamptz NOT NULL DEFAULT now(),
  purged_at timestamptz,
  proof jsonb,
  PRIMARY KEY (node_id, tenant_id)
);

-- One-time codes that let a new node in.
CREATE TABLE node_invitation (
  code_hash bytea PRIMARY KEY,
  name text NOT NULL,
  prefix text NOT NULL,
  tenant_id uuid NOT NULL,
  unit_ids uuid[],
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  used_at timestamptz,
  node_id uuid
);

-- A node's running conversation: each request counts up, so that none is taken twice.
CREATE TABLE node_session (
  nonce bytea PRIMARY KEY,
  node_id uuid NOT NULL REFERENCES node (id),
  counter bigint NOT NULL DEFAULT 0,
  expires_at timestamptz NOT NULL
);

GRANT SELECT, INSERT, UPDATE ON node, node_scope, node_invitation TO nexus_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON node_session TO nexus_app;
