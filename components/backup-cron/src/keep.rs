//! Which backups stay, and for how long it is remembered who has gone.

use std::collections::BTreeMap;

use backup::retention::{DAY, Found, WEEKLY, expired};
use problem::Problem;
use serde::Serialize;
use serde_json::json;
use storage::{Bucket, PAGE, key};

/// What is there, and what went.
#[derive(Serialize)]
pub struct Kept {
    backups: usize,
    deleted_backups: usize,
    deleted_notes: usize,
    /// What the store would not remove yet, as what is locked: it goes when the lock has ended.
    refused: usize,
    /// Backups among them that are older than any may become.
    pub overdue: usize,
}

/// What lies in the bucket.
#[derive(Default)]
pub struct Listing {
    pub backups: Vec<Found>,
    /// Notes of erasures: when they were written, and their keys.
    notes: Vec<(i64, String)>,
    /// When the last manifest was written, by the store's clock.
    newest_manifest: Option<i64>,
}

/// Seconds by which the store's clock and ours may differ.
const SLACK: i64 = DAY;

/// Looks at what there is.
///
/// # Errors
/// The store's.
pub async fn list(bucket: &Bucket) -> Result<Listing, Problem> {
    let (mut backups, mut listing) = (BTreeMap::<String, Found>::new(), Listing::default());
    let mut next = None;
    loop {
        let page;
        (page, next) = bucket.list(key::BACKUPS, next, PAGE).await?;
        for object in page {
            if object.key.starts_with(key::ERASURES) {
                listing.notes.extend(object.written_at().map(|at| (at, object.key)));
            } else if let Some((id, made_at)) = backup_of(&object.key) {
                let found = backups.entry(id.to_owned()).or_insert_with(|| Found { id: id.to_owned(), made_at, complete: false });
                if object.key == key::backup_manifest(id) {
                    found.complete = true;
                    listing.newest_manifest = listing.newest_manifest.max(object.written_at());
                }
            }
        }
        if next.is_none() {
            break;
        }
    }
    listing.backups = backups.into_values().collect();
    Ok(listing)
}

/// Removes backups whose time is over, leftovers of those that were cut off, and the notes of erasures that every backup knows of.
///
/// # Errors
/// The store's. What was not removed is found by the next run.
pub async fn sweep(bucket: &Bucket, now: i64) -> Result<Kept, Problem> {
    let Listing { backups, mut notes, newest_manifest } = list(bucket).await?;
    // It is not later than the store says: a database whose clock runs ahead would take all the others to be over.
    let now = newest_manifest.map_or(now, |written| now.min(written));
    let over = expired(&backups, now);
    let (mut stay, mut gone) = (Vec::new(), 0);
    let mut kept = Kept { backups: 0, deleted_backups: 0, deleted_notes: 0, refused: 0, overdue: 0 };
    for backup in &backups {
        if !over.contains(&backup.id.as_str()) {
            stay.push(backup);
            continue;
        }
        match remove(bucket, &backup.id).await {
            Ok(()) => gone += 1,
            Err(error) if error.is_refusal() => {
                meter::log(json!({"level": "warn", "event": "backup_not_removed", "backup": backup.id, "cause": error.to_string()}));
                kept.refused += 1;
                kept.overdue += usize::from(now - backup.made_at > WEEKLY + SLACK);
                stay.push(backup);
            }
            Err(error) => return Err(error.into()),
        }
    }
    (kept.backups, kept.deleted_backups) = (stay.len(), gone);
    // A backup that was made after a note was written has the erasure itself.
    let oldest = stay.iter().filter(|backup| backup.complete).map(|backup| backup.made_at).min();
    notes.retain(|(at, _)| now - at > WEEKLY && oldest.is_some_and(|oldest| at + SLACK < oldest));
    let keys: Vec<String> = notes.into_iter().map(|(_, key)| key).collect();
    for page in keys.chunks(PAGE) {
        let refused = bucket.delete_many(page).await?.len();
        kept.refused += refused;
        kept.deleted_notes += page.len() - refused;
    }
    Ok(kept)
}

async fn remove(bucket: &Bucket, id: &str) -> Result<(), storage::Error> {
    // The manifest first: what is half removed is no backup.
    bucket.delete(&key::backup_manifest(id)).await?;
    bucket.delete(&key::backup_data(id)).await
}

/// The backup that an object belongs to: its id, and when it was made.
fn backup_of(object: &str) -> Option<(&str, i64)> {
    let (id, _) = object.strip_prefix(key::BACKUPS)?.split_once('/')?;
    Some((id, backup::made_at(id)?))
}
