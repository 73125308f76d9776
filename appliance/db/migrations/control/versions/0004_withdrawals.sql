-- Streams that a node had to give up: until it has proved it, somebody should know.
CREATE TABLE stream_withdrawal (
  node_id uuid NOT NULL REFERENCES node (id),
  tenant_id uuid NOT NULL,
  stream uuid NOT NULL,
  name text NOT NULL,
  -- The epoch of the scope that it is no part of any more.
  epoch int NOT NULL,
  -- It is granted again at once, under another mask.
  is_again boolean NOT NULL DEFAULT false,
  at timestamptz NOT NULL DEFAULT now(),
  purged_at timestamptz,
  proof jsonb,
  PRIMARY KEY (node_id, tenant_id, stream)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON stream_withdrawal TO nexus_app;
