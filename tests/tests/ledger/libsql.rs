//! The same rules on a real libSQL server, over HTTP, every statement a request of its own, as Spin's libSQL backend sends them.
//!
//! Where the server's program cannot be had - no Python, no network - the tests say so and pass; whatever else goes wrong fails them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use audit::INVARIANTS;
use backup::schema::{Column, PLAN, Plan};
use books::{Refusal, Value, Walk, walk};
use hrana::Client;
use servers::Sqld;
use tempfile::TempDir;

/// A running server with the product's schema.
struct Server {
    sqld: Sqld,
    _folder: TempDir,
}

impl Server {
    fn start(program: &Path) -> Self {
        let folder = TempDir::new().unwrap();
        let server = Self { sqld: Sqld::start(program, folder.path()).unwrap(), _folder: folder };
        migrations::apply_to_server(&server.client(), &e2e::root().join("migrations")).unwrap();
        server
    }

    fn client(&self) -> Client {
        self.sqld.client()
    }
}

/// The server's program, or a line that says why it cannot be had. That alone skips a test: a program that is there has to work.
fn program() -> Option<PathBuf> {
    servers::sqld(&e2e::root().join("target")).inspect_err(|why| println!("skipped: {why}")).ok()
}

fn server() -> Option<Server> {
    program().map(|program| Server::start(&program))
}

fn run(client: &mut Client, sql: &str, parameters: &[Value]) -> Result<Vec<Vec<Value>>, Refusal> {
    books::Database::run(client, sql, parameters)
}

fn assert_audit_is_clean(client: &mut Client) {
    for invariant in INVARIANTS {
        assert_eq!(run(client, invariant.offenders, &[]).unwrap(), Vec::<Vec<Value>>::new(), "{}", invariant.id);
    }
}

