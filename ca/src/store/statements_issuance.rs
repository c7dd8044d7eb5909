//! Every statement of the issuance half, in one table; a test prepares each.
//!
//! Values are bound, never joined into the text (threat 37).

macro_rules! statements {
    ($($name:ident = $text:literal;)*) => {
        $(pub(super) const $name: &str = $text;)*

        /// All of them, by name.
        #[cfg(test)]
        pub(super) const ALL: &[(&str, &str)] = &[$((stringify!($name), $text)),*];
    };
}

statements! {
    AUTHORITIES_OF_KIND = "SELECT authority_id, state, is_tainted, not_before_ms, not_after_ms, public FROM authorities WHERE kind = $1 ORDER BY position";
    AUTHORITIES_INSERT = "INSERT INTO authorities (authority_id, kind, state, is_tainted, not_before_ms, not_after_ms, public, sealed_key) VALUES ($1, $2, $3, 0, $4, $5, $6, $7)";
    AUTHORITIES_SET_STATE = "UPDATE authorities SET state = $2, is_tainted = $3 WHERE authority_id = $1";
    AUTHORITIES_DESTROY_KEY = "UPDATE authorities SET sealed_key = x'' WHERE authority_id = $1";
    AUTHORITIES_KEY = "SELECT sealed_key FROM authorities WHERE authority_id = $1";
    AUTHORITIES_COUNT = "SELECT COUNT(*) FROM authorities";
    BUNDLE_STATE = "SELECT revision, sequence FROM bundle_state WHERE id = 1";
    BUNDLE_STATE_PUT = "INSERT INTO bundle_state (id, revision, sequence) VALUES (1, $1, $2) ON CONFLICT (id) DO UPDATE SET revision = excluded.revision, sequence = excluded.sequence";
    ROTATIONS_GET = "SELECT json FROM rotations WHERE kind = $1";
    ROTATIONS_PUT = "INSERT INTO rotations (kind, json) VALUES ($1, $2) ON CONFLICT (kind) DO UPDATE SET json = excluded.json";
    AGENTS_ALL = "SELECT json FROM agents ORDER BY spiffe_id";
    AGENTS_PUT = "INSERT INTO agents (spiffe_id, json) VALUES ($1, $2) ON CONFLICT (spiffe_id) DO UPDATE SET json = excluded.json";
    AGENTS_DELETE = "DELETE FROM agents WHERE spiffe_id = $1";
    TOKENS_INSERT = "INSERT INTO join_tokens (token_hash, expires_ms, used_ms) VALUES ($1, $2, NULL) ON CONFLICT (token_hash) DO NOTHING";
    TOKENS_USE = "UPDATE join_tokens SET used_ms = $2 WHERE token_hash = $1 AND used_ms IS NULL AND expires_ms > $2";
    TOKENS_GET = "SELECT expires_ms, used_ms FROM join_tokens WHERE token_hash = $1";
    ISSUED_INSERT = "INSERT INTO issued_svids (serial, kind, spiffe_id, agent_id, authority_id, entry_id, issued_ms, not_after_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    ISSUED_NEWEST = "SELECT MAX(issued_ms) FROM issued_svids";
    ISSUED_GET = "SELECT kind, not_after_ms FROM issued_svids WHERE serial = $1";
    ISSUED_END_BY_SPIFFE_ID = "SELECT MAX(not_after_ms) FROM issued_svids WHERE spiffe_id = $1";
    ISSUED_END_BY_AGENT = "SELECT MAX(not_after_ms) FROM issued_svids WHERE agent_id = $1";
    ISSUED_END_BY_AUTHORITY = "SELECT MAX(not_after_ms) FROM issued_svids WHERE authority_id = $1";
    ISSUED_LIVE_BY_AUTHORITY = "SELECT COUNT(*) FROM issued_svids WHERE authority_id = $1 AND not_after_ms >= $2";
    ISSUED_SERIALS_BY_AGENT = "SELECT serial FROM issued_svids WHERE agent_id = $1 AND kind = 'x509' AND not_after_ms >= $2 ORDER BY serial LIMIT $3";
    ISSUED_PRUNE = "DELETE FROM issued_svids WHERE not_after_ms < $1 AND issued_ms < (SELECT MAX(issued_ms) FROM issued_svids)";
}

#[cfg(test)]
mod tests {
    use super::ALL;
    use sqlx::{Connection as _, Executor as _, SqlSafeStr as _};

    #[tokio::test]
    async fn every_statement_of_the_issuance_half_prepares() {
        let mut conn = sqlx::SqliteConnection::connect("sqlite::memory:")
            .await
            .unwrap();
        sqlx::raw_sql(include_str!("schema_issuance.sql"))
            .execute(&mut conn)
            .await
            .unwrap();
        for (name, text) in ALL {
            let text: &'static str = text;
            let prepared = conn.prepare(text.into_sql_str()).await;
            assert!(prepared.is_ok(), "{name}: {:?}", prepared.err());
        }
    }
}
