-- Tables of the state half: registry, change log, mesh revisions, deny-list, audit log, decisions.
-- Every table here except `meta` and `changes` is covered leaf by leaf by the audit log,
-- so nothing stands in it that `audit::verify_store` could not recompute.

CREATE TABLE IF NOT EXISTS meta (
    name  TEXT PRIMARY KEY NOT NULL,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Commit-ordered: one writer, so a revision that is visible has no gap below it.
CREATE TABLE IF NOT EXISTS changes (
    revision      INTEGER PRIMARY KEY NOT NULL,
    kind          TEXT NOT NULL,
    subject       TEXT NOT NULL,
    parent_before TEXT NOT NULL,
    is_structural INTEGER NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS entries (
    id   TEXT PRIMARY KEY NOT NULL,
    json TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS mesh_revisions (
    revision   INTEGER PRIMARY KEY NOT NULL,
    digest     TEXT NOT NULL,
    git_commit TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    created_by TEXT NOT NULL
) STRICT;

-- Contents by SHA-256, so that an unchanged file is kept once.
CREATE TABLE IF NOT EXISTS mesh_contents (
    digest  TEXT PRIMARY KEY NOT NULL,
    content BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS mesh_files (
    revision INTEGER NOT NULL,
    path     TEXT NOT NULL,
    digest   TEXT NOT NULL,
    PRIMARY KEY (revision, path)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS denylist (
    id         TEXT PRIMARY KEY NOT NULL,
    expires_ms INTEGER NOT NULL,
    json       TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS audit_leaves (
    idx       INTEGER PRIMARY KEY NOT NULL,
    time_ms   INTEGER NOT NULL,
    kind      TEXT NOT NULL,
    actor     TEXT NOT NULL,
    spiffe_id TEXT NOT NULL,
    agent_id  TEXT NOT NULL,
    serial    TEXT NOT NULL,
    jti       TEXT NOT NULL,
    json      TEXT NOT NULL,
    hash      BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS audit_leaves_by_time ON audit_leaves (time_ms);
CREATE INDEX IF NOT EXISTS audit_leaves_by_kind ON audit_leaves (kind, idx);
CREATE INDEX IF NOT EXISTS audit_leaves_by_spiffe_id ON audit_leaves (spiffe_id, idx) WHERE spiffe_id <> '';
CREATE INDEX IF NOT EXISTS audit_leaves_by_agent_id ON audit_leaves (agent_id, idx) WHERE agent_id <> '';
CREATE INDEX IF NOT EXISTS audit_leaves_by_serial ON audit_leaves (serial) WHERE serial <> '';
CREATE INDEX IF NOT EXISTS audit_leaves_by_jti ON audit_leaves (jti) WHERE jti <> '';

-- One a group commit. `number` has no gaps; `note` is the whole C2SP signed note.
CREATE TABLE IF NOT EXISTS audit_checkpoints (
    number INTEGER PRIMARY KEY NOT NULL,
    size   INTEGER NOT NULL UNIQUE,
    note   TEXT NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS decision_segments (
    segment_id TEXT NOT NULL,
    agent_id   TEXT NOT NULL,
    leaf_index INTEGER NOT NULL UNIQUE,
    records    INTEGER NOT NULL,
    lost       INTEGER NOT NULL,
    PRIMARY KEY (agent_id, segment_id)
) STRICT, WITHOUT ROWID;

-- The lines of a segment in order, with what queries ask for drawn out of `json`.
CREATE TABLE IF NOT EXISTS decisions (
    leaf_index INTEGER NOT NULL,
    position   INTEGER NOT NULL,
    time_ms    INTEGER NOT NULL,
    workload   TEXT NOT NULL,
    peer       TEXT NOT NULL,
    policy     TEXT NOT NULL,
    rule       INTEGER NOT NULL,
    is_allowed INTEGER NOT NULL,
    code       TEXT NOT NULL,
    serial     TEXT NOT NULL,
    jti        TEXT NOT NULL,
    json       TEXT NOT NULL,
    PRIMARY KEY (leaf_index, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS decisions_by_time ON decisions (time_ms);
CREATE INDEX IF NOT EXISTS decisions_by_peer ON decisions (peer, time_ms);
CREATE INDEX IF NOT EXISTS decisions_by_workload ON decisions (workload, time_ms);
CREATE INDEX IF NOT EXISTS decisions_by_denied ON decisions (is_allowed, time_ms) WHERE is_allowed = 0;
