//! Enrolment tokens: which new nodes may come in, how many, and until when.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension};
use skerry_wire::api::TokenSummary;
use skerry_wire::{Timestamp, TokenId};

use super::audit::{self, By};
use super::{SqliteStore, StoreError};
use crate::secret::equal;

/// A token to be kept; the secret itself is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    /// The public half.
    pub id: TokenId,
    /// SHA-256 of the secret.
    pub secret_hash: [u8; 32],
    /// Node pool of the nodes that enrol with it.
    pub pool: String,
    /// How many node keys may use it.
    pub uses: u32,
    /// When it ends; never when none.
    pub expires_at: Option<Timestamp>,
}

/// Why a token does not let a node in.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TokenRefusal {
    /// No such token, or another secret.
    #[error("the enrolment token is not known")]
    Unknown,
    /// Its time is over.
    #[error("the enrolment token has expired")]
    Expired,
    /// It was used as often as it may be.
    #[error("the enrolment token is used up: all of its {0} uses are taken")]
    UsedUp(u32),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for TokenRefusal {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Enrolment tokens.
#[async_trait]
pub trait TokenStore {
    /// Adds a token.
    async fn add_token(&self, token: NewToken, by: By) -> Result<(), StoreError>;

    /// All tokens, oldest first.
    async fn tokens(&self) -> Result<Vec<TokenSummary>, StoreError>;

    /// Removes a token; nodes that enrolled with it stay. `false` when there was none.
    async fn remove_token(&self, id: TokenId, by: By) -> Result<bool, StoreError>;
}

/// Uses a token for a node key as a part of the transaction that makes the node known, and gives the node pool. The same key again
/// is not another use, and is let in after the end of the token too: a node whose reply was lost repeats its request.
pub(super) fn use_token(
    connection: &Connection,
    (id, secret_hash): (TokenId, [u8; 32]),
    key: &[u8; 32],
    now: Timestamp,
) -> Result<String, TokenRefusal> {
    let token = connection
        .prepare_cached("SELECT secret_hash, pool, uses, used, expires_at FROM tokens WHERE id = ?1")?
        .query_row([id.as_bytes()], |row| {
            Ok((row.get::<_, [u8; 32]>(0)?, row.get(1)?, row.get(2)?, row.get::<_, u32>(3)?, row.get::<_, Option<i64>>(4)?))
        })
        .optional()?;
    let (kept_hash, pool, uses, used, expires_at): (_, String, u32, _, _) = token.ok_or(TokenRefusal::Unknown)?;
    if !equal(&kept_hash, &secret_hash) {
        return Err(TokenRefusal::Unknown);
    }
    let again = connection
        .prepare_cached("SELECT 1 FROM token_uses WHERE token = ?1 AND key = ?2")?
        .query_row((id.as_bytes(), key), |_| Ok(()))
        .optional()?
        .is_some();
    if again {
        return Ok(pool);
    }
    if expires_at.is_some_and(|end| end <= now.0) {
        return Err(TokenRefusal::Expired);
    }
    if used >= uses {
        return Err(TokenRefusal::UsedUp(uses));
    }
    connection.prepare_cached("INSERT INTO token_uses (token, key, used_at) VALUES (?1, ?2, ?3)")?.execute((id.as_bytes(), key, now.0))?;
    connection.prepare_cached("UPDATE tokens SET used = used + 1 WHERE id = ?1")?.execute([id.as_bytes()])?;
    Ok(pool)
}

#[async_trait]
impl TokenStore for SqliteStore {
    async fn add_token(&self, token: NewToken, by: By) -> Result<(), StoreError> {
        self.write(move |c| {
            c.prepare_cached("INSERT INTO tokens (id, secret_hash, pool, uses, created_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
                .execute((token.id.as_bytes(), token.secret_hash, &token.pool, token.uses, by.at.0, token.expires_at.map(|end| end.0)))?;
            audit::append(c, &by, &format!("made enrolment token {} for pool {}, {} uses", token.id, token.pool, token.uses))
        })
        .await
    }

    async fn tokens(&self) -> Result<Vec<TokenSummary>, StoreError> {
        self.read(|c| {
            let mut query = c.prepare_cached("SELECT id, pool, uses, used, created_at, expires_at FROM tokens ORDER BY created_at, id")?;
            let rows = query.query_map([], |row| {
                Ok(TokenSummary {
                    id: TokenId::new(row.get(0)?),
                    pool: row.get(1)?,
                    uses: row.get(2)?,
                    used: row.get(3)?,
                    created_at: Timestamp(row.get(4)?),
                    expires_at: row.get::<_, Option<i64>>(5)?.map(Timestamp),
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn remove_token(&self, id: TokenId, by: By) -> Result<bool, StoreError> {
        self.write(move |c| {
            let removed = c.prepare_cached("DELETE FROM tokens WHERE id = ?1")?.execute([id.as_bytes()])? > 0;
            if removed {
                audit::append(c, &by, &format!("removed enrolment token {id}"))?;
            }
            Ok(removed)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    fn by(at: i64) -> By {
        By { who: "ada".to_owned(), at: Timestamp(at) }
    }

    #[tokio::test]
    async fn a_token_lets_in_as_many_keys_as_it_says_until_its_end() {
        let (store, _folder) = testing::store();
        let id = TokenId::new([7; 16]);
        let token = NewToken { id, secret_hash: [1; 32], pool: "edge".to_owned(), uses: 2, expires_at: Some(Timestamp(100)) };
        store.add_token(token, by(0)).await.unwrap();
        let try_with =
            async |hash: u8, key: u8, now: i64| store.write(move |c| use_token(c, (id, [hash; 32]), &[key; 32], Timestamp(now))).await;
        assert!(matches!(try_with(2, 1, 10).await, Err(TokenRefusal::Unknown)));
        assert_eq!(try_with(1, 1, 10).await.unwrap(), "edge");
        assert_eq!(try_with(1, 1, 11).await.unwrap(), "edge");
        assert_eq!(store.tokens().await.unwrap()[0].used, 1);
        assert!(matches!(try_with(1, 2, 100).await, Err(TokenRefusal::Expired)));
        assert_eq!(try_with(1, 2, 99).await.unwrap(), "edge");
        assert!(matches!(try_with(1, 3, 99).await, Err(TokenRefusal::UsedUp(2))));
        assert_eq!(try_with(1, 1, 1000).await.unwrap(), "edge");
        assert!(store.remove_token(id, by(1001)).await.unwrap());
        assert!(!store.remove_token(id, by(1002)).await.unwrap());
        assert!(matches!(try_with(1, 1, 10).await, Err(TokenRefusal::Unknown)));
    }
}
