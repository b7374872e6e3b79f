//! `GET /api/tasks/{task_no}/events`: a task as it goes on.

use std::time::Duration;

use e2e::kie::Callback;
use e2e::{Options, PATIENCE, Person, World, contract, now};
use futures::future::join_all;
use http::Method;
use sandbox::Fault;
use serde_json::{Value, json};

/// Most looks in one stream (crates/task, `follow::MOST_LOOKS`).
const MOST_LOOKS: u64 = 28;

/// One event of a task.
#[derive(Debug)]
struct Event {
    id: String,
    data: Value,
}

impl Event {
    fn status(&self) -> &str {
        self.data["task"]["status"].as_str().unwrap()
    }
}

/// An open stream.
struct Stream {
    world: World,
    answer: reqwest::Response,
    unread: String,
}

impl Stream {
    async fn ask(person: &Person, task: &str, seen: Option<&str>) -> reqwest::Response {
        let mut request = person.request(Method::GET, &format!("/api/tasks/{task}/events"));
        if let Some(seen) = seen {
            request = request.header("last-event-id", seen);
        }
        let (client, request) = request.build_split();
        let request = request.unwrap();
        let asked = contract::Asked::of(&request);
        let answer = client.execute(request).await.unwrap();
        contract::check_head(&asked, &answer).await;
        answer
    }

    async fn open(person: &Person, task: &str, seen: Option<&str>) -> Self {
        let answer = Self::ask(person, task, seen).await;
        assert_eq!(answer.status(), 200, "{}", person.world.tail());
        for (name, value) in [("content-type", "text/event-stream"), ("cache-control", "no-store"), ("x-accel-buffering", "no")] {
            assert_eq!(answer.headers()[name], value);
        }
        assert!(!answer.headers().contains_key("content-length") && answer.headers().contains_key("x-request-id"));
        Self { world: person.world.clone(), answer, unread: String::new() }
    }

    fn id(&self) -> String {
        self.answer.headers()["x-request-id"].to_str().unwrap().to_owned()
    }

    /// The next event; `None`: the stream has ended as it should.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((block, rest)) = self.unread.split_once("\n\n").map(|(block, rest)| (block.to_owned(), rest.to_owned())) {
                self.unread = rest;
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned));
                let Some(event) = field("event") else {
                    assert!(block.starts_with("retry: ") || block.starts_with(':'), "{block}");
                    continue;
                };
                assert_eq!(event, "task");
                return Some(Event { id: field("id").unwrap(), data: serde_json::from_str(&field("data").unwrap()).unwrap() });
            }
            let chunk = tokio::time::timeout(PATIENCE, self.answer.chunk()).await;
            match chunk.unwrap_or_else(|_| panic!("no event{}", self.world.tail())).unwrap() {
                Some(chunk) => self.unread.push_str(std::str::from_utf8(&chunk).unwrap()),
                None => {
                    assert_eq!(self.unread, "", "an event that breaks off");
                    return None;
                }
            }
        }
    }

    /// The next event of this status.
    async fn until(&mut self, status: &str) -> Event {
        while let Some(event) = self.next().await {
            if event.status() == status {
                return event;
            }
        }
        panic!("it ended before it was {status}{}", self.world.tail());
    }
}

/// The line about the end of a stream.
async fn ended(world: &World, id: &str) -> Value {
    let line = async || {
        let line = world.events("stream_ended").into_iter().find(|line| line["request_id"] == id);
        line.ok_or_else(|| "no line".to_owned())
    };
    world.until("the line of a stream", line).await
}

/// A task at the provider, whose callback a test sends itself.
async fn unheard(world: &World) -> (Person, String) {
    world.fault(Fault::KieNoCallback);
    let ada = world.sign_in("ada@example.com").await;
    let task = ada.order_one().await;
    world.until_done_at_provider().await;
    (ada, task)
}

