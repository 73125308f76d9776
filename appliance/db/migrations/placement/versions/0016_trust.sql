-- Of the first entry that could not be taken in time: its dot, and how often it was tried.
ALTER TABLE peer_stream ADD COLUMN slow_entry text NOT NULL DEFAULT '',
  ADD COLUMN slow_tries int NOT NULL DEFAULT 0,
  -- On a site: what the hub has signed for last, that it had in this stream (sync/attesting).
  ADD COLUMN attested bytea;

-- At a hub: what a site's last file said of its files (sync/freight).
ALTER TABLE carrier ADD COLUMN freight bytea NOT NULL DEFAULT '';
