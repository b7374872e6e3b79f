//! Mixed traffic for minutes: four reads of five, and uploads, orders, purchases and their webhooks. Nothing should fail, memory should not
//! grow, and the slowest answers should be as slow at the end as at the beginning.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::bench::load::{Ask, Clients, Heard};
use crate::bench::people::{Person, photo};
use crate::bench::report::{ms, percentile};
use crate::bench::stage::{App, Stage};
use crate::bench::{Options, process, webhook};
use crate::command::root;
use crate::step::step;

/// How many people there are. So many that each buys some dozens of packs in ten minutes, not a thousand: the balance is the sum of the packs one
/// has, and with two dozen people it is that sum which grows, request by request, until it is all that is measured.
const PEOPLE: usize = 1_000;
/// How long the stand-in of the AI takes for a picture, in milliseconds.
const PICTURE: u64 = 1_000;
/// For how long everything gets going: instances, caches, the first pictures.
const WARM_UP: Duration = Duration::from_secs(20);
/// For how long the most that is possible is measured.
const PEAK: Duration = Duration::from_secs(90);
/// For how long the AI may take to catch up after that.
const CATCH_UP: Duration = Duration::from_secs(60);
/// Of the most that is possible.
const SHARE: f64 = 0.8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Task,
    Session,
    List,
    Credits,
    Catalogue,
    Upload,
    Order,
    Buy,
    Pay,
}

/// What of a hundred requests is what, and what it is answered. Pictures are few: the stand-in of the AI makes them on this machine, too,
/// and each costs it more than a hundred requests cost the app.
const MIX: [(What, u32, u16); 9] = [
    (What::Task, 37, 200),
    (What::Session, 18, 200),
    (What::List, 14, 200),
    (What::Credits, 9, 200),
    (What::Catalogue, 5, 200),
    (What::Upload, 5, 201),
    (What::Order, 2, 202),
    (What::Buy, 5, 201),
    (What::Pay, 5, 200),
];

/// Somebody, with what is known of them.
struct Someone {
    person: Person,
    upload: String,
    tasks: VecDeque<String>,
    fixed: [(What, Rc<Vec<u8>>); 4],
}

struct Traffic {
    people: Vec<Someone>,
    photo: Vec<u8>,
    /// What each client is doing: for whom, and what.
    doing: Vec<(usize, What)>,
    /// Orders that wait for their payment: order and checkout.
    unpaid: VecDeque<(String, String)>,
    random: u64,
}

impl Traffic {
    fn draw(&mut self, below: u64) -> u64 {
        // xorshift64: good enough to mix with, the same in every run.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    fn next(&mut self, client: usize) -> Ask {
        let mut ticket = u32::try_from(self.draw(100)).unwrap_or_default();
        let mut what = What::Task;
        for (kind, share, _) in MIX {
            if ticket < share {
                what = kind;
                break;
            }
            ticket -= share;
        }
        let who = usize::try_from(self.draw(self.people.len() as u64)).unwrap_or_default();
        let pick = self.draw(1 << 32);
        let unpaid = if what == What::Pay { self.unpaid.pop_front() } else { None };
        if what == What::Pay && unpaid.is_none() {
            what = What::Session;
        }
        self.doing[client] = (who, what);
        let someone = &self.people[who];
        let fixed =
            |wanted: What| someone.fixed.iter().find(|(what, _)| *what == wanted).map(|(_, bytes)| bytes.clone()).unwrap_or_default();
        let bytes = match what {
            What::Task => {
                let task_no = &someone.tasks[usize::try_from(pick).unwrap_or_default() % someone.tasks.len()];
                Rc::new(someone.person.get(&format!("/api/tasks/{task_no}")))
            }
            What::Session | What::List | What::Credits | What::Catalogue => fixed(what),
            What::Upload => Rc::new(someone.person.upload_of(&self.photo)),
            What::Order => Rc::new(someone.person.order(&someone.upload)),
            What::Buy => Rc::new(someone.person.post_json("/api/orders", &serde_json::json!({"product_id": "credits-10"}))),
            What::Pay => {
                let (order, checkout) = unpaid.unwrap_or_default();
                Rc::new(webhook::paid(&order, &checkout))
            }
        };
        Ask { bytes }
    }

