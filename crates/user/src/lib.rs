//! People and their credits, as the database tells them.

use database::{Error, Row, Value, one, run};
use page::Page;
use problem::Problem;
use serde::Serialize;
use serde_json::json;

/// A person.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct User {
    pub id: String,
    pub email: String,
    pub name: String,
    pub picture: Option<String>,
    pub role: String,
    /// Unix seconds.
    pub created_at: i64,
    /// The balance: credits that have not expired.
    #[serde(skip)]
    pub credits: i64,
}

/// What the ledger says about a person's credits.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Credits {
    pub balance: i64,
    /// What can be spent, in the order it will be.
    pub lots: Vec<Lot>,
    /// The lot that expires first.
    pub expires_next: Option<Lot>,
}

/// Credits that came together and expire together.
#[derive(Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Lot {
    pub id: String,
    pub amount: i64,
    pub remaining: i64,
    #[serde(rename = "type")]
    pub kind: String,
    /// Unix seconds; absent: never.
    pub expires_at: Option<i64>,
    /// Unix seconds.
    pub created_at: i64,
}

/// One line of the account book.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Movement {
    pub id: String,
    /// Positive adds, negative spends.
    pub amount: i64,
    #[serde(rename = "type")]
    pub kind: String,
    pub entity_type: Option<String>,
    pub entity_id: Option<String>,
    pub note: Option<String>,
    /// Unix seconds; absent: never.
    pub expires_at: Option<i64>,
    /// Unix seconds.
    pub created_at: i64,
}

/// A person's key figures.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Stats {
    pub total_tasks: i64,
    pub completed_tasks: i64,
    pub failed_tasks: i64,
    /// Credits spent and not returned.
    pub credits_used: i64,
}

/// What an identity provider vouches for.
#[derive(Debug, Clone)]
pub struct Identity {
    pub provider: &'static str,
    /// The provider's stable id of the person.
    pub openid: String,
    /// Verified by the provider.
    pub email: String,
    /// Whether the provider gives the address to one person only, for ever.
    pub authoritative_for_email: bool,
    /// Whether the provider runs the mailbox, and so knows whose the address is today. Another may have checked it once, long ago.
    pub vouches_for_email: bool,
    pub name: String,
    pub picture: Option<String>,
}

const COLUMNS: &str = "u.id, u.email, u.name, u.picture, u.role, u.created_at, \
    (SELECT coalesce(sum(remaining), 0) FROM credit_lots l \
     WHERE l.user_id = u.id AND remaining > 0 AND (expires_at IS NULL OR expires_at > ?1))";

fn read(row: &Row) -> User {
    User {
        id: row.text(0),
        email: row.text(1),
        name: row.text(2),
        picture: row.optional_text(3),
        role: row.text(4),
        created_at: row.integer(5),
        credits: row.integer(6),
    }
}

/// The user with this id.
///
/// # Errors
/// The database's.
pub async fn by_id(id: &str, now: i64) -> Result<Option<User>, Error> {
    let row = one(&format!("SELECT {COLUMNS} FROM users u WHERE u.id = ?2"), vec![now.into(), id.into()]).await?;
    Ok(row.as_ref().map(read))
}

/// The balance alone.
///
/// # Errors
/// The database's.
pub async fn balance(id: &str, now: i64) -> Result<i64, Error> {
    let sql = "SELECT coalesce(sum(remaining), 0) FROM credit_lots \
               WHERE user_id = ?1 AND remaining > 0 AND (expires_at IS NULL OR expires_at > ?2)";
    Ok(one(sql, vec![id.into(), now.into()]).await?.map_or(0, |row| row.integer(0)))
}

/// What comes with a new account, and to whom it is given.
pub struct Welcome {
    pub credits: i64,
    /// Fingerprints of [`mailbox`], one for each key in use, the current first: a mailbox is given credits once.
    pub mailbox: Vec<String>,
    /// Fingerprint of the client's address, where clients can be told apart.
    pub address: Option<String>,
    /// Accounts with credits that one address is given a day.
    pub a_day: i64,
}

