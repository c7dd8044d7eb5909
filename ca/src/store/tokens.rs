//! Rows of join tokens, by their SHA-256. One statement uses a token up, so two callers cannot both.

use ravelin_proto::time::Timestamp;
use sqlx::Row as _;

use super::statements_issuance as sql;
use super::{StoreError, WriteTx};

/// What became of an attempt to use a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenUse {
    /// It is ours, from now on used.
    Taken,
    /// Somebody used it before.
    UsedBefore,
    /// Its time is over.
    Expired,
    /// There is no such token.
    Unknown,
}

impl WriteTx {
    /// Adds a token; `false` when there is one of that hash already.
    pub(crate) async fn insert_token(
        &mut self,
        hash: [u8; 32],
        expires_at: Timestamp,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query(sql::TOKENS_INSERT)
            .bind(hash.as_slice())
            .bind(expires_at.unix_millis())
            .execute(self.conn())
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Uses a token up.
    pub(crate) async fn use_token(&mut self, hash: [u8; 32]) -> Result<TokenUse, StoreError> {
        let now = self.now();
        let done = sqlx::query(sql::TOKENS_USE)
            .bind(hash.as_slice())
            .bind(now.unix_millis())
            .execute(self.conn())
            .await?;
        if done.rows_affected() == 1 {
            return Ok(TokenUse::Taken);
        }
        let row = sqlx::query(sql::TOKENS_GET)
            .bind(hash.as_slice())
            .fetch_optional(self.conn())
            .await?;
        let Some(row) = row else {
            return Ok(TokenUse::Unknown);
        };
        let used: Option<i64> = row.try_get(1)?;
        Ok(if used.is_some() {
            TokenUse::UsedBefore
        } else {
            TokenUse::Expired
        })
    }
}
