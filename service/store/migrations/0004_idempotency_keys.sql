-- What was answered to requests that carried an Idempotency-Key, for a day. The row is written by the transaction
-- that carries the request out, so a key without its write, or a write without its key, cannot be committed.
CREATE TABLE idempotency_keys (
    key        text COLLATE "C" NOT NULL,
    request    bytea NOT NULL,
    outcome    bytea,
    settled    boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (key),
    CONSTRAINT idempotency_keys_key_check CHECK (key ~ '^[!-~]{1,64}$')
);
-- For whoever removes what is older than a day.
CREATE INDEX idx_idempotency_keys_created_at ON idempotency_keys (created_at);
