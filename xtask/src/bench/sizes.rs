//! The same requests on databases of rising size, all in the same rounds: what they cost should not grow.

use anyhow::{Context as _, Result};

use crate::bench::people::Person;
use crate::bench::report::{Line, ms};
use crate::bench::stage::Stage;
use crate::bench::{NEVER, Options, Target, rounds, webhook};
use crate::command::root;
use crate::step::step;

const NAMES: [&str; 4] = ["size1", "size2", "size3", "size4"];

pub fn bench(options: &Options, sizes: &[u64]) -> Result<()> {
    let mut stage = Stage::new()?;
    let mut targets = Vec::new();
    for (size, name) in sizes.iter().zip(NAMES) {
        let app = stage.app(name, root(), NEVER)?;
        let usual = Person::sign_in(app.address, "usual")?;
        let heavy = Person::sign_in(app.address, "heavy")?;
        let mut database = app.database()?;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs().cast_signed();
        step(&format!("filling a database with {size} tasks"), || {
            books::fill(&mut database, *size, &heavy.id, &usual.id, now)?;
            database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
            Ok(())
        })?;
        let weight = std::fs::metadata(app.database_path())?.len() >> 20;
        eprintln!("    {weight} MiB");
        for person in [&usual, &heavy] {
            webhook::give(&database, &person.id, 4)?;
        }
        let (upload, running) = usual.order_one()?;
        let (heavy_upload, _) = heavy.order_one()?;
        // Somewhere in the middle, and the page there.
        let sql = "SELECT task_no, created_at, id FROM ai_tasks WHERE user_id = ?1 AND status = 'completed' ORDER BY created_at DESC, id DESC LIMIT 1 OFFSET ?2";
        let offset = (size / 20).min(5_000);
        let old: String =
            database.query_row(sql, rusqlite::params![heavy.id, offset], |row| row.get(0)).context("the crowd has no heavy user")?;
        let each = [
            ("GET task, running", 200, usual.get(&format!("/api/tasks/{running}"))),
            ("GET list", 200, usual.get("/api/tasks")),
            ("GET credits", 200, usual.get("/api/me/credits")),
            ("GET history", 200, usual.get("/api/me/credits/history")),
            ("GET stats", 200, usual.get("/api/me/stats")),
            ("POST order", 202, usual.order(&upload)),
            ("heavy: GET list", 200, heavy.get("/api/tasks")),
            ("heavy: GET list, offset 5000", 200, heavy.get(&format!("/api/tasks?offset={offset}"))),
            ("heavy: GET task, old", 200, heavy.get(&format!("/api/tasks/{old}"))),
            ("heavy: GET credits", 200, heavy.get("/api/me/credits")),
            ("heavy: GET history", 200, heavy.get("/api/me/credits/history")),
            ("heavy: GET stats", 200, heavy.get("/api/me/stats")),
            ("heavy: POST order", 202, heavy.order(&heavy_upload)),
        ];
        targets.extend(each.into_iter().map(|(name, expected, bytes)| Target::new(name, app.address, expected, bytes)));
    }
    if let Some(only) = &options.only {
        targets.retain(|target| target.name.contains(only.as_str()));
    }
    rounds(options, &mut stage, &mut targets)?;
    let each = targets.len() / sizes.len().min(NAMES.len()).max(1);
    let lines: Vec<Line> = targets.iter().map(|target| Line::of(&target.name, &target.rounds)).collect();
    println!(
        "\nby number of tasks: p50 ms / p99 ms (requests/s), {} connections, medians of {} rounds",
        options.connections, options.rounds
    );
    print!("{:<30}", "");
    sizes.iter().for_each(|size| print!(" {size:>24}"));
    println!();
    for at in 0..each {
        print!("{:<30}", lines[at].name);
        for line in lines.iter().skip(at).step_by(each) {
            let cell = format!("{:.2} / {:.2} ({:.0})", ms(line.p50), ms(line.p99), line.per_second);
            print!(" {cell:>24}");
        }
        println!();
    }
    if let Some(file) = &options.json {
        let rows = lines.iter().enumerate().map(|(at, line)| {
            serde_json::json!({"tasks": sizes[at / each], "name": line.name, "requests_per_second": line.per_second, "p50_ms": ms(line.p50), "p99_ms": ms(line.p99)})
        });
        std::fs::write(file, format!("{:#}\n", serde_json::Value::from(rows.collect::<Vec<_>>())))?;
    }
    Ok(())
}
