//! Every statement of the state half, in one table; a test prepares each.
//!
//! Values are bound, never joined into the text (threat 37).

macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident = $text:expr;)*) => {
        $($(#[$doc])* pub(crate) const $name: &str = $text;)*

        /// All of them, by name.
        #[cfg(test)]
        pub(crate) const ALL: &[(&str, &str)] = &[$((stringify!($name), $text)),*];
    };
}

/// Leaves that meet a filter; an empty text asks for nothing.
macro_rules! leaves_where {
    () => {
        "SELECT idx, time_ms, kind, json FROM audit_leaves \
         WHERE idx >= $1 AND idx < $2 AND time_ms >= $3 AND time_ms <= $4 \
         AND ($5 = '' OR kind = $5) AND ($6 = '' OR substr(kind, 1, length($6)) = $6) \
         AND ($7 = '' OR actor = $7) AND ($8 = '' OR spiffe_id = $8) \
         AND ($9 = '' OR agent_id = $9) AND ($10 = '' OR serial = $10) \
         AND ($11 = '' OR jti = $11)"
    };
}

/// Decisions that meet a filter; an empty text or -1 asks for nothing.
macro_rules! decisions_where {
    () => {
        "SELECT d.leaf_index, d.position, d.time_ms, \
         CASE d.is_allowed WHEN 1 THEN 'call.allowed' ELSE 'call.denied' END, d.json \
         FROM decisions d \
         WHERE d.leaf_index >= $1 AND d.leaf_index < $2 AND d.time_ms >= $3 AND d.time_ms <= $4 \
         AND ($8 = '' OR $8 = CASE d.is_allowed WHEN 1 THEN 'call.allowed' ELSE 'call.denied' END) \
         AND ($9 = '' OR $9 = substr(CASE d.is_allowed WHEN 1 THEN 'call.allowed' ELSE 'call.denied' END, 1, length($9))) \
         AND ($10 = '' OR d.workload = $10 OR d.peer = $10) AND ($11 = '' OR d.peer = $11) \
         AND ($12 = '' OR d.policy = $12) AND ($13 = -1 OR d.rule = $13) \
         AND ($14 = -1 OR d.is_allowed = $14) AND ($15 = '' OR d.serial = $15) \
         AND ($16 = '' OR d.jti = $16) \
         AND ($17 = '' OR EXISTS (SELECT 1 FROM decision_segments s WHERE s.leaf_index = d.leaf_index AND s.agent_id = $17))"
    };
}

statements! {
    META_PUT = "INSERT INTO meta (name, value) VALUES ($1, $2)";
    META_GET = "SELECT value FROM meta WHERE name = $1";

    META_SET = "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";

    META_ALL = "SELECT name, value FROM meta ORDER BY name";

    CHANGES_ALL = "SELECT revision, kind, subject, parent_before, is_structural FROM changes ORDER BY revision";
    CHANGES_BOUNDS = "SELECT COALESCE(MIN(revision), 1), COALESCE(MAX(revision), 0) FROM changes";
    CHANGES_SINCE = "SELECT revision, kind, subject, parent_before, is_structural FROM changes WHERE revision > $1 ORDER BY revision";
    CHANGES_INSERT = "INSERT INTO changes (revision, kind, subject, parent_before, is_structural) VALUES ($1, $2, $3, $4, $5)";
    CHANGES_TRIM = "DELETE FROM changes WHERE revision <= $1";

    ENTRIES_ALL = "SELECT id, json FROM entries ORDER BY id";
    ENTRIES_PUT = "INSERT INTO entries (id, json) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET json = excluded.json";
    ENTRIES_DELETE = "DELETE FROM entries WHERE id = $1";

    MESH_LAST = "SELECT COALESCE(MAX(revision), 0) FROM mesh_revisions";

    MESH_ALL = "SELECT revision, digest, git_commit, created_ms, created_by FROM mesh_revisions ORDER BY revision";
    MESH_FILES_ALL = "SELECT revision, path, digest FROM mesh_files ORDER BY revision, path";
    MESH_CONTENTS_ALL = "SELECT digest, content FROM mesh_contents ORDER BY digest";
    MESH_GET = "SELECT digest, git_commit, created_ms, created_by FROM mesh_revisions WHERE revision = $1";
    MESH_INSERT = "INSERT INTO mesh_revisions (revision, digest, git_commit, created_ms, created_by) VALUES ($1, $2, $3, $4, $5)";
    MESH_CONTENT_PUT = "INSERT INTO mesh_contents (digest, content) VALUES ($1, $2) ON CONFLICT (digest) DO NOTHING";
    MESH_FILE_INSERT = "INSERT INTO mesh_files (revision, path, digest) VALUES ($1, $2, $3)";
    MESH_FILES = "SELECT f.path, c.content FROM mesh_files f JOIN mesh_contents c ON c.digest = f.digest WHERE f.revision = $1 ORDER BY f.path";

    DENYLIST_ALL = "SELECT json FROM denylist ORDER BY id";
    DENYLIST_ROWS = "SELECT id, expires_ms, json FROM denylist ORDER BY id";
    DENYLIST_GET = "SELECT json FROM denylist WHERE id = $1";
    DENYLIST_INSERT = "INSERT INTO denylist (id, expires_ms, json) VALUES ($1, $2, $3)";
    DENYLIST_DELETE = "DELETE FROM denylist WHERE id = $1";
    DENYLIST_EXPIRED = "SELECT id FROM denylist WHERE expires_ms < $1 ORDER BY id";

    SEGMENTS_ALL = "SELECT leaf_index, segment_id, agent_id, records, lost FROM decision_segments ORDER BY leaf_index";
    SEGMENTS_GET = "SELECT leaf_index FROM decision_segments WHERE agent_id = $1 AND segment_id = $2";
    SEGMENTS_INSERT = "INSERT INTO decision_segments (segment_id, agent_id, leaf_index, records, lost) VALUES ($1, $2, $3, $4, $5)";
    DECISIONS_INSERT = "INSERT INTO decisions (leaf_index, position, time_ms, workload, peer, policy, rule, is_allowed, code, serial, jti, json) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
    DECISIONS_ROWS = "SELECT position, time_ms, workload, peer, policy, rule, is_allowed, code, serial, jti, json FROM decisions WHERE leaf_index = $1 ORDER BY position";
    DECISIONS_COUNT = "SELECT COUNT(*) FROM decisions";
    DECISIONS_OF_LEAF = "SELECT json FROM decisions WHERE leaf_index = $1 ORDER BY position";
    DECISIONS_PAGE = concat!(decisions_where!(), " AND (d.time_ms, d.leaf_index, d.position) > ($5, $6, $7) ORDER BY d.time_ms, d.leaf_index, d.position LIMIT $18");
    DECISIONS_PAGE_BACK = concat!(decisions_where!(), " AND (d.time_ms, d.leaf_index, d.position) > ($5, $6, $7) ORDER BY d.time_ms DESC, d.leaf_index DESC, d.position DESC LIMIT $18");

    LEAVES_FIRST_SINCE = "SELECT MIN(idx) FROM audit_leaves WHERE time_ms >= $1";
    LEAVES_PAGE = concat!(leaves_where!(), " ORDER BY idx LIMIT $12");
    LEAVES_PAGE_BACK = concat!(leaves_where!(), " ORDER BY idx DESC LIMIT $12");
    LEAVES_ALL = "SELECT idx, time_ms, kind, actor, spiffe_id, agent_id, serial, jti, json, hash FROM audit_leaves ORDER BY idx";
    LEAVES_HASHES_TO = "SELECT hash FROM audit_leaves WHERE idx < $1 ORDER BY idx";
    LEAVES_JSON = "SELECT json FROM audit_leaves WHERE idx = $1";
    LEAVES_HASHES = "SELECT hash FROM audit_leaves ORDER BY idx";
    LEAVES_INSERT = "INSERT INTO audit_leaves (idx, time_ms, kind, actor, spiffe_id, agent_id, serial, jti, json, hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    CHECKPOINTS_INSERT = "INSERT INTO audit_checkpoints (number, size, note) VALUES ($1, $2, $3)";
    CHECKPOINTS_ALL = "SELECT number, size, note FROM audit_checkpoints ORDER BY number";
    CHECKPOINTS_AT = "SELECT number, size, note FROM audit_checkpoints WHERE size <= $1 ORDER BY size DESC LIMIT 1";
    CHECKPOINTS_BETWEEN = "SELECT number, size, note FROM audit_checkpoints WHERE size > $1 AND size <= $2 ORDER BY size";
    CHECKPOINTS_LAST = "SELECT number, size, note FROM audit_checkpoints ORDER BY number DESC LIMIT 1";
}

#[cfg(test)]
mod tests {
    use super::ALL;
    use sqlx::{Executor, SqlSafeStr};

    #[tokio::test]
    async fn every_statement_of_the_state_half_prepares() {
        use sqlx::Connection;
        let mut conn = sqlx::SqliteConnection::connect("sqlite::memory:")
            .await
            .unwrap();
        for schema in super::super::open::SCHEMA {
            sqlx::raw_sql(schema).execute(&mut conn).await.unwrap();
        }
        for (name, text) in ALL {
            let text: &'static str = text;
            conn.prepare(text.into_sql_str())
                .await
                .unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
}
