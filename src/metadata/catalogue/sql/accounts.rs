//! The tables `account` and `signing_key`.

use async_trait::async_trait;

use super::SqlCatalogue;
use super::session::Session;
use super::values::{Row, values};
use crate::config::Secret;
use crate::metadata::MetadataError;
use crate::metadata::catalogue::{
    AccountName, AccountRecord, Accounts, CatalogueError, Result, Role, SigningKeyRecord,
};
use crate::runtime::Timestamp;

#[async_trait]
impl Accounts for SqlCatalogue {
    async fn create_first_account(&self, account: &AccountRecord) -> Result<bool> {
        let mut session = self.begin().await?;
        // Whoever comes later waits, and then sees this one.
        session.lock("LOCK TABLE account IN SHARE ROW EXCLUSIVE MODE", vec![]).await?;
        if session.find("SELECT name FROM account LIMIT 1", vec![]).await?.is_some() {
            return Ok(false);
        }
        session
            .execute(
                "INSERT INTO account (name, password_hash, role, created_at, created_by, disabled_at)
                 VALUES ($1, $2, $3, $4, $5, $6)",
                values![
                    account.name.as_str(),
                    account.password_hash.as_ref().map(Secret::expose),
                    account.role.as_str(),
                    account.created.at,
                    &*account.created.by,
                    account.disabled_at.map(Timestamp::as_millis),
                ],
            )
            .await?;
        session.commit().await?;
        Ok(true)
    }

    async fn find_account(&self, name: &AccountName) -> Result<Option<AccountRecord>> {
        let mut session = self.read().await?;
        let row = session
            .find(
                "SELECT name, password_hash, role, created_at, created_by, disabled_at FROM account
                 WHERE name = $1",
                values![name.as_str()],
            )
            .await?;
        row.as_ref().map(read_account).transpose()
    }

    async fn list_accounts(&self, after: Option<&AccountName>, limit: u32) -> Result<Vec<AccountRecord>> {
        let mut session = self.read().await?;
        let rows = session
            .fetch(
                "SELECT name, password_hash, role, created_at, created_by, disabled_at FROM account
                 WHERE name > $1 ORDER BY name LIMIT $2",
                values![after.map_or("", AccountName::as_str), limit],
            )
            .await?;
        rows.iter().map(read_account).collect()
    }

    async fn set_password(&self, name: &AccountName, hash: &Secret) -> Result<()> {
        let mut session = self.begin().await?;
        let changed = session
            .execute(
                "UPDATE account SET password_hash = $2 WHERE name = $1",
                values![name.as_str(), hash.expose()],
            )
            .await?;
        if changed == 0 {
            return Err(CatalogueError::AccountUnknown);
        }
        Ok(session.commit().await?)
    }

    async fn find_or_create_signing_key(&self, candidate: &SigningKeyRecord) -> Result<SigningKeyRecord> {
        if let Some(key) = find_signing_key(&mut self.read().await?).await? {
            return Ok(key);
        }
        let mut session = self.begin().await?;
        session.lock("LOCK TABLE signing_key IN SHARE ROW EXCLUSIVE MODE", vec![]).await?;
        if let Some(key) = find_signing_key(&mut session).await? {
            return Ok(key);
        }
        session
            .execute(
                "INSERT INTO signing_key (id, secret, created_at) VALUES ($1, $2, $3)",
                values![candidate.id.as_str(), candidate.secret.as_slice(), candidate.created_at],
            )
            .await?;
        session.commit().await?;
        Ok(candidate.clone())
    }
}

async fn find_signing_key(session: &mut Session) -> Result<Option<SigningKeyRecord>> {
    let row = session
        .find("SELECT id, secret, created_at FROM signing_key ORDER BY created_at DESC, id LIMIT 1", vec![])
        .await?;
    row.as_ref().map(read_signing_key).transpose()
}

fn read_signing_key(row: &Row) -> Result<SigningKeyRecord> {
    Ok(SigningKeyRecord {
        id: row.text("id")?,
        secret: row.bytes("secret")?,
        created_at: row.timestamp("created_at")?,
    })
}

fn read_account(row: &Row) -> Result<AccountRecord> {
    let word = row.text("role")?;
    let role = Role::ALL.into_iter().find(|role| role.as_str() == word);
    Ok(AccountRecord {
        name: row.parsed("name")?,
        password_hash: row.optional_text("password_hash")?.map(Secret::new),
        role: role.ok_or(MetadataError::Unreadable { column: "role" })?,
        created: row.stamp("created_at", "created_by")?,
        disabled_at: row.optional_number("disabled_at")?.map(Timestamp::from_millis),
    })
}
