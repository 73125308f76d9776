-- The file of the content plane that a run reads; NULL in runs from before, and in those whose
-- bytes the node brought itself.
ALTER TABLE intake_run ADD COLUMN blob uuid;
CREATE INDEX intake_run_blob ON intake_run (tenant_id, blob) WHERE state = 'received';
