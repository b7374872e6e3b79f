//! Which backups stay, and for how long it is remembered who has gone.

use std::collections::BTreeMap;

use backup::retention::{Found, WEEKLY, expired};
use problem::Problem;
use serde::Serialize;
use storage::{Bucket, PAGE, key};

/// What is there, and what went.
#[derive(Serialize)]
pub struct Kept {
    backups: usize,
    deleted_backups: usize,
    deleted_notes: usize,
}

/// Seconds by which the store's clock and ours may differ.
const SLACK: i64 = 86_400;

/// Removes backups whose time is over, leftovers of those that were cut off, and the notes of erasures that every backup knows of.
///
/// # Errors
/// The store's. What was not removed is found by the next run.
pub async fn sweep(bucket: &Bucket, now: i64) -> Result<Kept, Problem> {
    let (mut backups, mut notes) = (BTreeMap::<String, Found>::new(), Vec::new());
    let mut next = None;
    loop {
        let page;
        (page, next) = bucket.list(key::BACKUPS, next, PAGE).await?;
        for object in page {
            if object.key.starts_with(key::ERASURES) {
                notes.extend(object.written_at().filter(|at| now - at > WEEKLY).map(|at| (at, object.key)));
            } else if let Some((id, made_at)) = backup_of(&object.key) {
                let found = backups.entry(id.to_owned()).or_insert_with(|| Found { id: id.to_owned(), made_at, complete: false });
                found.complete |= object.key == key::backup_manifest(id);
            }
        }
        if next.is_none() {
            break;
        }
    }
    let backups: Vec<Found> = backups.into_values().collect();
    let over = expired(&backups, now);
    for id in &over {
        // The manifest first: what is half removed is no backup.
        bucket.delete(&key::backup_manifest(id)).await?;
        bucket.delete(&key::backup_data(id)).await?;
    }
    // A backup that was made after a note was written has the erasure itself.
    let oldest = backups.iter().filter(|backup| backup.complete && !over.contains(&backup.id.as_str())).map(|backup| backup.made_at).min();
    notes.retain(|(at, _)| oldest.is_some_and(|oldest| at + SLACK < oldest));
    let keys: Vec<String> = notes.into_iter().map(|(_, key)| key).collect();
    let mut deleted_notes = 0;
    for page in keys.chunks(PAGE) {
        deleted_notes += bucket.delete_many(page).await?;
    }
    Ok(Kept { backups: backups.len() - over.len(), deleted_backups: over.len(), deleted_notes })
}

/// The backup that an object belongs to: its id, and when it was made.
fn backup_of(object: &str) -> Option<(&str, i64)> {
    let (id, _) = object.strip_prefix(key::BACKUPS)?.split_once('/')?;
    Some((id, backup::made_at(id)?))
}
