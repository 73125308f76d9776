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
  -- Under which mask the node still has it: granted again under the same, nothing has to go.
  held_mask text NOT NULL DEFAULT '',
  at timestamptz NOT NULL DEFAULT now(),
  purged_at timestamptz,
  proof jsonb,
  PRIMARY KEY (node_id, tenant_id, stream)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON stream_withdrawal TO nexus_app;

-- A site forgets a tenant that it has given back; at a hub tenants are erased by their owner's role.
CREATE FUNCTION forget_tenant(gone uuid) RETURNS void
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM node WHERE is_self AND role = 'site') THEN
    RAISE EXCEPTION 'this node is no site' USING ERRCODE = 'NX002';
  END IF;
  DELETE FROM node_invitation WHERE tenant_id = gone;
  DELETE FROM stream_withdrawal WHERE tenant_id = gone;
  DELETE FROM node_scope WHERE tenant_id = gone;
  DELETE FROM tenant WHERE id = gone;
END $$;
REVOKE ALL ON FUNCTION forget_tenant FROM PUBLIC;
GRANT EXECUTE ON FUNCTION forget_tenant TO nexus_app;
GRANT MAINTAIN ON tenant TO nexus_app;
