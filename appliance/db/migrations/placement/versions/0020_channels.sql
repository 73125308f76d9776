-- What a channel was given of each product or variant (nil: the product itself), and which price
-- waits for a person (channels/kept). `turn` counts how often people asked for it again.
CREATE TABLE channel_offer (
  tenant_id uuid NOT NULL,
  channel_id uuid NOT NULL,
  product_id uuid NOT NULL,
  variant_id uuid NOT NULL,
  product_at timestamptz NOT NULL,
  sku text NOT NULL,
  revision text NOT NULL,
  changed_at timestamptz NOT NULL,
  is_gone boolean NOT NULL DEFAULT false,
  price numeric,
  currency text NOT NULL DEFAULT '',
  held_price numeric,
  held_code text NOT NULL DEFAULT '',
  held_at timestamptz,
  released numeric,
  turn bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (tenant_id, channel_id, product_id, variant_id)
);
CREATE INDEX channel_offer_place ON channel_offer (tenant_id, channel_id, product_at, product_id);
CREATE INDEX channel_offer_sku ON channel_offer (tenant_id, channel_id, sku);
CREATE INDEX channel_offer_held ON channel_offer (tenant_id, channel_id, held_at)
  WHERE held_price IS NOT NULL;

-- A feed by what its reader may see (channels/sight): the file that is served, and one that waits.
CREATE TABLE channel_feed (
  tenant_id uuid NOT NULL,
  channel_id uuid NOT NULL,
  form text NOT NULL,
  sight text NOT NULL,
  state text NOT NULL DEFAULT 'asked' CHECK (state IN ('asked', 'published', 'held', 'failed')),
  detail text NOT NULL DEFAULT '',
  actor uuid NOT NULL,
  profile_id uuid NOT NULL,
  units uuid[] NOT NULL DEFAULT '{}',
  job_id uuid,
  queued_at timestamptz,
  polled_at timestamptz NOT NULL DEFAULT now(),
  made_at timestamptz,
  file text NOT NULL DEFAULT '',
  offers bigint NOT NULL DEFAULT 0,
  bytes bigint NOT NULL DEFAULT 0,
  published_at timestamptz,
  held_file text NOT NULL DEFAULT '',
  held_offers bigint NOT NULL DEFAULT 0,
  held_bytes bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (tenant_id, channel_id, form, sight)
);

-- How pushes of workers and makings of feeds went (`form`: the feed's, empty for a push).
CREATE TABLE channel_report (
  tenant_id uuid NOT NULL,
  id uuid NOT NULL,
  channel_id uuid NOT NULL,
  form text NOT NULL DEFAULT '',
  worker text NOT NULL DEFAULT '',
  actor uuid NOT NULL,
  dry_run boolean NOT NULL DEFAULT false,
  sent bigint NOT NULL DEFAULT 0,
  confirmed bigint NOT NULL DEFAULT 0,
  refused bigint NOT NULL DEFAULT 0,
  held bigint NOT NULL DEFAULT 0,
  detail text NOT NULL DEFAULT '',
  started_at timestamptz NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id)
);
CREATE INDEX channel_report_newest ON channel_report (tenant_id, channel_id, at, id);

-- Items that did not get through, one row each, until they do: dead letters.
CREATE TABLE channel_fault (
  tenant_id uuid NOT NULL,
  channel_id uuid NOT NULL,
  form text NOT NULL DEFAULT '',
  sku text NOT NULL,
  report_id uuid NOT NULL,
  code text NOT NULL,
  field text NOT NULL DEFAULT '',
  detail text NOT NULL DEFAULT '',
  state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'asked')),
  looks bigint NOT NULL DEFAULT 0,
  times bigint NOT NULL DEFAULT 1,
  first_at timestamptz NOT NULL DEFAULT now(),
  at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, channel_id, form, sku, field)
);

DO $$
DECLARE tab text;
BEGIN
  FOREACH tab IN ARRAY ARRAY['channel_offer', 'channel_feed', 'channel_report', 'channel_fault'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', tab);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', tab);
    EXECUTE format('CREATE POLICY one_tenant ON %I USING (tenant_id = (SELECT '
      'NULLIF(current_setting(''nexus.tenant'', true), '''')::uuid))', tab);
    EXECUTE format('CREATE TRIGGER fence BEFORE INSERT OR UPDATE OR DELETE ON %I '
      'FOR EACH STATEMENT WHEN (current_user = ''nexus_app'') EXECUTE FUNCTION refuse_fenced()', tab);
  END LOOP;
END $$;
GRANT SELECT, INSERT, UPDATE, DELETE, MAINTAIN ON channel_offer, channel_feed, channel_report,
  channel_fault TO nexus_app;
