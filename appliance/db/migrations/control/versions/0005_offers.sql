-- The hub's epoch in which a node has offered all that it has above the hub's vectors.
ALTER TABLE node_scope ADD COLUMN offered uuid;