/// What these do at the same moment, each on a connection of its own.
fn at_once(
    server: &Server,
    many: usize,
    act: impl Fn(&mut Client, usize) -> Result<Vec<Vec<Value>>, Refusal> + Sync,
) -> Vec<Result<Vec<Vec<Value>>, Refusal>> {
    let barrier = std::sync::Barrier::new(many);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..many)
            .map(|number| {
                let (barrier, act) = (&barrier, &act);
                scope.spawn(move || {
                    let mut client = server.client();
                    barrier.wait();
                    // A server that is busy says so, and one that the watchdog starts anew is out of reach; then one comes again.
                    loop {
                        match act(&mut client, number) {
                            Err(error) if ["locked", "busy", "out of reach"].iter().any(|word| error.contains(word)) => {
                                std::thread::sleep(Duration::from_millis(20))
                            }
                            answer => return answer,
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn the_books_are_right_on_a_libsql_server_too() {
    let Some(server) = server() else { return };
    let mut client = server.client();
    let seed = u64::try_from(e2e::now()).unwrap();
    let start = Instant::now();
    if let Err(failure) = walk(&mut client, Walk { seed, steps: 400, audit_every: 100 }) {
        panic!("{failure}");
    }
    println!("400 steps in {:.1} s, seed {seed}", start.elapsed().as_secs_f64());
    // From here on many write at once, and may wait for each other for ever (decision 14). An answer that is lost with the server leaves open
    // whether its statement had an effect: the books tell.
    server.sqld.watch();

    let sign_up = "INSERT INTO sign_ups (user_id, email, name, credits, provider, openid, created_at) \
                   VALUES ('bob', 'bob@example.com', 'Bob', 1, 'google', 'bob', unixepoch())";
    run(&mut client, sign_up, &[]).unwrap();
    // Fifty pictures at once for one credit.
    let task = "INSERT INTO ai_tasks (id, task_no, user_id, input_params) VALUES (?1, ?1, 'bob', '{}') RETURNING id";
    let tasks = at_once(&server, 50, |client, number| run(client, task, &[Value::from(&format!("bob-{number}"))]));
    let told = tasks.iter().filter(|answer| answer.is_ok()).count();
    assert!(told == 1 || (told == 0 && server.sqld.restarts() > 0), "{tasks:?}");
    assert_eq!(run(&mut client, "SELECT count(*) FROM ai_tasks WHERE user_id = 'bob'", &[]).unwrap()[0][0].integer(), 1);
    let refused = tasks.iter().filter_map(|answer| answer.as_ref().err());
    // Whoever did not hear of the success and comes again finds the own task there.
    let expected = |why: &str| why.contains("insufficient_credits") || (told == 0 && why.contains("UNIQUE"));
    assert!(refused.clone().all(|why| expected(why)), "{:?}", refused.collect::<Vec<_>>());

    // Webhook and return page, twenty times at once.
    let order =
        "INSERT INTO orders (id, user_id, amount, currency, credits, product_id) VALUES ('bobs', 'bob', 499, 'USD', 10, 'credits-10')";
    run(&mut client, order, &[]).unwrap();
    let settle = include_str!("../../../crates/order/sql/settle.sql");
    let settled = at_once(&server, 20, |client, _| {
        let parameters = ["bobs", "ch_bob", "ord_bob", "prod_credits_10"].map(Value::from);
        let rest = [Value::from(e2e::now()), Value::from("tran_bob"), Value::from(499), Value::Null, Value::Null, Value::Null];
        run(client, settle, &[parameters.as_slice(), rest.as_slice()].concat())
    });
    let first = settled.iter().filter(|answer| answer.as_ref().is_ok_and(|rows| rows[0][0].integer() == 1)).count();
    assert!(first == 1 || (first == 0 && server.sqld.restarts() > 0), "{settled:?}");
    assert_eq!(settled.iter().filter(|answer| answer.is_ok()).count(), 20, "{settled:?}");
    assert_eq!(run(&mut client, "SELECT credits FROM users WHERE id = 'bob'", &[]).unwrap()[0][0].integer(), 10);
    println!("the server was stuck and started again {} times", server.sqld.restarts());
    assert_audit_is_clean(&mut client);
    one_statement_sees_every_row(&mut client);
}

/// What a backup is made of (crates/backup): the plan is read and the statement works as on a local file.
fn one_statement_sees_every_row(client: &mut Client) {
    let column = |row: &Vec<Value>| Column {
        table: row[0].text().to_owned(),
        table_sql: row[1].text().to_owned(),
        without_rowid: row[2].integer() != 0,
        name: row[3].text().to_owned(),
        declared_type: row[4].text().to_owned(),
        in_primary_key: row[5].integer(),
    };
    let columns: Vec<Column> = run(client, PLAN, &[]).unwrap().iter().map(column).collect();
    let plan = Plan::of(&columns);
    let rows = run(client, &plan.statement().unwrap(), &[]).unwrap();
    assert!(plan.tables.len() > 20, "{plan:?}");
    for (number, table) in plan.tables.iter().enumerate().skip(1) {
        let of_table: Vec<_> = rows.iter().filter(|row| row[0].integer() == i64::try_from(number).unwrap()).collect();
        let count = run(client, &format!("SELECT count(*) FROM {}", table.name), &[]).unwrap()[0][0].integer();
        assert_eq!(i64::try_from(of_table.len()).unwrap(), count, "{}", table.name);
        if table.name == "users" {
            assert!(of_table.iter().any(|row| row.iter().any(|value| matches!(value, Value::Text(text) if text == "bob@example.com"))));
        }
    }
}

/// How many people the writers of a storm share. Few, so that they meet.
const PEOPLE: u64 = 5;
/// Where the other process of a storm finds the server, and how many steps it takes.
const STORM: &str = "LEDGER_STORM";

/// Does random things to the books of a few people until so many steps are taken; whatever the schema refuses is passed over. Answers how many
/// statements had an effect.
fn storm(client: &mut Client, seed: u64, steps: u64) -> u64 {
    let mut dice = seed;
    let mut roll = |bound: u64| {
        dice = dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = dice;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    };
    let settle = include_str!("../../../crates/order/sql/settle.sql");
    let mut done = 0;
    for step in 0..steps {
        let now = e2e::now();
        let who = Value::from(&format!("person-{}", roll(PEOPLE)));
        let id = format!("{seed:x}-{step}");
        let random = |table: &str| format!("(SELECT id FROM {table} WHERE user_id = ?1 ORDER BY random() LIMIT 1)");
        let (sql, parameters): (String, Vec<Value>) = match roll(10) {
            0 => (
                "INSERT INTO credit_records (id, user_id, amount, type, entity_type, entity_id, expires_at, created_at) \
                 VALUES ('gift:' || ?2, ?1, ?3, 'gift', 'signup', ?2, ?4, ?5)"
                    .into(),
                vec![
                    who,
                    (&id).into(),
                    i64::try_from(roll(4) + 1).unwrap().into(),
                    (now + 1 + i64::try_from(roll(4)).unwrap()).into(),
                    now.into(),
                ],
            ),
            1..=4 => (
                "INSERT INTO ai_tasks (id, task_no, user_id, input_params, price) SELECT ?2 || value, ?2 || value, ?1, '{}', 1 \
                 FROM json_each('[1,2]') RETURNING id"
                    .into(),
                vec![who, (&id).into()],
            ),
            5 | 6 => {
                let to = ["processing", "completed", "failed"][usize::try_from(roll(3)).unwrap()];
                let sql = "UPDATE ai_tasks SET status = ?2, updated_at = ?3, \
                           result_urls = iif(?2 = 'completed', '[\"/files/x\"]', result_urls) WHERE id = ";
                (format!("{sql}{} RETURNING id", random("ai_tasks")), vec![who, to.into(), now.into()])
            }
            7 => (
                "INSERT INTO orders (id, user_id, amount, currency, credits, product_id) VALUES (?2, ?1, 499, 'USD', 10, 'credits-10')"
                    .into(),
                vec![who, (&id).into()],
            ),
            8 => {
                let Ok(mut rows) = run(client, &format!("SELECT {}", random("orders")), &[who]) else { continue };
                let order = rows.remove(0).remove(0);
                let name = |prefix: &str| Value::from(&format!("{prefix}_{}", order.text()));
                let product = "prod_credits_10".into();
                let parameters = vec![
                    order.clone(),
                    name("ch"),
                    name("ord"),
                    product,
                    now.into(),
                    name("tran"),
                    499.into(),
                    Value::Null,
                    Value::Null,
                    Value::Null,
                ];
                (settle.into(), parameters)
            }
            _ => (
                "INSERT INTO money_back (transaction_id, refunded_amount, disputed, at) \
                 SELECT 'tran_' || id, ?2, ?3, ?4 FROM orders WHERE user_id = ?1 ORDER BY random() LIMIT 1"
                    .into(),
                vec![
                    who,
                    i64::try_from(roll(500)).unwrap().into(),
                    [Value::Null, 1.into(), 0.into()][usize::try_from(roll(3)).unwrap()].clone(),
                    now.into(),
                ],
            ),
        };
        match run(client, &sql, &parameters) {
            Ok(_) => done += 1,
            // The watchdog starts a server anew in which writers wait for each other for ever (decision 14): whether the statement had its
            // effect is not known then, and the books have to be right either way.
            Err(why) if why.contains("out of reach") => std::thread::sleep(Duration::from_millis(200)),
            Err(why) => {
                let expected = ["insufficient_credits", "illegal_task_transition", "locked", "busy"];
                assert!(expected.iter().any(|token| why.contains(token)), "{sql}: {why}");
            }
        }
    }
    done
}

/// Four writers at once on four connections.
fn four_writers(client: &Client, seed: u64, steps: u64) -> u64 {
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let (mut client, done) = (client.clone(), &done);
            scope.spawn(move || done.fetch_add(storm(&mut client, seed + writer, steps), Ordering::Relaxed));
        }
    });
    done.into_inner()
}

fn storm_from_two_processes(steps: u64) {
    let Some(server) = server() else { return };
    server.sqld.watch();
    let mut client = server.client();
    for person in 0..PEOPLE {
        let sql = "INSERT INTO sign_ups (user_id, email, name, credits, provider, openid, created_at) VALUES (?1, ?1 || '@example.com', ?1, 20, 'google', ?1, unixepoch())";
        run(&mut client, sql, &[(&format!("person-{person}")).into()]).unwrap();
    }
    let seed = u64::try_from(e2e::now()).unwrap() << 8;
    let start = Instant::now();
    let other = Command::new(std::env::current_exe().unwrap())
        .args(["libsql::the_other_process_of_a_storm", "--exact", "--ignored"])
        .env(STORM, format!("{} {} {steps}", server.sqld.url(), seed + 128))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let done = four_writers(&client, seed, steps);
    let other = other.wait_with_output().unwrap();
    assert!(other.status.success(), "the other process: {}", other.status);
    let seconds = start.elapsed().as_secs_f64();
    assert!(done > steps, "hardly anything happened: {done} of {}", 4 * steps);
    println!(
        "{} statements by 8 writers in 2 processes in {seconds:.1} s: {:.0} a second, seed {seed}; the server was stuck and started again {} times",
        8 * steps,
        8.0 * steps as f64 / seconds,
        server.sqld.restarts()
    );
    assert_audit_is_clean(&mut client);
}

#[test]
fn eight_writers_in_two_processes_leave_the_books_right() {
    storm_from_two_processes(40);
}

#[test]
#[ignore = "a soak: minutes"]
fn eight_writers_in_two_processes_leave_the_books_right_for_long() {
    storm_from_two_processes(2_500);
}

#[test]
#[ignore = "started by its other half"]
fn the_other_process_of_a_storm() {
    let Ok(task) = std::env::var(STORM) else { return };
    let [url, seed, steps] = task.split(' ').collect::<Vec<_>>().try_into().unwrap();
    four_writers(&Client::new(url, None), seed.parse().unwrap(), steps.parse().unwrap());
}

#[test]
fn migrations_reach_a_server_once_each_even_from_two_operators_at_once() {
    let Some(program) = program() else { return };
    let folder = TempDir::new().unwrap();
    let sqld = Sqld::start(&program, folder.path()).unwrap();
    let migrations = e2e::root().join("migrations");
    let files = migrations::load(&migrations).unwrap().len();
    let reports: Vec<_> = std::thread::scope(|scope| {
        let operators: Vec<_> = (0..3).map(|_| scope.spawn(|| migrations::apply_to_server(&sqld.client(), &migrations).unwrap())).collect();
        operators.into_iter().map(|operator| operator.join().unwrap()).collect()
    });
    assert_eq!(reports.iter().map(|report| report.applied.len()).sum::<usize>(), files, "{reports:?}");
    let again = migrations::apply_to_server(&sqld.client(), &migrations).unwrap();
    assert_eq!((again.applied.len(), again.already), (0, files));

    // A file is applied whole or not at all, and one that was changed afterwards is refused.
    let copy = TempDir::new().unwrap();
    for file in std::fs::read_dir(&migrations).unwrap().flatten() {
        std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    let next = copy.path().join(format!("{:04}_broken.sql", files + 1));
    std::fs::write(&next, "CREATE TABLE half (x); INSERT INTO nowhere VALUES (1);").unwrap();
    let refusal = migrations::apply_to_server(&sqld.client(), copy.path()).unwrap_err().to_string();
    assert!(refusal.contains("_broken was not applied"), "{refusal}");
    assert!(sqld.client().run("SELECT 1 FROM sqlite_schema WHERE name = 'half'", &[]).unwrap().is_empty());
    std::fs::write(&next, "-- nothing").unwrap();
    migrations::apply_to_server(&sqld.client(), copy.path()).unwrap();
    std::fs::write(&next, "-- something").unwrap();
    let refusal = migrations::apply_to_server(&sqld.client(), copy.path()).unwrap_err().to_string();
    assert!(refusal.contains("was changed after it was applied"), "{refusal}");
}