/// The mailbox behind an address: what follows a plus is its owner's own, and so are dots at Gmail.
#[must_use]
pub fn mailbox(email: &str) -> String {
    let lower = email.trim().to_lowercase();
    let Some((local, domain)) = lower.rsplit_once('@') else { return lower };
    let local = local.split('+').next().unwrap_or_default();
    if ["gmail.com", "googlemail.com"].contains(&domain) {
        return format!("{}@gmail.com", local.replace('.', ""));
    }
    format!("{local}@{domain}")
}

/// The user behind an identity: found by (provider, openid), or made and welcomed.
///
/// An address that already belongs to a user is linked only when the provider is authoritative for it (it gives the address to one person, for
/// ever) or when that user has no identity at all (a sign-up that was cut off by an older version). Otherwise an address that
/// has changed hands would open somebody else's account.
///
/// # Errors
/// `conflict` when the address belongs to an account that signs in another way.
pub async fn for_identity(identity: &Identity, new_id: &str, welcome: &Welcome, now: i64) -> Result<User, Problem> {
    if let Some(user) = recognise(identity, now).await? {
        return Ok(user);
    }
    let created = run(
        "INSERT INTO sign_ups (user_id, email, name, picture, credits, provider, openid, created_at, \
                               identity_hashes, address_hash, address_limit) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        vec![
            new_id.into(),
            identity.email.as_str().into(),
            identity.name.as_str().into(),
            identity.picture.clone().into(),
            welcome.credits.into(),
            identity.provider.into(),
            identity.openid.as_str().into(),
            now.into(),
            json!(welcome.mailbox).to_string().into(),
            welcome.address.clone().into(),
            welcome.a_day.into(),
        ],
    )
    .await;
    match created {
        Ok(_) => {}
        // Somebody has the address or the identity: perhaps the same person in another tab, a moment ago.
        Err(Error::Taken(_)) => link(identity, now).await?,
        Err(other) => return Err(other.into()),
    }
    recognise(identity, now).await?.ok_or_else(|| {
        Problem::new(problem::Code::Conflict, "An account with this e-mail address exists already. Sign in the way you did the first time.")
    })
}

/// Adds a way to sign in to an account, for somebody who is signed in to it.
///
/// # Errors
/// `conflict` when it opens another account.
pub async fn attach(user_id: &str, identity: &Identity, now: i64) -> Result<(), Problem> {
    // Whether its provider vouches for the account's address shows when somebody signs in with it.
    let sql = "INSERT INTO user_auth (id, user_id, provider, openid, created_at) VALUES (lower(hex(randomblob(16))), ?1, ?2, ?3, ?4) \
               ON CONFLICT (provider, openid) DO UPDATE SET provider = provider RETURNING user_id";
    let parameters = vec![user_id.into(), identity.provider.into(), identity.openid.as_str().into(), now.into()];
    if one(sql, parameters).await?.is_some_and(|row| row.text(0) == user_id) {
        return Ok(());
    }
    Err(Problem::new(problem::Code::Conflict, "This way to sign in opens another account."))
}

/// The user of an identity that signs in, and a note whether its provider vouches for the user's address.
async fn recognise(identity: &Identity, now: i64) -> Result<Option<User>, Error> {
    let of_user = |column: &str| format!("(SELECT u.{column} FROM users u WHERE u.id = user_auth.user_id)");
    let columns = ["email", "name", "picture", "role", "created_at"].map(of_user).join(", ");
    let sql = format!(
        "UPDATE user_auth SET vouched_at = iif(?4 AND {} = ?5, ?1, NULL) WHERE provider = ?2 AND openid = ?3 \
         RETURNING user_id, {columns}, (SELECT coalesce(sum(remaining), 0) FROM credit_lots l \
             WHERE l.user_id = user_auth.user_id AND remaining > 0 AND (expires_at IS NULL OR expires_at > ?1))",
        of_user("email")
    );
    let parameters: Vec<Value> = vec![
        now.into(),
        identity.provider.into(),
        identity.openid.as_str().into(),
        i64::from(identity.vouches_for_email).into(),
        identity.email.as_str().into(),
    ];
    Ok(one(&sql, parameters).await?.as_ref().map(read))
}

