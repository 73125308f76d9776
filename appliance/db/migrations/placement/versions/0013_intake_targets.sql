-- Of what sort each staged row is, and what only the whole reading says: rows by entity, totals,
-- facts of the head, warnings, values that nobody has mapped yet.
ALTER TABLE intake_row ADD COLUMN entity text NOT NULL DEFAULT '';
ALTER TABLE intake_run ADD COLUMN told jsonb NOT NULL DEFAULT '{}';
