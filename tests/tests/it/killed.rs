//! `kill -9` of the host while people use it: what it acknowledged is there afterwards, and everything reaches its end.
//!
//! The host runs as its own program. SIGKILL ends the process, not the machine: what SQLite or the libSQL server has handed to the system
//! stays. What a power cut takes is another matter (docs/scaling.md).

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use e2e::{CRON_SECRET, Options, Person, World, hosts, photos};
use http::Method;
use reqwest::RequestBuilder;
use serde_json::{Value, json};

/// People who use the app at once.
const PEOPLE: usize = 4;

/// What the app has said yes to.
#[derive(Default)]
struct Acknowledged {
    uploads: Vec<(usize, String)>,
    tasks: Vec<(usize, String)>,
    orders: Vec<(usize, String)>,
    /// The app itself said that these are paid.
    completed: Vec<(usize, String)>,
    /// The payment provider took the money for these; the app may have been dead at that moment.
    charged: Vec<String>,
}

impl Acknowledged {
    fn count(&self) -> usize {
        self.uploads.len() + self.tasks.len() + self.orders.len() + self.completed.len()
    }
}

/// The next number of a splitmix64 sequence, below `bound`.
fn roll(dice: &mut u64, bound: u64) -> u64 {
    *dice = dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *dice;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) % bound
}

/// The answer to a request that a dead host may leave without one.
async fn heard(request: RequestBuilder, expected: u16) -> Option<Value> {
    let answer = match request.send().await {
        Ok(answer) if answer.status() == expected => answer.json().await.ok(),
        _ => None,
    };
    if answer.is_none() {
        // As a person would, only quicker.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    answer
}

/// Uploads, orders and buys until told to stop, and notes every yes.
async fn use_the_app(person: Person, number: usize, mut dice: u64, stop: &AtomicBool, noted: &Mutex<Acknowledged>, acts: &AtomicUsize) {
    let upload = person.any_upload().await;
    let photo = photos::read("portrait.jpg");
    while !stop.load(Ordering::Relaxed) {
        acts.fetch_add(1, Ordering::Relaxed);
        let id = |value: &Value| value["id"].as_str().unwrap().to_owned();
        match roll(&mut dice, 4) {
            0 => {
                let Some(answer) = heard(person.upload_request("image/jpeg", photo.clone()), 201).await else { continue };
                noted.lock().unwrap().uploads.push((number, id(&answer["uploads"][0])));
            }
            1 | 2 => {
                let body = json!({"upload_id": upload, "hairstyles": ["bob-cut", "quiff"]});
                let Some(answer) = heard(person.request(Method::POST, "/api/tasks").json(&body), 202).await else { continue };
                let tasks = answer["tasks"].as_array().unwrap().iter().map(|task| (number, task["task_no"].as_str().unwrap().to_owned()));
                noted.lock().unwrap().tasks.extend(tasks);
            }
            _ => {
                let body = json!({"product_id": "credits-10"});
                let Some(answer) = heard(person.request(Method::POST, "/api/orders").json(&body), 201).await else { continue };
                let order = id(&answer["order"]);
                noted.lock().unwrap().orders.push((number, order.clone()));
                buy(&person, number, &order, answer["order"]["payment_url"].as_str().unwrap(), noted).await;
            }
        }
    }
}

async fn buy(person: &Person, number: usize, order: &str, page: &str, noted: &Mutex<Acknowledged>) {
    let form = person.request(Method::POST, &format!("{page}/pay")).header("content-type", "application/x-www-form-urlencoded");
    let Ok(paid) = form.body("email=buyer%40example.com").send().await else { return };
    assert_eq!(paid.status(), 303, "the payment provider is never dead");
    noted.lock().unwrap().charged.push(order.to_owned());
    let back = paid.headers()["location"].to_str().unwrap().to_owned();
    let Ok(answer) = person.request(Method::GET, &back).send().await else { return };
    let Some(page) = answer.headers().get("location").map(|page| page.to_str().unwrap().to_owned()) else { return };
    let Some(answer) = heard(person.request(Method::GET, &page), 200).await else { return };
    if answer["order"]["status"] == "completed" {
        noted.lock().unwrap().completed.push((number, order.to_owned()));
    }
}

/// Everybody uses the app; a host is killed at random moments, `rounds` times, and comes back; then everything that was acknowledged is looked
/// for.
async fn under_load(world: &World, rounds: u64, hosts: u64) {
    let seed = u64::try_from(e2e::now()).unwrap();
    println!("seed {seed}");
    let mut people = Vec::new();
    for number in 0..PEOPLE {
        people.push(world.sign_in(&format!("person-{number}@example.com")).await);
        // Before anything dies.
        people[number].any_upload().await;
    }
    let (stop, noted, acts) =
        (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Acknowledged::default())), Arc::new(AtomicUsize::new(0)));
    let users: Vec<_> = people
        .iter()
        .enumerate()
        .map(|(number, person)| {
            let (person, stop, noted, acts) = (person.clone(), stop.clone(), noted.clone(), acts.clone());
            tokio::spawn(async move { use_the_app(person, number, seed + number as u64, &stop, &noted, &acts).await })
        })
        .collect();
    let mut dice = seed ^ 0xdead;
    for _ in 0..rounds {
        tokio::time::sleep(Duration::from_millis(300 + roll(&mut dice, 900))).await;
        let victim = usize::try_from(roll(&mut dice, hosts)).unwrap();
        world.kill(victim);
        if hosts > 1 {
            // The other one goes on.
            let before = noted.lock().unwrap().count();
            let more = async || {
                let now = noted.lock().unwrap().count();
                if now > before + 3 { Ok(()) } else { Err(format!("{before}, then {now}")) }
            };
            world.until("yeses of the host that is left", more).await;
        }
        let back = world.clone();
        tokio::task::spawn_blocking(move || back.resume(victim)).await.unwrap();
    }
    // The last one that came back serves for a while, too.
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.store(true, Ordering::Relaxed);
    for user in users {
        user.await.unwrap();
    }
    let noted = std::mem::take(&mut *noted.lock().unwrap());
    settle(world, &noted.charged).await;

    let objects = world.objects();
    for (person, upload) in &noted.uploads {
        let upload = people[*person].get(200, &format!("/api/uploads/{upload}")).await.json()["upload"].clone();
        assert!(objects.iter().any(|key| *key == upload["key"].as_str().unwrap()), "{upload} has no file");
    }
    for (person, task) in &noted.tasks {
        let task = people[*person].task(task).await;
        assert!(task["status"] == "completed" || task["status"] == "failed", "{task}");
    }
    for (person, order) in &noted.orders {
        people[*person].get(200, &format!("/api/orders/{order}")).await;
    }
    for order in noted.completed.iter().map(|(_, order)| order).chain(&noted.charged) {
        assert_eq!(
            world.sql_text(&format!("SELECT status FROM orders WHERE id = '{order}'")),
            "completed",
            "order {order}{}",
            world.tail()
        );
    }
    world.assert_books_balance();
    for invariant in audit::OVERDUE {
        assert_eq!(world.sql(invariant.offenders), Vec::<Vec<Value>>::new(), "{}: {}", invariant.id, invariant.rule);
    }
    assert!(noted.count() > usize::try_from(rounds).unwrap(), "hardly anything was acknowledged: {}", noted.count());
    if hosts > 1 {
        println!("the libSQL server was stuck and started again {} times", world.with_shared(|stores| stores.sqld.restarts()));
    }
    println!(
        "{rounds} kills, {} attempts: {} uploads, {} pictures, {} orders acknowledged, {} paid; all of them are there",
        acts.load(Ordering::Relaxed),
        noted.uploads.len(),
        noted.tasks.len(),
        noted.orders.len(),
        noted.charged.len()
    );
}

