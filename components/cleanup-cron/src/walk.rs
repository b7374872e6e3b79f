//! A walk over the bucket that compares objects with rows, both ways, a page of a thousand keys at a time.
//!
//! An object that no row needs is removed. A row whose object is gone is found by the same walk: between two keys that follow each other in
//! the listing there is no object, so every row with a key between them has lost its own. An upload that has lost its photo is removed, so
//! that nobody orders from it; a picture that has lost its file is what somebody paid for, so it is counted and told, and nothing is changed.
//!
//! A database that knows nothing of what is in the bucket, or a bucket that holds nothing of what the database knows, is more likely a
//! mistake in the settings, or a backup that was just restored, than a thousand accidents. So results that the database does not know wait a
//! week, and what would be the greater part of a page, photos too, is left alone and told.

use std::collections::HashSet;

use database::run;
use futures::future::try_join_all;
use problem::Problem;
use retention::{DAY, files};
use serde::{Deserialize, Serialize};
use serde_json::json;
use storage::{Listed, PAGE, key};

use crate::Sweep;

/// Seconds for which an object or a row may still be waiting for the other: a slow PUT lands late.
const MARGIN: i64 = 3_600;
/// Seconds for which results stay that the database does not know: time to restore it.
const UNKNOWN: i64 = 7 * DAY;
/// More of one kind in a page than this, and more than half of it, are left for a person to look at.
const DOUBT: usize = 100;
/// Single objects that are asked about side by side.
const AT_ONCE: usize = 20;
/// Tasks that a log line names.
const NAMED: usize = 20;

/// What a walk found.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Objects looked at.
    pub listed: usize,
    /// Objects removed: photos older than a week, and those that no row needs.
    pub deleted: usize,
    /// Objects that should have gone and that the store would not remove.
    pub refused: usize,
    /// How many of both had no row.
    pub strays: usize,
    /// Uploads removed because their object was gone.
    pub lost_photos: usize,
    /// Completed tasks whose files are gone.
    pub lost_results: usize,
    /// Objects and uploads that should go and are too many to be believed.
    pub doubted: usize,
    /// Whether the walk came to the end of the bucket; the next one begins anew.
    pub round_ended: bool,
}

/// Where the walk goes on: after this key of this folder.
#[derive(Default, Serialize, Deserialize)]
pub struct Place {
    folder: usize,
    after: String,
}

/// What comes after a page.
pub enum Next {
    /// Another one.
    Page,
    /// The first one of the next folder.
    Folder,
    /// The beginning: all folders have been walked.
    Round,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Folder {
    Avatars,
    Photos,
    Results,
}

impl Folder {
    const ALL: [Self; 3] = [Self::Avatars, Self::Photos, Self::Results];

    fn prefix(self) -> &'static str {
        match self {
            Self::Avatars => key::AVATARS,
            Self::Photos => key::UPLOADS,
            Self::Results => key::RESULTS,
        }
    }

    /// What an object belongs to: the key of an upload, the id of a task or of a user. `None`: it is nothing of ours.
    fn owner(self, key: &str) -> Option<&str> {
        match self {
            Self::Avatars => key::user_of_avatar(key),
            Self::Photos => Some(key::upload_of_raw(key).unwrap_or(key)),
            Self::Results => key::task_of_result(key),
        }
    }
}

/// Looks at one page and moves on.
///
/// # Errors
/// The database's or the store's; the page is looked at again then.
pub async fn page(sweep: &Sweep, place: &mut Place, report: &mut Report) -> Result<Next, Problem> {
    let at = if place.folder < Folder::ALL.len() { place.folder } else { 0 };
    let folder = Folder::ALL[at];
    let (objects, more) = sweep.bucket.list_after(folder.prefix(), &place.after, PAGE).await?;
    report.listed += objects.len();
    // The end of the page, which is the end of the folder if there are no more: '0' comes after '/'.
    let end = match objects.last().filter(|_| more) {
        Some(last) => last.key.clone(),
        None => format!("{}0", folder.prefix().trim_end_matches('/')),
    };
    remove_strays(sweep, folder, &objects, report).await?;
    let stopped = match folder {
        Folder::Avatars => None,
        Folder::Photos => lost_photos(sweep, &place.after, &end, &objects, report).await?,
        Folder::Results => lost_results(sweep, &place.after, &end, &objects, report).await?,
    };
    let next;
    (*place, next) = match stopped {
        Some(key) => (Place { folder: at, after: key }, Next::Page),
        None if more => (Place { folder: at, after: end }, Next::Page),
        None if at + 1 < Folder::ALL.len() => (Place { folder: at + 1, after: String::new() }, Next::Folder),
        None => (Place::default(), Next::Round),
    };
    Ok(next)
}