/// A task that the provider has not got yet.
async fn waiting(world: &World) -> (Person, String) {
    world.fault(Fault::KieCreateAnswers { code: 429, msg: None, http_status: None });
    let ada = world.sign_in("ada@example.com").await;
    let task = ada.order_one().await;
    assert_eq!(ada.task(&task).await["status"], "pending");
    (ada, task)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_told_from_waiting_to_its_picture_as_a_reader_would_see_it() {
    let world = World::new().await;
    let (ada, task) = waiting(&world).await;
    let mut stream = Stream::open(&ada, &task, None).await;
    let first = stream.next().await.unwrap();
    let read = ada.get(200, &format!("/api/tasks/{task}")).await;
    assert_eq!((&first.data, first.id.as_str()), (&read.json(), read.header("etag")));
    assert_eq!(first.status(), "pending");

    world.control().clear_faults();
    world.fault(Fault::KieNoCallback);
    world.db_tasks_are_due();
    world.sweep().await;
    let mut last = stream.until("processing").await;
    // Its progress goes on.
    for _ in 0..2 {
        let next = stream.next().await.unwrap();
        assert!(next.data["task"]["progress"].as_f64() > last.data["task"]["progress"].as_f64(), "{next:?}");
        assert_ne!(next.id, last.id);
        last = next;
    }
    Callback::about(&world, &task).send(&world, 200).await;
    let end = stream.until("completed").await;
    let read = ada.get(200, &format!("/api/tasks/{task}")).await;
    assert_eq!((&end.data, end.id.as_str()), (&read.json(), read.header("etag")));
    assert!(stream.next().await.is_none(), "nothing comes after the end");

    let line = ended(&world, &stream.id()).await;
    assert_eq!((&line["ended"], &line["component"]), (&json!("final"), &json!("task-events")));
    assert!(line["events"].as_u64().unwrap() >= 5 && line["looks"].as_u64().unwrap() >= 3, "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_back_is_told_nothing_twice_and_after_the_end_nothing_at_all() {
    let world = World::new().await;
    let (ada, task) = waiting(&world).await;
    let pending = Stream::open(&ada, &task, None).await.next().await.unwrap();
    let mut again = Stream::open(&ada, &task, Some(&pending.id)).await;
    world.control().clear_faults();
    world.db_tasks_are_due();
    world.sweep().await;
    let next = again.next().await.unwrap();
    assert_ne!(next.status(), "pending", "it was seen");
    let end = if next.status() == "completed" { next } else { again.until("completed").await };
    // Who missed the end is told it, who has seen it has nothing to come back for.
    let mut late = Stream::open(&ada, &task, Some(&pending.id)).await;
    assert_eq!(late.next().await.unwrap().id, end.id);
    assert!(late.next().await.is_none());
    let answer = Stream::ask(&ada, &task, Some(&end.id)).await;
    assert_eq!(answer.status(), 204);
    assert_eq!(answer.text().await.unwrap(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_for_the_owner_of_a_task() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let task = ada.order_one().await;
    let path = format!("/api/tasks/{task}/events");
    world.stranger().get(401, &path).await.problem("unauthenticated");
    world.sign_in("eve@example.com").await.get(404, &path).await.problem("not_found");
    ada.wait_completed(&task).await;
    world.sign_in("eve@example.com").await.get(404, &path).await.problem("not_found");
    ada.get(404, "/api/tasks/TASK_1_abcdef/events").await.problem("not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_told_with_its_reason_and_so_is_a_cancellation() {
    let world = World::new().await;
    world.fault(Fault::KieFail { code: 501, msg: None });
    let ada = world.sign_in("ada@example.com").await;
    let task = ada.order_one().await;
    let mut stream = Stream::open(&ada, &task, None).await;
    let failed = stream.until("failed").await;
    assert!(failed.data["task"]["failure_reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{failed:?}");
    assert!(stream.next().await.is_none());
    assert_eq!(ada.credits().await, 3);

    let (ada, task) = waiting(&world).await;
    let mut stream = Stream::open(&ada, &task, None).await;
    assert_eq!(stream.next().await.unwrap().status(), "pending");
    ada.post(200, &format!("/api/tasks/{task}/cancel")).await;
    let cancelled = stream.next().await.unwrap();
    assert_eq!((cancelled.status(), &cancelled.data["task"]["failure_reason"]), ("failed", &json!("cancelled")));
    assert!(stream.next().await.is_none());
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_that_got_lost_ends_the_stream_and_whoever_then_reads_brings_the_picture_home() {
    let world = World::new().await;
    let (ada, task) = unheard(&world).await;
    let mut stream = Stream::open(&ada, &task, None).await;
    let mut last = stream.next().await.unwrap();
    assert_eq!(last.status(), "processing");
    world.db_tasks_are_due();
    while let Some(event) = stream.next().await {
        assert_eq!(event.status(), "processing");
        last = event;
    }
    assert_eq!(ended(&world, &stream.id()).await["ended"], "overdue");
    assert_eq!(Stream::ask(&ada, &task, Some(&last.id)).await.status(), 204, "it is time to ask for the task itself");
    assert_eq!(ada.task(&task).await["status"], "completed");
    assert_eq!(Stream::open(&ada, &task, Some(&last.id)).await.next().await.unwrap().status(), "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_looks_seldom_and_outlives_what_a_client_waits_for_an_answer() {
    let world = World::with(Options { request_timeout: Some(Duration::from_secs(3)), ..Options::default() }).await;
    world.fault(Fault::KieDelay { ms: 600_000 });
    let ada = world.sign_in("ada@example.com").await;
    let task = ada.order_one().await;
    let before = world.host_calls();
    let mut stream = Stream::open(&ada, &task, None).await;
    for _ in 0..10 {
        assert_eq!(stream.next().await.unwrap().status(), "processing");
    }
    let spent = world.host_calls().sqlite - before.sqlite;
    // One each for the first look and those after 1, 3, 6, 10 and perhaps 15 seconds; a look may be counted for its limit.
    assert!((3..10).contains(&spent) && spent < MOST_LOOKS, "{spent} statements for ten events");
    assert_eq!(world.host_calls().http, before.http, "nobody outside is asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_ends_its_stream() {
    let world = World::new().await;
    let (ada, task) = unheard(&world).await;
    let mut stream = Stream::open(&ada, &task, None).await;
    stream.next().await.unwrap();
    let id = stream.id();
    drop(stream);
    let line = ended(&world, &id).await;
    assert_eq!(line["ended"], "gone", "{line}");
    assert!(line["sqlite"].as_u64().unwrap() <= 2 * MOST_LOOKS, "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_out_and_being_erased_end_a_stream() {
    let world = World::new().await;
    let (ada, task) = unheard(&world).await;
    let token = ada.token().unwrap();
    let mut stream = Stream::open(&ada, &task, None).await;
    stream.next().await.unwrap();
    ada.post(204, "/auth/logout").await;
    while let Some(event) = stream.next().await {
        assert_eq!(event.status(), "processing");
    }
    assert_eq!(ended(&world, &stream.id()).await["ended"], "unauthenticated");
    let stranger = world.stranger();
    let request = stranger.request(Method::GET, &format!("/api/tasks/{task}/events")).bearer_auth(token);
    stranger.send(401, request).await.problem("unauthenticated");

    let ada = world.sign_in("ada@example.com").await;
    let mut stream = Stream::open(&ada, &task, None).await;
    stream.next().await.unwrap();
    ada.delete(200, "/api/me").await;
    while let Some(event) = stream.next().await {
        assert_eq!(event.status(), "processing");
    }
    let why = ended(&world, &stream.id()).await["ended"].clone();
    assert!(why == "unauthenticated" || why == "not_found", "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_open_streams_keep_nobody_from_anything() {
    let world = World::new().await;
    let (ada, task) = unheard(&world).await;
    let mut streams = join_all((0..200).map(|_| Stream::open(&ada, &task, None))).await;
    for event in join_all(streams.iter_mut().map(Stream::next)).await {
        assert_eq!(event.unwrap().status(), "processing");
    }
    let eve = world.sign_in("eve@example.com").await;
    eve.get(200, "/api/me").await;
    ada.get(200, &format!("/api/tasks/{task}")).await;
    Callback::about(&world, &task).send(&world, 200).await;
    for event in join_all(streams.iter_mut().map(|stream| stream.until("completed"))).await {
        assert!(event.data["task"]["completed_at"].as_i64().unwrap() <= now());
    }
    let lines = async || {
        let ended = world.events("stream_ended").iter().filter(|line| line["ended"] == "final").count();
        if ended == 200 { Ok(()) } else { Err(format!("{ended} have ended")) }
    };
    world.until("the lines of all streams", lines).await;
}
