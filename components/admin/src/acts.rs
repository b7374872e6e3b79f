//! What admins do. Recording an act is doing it: triggers of the log (migrations/0007) make the gift, change the role, call the event up.

use audit::log::{Act, COLUMNS, first_wrong};
use database::{Error, Row, one, run};
use page::Page;
use problem::Problem;
use serde_json::{Value, json};

/// How often an act tries to be the next one, while others are quicker.
const TRIES: usize = 20;

/// Records an act, and so does it. Giving somebody a role they have is no act: then nothing is recorded.
///
/// # Errors
/// What the act itself is refused with; then nothing is recorded.
pub async fn record(admin_id: &str, action: &str, subject: &str, detail: &Value, at: i64) -> Result<(), Error> {
    for _ in 0..TRIES {
        let last = one("SELECT seq, hash FROM admin_log ORDER BY seq DESC LIMIT 1", Vec::new()).await?;
        let (seq, previous) = last.map_or((1, String::new()), |row| (row.integer(0) + 1, row.text(1)));
        let mut act = Act {
            seq,
            at,
            admin_id: admin_id.to_owned(),
            action: action.to_owned(),
            subject: subject.to_owned(),
            detail: detail.to_string(),
            previous,
            hash: String::new(),
        };
        act.hash = act.hash();
        let sql = format!(
            "INSERT INTO admin_log ({COLUMNS}) SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8 \
             WHERE ?4 <> 'role' OR EXISTS (SELECT 1 FROM users WHERE id = ?5 AND role <> ?6 ->> 'role') RETURNING seq"
        );
        let parameters = vec![
            act.seq.into(),
            act.at.into(),
            act.admin_id.as_str().into(),
            act.action.as_str().into(),
            act.subject.as_str().into(),
            act.detail.as_str().into(),
            act.previous.as_str().into(),
            act.hash.as_str().into(),
        ];
        match run(&sql, parameters).await {
            Ok(rows) if rows.is_empty() => return Ok(()),
            Ok(_) => {
                // The hash goes where the database's owner cannot change it.
                meter::log(json!({"level": "info", "event": "admin_act", "seq": act.seq, "admin": act.admin_id, "action": act.action,
                           "subject": act.subject, "hash": act.hash}));
                return Ok(());
            }
            Err(Error::Refused("log_moved_on")) => {}
            // Two that wrote the same number at the same time, on a store that tells so otherwise.
            Err(Error::Taken(what)) if what.starts_with("admin_log") => {}
            Err(error) => return Err(error),
        }
    }
    Err(Error::Unavailable("others were quicker, again and again".into()))
}

/// The log, newest first.
///
/// # Errors
/// The database's.
pub async fn list(page: &Page) -> Result<(Vec<Value>, Option<String>), Problem> {
    // With the addresses of whom it is about, so that people need not read ids.
    let email = |column: &str| format!("(SELECT email FROM users WHERE id = {column})");
    let (of_admin, of_subject) = (email("admin_id"), email("subject"));
    let sql = format!(
        "SELECT {COLUMNS}, {of_admin}, {of_subject} FROM admin_log WHERE (at, seq) < (?3, ?4) ORDER BY seq DESC LIMIT ?1 OFFSET ?2"
    );
    let (at, seq) = page.before_number()?;
    let rows = run(&sql, vec![page.limit.into(), page.offset.into(), at.into(), seq.into()]).await?;
    let last = rows.last().map(|row| (row.integer(1), row.integer(0).to_string()));
    let next = page.next(rows.len(), last.as_ref().map(|(at, seq)| (*at, seq.as_str())));
    let acts = rows.iter().map(|row| {
        let act = read(row);
        let detail: Value = serde_json::from_str(&act.detail).unwrap_or_default();
        json!({"seq": act.seq, "at": act.at, "admin_id": act.admin_id, "admin_email": row.optional_text(8), "action": act.action,
               "subject": act.subject, "subject_email": row.optional_text(9), "detail": detail, "hash": act.hash})
    });
    Ok((acts.collect(), next))
}

/// How many acts there are, the first that does not fit, and the hash of the last.
///
/// # Errors
/// The database's.
pub async fn verify() -> Result<(usize, Option<i64>, Option<String>), Error> {
    let acts: Vec<Act> = run(&format!("SELECT {COLUMNS} FROM admin_log ORDER BY seq"), Vec::new()).await?.iter().map(read).collect();
    Ok((acts.len(), first_wrong(&acts), acts.last().map(|act| act.hash.clone())))
}

/// Who gave somebody the role they have, if the log tells of it.
///
/// # Errors
/// The database's.
pub async fn last_role(user_id: &str) -> Result<Option<String>, Error> {
    let sql = "SELECT admin_id FROM admin_log WHERE action = 'role' AND subject = ?1 ORDER BY seq DESC LIMIT 1";
    Ok(one(sql, vec![user_id.into()]).await?.map(|row| row.text(0)))
}

fn read(row: &Row) -> Act {
    Act::of_columns(|at| row.integer(at), |at| row.text(at))
}
