//! Are the books right? The invariants over a database, and the soak: random walks against a model.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Result, bail};
use audit::log::Act;
use books::{Database, Sqlite, Walk};
use clap::Args;

use crate::command::root;
use crate::place::{self, Place};

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    place: Place,
    /// The hash of the last `admin_act` in the operator's log: that act must still be there
    #[arg(long, conflicts_with = "soak")]
    head: Option<String>,
    /// Walk instead: do random things to fresh databases and compare them with a model after every step
    #[arg(long)]
    soak: bool,
    /// How many steps in all
    #[arg(long, default_value_t = 1_000_000, requires = "soak")]
    steps: u64,
    /// Where the walks begin; any number (from the clock when none is given)
    #[arg(long, requires = "soak")]
    seed: Option<u64>,
}

/// Steps of one walk. Long enough for plans to renew and lots to expire, short enough for what goes wrong to be read.
const WALK: u32 = 400;

pub fn audit(options: &Options) -> Result<()> {
    if options.soak { soak(options) } else { look(options) }
}

fn look(options: &Options) -> Result<()> {
    let (mut database, name): (Box<dyn Database>, String) = match options.place.find()? {
        place::Database::File(path) => {
            let name = path.display().to_string();
            (Box::new(Sqlite::open(&path).map_err(|error| anyhow::anyhow!("{name}: {error}"))?), name)
        }
        place::Database::Server(client, url) => (Box::new(client), url),
    };
    let (report, wrong) = examine(&mut *database, options.head.as_deref())?;
    // Whoever reads only the first lines has seen enough.
    let _ = std::io::stdout().write_all(format!("{name}\n{report}").as_bytes());
    if wrong > 0 {
        bail!("{wrong} rows break a rule");
    }
    Ok(())
}

/// Asks for every rule, and answers what to tell and how many rows break one.
fn examine(database: &mut dyn Database, head: Option<&str>) -> Result<(String, usize)> {
    let (mut report, mut wrong) = (String::new(), 0);
    for invariant in audit::INVARIANTS.iter().chain(audit::OVERDUE) {
        let mut ask = |sql| database.run(sql, &[]).map_err(|error| anyhow::anyhow!("{}: {error}", invariant.id));
        let count = ask(invariant.count)?[0][0].integer();
        let offenders = ask(invariant.offenders)?;
        wrong += offenders.len();
        let verdict = if offenders.is_empty() { "ok".to_owned() } else { format!("{} WRONG", offenders.len()) };
        let _ = writeln!(report, "{:<4} {verdict:>10} of {count:>8}  {}", invariant.id, invariant.rule);
        for row in offenders.iter().take(20) {
            let _ = writeln!(report, "     {}", row[0].text());
        }
    }
    let acts = database.run(&format!("SELECT {} FROM admin_log ORDER BY seq", audit::log::COLUMNS), &[]);
    let acts = acts.map_err(|error| anyhow::anyhow!("admin_log: {error}"))?;
    let acts: Vec<Act> = acts.iter().map(|row| act(row)).collect();
    let first_wrong = audit::log::first_wrong(&acts);
    wrong += usize::from(first_wrong.is_some());
    let verdict = if first_wrong.is_none() { "ok" } else { "1 WRONG" };
    let _ = writeln!(report, "L1   {verdict:>10} of {:>8}  the admins' log is a chain, and each act is as it was written", acts.len());
    if let Some(seq) = first_wrong {
        let _ = writeln!(report, "     {seq} is the first that does not fit");
    }
    if let Some(head) = head {
        let holds = audit::log::holds(&acts, head);
        wrong += usize::from(!holds);
        let verdict = if holds { "ok" } else { "1 WRONG" };
        let _ = writeln!(report, "L2   {verdict:>10} of {:>8}  the act that the operator's log names is still in the admins' log", 1);
    }
    if let Some(last) = acts.last() {
        let _ = writeln!(report, "     the last act is {}", last.hash);
    }
    Ok((report, wrong))
}

fn act(row: &[books::Value]) -> Act {
    Act::of_columns(|at| row[at].integer(), |at| row[at].text().to_owned())
}

