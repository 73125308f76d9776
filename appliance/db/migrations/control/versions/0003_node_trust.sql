-- How nodes go on trusting each other: origins are given once, keys follow each other by proof,
-- and a hub that was put back from a backup says so.

-- Never counts back, so that no two nodes ever write under one origin.
CREATE TABLE origin_issued (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  last bigint NOT NULL CHECK (last BETWEEN 1 AND 4294967295)
);
INSERT INTO origin_issued (last)
  SELECT coalesce(max(greatest(n.origin, coalesce(f.most, 0))), 1)
  FROM node n LEFT JOIN LATERAL (SELECT max(x) AS most FROM unnest(n.former_origins) AS x) f ON true;

CREATE TABLE node_key_rotation (
  node_id uuid NOT NULL,
  old_key bytea NOT NULL,
  new_key bytea NOT NULL,
  by_old bytea NOT NULL,
  by_new bytea NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (node_id, old_key)
);

-- The history this hub is in: a new one begins when it was put back from a backup. On a site the
-- row is what its hub said last.
CREATE TABLE hub_epoch (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  id uuid NOT NULL DEFAULT gen_random_uuid(),
  number int NOT NULL DEFAULT 1,
  began_at timestamptz NOT NULL DEFAULT now(),
  reason text NOT NULL DEFAULT ''
);
INSERT INTO hub_epoch DEFAULT VALUES;

-- The origin that this node's running processes write under; a new one is theirs once they restart.
ALTER TABLE node ADD COLUMN running_origin bigint;

GRANT SELECT, UPDATE ON origin_issued, hub_epoch TO nexus_app;
GRANT SELECT, INSERT ON node_key_rotation TO nexus_app;
GRANT DELETE ON node_invitation TO nexus_app;