    /// Learns from an answer what later requests are about.
    fn learn(&mut self, client: usize, heard: &Heard<'_>) -> Result<()> {
        let (who, what) = self.doing[client];
        let text = |pointer: &str| -> Result<String> {
            let body: Value = serde_json::from_slice(heard.body)?;
            Ok(body.pointer(pointer).and_then(Value::as_str).with_context(|| format!("no {pointer} in {body}"))?.to_owned())
        };
        match what {
            What::Upload => self.people[who].upload = text("/uploads/0/id")?,
            What::Order => {
                let tasks = &mut self.people[who].tasks;
                tasks.push_back(text("/tasks/0/task_no")?);
                if tasks.len() > 40 {
                    tasks.pop_front();
                }
            }
            What::Buy => {
                let checkout = text("/order/payment_url")?;
                let checkout = checkout.rsplit('/').next().unwrap_or_default().to_owned();
                self.unpaid.push_back((text("/order/id")?, checkout));
            }
            _ => {}
        }
        Ok(())
    }

    fn expected(&self, client: usize) -> u16 {
        MIX.iter().find(|(what, ..)| *what == self.doing[client].1).map_or(0, |(.., expected)| *expected)
    }
}

/// A minute of it.
#[derive(Default)]
struct Minute {
    times: Vec<Duration>,
    memory: Vec<u64>,
    /// How fast the machine was.
    yardstick: Vec<Duration>,
    /// Pictures that were under way when it ended.
    under_way: i64,
    used: Used,
    /// Bytes of the database, and of the log it is written through.
    files: [u64; 2],
}

/// Processor time, so far or in a minute.
#[derive(Clone, Copy, Default)]
struct Used {
    host: Duration,
    sandbox: Duration,
    client: Duration,
    /// Everybody else on this machine.
    others: Duration,
    /// Taken from this machine by its host.
    stolen: Duration,
}

impl Used {
    /// Nothing at all where the system does not tell.
    fn so_far(host: u32, sandbox: u32) -> Self {
        let time = |pid| process::processor_time(pid).unwrap_or_default();
        let (host, sandbox, client) = (time(host), time(sandbox), time(std::process::id()));
        let (busy, stolen) = process::machine_time().unwrap_or_default();
        Self { host, sandbox, client, others: busy.saturating_sub(host + sandbox + client), stolen }
    }

    fn since(self, before: Self) -> Self {
        Self {
            host: self.host.saturating_sub(before.host),
            sandbox: self.sandbox.saturating_sub(before.sandbox),
            client: self.client.saturating_sub(before.client),
            others: self.others.saturating_sub(before.others),
            stolen: self.stolen.saturating_sub(before.stolen),
        }
    }
}

