//! Operators' bearer tokens.

use async_trait::async_trait;
use rusqlite::OptionalExtension;
use skerry_wire::TokenId;

use super::audit::{self, By};
use super::{SqliteStore, StoreError};

/// What an operator may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Looks at everything.
    Reader,
    /// Also submits and stops jobs.
    Operator,
    /// Also reads, and publishes images; submits no jobs.
    Publisher,
    /// Everything, tokens too.
    Admin,
}

impl Role {
    /// The word in the database and in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Operator => "operator",
            Self::Publisher => "publisher",
            Self::Admin => "admin",
        }
    }

    /// The role of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Reader, Self::Operator, Self::Publisher, Self::Admin].into_iter().find(|role| role.name() == name)
    }

    /// May this role do what is asked of `needed`?
    pub fn covers(self, needed: Self) -> bool {
        self == Self::Admin || self == needed || needed == Self::Reader
    }
}

/// An operator's token; the secret itself is not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// The public half.
    pub id: TokenId,
    /// SHA-256 of the secret.
    pub secret_hash: [u8; 32],
    /// What it may do.
    pub role: Role,
    /// Name for the audit log.
    pub name: String,
}

/// Operators' tokens.
#[async_trait]
pub trait OperatorStore {
    /// The token of this id.
    async fn operator(&self, id: TokenId) -> Result<Option<Operator>, StoreError>;

    /// Adds a token, or puts it in place of the one with its id.
    async fn put_operator(&self, operator: Operator, by: By) -> Result<(), StoreError>;

    /// All tokens, by name.
    async fn operators(&self) -> Result<Vec<Operator>, StoreError>;

    /// Removes the tokens of this name. `false` when there was none.
    async fn remove_operator(&self, name: String, by: By) -> Result<bool, StoreError>;
}

fn role(id: TokenId, name: &str) -> Result<Role, StoreError> {
    Role::from_name(name).ok_or_else(|| StoreError::Damaged(format!("operator {id} has the role `{name}`")))
}

#[async_trait]
impl OperatorStore for SqliteStore {
    async fn operator(&self, id: TokenId) -> Result<Option<Operator>, StoreError> {
        self.read(move |c| {
            let mut query = c.prepare_cached("SELECT secret_hash, role, name FROM operators WHERE id = ?1")?;
            let found = query
                .query_row([id.as_bytes()], |row| Ok((row.get::<_, [u8; 32]>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?)))
                .optional()?;
            let Some((secret_hash, word, name)) = found else { return Ok(None) };
            Ok(Some(Operator { id, secret_hash, role: role(id, &word)?, name }))
        })
        .await
    }

    async fn put_operator(&self, operator: Operator, by: By) -> Result<(), StoreError> {
        self.write(move |c| {
            c.prepare_cached(
                "INSERT INTO operators (id, secret_hash, role, name, created_at) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (id) DO UPDATE SET secret_hash = ?2, role = ?3, name = ?4",
            )?
            .execute((operator.id.as_bytes(), operator.secret_hash, operator.role.name(), &operator.name, by.at.0))?;
            audit::append(c, &by, &format!("put operator token {} ({}, {})", operator.id, operator.name, operator.role.name()))
        })
        .await
    }

    async fn operators(&self) -> Result<Vec<Operator>, StoreError> {
        self.read(|c| {
            let mut query = c.prepare_cached("SELECT id, secret_hash, role, name FROM operators ORDER BY name, id")?;
            let mut rows = query.query([])?;
            let mut operators = Vec::new();
            while let Some(row) = rows.next()? {
                let id = TokenId::new(row.get(0)?);
                let role = role(id, &row.get::<_, String>(2)?)?;
                operators.push(Operator { id, secret_hash: row.get(1)?, role, name: row.get(3)? });
            }
            Ok(operators)
        })
        .await
    }

    async fn remove_operator(&self, name: String, by: By) -> Result<bool, StoreError> {
        self.write(move |c| {
            let removed = c.prepare_cached("DELETE FROM operators WHERE name = ?1")?.execute([&name])? > 0;
            if removed {
                audit::append(c, &by, &format!("removed the operator tokens of {name}"))?;
            }
            Ok(removed)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_roles_cover() {
        use Role::*;
        for (role, may) in [
            (Reader, [true, false, false, false]),
            (Operator, [true, true, false, false]),
            (Publisher, [true, false, true, false]),
            (Admin, [true; 4]),
        ] {
            assert_eq!([Reader, Operator, Publisher, Admin].map(|needed| role.covers(needed)), may, "{role:?}");
        }
    }
}
