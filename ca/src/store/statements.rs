//! Every statement of the state half, in one table; a test prepares each.
//!
//! Values are bound, never joined into the text (threat 37).

macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$doc])* pub(crate) const $name: &str = $text;)*

        /// All of them, by name.
        #[cfg(test)]
        pub(crate) const ALL: &[(&str, &str)] = &[$((stringify!($name), $text)),*];
    };
}

statements! {
    META_PUT = "INSERT INTO meta (name, value) VALUES ($1, $2)";
    META_GET = "SELECT value FROM meta WHERE name = $1";

    CHANGES_BOUNDS = "SELECT COALESCE(MIN(revision), 1), COALESCE(MAX(revision), 0) FROM changes";
    CHANGES_SINCE = "SELECT revision, kind, subject, parent_before FROM changes WHERE revision > $1 ORDER BY revision";
    CHANGES_INSERT = "INSERT INTO changes (revision, kind, subject, parent_before) VALUES ($1, $2, $3, $4)";
    CHANGES_TRIM = "DELETE FROM changes WHERE revision <= $1";
    CHANGES_LAST_OF_KIND = "SELECT COALESCE(MAX(revision), 0) FROM changes WHERE kind = $1";

    ENTRIES_ALL = "SELECT id, json FROM entries ORDER BY id";
    ENTRIES_PUT = "INSERT INTO entries (id, json) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET json = excluded.json";
    ENTRIES_DELETE = "DELETE FROM entries WHERE id = $1";

    MESH_LAST = "SELECT COALESCE(MAX(revision), 0) FROM mesh_revisions";

    LEAVES_HASHES = "SELECT hash FROM audit_leaves ORDER BY idx";
    LEAVES_INSERT = "INSERT INTO audit_leaves (idx, time_ms, kind, actor, spiffe_id, agent_id, serial, jti, json, hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    CHECKPOINTS_INSERT = "INSERT INTO audit_checkpoints (number, size, note) VALUES ($1, $2, $3)";
    CHECKPOINTS_LAST = "SELECT number, size, note FROM audit_checkpoints ORDER BY number DESC LIMIT 1";
}

#[cfg(test)]
mod tests {
    use super::ALL;
    use sqlx::{Executor, SqlSafeStr};

    #[tokio::test]
    async fn every_statement_of_the_state_half_prepares() {
        use sqlx::Connection;
        let mut conn = sqlx::SqliteConnection::connect("sqlite::memory:").await.unwrap();
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
