-- How far each import is that has not ended, written by the transactions that take its lines: so it cannot disagree
-- with the users when an import is killed, and the same list goes on from there.
CREATE TABLE imports (
    list       bytea NOT NULL,
    line       bigint NOT NULL DEFAULT 0,
    created    bigint NOT NULL DEFAULT 0,
    updated    bigint NOT NULL DEFAULT 0,
    unchanged  bigint NOT NULL DEFAULT 0,
    refused    bigint NOT NULL DEFAULT 0,
    rejects    bigint NOT NULL DEFAULT 0,
    touched_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT imports_pkey PRIMARY KEY (list)
);
-- Users and names of such an import that another line of its list may be about too.
CREATE TABLE import_lines (
    list bytea NOT NULL,
    line bigint NOT NULL,
    id   text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL
);
CREATE INDEX idx_import_lines_id ON import_lines (list, id);
CREATE INDEX idx_import_lines_name ON import_lines (list, name);
