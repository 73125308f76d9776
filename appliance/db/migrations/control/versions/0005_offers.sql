-- The hub's epoch in which a node has offered all that it has above the hub's vectors.
ALTER TABLE node_scope ADD COLUMN offered uuid;

-- What is kept from a node from its first day, and for which node a code is that exists already.
ALTER TABLE node_invitation ADD COLUMN masks jsonb NOT NULL DEFAULT '{}', ADD COLUMN for_node uuid;