async fn link(identity: &Identity, now: i64) -> Result<(), Error> {
    let sql = "INSERT INTO user_auth (id, user_id, provider, openid, created_at) \
               SELECT lower(hex(randomblob(16))), id, ?2, ?3, ?5 FROM users \
               WHERE email = ?1 AND (?4 OR NOT EXISTS (SELECT 1 FROM user_auth WHERE user_id = users.id)) \
               ON CONFLICT (provider, openid) DO NOTHING";
    let parameters: Vec<Value> = vec![
        identity.email.as_str().into(),
        identity.provider.into(),
        identity.openid.as_str().into(),
        i64::from(identity.authoritative_for_email).into(),
        now.into(),
    ];
    run(sql, parameters).await.map(drop)
}

/// Lots with credits left, in the order they will be spent.
///
/// # Errors
/// The database's.
pub async fn credits(id: &str, now: i64) -> Result<Credits, Error> {
    let sql = "SELECT l.id, l.amount, l.remaining, r.type, l.expires_at, l.created_at FROM credit_lots l \
               JOIN credit_records r ON r.id = l.id \
               WHERE l.user_id = ?1 AND l.remaining > 0 AND (l.expires_at IS NULL OR l.expires_at > ?2) \
               ORDER BY l.expires_at IS NULL, l.expires_at, l.created_at, l.id";
    let rows = run(sql, vec![id.into(), now.into()]).await?;
    let lots: Vec<Lot> = rows
        .iter()
        .map(|row| Lot {
            id: row.text(0),
            amount: row.integer(1),
            remaining: row.integer(2),
            kind: row.text(3),
            expires_at: row.optional_integer(4),
            created_at: row.integer(5),
        })
        .collect();
    Ok(Credits {
        balance: lots.iter().map(|lot| lot.remaining).sum(),
        expires_next: lots.first().filter(|lot| lot.expires_at.is_some()).cloned(),
        lots,
    })
}

/// The account book, newest first, and the cursor of its next page.
///
/// # Errors
/// `invalid_input` for the cursor of another list; the database's.
pub async fn history(id: &str, page: &Page) -> Result<(Vec<Movement>, Option<String>), Problem> {
    let sql = format!(
        "SELECT {MOVEMENT}, rowid FROM credit_records WHERE user_id = ?1 AND (created_at, rowid) < (?4, ?5) \
         ORDER BY created_at DESC, rowid DESC LIMIT ?2 OFFSET ?3"
    );
    let (created_at, number) = page.before_number()?;
    let rows = run(&sql, vec![id.into(), page.limit.into(), page.offset.into(), created_at.into(), number.into()]).await?;
    let last = rows.last().map(|row| (row.integer(7), row.integer(8).to_string()));
    let next = page.next(rows.len(), last.as_ref().map(|(created_at, number)| (*created_at, number.as_str())));
    Ok((rows.iter().map(movement).collect(), next))
}

const MOVEMENT: &str = "id, amount, type, entity_type, entity_id, note, expires_at, created_at";

fn movement(row: &Row) -> Movement {
    Movement {
        id: row.text(0),
        amount: row.integer(1),
        kind: row.text(2),
        entity_type: row.optional_text(3),
        entity_id: row.optional_text(4),
        note: row.optional_text(5),
        expires_at: row.optional_integer(6),
        created_at: row.integer(7),
    }
}

/// The gift that was made under a key: whose it is, and its line in the account book.
///
/// # Errors
/// The database's.
pub async fn gift(key: &str) -> Result<Option<(String, Movement)>, Error> {
    let sql = format!("SELECT {MOVEMENT}, user_id FROM credit_records WHERE entity_type = 'admin' AND entity_id = ?1 AND lot_id IS NULL");
    Ok(one(&sql, vec![key.into()]).await?.map(|row| (row.text(8), movement(&row))))
}

/// Somebody by address, for those who may ask.
///
/// # Errors
/// The database's.
pub async fn by_email(email: &str, now: i64) -> Result<Option<User>, Error> {
    let row = one(&format!("SELECT {COLUMNS} FROM users u WHERE u.email = ?2"), vec![now.into(), email.into()]).await?;
    Ok(row.as_ref().map(read))
}

/// Everybody, newest first, for those who may ask.
///
/// # Errors
/// The database's.
pub async fn all(page: &Page, now: i64) -> Result<Vec<User>, Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM users u WHERE (u.created_at, u.id) < (?4, ?5) ORDER BY u.created_at DESC, u.id DESC LIMIT ?2 OFFSET ?3"
    );
    let (created_at, id) = page.before();
    let rows = run(&sql, vec![now.into(), page.limit.into(), page.offset.into(), created_at.into(), id.into()]).await?;
    Ok(rows.iter().map(read).collect())
}

