//! How often one may do something, what a day may cost, and who is welcomed with credits.

use e2e::{Answer, Options, Person, World};
use http::Method;
use sandbox::{Fault, Service};
use serde_json::json;

/// A world whose proxy writes `x-real-ip`, with some variables.
async fn world(variables: &[(&str, &str)]) -> World {
    let own = [("trusted_proxy", "x-real-ip")];
    let variables = own.iter().chain(variables).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    World::with(Options { variables, ..Options::default() }).await
}

/// The class and what is left of it, from the standard header.
fn left(answer: &Answer) -> (String, i64) {
    let text = answer.header("ratelimit");
    let (class, rest) = text.split_once(';').unwrap_or_else(|| panic!("no ratelimit: {answer}"));
    let r = rest.split(';').find_map(|part| part.strip_prefix("r=")).unwrap_or_else(|| panic!("{answer}"));
    (class.trim_matches('"').to_owned(), r.parse().unwrap())
}

/// Counts are of whole hours: a test that would run into the next one waits for it.
async fn away_from_the_hours_end() {
    let rest = 3_600 - e2e::now() % 3_600;
    if rest < 60 {
        tokio::time::sleep(std::time::Duration::from_secs(u64::try_from(rest).unwrap() + 1)).await;
    }
}

async fn order(person: &Person, expected: u16) -> Answer {
    person.post_json(expected, "/api/tasks", &json!({"upload_id": "nothing", "hairstyles": ["bob-cut"]})).await
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_requests_an_hour_and_then_a_pause() {
    away_from_the_hours_end().await;
    let world = world(&[("rate_limit_per_hour", "3")]).await;
    let (ada, grace) = (world.sign_in("ada@example.com").await, world.sign_in("grace@example.com").await);
    for remaining in [2, 1, 0] {
        let answer = order(&ada, 422).await;
        assert_eq!(left(&answer), ("tasks".to_owned(), remaining), "{answer}");
        assert_eq!(answer.header("ratelimit-policy"), "\"tasks\";q=3;w=3600");
    }
    let refused = order(&ada, 429).await;
    refused.problem("rate_limited");
    let wait: i64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=3_600).contains(&wait), "{refused}");
    assert_eq!(left(&refused).1, 0);
    // Another person, and another class of things, are counted for themselves.
    order(&grace, 422).await;
    ada.post_json(201, "/api/orders", &json!({"product_id": "credits-10"})).await;
    // The next hour begins anew.
    world.db_write("UPDATE rate_counters SET window_ends = window_ends - 3600", []);
    assert_eq!(left(&order(&ada, 422).await).1, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_same_time_no_more_come_through_than_may() {
    away_from_the_hours_end().await;
    let world = world(&[("rate_limit_per_hour", "10")]).await;
    let ada = world.sign_in("ada@example.com").await;
    let body = json!({"upload_id": "nothing", "hairstyles": ["bob-cut"]});
    let ask = || ada.ask(ada.request(Method::POST, "/api/tasks").json(&body));
    let statuses: Vec<u16> = futures::future::join_all((0..40).map(|_| ask())).await.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 422).count(), 10, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 30, "{statuses:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_what_the_trusted_header_says_last_and_nothing_else() {
    away_from_the_hours_end().await;
    let world = world(&[("rate_limit_per_hour", "2")]).await;
    let stranger = world.stranger();
    let login = async |expected: u16, headers: &[(&str, &str)]| {
        let request = headers
            .iter()
            .fold(stranger.request(Method::GET, "/auth/login/google"), |request, (name, value)| request.header(*name, *value));
        stranger.send(expected, request).await
    };
    login(302, &[("x-real-ip", "203.0.113.7")]).await;
    login(302, &[("x-real-ip", "203.0.113.7")]).await;
    login(429, &[("x-real-ip", "203.0.113.7")]).await.problem("rate_limited");
    // What a client writes itself changes nothing: the proxy's word comes last.
    login(429, &[("x-real-ip", "198.51.100.1"), ("x-real-ip", "203.0.113.7")]).await;
    login(429, &[("x-real-ip", "198.51.100.1, 203.0.113.7"), ("x-forwarded-for", "198.51.100.9")]).await;
    login(302, &[("x-real-ip", "203.0.113.8"), ("x-forwarded-for", "203.0.113.7")]).await;
    // One IPv6 customer is one client.
    for host in ["2001:db8:1:2::1", "2001:db8:1:2::2"] {
        login(302, &[("x-real-ip", host)]).await;
    }
    login(429, &[("x-real-ip", "2001:db8:1:2:ffff::9")]).await;
    // No address is written down as it is.
    assert_eq!(world.sql_number("SELECT count(*) FROM rate_counters WHERE subject LIKE '%203.0%' OR subject LIKE '%2001:%'"), 0);
    assert_eq!(world.sql_number("SELECT count(*) FROM rate_counters WHERE subject LIKE 'address:%' AND length(subject) = 40"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_an_unnamed_proxy_nobody_is_locked_out_by_others() {
    let variables = [("rate_limit_per_hour".to_owned(), "2".to_owned())].into();
    let world = World::with(Options { variables, ..Options::default() }).await;
    for _ in 0..5 {
        // All from 127.0.0.1, whatever they claim.
        let stranger = world.stranger();
        stranger.send(302, stranger.request(Method::GET, "/auth/login/google").header("x-forwarded-for", "203.0.113.7")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_strangers_come_and_cannot_be_told_apart_the_operator_hears_of_it() {
    let serve = async |proxy: &str| {
        let variables = [("rate_limit_per_hour", "2"), ("trusted_proxy", proxy)];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let public_url = Some("https://app.example".to_owned());
        World::with(Options { variables, public_url, credentials: Some(e2e::real_credentials()), ..Options::default() }).await
    };
    let login = async |world: &World, address: &str| {
        let stranger = world.stranger();
        stranger.send(302, stranger.request(Method::GET, "/auth/login/google").header("x-forwarded-for", address)).await;
    };
    // Nobody named the proxy; and one that was named is not the last.
    for (proxy, address) in [("", "203.0.113.7"), ("x-forwarded-for", "203.0.113.7, 10.0.0.2")] {
        let world = serve(proxy).await;
        for _ in 0..5 {
            login(&world, address).await;
        }
        let told = world.events("clients_not_told_apart");
        assert!(!told.is_empty() && told.len() < 5, "once for each instance: {told:?}");
    }
    // As it should be, and on this machine, there is nothing to tell.
    let world = serve("x-forwarded-for").await;
    login(&world, "10.0.0.2, 203.0.113.7").await;
    assert_eq!(world.events("clients_not_told_apart").len(), 0);
    let world = World::new().await;
    login(&world, "203.0.113.7").await;
    assert_eq!(world.events("clients_not_told_apart").len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_from_paying_again_and_again_is_stopped_before_the_provider_is_asked() {
    away_from_the_hours_end().await;
    let world = world(&[("rate_limit_per_hour", "2")]).await;
    let stranger = world.stranger();
    for expected in [404, 404, 429, 429] {
        let request = stranger.request(Method::GET, "/callback/payment?checkout_id=ch_made_up").header("x-real-ip", "203.0.113.7");
        stranger.send(expected, request).await;
    }
    assert_eq!(world.heard(Service::Creem, "GET /v1/checkouts"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_read_too_much_reads_no_more_until_the_window_ends() {
    away_from_the_hours_end().await;
    // 120 reads an hour; one in sixty-four is counted, for sixty-four, so that nobody is refused for a single one.
    let world = world(&[("rate_limit_per_hour", "2")]).await;
    let (ada, grace) = (world.sign_in("ada@example.com").await, world.sign_in("grace@example.com").await);
    let read = async |path: &str| ada.ask(ada.request(Method::GET, path)).await;
    let mut reads = 0;
    let refused = loop {
        let answer = read("/api/me").await;
        if answer.status == 429 {
            break answer;
        }
        assert_eq!(answer.status, 200, "{answer}");
        reads += 1;
        assert!(reads < 3_000, "{reads} reads instead of 120");
    };
    assert!((1..=3_600).contains(&refused.header("retry-after").parse::<i64>().unwrap()), "{refused}");
    for path in ["/api/me", "/api/tasks", "/auth/session", "/api/orders", "/api/uploads", "/auth/sessions"] {
        for _ in 0..3 {
            let answer = read(path).await;
            assert_eq!(answer.status, 429, "{answer}");
            answer.problem("rate_limited");
            assert!(answer.header("retry-after").parse::<i64>().unwrap() > 0);
        }
    }
    // What one may do apart from reading is counted for itself, and nobody else is meant.
    ada.post_json(201, "/api/orders", &json!({"product_id": "credits-10"})).await;
    grace.get(200, "/api/me").await;
    ada.post(204, "/auth/logout").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_counted_is_refused_if_it_costs_money_and_allowed_if_it_only_reads() {
    let world = world(&[]).await;
    let ada = world.sign_in("ada@example.com").await;
    let upload = ada.any_upload().await;
    world.db_write("DROP TABLE rate_counters", []);
    let answer = ada.ask(ada.request(Method::POST, "/api/tasks").json(&json!({"upload_id": upload, "hairstyles": ["bob-cut"]}))).await;
    assert!(answer.status >= 500, "{answer}");
    assert_eq!(ada.ask(ada.request(Method::POST, "/api/orders").json(&json!({"product_id": "credits-10"}))).await.status, 500);
    for _ in 0..1_000 {
        ada.get(200, "/api/me").await;
    }
    assert_eq!(world.sql_number("SELECT count(*) FROM ai_tasks"), 0);
    assert!(!world.events("read_not_counted").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_costs_so_many_pictures_at_most_and_what_is_refused_is_not_charged() {
    let world = world(&[("daily_picture_limit", "4")]).await;
    let people = futures::future::join_all(["ada@example.com", "grace@example.com"].map(|email| world.sign_in(email))).await;
    let uploads = futures::future::join_all(people.iter().map(Person::any_upload)).await;
    let ask = |at: usize| {
        let (person, upload) = (&people[at % 2], &uploads[at % 2]);
        person.ask(person.request(Method::POST, "/api/tasks").json(&json!({"upload_id": upload, "hairstyles": ["bob-cut"]})))
    };
    let statuses: Vec<u16> = futures::future::join_all((0..6).map(ask)).await.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 202).count(), 4, "{statuses:?}");
    let late = ask(0).await;
    assert_eq!(late.status, 503, "{late}");
    late.problem("service_unavailable");
    assert!(late.header("retry-after").parse::<u32>().unwrap() > 0);
    assert_eq!(people[0].credits().await + people[1].credits().await, 2, "four of six credits were spent");
    assert!(!world.events("spend_limit_reached").is_empty(), "somebody should hear of it");
    // A new day.
    world.db_write("UPDATE provider_spend SET day = day - 1", []);
    let who = if people[0].credits().await > 0 { 0 } else { 1 };
    assert_eq!(ask(who).await.status, 202);
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_more_than_a_share_of_a_days_pictures() {
    let world = world(&[("daily_picture_limit", "100"), ("rate_limit_per_hour", "1000")]).await;
    let ada = world.sign_in("ada@example.com").await;
    world.db_gift("many", 100, e2e::now(), None);
    let upload = ada.any_upload().await;
    // The provider makes none of them: each is paid back, and the next one could be ordered without end.
    world.fault(Fault::KieCreateAnswers { code: 422, msg: None, http_status: None });
    let body = json!({"upload_id": upload, "hairstyles": ["bob-cut"]});
    let ask = async || ada.ask(ada.request(Method::POST, "/api/tasks").json(&body)).await;
    for number in 0..20 {
        assert_eq!(ask().await.status, 202, "{number}");
    }
    assert_eq!(ada.credits().await, 103);
    let late = ask().await;
    assert_eq!(late.status, 429, "{late}");
    late.problem("rate_limited");
    let wait: i64 = late.header("retry-after").parse().unwrap();
    let tomorrow = 86_400 - e2e::now() % 86_400;
    assert!((tomorrow..=tomorrow + 60).contains(&wait) || wait > 86_000, "{late}");
    assert!(!world.events("share_of_the_day_used").is_empty());
    // Others have theirs, and the next day has it again.
    world.control().clear_faults();
    let grace = world.sign_in("grace@example.com").await;
    grace.order_one().await;
    world.db_write("UPDATE ai_tasks SET created_at = created_at - 86400", []);
    assert_eq!(ask().await.status, 202);
    world.assert_books_balance();
}

/// Signs up through a proxy that says where the browser is.
async fn sign_up(world: &World, email: &str, address: &str) -> i64 {
    let person = world.stranger();
    let mut login = world.address().join("/auth/login/google").unwrap();
    login.query_pairs_mut().append_pair("login_hint", email);
    let from = |path: &str| person.request(Method::GET, path).header("x-real-ip", address);
    let login = person.send(302, from(login.as_str())).await;
    let consent = person.get(302, login.header("location")).await;
    person.send(302, from(consent.header("location"))).await;
    person.credits().await
}

#[tokio::test(flavor = "multi_thread")]
async fn farming_sign_up_credits_is_not_worth_it() {
    let world = world(&[("rate_limit_per_hour", "1000")]).await;
    // One mailbox under many names: credits once, whoever is first.
    let names = ["farmer@gmail.com", "far.mer@gmail.com", "farmer+1@gmail.com", "f.a.r.m.e.r+x@googlemail.com", "FARMER+2@gmail.com"];
    let mut given = 0;
    for (number, name) in names.iter().enumerate() {
        given += sign_up(&world, name, &format!("203.0.113.{number}")).await;
    }
    assert_eq!(given, 3);
    // One address with many mailboxes: five are welcomed, the others are let in.
    let mut given = Vec::new();
    for number in 0..8 {
        given.push(sign_up(&world, &format!("person{number}@example.com"), "198.51.100.1").await);
    }
    assert_eq!(given, [3, 3, 3, 3, 3, 0, 0, 0]);
    assert_eq!(sign_up(&world, "neighbour@example.com", "198.51.100.2").await, 3);
    // The next day.
    world.db_write("UPDATE signup_grants SET created_at = created_at - 86400", []);
    assert_eq!(sign_up(&world, "person9@example.com", "198.51.100.1").await, 3);
    assert_eq!(world.sql_number("SELECT count(*) FROM signup_grants WHERE identity_hash LIKE '%@%'"), 0, "no mailbox is written down");
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_fails_again_and_again_is_left_alone_for_a_while() {
    let world = world(&[]).await;
    let ada = world.sign_in("ada@example.com").await;
    world.fault(Fault::CreemApiAnswers { status: 503 });
    let buy = async || ada.ask(ada.request(Method::POST, "/api/orders").json(&json!({"product_id": "credits-10"}))).await;
    for _ in 0..5 {
        assert_eq!(buy().await.status, 502);
    }
    let asked = world.heard(Service::Creem, "POST /v1/checkouts");
    assert_eq!(asked, 5);
    let quick = buy().await;
    assert_eq!(quick.status, 502, "{quick}");
    quick.problem("provider_unavailable");
    assert_eq!(world.heard(Service::Creem, "POST /v1/checkouts"), asked, "nobody was bothered");
    assert!(!world.events("provider_left_alone").is_empty());
    assert_eq!(world.sql_number("SELECT count(*) FROM orders WHERE status = 'pending'"), 0, "orders without a checkout are over");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_works_again_is_used_again() {
    let folder = tempfile::TempDir::new().unwrap();
    let cache = folder.path().join("kv.db");
    let world = World::with(Options { key_value: Some(host::KvLocation::File(cache.clone())), ..Options::default() }).await;
    let ada = world.sign_in("ada@example.com").await;
    world.fault(Fault::CreemApiAnswers { status: 503 });
    let buy = async || ada.ask(ada.request(Method::POST, "/api/orders").json(&json!({"product_id": "credits-10"}))).await.status;
    for _ in 0..6 {
        assert_eq!(buy().await, 502);
    }
    world.control().clear_faults();
    assert_eq!(buy().await, 502, "it is still left alone");
    // Half a minute later.
    let store = rusqlite::Connection::open(&cache).unwrap();
    store.busy_timeout(e2e::PATIENCE).unwrap();
    let state = json!({"expires_at": e2e::now() + 600, "value": {"failures": 5, "closed_until": e2e::now() - 1}}).to_string().into_bytes();
    store.execute("UPDATE spin_key_value SET value = ?1 WHERE key = 'breaker:creem'", [state]).unwrap();
    assert_eq!(buy().await, 201, "{}", world.tail());
    assert_eq!(buy().await, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_meets_a_passing_fault_is_asked_again() {
    let world = world(&[]).await;
    let ada = world.sign_in("ada@example.com").await;
    world.fault(Fault::CreemWebhookDrop);
    let order = ada.begin_purchase("credits-10").await;
    let page = order["payment_url"].as_str().unwrap();
    let paid = ada.ask(ada.request(Method::POST, &format!("{page}/pay"))).await;
    world.fault(Fault::CreemApiAnswers { status: 503 }.once());
    ada.get(302, paid.header("location")).await;
    assert_eq!(world.heard(Service::Creem, "GET /v1/checkouts"), 2);
    assert_eq!(ada.credits().await, 13);
}
