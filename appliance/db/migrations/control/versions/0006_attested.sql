-- Since when a node is given signed heads: from then on it is believed by them alone.
ALTER TABLE node ADD COLUMN attested_at timestamptz;