fn soak(options: &Options) -> Result<()> {
    let start = Instant::now();
    let seed = options
        .seed
        .unwrap_or_else(|| std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |since| since.as_secs()));
    let walks = options.steps.div_ceil(u64::from(WALK));
    println!("seed {seed}: {walks} walks of {WALK} steps");
    let next = AtomicU64::new(0);
    let failures: Vec<String> = thread::scope(|scope| {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..cores)
            .map(|_| {
                scope.spawn(|| {
                    let mut failures = Vec::new();
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= walks || !failures.is_empty() {
                            return failures;
                        }
                        let walk = Walk { seed: seed.wrapping_add(number), steps: WALK, audit_every: 200 };
                        let result = Sqlite::migrated(&root().join("migrations"))
                            .and_then(|mut database| books::walk(&mut database, walk).map_err(|failure| failure.to_string()));
                        failures.extend(result.err());
                    }
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_else(|_| vec!["a walk panicked".into()])).collect()
    });
    let taken = next.load(Ordering::Relaxed).min(walks) * u64::from(WALK);
    let seconds = start.elapsed().as_secs_f64();
    for failure in &failures {
        println!("{failure}");
    }
    let verdict = if failures.is_empty() { "all right" } else { "WRONG" };
    println!("{verdict}: seed {seed}, {taken} steps in {seconds:.0} s ({:.0} a second)", taken as f64 / seconds);
    if !failures.is_empty() {
        bail!("the books are wrong; walk it again with --soak --seed (that of the failure) --steps {WALK}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Books with two people, and what an admin did there.
    fn books() -> Sqlite {
        let mut books = Sqlite::migrated(&root().join("migrations")).expect("migrated");
        for id in ["boss", "ada"] {
            let sql = "INSERT INTO sign_ups (user_id, email, name, credits, provider, openid, created_at) \
                       VALUES (?1, ?1, ?1, 3, 'google', ?1, unixepoch())";
            books.run(sql, &[id.into()]).expect("a sign-up");
        }
        for (action, subject, detail) in [
            ("role", "boss", json!({"role": "admin"})),
            ("invalidate", "config:", json!({})),
            ("gift", "ada", json!({"key": "one", "credits": 5})),
            ("gift", "ada", json!({"key": "two", "credits": 7})),
        ] {
            record(&mut books, action, subject, &detail);
        }
        books
    }

    fn acts(books: &mut Sqlite) -> Vec<Act> {
        let sql = format!("SELECT {} FROM admin_log ORDER BY seq", audit::log::COLUMNS);
        books.run(&sql, &[]).expect("the log").iter().map(|row| act(row)).collect()
    }

    fn record(books: &mut Sqlite, action: &str, subject: &str, detail: &Value) {
        let known = acts(books);
        let mut act = Act {
            seq: i64::try_from(known.len()).expect("few") + 1,
            at: 1_000,
            admin_id: "boss".into(),
            action: action.into(),
            subject: subject.into(),
            detail: detail.to_string(),
            previous: known.last().map(|act| act.hash.clone()).unwrap_or_default(),
            hash: String::new(),
        };
        act.hash = act.hash();
        let sql = format!("INSERT INTO admin_log ({}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)", audit::log::COLUMNS);
        let texts = [&act.admin_id, &act.action, &act.subject, &act.detail, &act.previous, &act.hash];
        let mut parameters = vec![act.seq.into(), act.at.into()];
        parameters.extend(texts.map(books::Value::from));
        books.run(&sql, &parameters).expect("an act");
    }

    /// Somebody with the keys to the database changes its log; answers the rules that tell.
    fn told_after(forgery: &[&str], head: Option<&str>) -> Vec<String> {
        let mut books = books();
        for trigger in ["admin_log_no_update", "admin_log_no_delete"] {
            books.run(&format!("DROP TRIGGER {trigger}"), &[]).expect("a trigger");
        }
        for sql in forgery {
            books.run(sql, &[]).expect(sql);
        }
        let (report, wrong) = examine(&mut books, head).expect("a report");
        let told: Vec<String> = report
            .lines()
            .filter(|line| line.contains("WRONG"))
            .map(|line| line.split(' ').next().unwrap_or_default().to_owned())
            .collect();
        assert_eq!(told.is_empty(), wrong == 0, "{report}");
        told
    }

    #[test]
    fn a_log_as_it_was_written_is_right() {
        let head = acts(&mut books()).last().expect("an act").hash.clone();
        assert_eq!(told_after(&[], None), Vec::<String>::new());
        assert_eq!(told_after(&[], Some(&head)), Vec::<String>::new());
        let before = acts(&mut books())[1].hash.clone();
        assert_eq!(told_after(&[], Some(&before)), Vec::<String>::new(), "acts after the head that is known are all right");
    }

    #[test]
    fn a_log_that_was_forged_or_shortened_is_told() {
        assert_eq!(told_after(&["UPDATE admin_log SET subject = 'eve' WHERE seq = 2"], None), ["L1"]);
        assert_eq!(told_after(&["DELETE FROM admin_log WHERE seq = 2"], None), ["L1"]);
        // What is left is a chain each time.
        assert_eq!(told_after(&["DELETE FROM admin_log WHERE seq = 4"], None), ["I7c"]);
        assert_eq!(told_after(&["DELETE FROM admin_log WHERE seq > 1"], None), ["I7c"]);
        assert_eq!(told_after(&["DELETE FROM admin_log"], None), ["I7c", "I7d"]);
        assert_eq!(told_after(&["UPDATE users SET role = 'admin' WHERE id = 'ada'"], None), ["I7d"]);
        let gift =
            "INSERT INTO credit_records (id, user_id, amount, type, entity_type, entity_id) VALUES ('x', 'ada', 9, 'gift', 'admin', 'x')";
        assert_eq!(told_after(&[gift], None), ["I7c"]);
    }

    #[test]
    fn an_act_that_gave_nothing_is_missed_by_whoever_knows_its_hash() {
        let mut with_one_more = books();
        record(&mut with_one_more, "invalidate", "task:", &json!({}));
        let head = acts(&mut with_one_more).last().expect("an act").hash.clone();
        assert_eq!(told_after(&[], Some(&head)), ["L2"], "it is not there, and nothing else shows it");
        assert_eq!(told_after(&["DELETE FROM admin_log"], Some(&head)), ["I7c", "I7d", "L2"]);
    }
}