/// A way to sign in, as its owner sees it.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Identity))]
pub struct WayIn {
    pub id: String,
    pub provider: String,
    /// When it was added, Unix seconds.
    pub created_at: i64,
}

/// The ways somebody can sign in, the oldest first.
///
/// # Errors
/// The database's.
pub async fn identities(id: &str) -> Result<Vec<WayIn>, Error> {
    let rows = run("SELECT id, provider, created_at FROM user_auth WHERE user_id = ?1 ORDER BY created_at, rowid", vec![id.into()]).await?;
    Ok(rows.iter().map(|row| WayIn { id: row.text(0), provider: row.text(1), created_at: row.integer(2) }).collect())
}

/// Whether a way to sign in can be taken from an account. The last one stays: without it nobody could come in.
///
/// # Errors
/// `not_found`; `conflict` for the last one.
pub async fn may_detach(user_id: &str, identity: &str) -> Result<(), Problem> {
    let sql = "SELECT EXISTS (SELECT 1 FROM user_auth WHERE user_id = ?2 AND id <> ?1) FROM user_auth WHERE id = ?1 AND user_id = ?2";
    match one(sql, vec![identity.into(), user_id.into()]).await? {
        Some(row) if row.integer(0) != 0 => Ok(()),
        Some(_) => Err(Problem::new(problem::Code::Conflict, "This is your only way to sign in. Add another one first.")),
        None => Err(Problem::not_found("way to sign in")),
    }
}

/// Takes a way to sign in from an account, and answers whose it was (the provider): one that [`may_detach`] has just found.
///
/// # Errors
/// `conflict` when it is the last one now, or is gone.
pub async fn detach(user_id: &str, identity: &str) -> Result<String, Problem> {
    // One statement: of two that take one each at the same time, one finds that it is the last.
    let sql = "DELETE FROM user_auth WHERE id = ?1 AND user_id = ?2 \
               AND EXISTS (SELECT 1 FROM user_auth WHERE user_id = ?2 AND id <> ?1) RETURNING provider";
    let row = one(sql, vec![identity.into(), user_id.into()]).await?;
    Ok(row.ok_or_else(|| Problem::new(problem::Code::Conflict, "Your ways to sign in have just changed. Look again."))?.text(0))
}

/// Whether one of somebody's ways to sign in was used since then (Unix seconds), and its provider vouched for the account's address.
///
/// # Errors
/// The database's.
pub async fn is_vouched_for(id: &str, since: i64) -> Result<bool, Error> {
    Ok(one("SELECT 1 FROM user_auth WHERE user_id = ?1 AND vouched_at > ?2", vec![id.into(), since.into()]).await?.is_some())
}

/// Key figures of a person.
///
/// # Errors
/// The database's.
pub async fn stats(id: &str) -> Result<Stats, Error> {
    let sql = "SELECT count(*), count(*) FILTER (WHERE status = 'completed'), count(*) FILTER (WHERE status = 'failed'), \
               (SELECT coalesce(sum(amount), 0) FROM credit_consumptions WHERE user_id = ?1) FROM ai_tasks WHERE user_id = ?1";
    let row = one(sql, vec![id.into()]).await?;
    let figure = |index| row.as_ref().map_or(0, |row| row.integer(index));
    Ok(Stats { total_tasks: figure(0), completed_tasks: figure(1), failed_tasks: figure(2), credits_used: figure(3) })
}

#[cfg(test)]
mod tests {
    use super::mailbox;

    #[test]
    fn one_mailbox_has_many_addresses() {
        for address in ["ada.lovelace@gmail.com", "Ada.Lovelace+1@gmail.com", "adalovelace+x+y@googlemail.com", " a.d.a.lovelace@GMAIL.com"]
        {
            assert_eq!(mailbox(address), "adalovelace@gmail.com", "{address}");
        }
        assert_eq!(mailbox("ada.l+shop@example.com"), "ada.l@example.com", "elsewhere dots tell people apart");
        assert_ne!(mailbox("ada@example.com"), mailbox("ada@example.org"));
    }
}