pub fn bench(options: &Options, minutes: u64) -> Result<()> {
    let mut stage = Stage::new()?;
    let app = stage.app("app", root(), PICTURE)?;
    let people = step("people sign in, upload and order", || people_of(&app))?;
    let doing = vec![(0, What::Task); options.connections];
    let mut traffic = Traffic { people, photo: photo()?, doing, unpaid: VecDeque::new(), random: 0x9e37_79b9_7f4a_7c15 };
    let mut clients = Clients::connect(app.address, options.connections)?;

    let rate = match options.soak_rate {
        Some(rate) => rate,
        None => peak(&app, &mut clients, &mut traffic)? * SHARE,
    };
    let (pid, sandbox) = (stage.pid("app")?, stage.pid("sandbox")?);
    let pace = Duration::from_secs_f64(options.connections as f64 / rate);
    let mut all: Vec<Minute> = Vec::new();
    let begun = Instant::now();
    let mut errors = Vec::new();
    let mut looked = Instant::now();
    for minute in 0..minutes {
        stage.check()?;
        let outcome = step(&format!("minute {} of {minutes}", minute + 1), || {
            let mut this = Minute::default();
            let left = Duration::from_secs(60 * (minute + 1)).saturating_sub(begun.elapsed());
            let before = Used::so_far(pid, sandbox);
            let run = run(&mut clients, &mut traffic, left, Some(pace), |took, _| {
                this.times.push(took);
                if looked.elapsed() > Duration::from_secs(1) {
                    looked = Instant::now();
                    this.memory.extend(process::memory_kib(pid));
                    this.yardstick.push(process::yardstick());
                }
                Ok(())
            })?;
            this.used = Used::so_far(pid, sandbox).since(before);
            this.times.sort_unstable();
            this.yardstick.sort_unstable();
            this.under_way = under_way(&app.database()?)?;
            this.files = ["", "-wal"].map(|end| {
                let mut path = app.database_path().into_os_string();
                path.push(end);
                std::fs::metadata(path).map_or(0, |file| file.len())
            });
            Ok((this, run.errors))
        })?;
        all.push(outcome.0);
        errors.extend(outcome.1);
    }
    let late = step("waiting for the pictures", || catch_up(&app.database()?));
    let (tasks, failed): (i64, i64) =
        app.database()?.query_row("SELECT count(*), count(*) FILTER (WHERE status = 'failed') FROM ai_tasks", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;

    println!("\n{rate:.0} requests/s asked for, {} connections, {minutes} minutes", options.connections);
    let rows = print(&all);
    println!("{tasks} tasks, {failed} failed; {} unexpected answers", errors.len());
    if let Ok(late) = &late {
        println!("the last picture was there {:.1} s after the last request", late.as_secs_f64());
    }
    errors.iter().take(5).for_each(|error| println!("    {error}"));
    if let Some(file) = &options.json {
        let report = serde_json::json!({"rate": rate, "minutes": rows, "tasks": tasks, "failed": failed, "errors": errors.len()});
        std::fs::write(file, format!("{report:#}\n"))?;
    }
    let offenders: i64 = audit::INVARIANTS.iter().try_fold(0, |sum, invariant| {
        let count: i64 = app.database()?.query_row(&format!("SELECT count(*) FROM ({})", invariant.offenders), [], |row| row.get(0))?;
        anyhow::Ok(sum + count)
    })?;
    println!("the books: {}", if offenders == 0 { "right".to_owned() } else { format!("{offenders} rows break a rule") });
    if !errors.is_empty() || offenders > 0 || failed > 0 {
        bail!("{} unexpected answers, {failed} failed tasks, {offenders} rows that break a rule", errors.len());
    }
    late.map(drop)
}

/// Signs people in, each with credits, a photo and a first picture.
fn people_of(app: &App) -> Result<Vec<Someone>> {
    let database = app.database()?;
    let mut people = Vec::new();
    for number in 0..PEOPLE {
        let person = Person::sign_in(app.address, &format!("soak{number}"))?;
        webhook::give(&database, &person.id, 2)?;
        let (upload, task_no) = person.order_one()?;
        let fixed = [
            (What::Session, Rc::new(person.get("/auth/session"))),
            (What::List, Rc::new(person.get("/api/tasks"))),
            (What::Credits, Rc::new(person.get("/api/me/credits"))),
            (What::Catalogue, Rc::new(person.get("/api/hairstyles"))),
        ];
        people.push(Someone { person, upload, tasks: VecDeque::from([task_no]), fixed });
    }
    catch_up(&database)?;
    Ok(people)
}

/// The most requests a second that are possible.
fn peak(app: &App, clients: &mut Clients, traffic: &mut Traffic) -> Result<f64> {
    let mut flat_out = |time| {
        let run = run(clients, traffic, time, None, |_, _| Ok(()))?;
        match run.errors.first() {
            Some(first) => bail!("{} errors while measuring the most that is possible: {first}", run.errors.len()),
            None => Ok(run),
        }
    };
    step("getting going", || flat_out(WARM_UP))?;
    let run = step("measuring how much is possible", || flat_out(PEAK))?;
    // What was ordered meanwhile has to be made as well, or the work only piles up.
    let late = step("waiting for the pictures", || catch_up(&app.database()?))?;
    let peak = run.answers as f64 / (PEAK + late).as_secs_f64();
    eprintln!("    {peak:.0} requests/s");
    Ok(peak)
}

/// Prints the minutes as a table, and answers the same as JSON.
fn print(minutes: &[Minute]) -> Vec<Value> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as f64;
    let middle = |memory: &[u64]| {
        let mut memory = memory.to_vec();
        memory.sort_unstable();
        memory.get(memory.len() / 2).copied().unwrap_or_default()
    };
    println!("CPU: milliseconds a request in each program; of each core what others used and what was taken from this machine");
    println!(
        "{:<7} {:>10} {:>8} {:>9} {:>8} {:>11} {:>10} {:>6} {:>8} {:>7} {:>7} {:>6} {:>9} {:>7} {:>7}",
        "minute",
        "requests/s",
        "p50 ms",
        "p99 ms",
        "max ms",
        "memory MiB",
        "under way",
        "host",
        "sandbox",
        "client",
        "others",
        "taken",
        "yardstick",
        "db MiB",
        "log MiB"
    );
    let mut rows = Vec::new();
    for (number, minute) in minutes.iter().enumerate() {
        let (p50, p99) = (ms(percentile(&minute.times, 50)), ms(percentile(&minute.times, 99)));
        let (most, memory) = (ms(minute.times.last().copied().unwrap_or_default()), middle(&minute.memory) as f64 / 1024.0);
        let per_second = minute.times.len() as f64 / 60.0;
        let each = |used: Duration| ms(used) / minute.times.len().max(1) as f64;
        let (host, sandbox, client) = (each(minute.used.host), each(minute.used.sandbox), each(minute.used.client));
        let share = |used: Duration| used.as_secs_f64() / 60.0 / cores;
        let (others, taken) = (share(minute.used.others), share(minute.used.stolen));
        let yardstick = ms(percentile(&minute.yardstick, 50));
        let [database, log] = minute.files.map(|bytes| bytes as f64 / f64::from(1 << 20));
        println!(
            "{:<7} {per_second:>10.0} {p50:>8.2} {p99:>9.2} {most:>8.1} {memory:>11.1} {:>10} {host:>6.2} {sandbox:>8.2} {client:>7.2} {:>5.0} % {:>4.0} % {yardstick:>9.3} {database:>7.1} {log:>7.1}",
            number + 1,
            minute.under_way,
            others * 100.0,
            taken * 100.0,
        );
        rows.push(serde_json::json!({
            "minute": number + 1, "requests_per_second": per_second, "p50_ms": p50, "p99_ms": p99, "max_ms": most, "memory_mib": memory,
            "under_way": minute.under_way, "cpu_ms_host": host, "cpu_ms_sandbox": sandbox, "cpu_ms_client": client,
            "others": others, "taken": taken, "yardstick_ms": yardstick,
            "database_mib": database, "log_mib": log,
        }));
    }
    rows
}