/// Lets the sweeps finish what was cut off.
async fn settle(world: &World, charged: &[String]) {
    let stranger = world.stranger();
    let open = "SELECT count(*) FROM ai_tasks WHERE status IN ('pending', 'processing')";
    let completed = |order: &String| world.sql_number(&format!("SELECT status = 'completed' FROM orders WHERE id = '{order}'")) == 1;
    world
        .until("everything to reach its end", async || {
            world.db_tasks_are_due();
            world.db_payments_are_due();
            // Whoever was killed while sweeping holds the lease of that job for two minutes more.
            world.db_write("UPDATE job_runs SET leased_until = 0 WHERE outcome = 'running'", []);
            for path in ["/internal/tasks", "/internal/reconcile", "/internal/cleanup"] {
                let _ = stranger.request(Method::POST, path).bearer_auth(CRON_SECRET).send().await;
            }
            let left = world.sql(open);
            if left[0][0] == 0 && charged.iter().all(&completed) { Ok(()) } else { Err(format!("{left:?}")) }
        })
        .await;
}

fn options() -> Options {
    let variables = [("signup_credits", "500"), ("rate_limit_per_hour", "0"), ("daily_picture_limit", "0")];
    Options {
        variables: variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        processes: Some(&["--sweep-every", "1s"]),
        ..Options::default()
    }
}

async fn on_a_file(rounds: u64) {
    let world = World::with(options()).await;
    under_load(&world, rounds, 1).await;
}

async fn with_two_hosts(rounds: u64) {
    if let Err(why) = tokio::task::spawn_blocking(hosts::programs).await.unwrap() {
        println!("skipped: {why}");
        return;
    }
    let world = World::with(Options { two_hosts: true, ..options() }).await;
    under_load(&world, rounds, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_host_loses_nothing_that_it_acknowledged() {
    on_a_file(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_hosts_is_killed_and_the_other_goes_on_and_nothing_is_lost() {
    with_two_hosts(3).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes"]
async fn a_host_that_is_killed_many_times_loses_nothing() {
    on_a_file(40).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes"]
async fn two_hosts_that_are_killed_many_times_lose_nothing() {
    with_two_hosts(40).await;
}
