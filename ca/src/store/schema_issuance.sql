-- Tables of the issuance half: authorities and their sealed keys, the bundle's sequence, rotations, agents, join
-- tokens, and what was issued.

CREATE TABLE IF NOT EXISTS authorities (
    position      INTEGER PRIMARY KEY NOT NULL,
    authority_id  TEXT NOT NULL UNIQUE,
    kind          TEXT NOT NULL,
    state         TEXT NOT NULL,
    is_tainted    INTEGER NOT NULL,
    not_before_ms INTEGER NOT NULL,
    not_after_ms  INTEGER NOT NULL,
    public        BLOB NOT NULL,
    -- Sealed under the key-encryption key; empty once the authority signs no more.
    sealed_key    BLOB NOT NULL
) STRICT;

-- One row. `revision` grows with every verb, `sequence` with every change of the bundle's content.
CREATE TABLE IF NOT EXISTS bundle_state (
    id       INTEGER PRIMARY KEY NOT NULL CHECK (id = 1),
    revision INTEGER NOT NULL,
    sequence INTEGER NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS rotations (
    kind TEXT PRIMARY KEY NOT NULL,
    json TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS agents (
    spiffe_id TEXT PRIMARY KEY NOT NULL,
    json      TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- A token is known by its SHA-256 alone. A used one stays, so that it can never be made again.
CREATE TABLE IF NOT EXISTS join_tokens (
    token_hash BLOB PRIMARY KEY NOT NULL,
    expires_ms INTEGER NOT NULL,
    used_ms    INTEGER
) STRICT, WITHOUT ROWID;

-- What was intended to be issued; `serial` is the `jti` of a JWT-SVID.
CREATE TABLE IF NOT EXISTS issued_svids (
    serial       TEXT PRIMARY KEY NOT NULL,
    kind         TEXT NOT NULL,
    spiffe_id    TEXT NOT NULL,
    agent_id     TEXT NOT NULL,
    authority_id TEXT NOT NULL,
    entry_id     TEXT NOT NULL,
    issued_ms    INTEGER NOT NULL,
    not_after_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS issued_by_spiffe_id ON issued_svids (spiffe_id, not_after_ms);
CREATE INDEX IF NOT EXISTS issued_by_agent_id ON issued_svids (agent_id, not_after_ms);
CREATE INDEX IF NOT EXISTS issued_by_authority ON issued_svids (authority_id, not_after_ms);
CREATE INDEX IF NOT EXISTS issued_by_time ON issued_svids (issued_ms);
CREATE INDEX IF NOT EXISTS issued_by_end ON issued_svids (not_after_ms);
