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
    let mut report = format!("{name}\n");
    let mut wrong = 0;
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
    // Whoever reads only the first lines has seen enough.
    let _ = std::io::stdout().write_all(report.as_bytes());
    if wrong > 0 {
        bail!("{wrong} rows break a rule");
    }
    Ok(())
}

fn act(row: &[books::Value]) -> Act {
    let text = |at: usize| row[at].text().to_owned();
    Act {
        seq: row[0].integer(),
        at: row[1].integer(),
        admin_id: text(2),
        action: text(3),
        subject: text(4),
        detail: text(5),
        previous: text(6),
        hash: text(7),
    }
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
