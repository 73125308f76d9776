-- Where the log of the shared stream stood when a plan was made: what was written behind it may
-- have made the plan out of date. NULL in runs from before.
ALTER TABLE intake_run ADD COLUMN head bigint;