/// How many pictures are under way.
fn under_way(database: &rusqlite::Connection) -> Result<i64> {
    let sql = "SELECT count(*) FROM ai_tasks WHERE status IN ('pending', 'processing')";
    Ok(database.query_row(sql, [], |row| row.get(0))?)
}

/// Waits until no picture is under way; answers how long that took.
///
/// Nothing sweeps here, so that a picture which is not made when it is ordered, or not brought home when it is made, stays where it is and is seen.
fn catch_up(database: &rusqlite::Connection) -> Result<Duration> {
    let begun = Instant::now();
    loop {
        let left = under_way(database)?;
        if left == 0 {
            return Ok(begun.elapsed());
        }
        if begun.elapsed() > CATCH_UP {
            bail!("{left} pictures are still not there {} s after the last request", CATCH_UP.as_secs());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

struct Run {
    answers: u64,
    errors: Vec<String>,
}

fn run(
    clients: &mut Clients,
    traffic: &mut Traffic,
    time: Duration,
    pace: Option<Duration>,
    mut note: impl FnMut(Duration, What) -> Result<()>,
) -> Result<Run> {
    let mut outcome = Run { answers: 0, errors: Vec::new() };
    let traffic = std::cell::RefCell::new(traffic);
    clients.drive(
        time,
        pace,
        |client| Ok(traffic.borrow_mut().next(client)),
        |client, heard| {
            let mut traffic = traffic.borrow_mut();
            let what = traffic.doing[client].1;
            outcome.answers += 1;
            let learned = heard.expect(traffic.expected(client)).and_then(|()| traffic.learn(client, &heard));
            if let Err(error) = learned {
                outcome.errors.push(format!("{what:?}: {error:#}"));
            }
            note(heard.took, what)
        },
    )?;
    Ok(outcome)
}