async fn remove_strays(sweep: &Sweep, folder: Folder, objects: &[Listed], report: &mut Report) -> Result<(), Problem> {
    let (mut doomed, mut asked) = (Vec::new(), Vec::new());
    for object in objects {
        if folder == Folder::Photos && is_over(object, sweep.now) {
            doomed.push(object.key.clone());
        } else if let Some(owner) = folder.owner(&object.key).filter(|_| is_older(object, sweep.now - MARGIN)) {
            asked.push((object.key.as_str(), owner));
        }
    }
    if !asked.is_empty() {
        let sql = match folder {
            Folder::Avatars => files::STRAY_AVATARS,
            Folder::Photos => files::STRAY_PHOTOS,
            Folder::Results => files::STRAY_RESULTS,
        };
        let strays = run(sql, vec![json!(asked).to_string().into()]).await?;
        let (unknown, mut strays): (Vec<_>, Vec<_>) =
            strays.iter().map(|row| (row.text(0), row.integer(1) == 1)).partition(|(_, unknown)| *unknown);
        if unknown.len() > DOUBT && unknown.len() * 2 > objects.len() {
            doubt("objects_unknown", folder, unknown.len());
            report.doubted += unknown.len();
        } else {
            // A photo has waited long enough: it will never be older than a week.
            let wait = if folder == Folder::Photos { MARGIN } else { UNKNOWN };
            let young: HashSet<&str> =
                objects.iter().filter(|object| !is_older(object, sweep.now - wait)).map(|object| object.key.as_str()).collect();
            strays.extend(unknown.into_iter().filter(|(key, _)| !young.contains(key.as_str())));
        }
        report.strays += strays.len();
        doomed.extend(strays.into_iter().map(|(key, _)| key));
    }
    let refused = crate::refused("walk", &sweep.bucket.delete_many(&doomed).await?);
    report.deleted += doomed.len() - refused;
    report.refused += refused;
    Ok(())
}

/// Removes the uploads with keys after `after` and up to `end` that have no object; answers where it stopped if time was up.
async fn lost_photos(sweep: &Sweep, after: &str, end: &str, objects: &[Listed], report: &mut Report) -> Result<Option<String>, Problem> {
    let keys = json!(objects.iter().map(|object| object.key.as_str()).collect::<Vec<_>>()).to_string();
    let mut after = after.to_owned();
    loop {
        let parameters = vec![after.as_str().into(), end.into(), (sweep.now - MARGIN).into(), keys.as_str().into()];
        let lost: Vec<String> = run(files::LOST_PHOTOS, parameters).await?.iter().map(|row| row.text(0)).collect();
        if lost.len() > DOUBT && lost.len() > objects.len() {
            doubt("uploads_without_objects", Folder::Photos, lost.len());
            report.doubted += lost.len();
        } else {
            report.lost_photos += remove_lost(sweep, &lost).await?;
        }
        match lost.last() {
            Some(last) if lost.len() == files::LOST => after.clone_from(last),
            _ => return Ok(None),
        }
        if !sweep.goes_on() {
            return Ok(Some(after));
        }
    }
}

/// Removes the rows of photos that are surely gone: it may have come between the listing and our look at the rows.
async fn remove_lost(sweep: &Sweep, keys: &[String]) -> Result<usize, Problem> {
    let mut removed = 0;
    for keys in keys.chunks(AT_ONCE) {
        let there = try_join_all(keys.iter().map(|key| sweep.bucket.has(key))).await?;
        let gone: Vec<&String> = keys.iter().zip(there).filter(|(_, there)| !there).map(|(key, _)| key).collect();
        removed += run(files::GONE, vec![json!(gone).to_string().into()]).await?.len();
    }
    Ok(removed)
}

/// Counts the completed tasks that promise a file with a key after `after` and up to `end` that is gone; answers where it stopped if time
/// was up.
async fn lost_results(sweep: &Sweep, after: &str, end: &str, objects: &[Listed], report: &mut Report) -> Result<Option<String>, Problem> {
    let keys = json!(objects.iter().map(|object| object.key.as_str()).collect::<Vec<_>>()).to_string();
    // A task may have files on both sides of the page's edge, so both tasks at its edges belong to it.
    let task = |key: &str| Some(key.strip_prefix(key::RESULTS)?.split('/').next()?.to_owned());
    let (mut from, to) = (task(after).unwrap_or_default(), task(end).unwrap_or_else(|| "~".to_owned()));
    loop {
        let parameters =
            vec![from.as_str().into(), to.as_str().into(), (sweep.now - MARGIN).into(), after.into(), end.into(), keys.as_str().into()];
        let Some(part) = run(files::LOST_RESULTS, parameters).await?.into_iter().next() else { return Ok(None) };
        let lost: Vec<String> = serde_json::from_str(&part.text(2)).map_err(Problem::internal)?;
        if !lost.is_empty() {
            let named = &lost[..lost.len().min(NAMED)];
            meter::log(json!({"level": "error", "event": "results_lost", "tasks": lost.len(), "among_them": named}));
            report.lost_results += lost.len();
        }
        let last = part.text(1);
        if usize::try_from(part.integer(0)).unwrap_or_default() < files::TASKS {
            return Ok(None);
        }
        if !sweep.goes_on() {
            return Ok(Some(format!("{}{last}/~", key::RESULTS)));
        }
        // The least that can come after it.
        from = format!("{last}!");
    }
}

/// Says that something looks wrong with the settings rather than with so many things.
fn doubt(event: &str, folder: Folder, count: usize) {
    meter::log(json!({"level": "error", "event": event, "folder": folder.prefix(), "count": count}));
}

/// Whether a photo's week is over: by the time in its key, which is ours, or by the store's own. A key is made at the moment of the upload,
/// so the earlier of the two deletes nothing before its time.
fn is_over(object: &Listed, now: i64) -> bool {
    [in_key(object), object.written_at()].into_iter().flatten().any(|time| time <= now - key::UPLOADS_KEPT)
}

/// Whether an object is surely older than `time`, by its key and by the store's clock.
fn is_older(object: &Listed, time: i64) -> bool {
    in_key(object).max(object.written_at()).is_some_and(|newest| newest <= time)
}

fn in_key(object: &Listed) -> Option<i64> {
    let name = object.key.rsplit('/').next().unwrap_or_default();
    name.split_once('_').and_then(|(millis, _)| millis.parse::<i64>().ok()).map(|millis| millis / 1_000)
}
