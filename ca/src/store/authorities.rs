//! Rows of authorities, of the bundle's sequence and of rotations.

use ravelin_proto::time::{Timestamp, Validity};
use sqlx::{Row as _, SqliteConnection};

use super::statements_issuance as sql;
use super::writer::to_i64;
use super::{Store, StoreError, WriteTx};
use crate::authority::journal::Rotation;
use crate::authority::state::{Authority, AuthoritySet, Kind, State};

/// Numbers of the bundle.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BundleState {
    /// Grows with every verb.
    pub revision: u64,
    /// Grows with every change of the bundle's content (B-1).
    pub sequence: u64,
}

/// All authorities as of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorities {
    /// Those that sign X509-SVIDs.
    pub x509: AuthoritySet,
    /// Those that sign JWT-SVIDs.
    pub jwt: AuthoritySet,
    /// The bundle's numbers.
    pub bundle: BundleState,
}

impl Authorities {
    /// The set of one kind.
    pub fn of(&self, kind: Kind) -> &AuthoritySet {
        match kind {
            Kind::X509 => &self.x509,
            Kind::Jwt => &self.jwt,
        }
    }

    /// With another set in the place of the one of its kind.
    #[must_use]
    pub fn with(mut self, set: AuthoritySet) -> Self {
        match set.kind() {
            Kind::X509 => self.x509 = set,
            Kind::Jwt => self.jwt = set,
        }
        self
    }
}

fn row_error(detail: impl Into<String>) -> StoreError {
    StoreError::Row {
        table: "authorities",
        detail: detail.into(),
    }
}

async fn set_of(conn: &mut SqliteConnection, kind: Kind) -> Result<AuthoritySet, StoreError> {
    let rows = sqlx::query(sql::AUTHORITIES_OF_KIND)
        .bind(kind.name())
        .fetch_all(conn)
        .await?;
    let mut all = Vec::with_capacity(rows.len());
    for row in rows {
        let state: String = row.try_get(1)?;
        all.push(Authority {
            id: row.try_get(0)?,
            kind,
            state: State::from_name(&state)
                .ok_or_else(|| row_error(format!("`{state}` is no state")))?,
            is_tainted: row.try_get::<i64, _>(2)? != 0,
            validity: Validity {
                not_before: Timestamp::from_unix_millis(row.try_get(3)?),
                not_after: Timestamp::from_unix_millis(row.try_get(4)?),
            },
            public: row.try_get(5)?,
        });
    }
    Ok(AuthoritySet::new(kind, all))
}

async fn load(conn: &mut SqliteConnection) -> Result<Authorities, StoreError> {
    let state = sqlx::query(sql::BUNDLE_STATE)
        .fetch_optional(&mut *conn)
        .await?;
    let number = |index: usize| -> Result<u64, StoreError> {
        let Some(row) = &state else { return Ok(0) };
        Ok(u64::try_from(row.try_get::<i64, _>(index)?).unwrap_or(0))
    };
    let bundle = BundleState {
        revision: number(0)?,
        sequence: number(1)?,
    };
    let x509 = set_of(conn, Kind::X509).await?;
    Ok(Authorities {
        x509,
        jwt: set_of(conn, Kind::Jwt).await?,
        bundle,
    })
}

async fn rotation(conn: &mut SqliteConnection, kind: Kind) -> Result<Option<Rotation>, StoreError> {
    let row = sqlx::query(sql::ROTATIONS_GET)
        .bind(kind.name())
        .fetch_optional(conn)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let json: String = row.try_get(0)?;
    serde_json::from_str(&json)
        .map(Some)
        .map_err(|error| StoreError::Row {
            table: "rotations",
            detail: error.to_string(),
        })
}

impl Store {
    /// All authorities as of the last commit.
    pub async fn authorities(&self) -> Result<Authorities, StoreError> {
        let mut tx = self.readers().begin().await?;
        load(&mut tx).await
    }

    /// The sealed key of an authority; empty when it was destroyed.
    pub async fn sealed_key(&self, id: &str) -> Result<Vec<u8>, StoreError> {
        let row = sqlx::query(sql::AUTHORITIES_KEY)
            .bind(id)
            .fetch_optional(self.readers())
            .await?;
        row.map_or(Ok(Vec::new()), |row| Ok(row.try_get(0)?))
    }

    /// True when no authority was ever made here.
    pub async fn has_no_authority(&self) -> Result<bool, StoreError> {
        let row = sqlx::query(sql::AUTHORITIES_COUNT)
            .fetch_one(self.readers())
            .await?;
        Ok(row.try_get::<i64, _>(0)? == 0)
    }

    /// The last rotation of a kind.
    pub async fn rotation(&self, kind: Kind) -> Result<Option<Rotation>, StoreError> {
        let mut conn = self.readers().acquire().await?;
        rotation(&mut conn, kind).await
    }
}

impl WriteTx {
    /// All authorities, with what was written before in this transaction.
    pub(crate) async fn authorities(&mut self) -> Result<Authorities, StoreError> {
        load(self.conn()).await
    }

    /// Adds a prepared authority and its sealed key.
    pub(crate) async fn insert_authority(
        &mut self,
        authority: &Authority,
        sealed_key: &[u8],
    ) -> Result<(), StoreError> {
        sqlx::query(sql::AUTHORITIES_INSERT)
            .bind(&authority.id)
            .bind(authority.kind.name())
            .bind(authority.state.name())
            .bind(authority.validity.not_before.unix_millis())
            .bind(authority.validity.not_after.unix_millis())
            .bind(&authority.public)
            .bind(sealed_key)
            .execute(self.conn())
            .await?;
        Ok(())
    }

    /// Writes the states of a set. Whoever signs no more loses the key.
    pub(crate) async fn save_authorities(&mut self, set: &AuthoritySet) -> Result<(), StoreError> {
        for authority in set.all() {
            sqlx::query(sql::AUTHORITIES_SET_STATE)
                .bind(&authority.id)
                .bind(authority.state.name())
                .bind(i64::from(authority.is_tainted))
                .execute(self.conn())
                .await?;
            if matches!(authority.state, State::Retired | State::Revoked) {
                sqlx::query(sql::AUTHORITIES_DESTROY_KEY)
                    .bind(&authority.id)
                    .execute(self.conn())
                    .await?;
            }
        }
        Ok(())
    }

    /// Writes the bundle's numbers.
    pub(crate) async fn save_bundle_state(&mut self, state: BundleState) -> Result<(), StoreError> {
        sqlx::query(sql::BUNDLE_STATE_PUT)
            .bind(to_i64(state.revision))
            .bind(to_i64(state.sequence))
            .execute(self.conn())
            .await?;
        Ok(())
    }

    /// Records where a rotation stands.
    pub(crate) async fn save_rotation(
        &mut self,
        kind: Kind,
        rotation: &Rotation,
    ) -> Result<(), StoreError> {
        let json = serde_json::to_string(rotation).map_err(|error| StoreError::Row {
            table: "rotations",
            detail: error.to_string(),
        })?;
        sqlx::query(sql::ROTATIONS_PUT)
            .bind(kind.name())
            .bind(json)
            .execute(self.conn())
            .await?;
        Ok(())
    }
}
