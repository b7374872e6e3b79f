//! Every route of `spin.toml`, walked: strangers, others, wrong methods, wrong types, and bodies without end. A route that is not in the
//! table below fails the first test.

use std::collections::BTreeSet;

use bytes::Bytes;
use e2e::{CRON_SECRET, Person, World, photos};
use http::Method;
use reqwest::{Body, RequestBuilder};
use serde_json::{Value, json};

/// Who may use an endpoint.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Door {
    /// Everybody.
    Open,
    /// Whoever is signed in, for what is theirs.
    SignedIn,
    /// Admins.
    Admin,
    /// Whoever signs what they send.
    Signed,
    /// Whoever holds the cron secret.
    Scheduler,
    /// Everybody, as a step of signing in or paying: without the step before it is refused.
    Step,
}
use Door::{Admin, Open, Scheduler, Signed, SignedIn, Step};

/// What an endpoint takes as its body.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Takes {
    Nothing,
    Json,
    Photo,
    /// Anything, and the signature decides.
    Raw,
}
use Takes::{Json, Nothing, Photo, Raw};

/// Method, path, door, body; `{}` stands for the id of something that is somebody's own.
pub const ENDPOINTS: &[(&str, &str, Door, Takes)] = &[
    ("GET", "/auth/login/google", Open, Nothing),
    ("GET", "/auth/login/github", Open, Nothing),
    ("GET", "/auth/callback/google", Step, Nothing),
    ("GET", "/auth/callback/github", Step, Nothing),
    ("POST", "/auth/link/github", SignedIn, Nothing),
    ("GET", "/auth/google/nonce", Open, Nothing),
    ("POST", "/auth/google", Step, Json),
    ("GET", "/auth/session", Open, Nothing),
    ("POST", "/auth/logout", Open, Nothing),
    ("GET", "/auth/sessions", SignedIn, Nothing),
    ("DELETE", "/auth/sessions/{session}", SignedIn, Nothing),
    ("GET", "/auth/identities", SignedIn, Nothing),
    ("DELETE", "/auth/identities/{identity}", SignedIn, Nothing),
    ("POST", "/api/uploads", SignedIn, Photo),
    ("GET", "/api/uploads", SignedIn, Nothing),
    ("POST", "/api/uploads/presign", SignedIn, Json),
    ("POST", "/api/uploads/{upload}/complete", SignedIn, Nothing),
    ("GET", "/api/uploads/{upload}", SignedIn, Nothing),
    ("DELETE", "/api/uploads/{upload}", SignedIn, Nothing),
    ("GET", "/files/{key}", SignedIn, Nothing),
    ("POST", "/api/tasks", SignedIn, Json),
    ("GET", "/api/tasks", SignedIn, Nothing),
    ("GET", "/api/tasks/{task}", SignedIn, Nothing),
    ("POST", "/api/tasks/{task}/cancel", SignedIn, Nothing),
    ("GET", "/api/tasks/{task}/events", SignedIn, Nothing),
    ("GET", "/api/hairstyles", Open, Nothing),
    ("GET", "/api/hair-colors", Open, Nothing),
    ("POST", "/webhooks/kie/{task}", Signed, Raw),
    ("GET", "/api/products", Open, Nothing),
    ("POST", "/api/orders", SignedIn, Json),
    ("GET", "/api/orders", SignedIn, Nothing),
    ("GET", "/api/orders/{order}", SignedIn, Nothing),
    ("GET", "/callback/payment", Step, Nothing),
    ("GET", "/api/subscription", SignedIn, Nothing),
    ("POST", "/api/subscription/cancel", SignedIn, Nothing),
    ("POST", "/webhooks/creem", Signed, Raw),
    ("GET", "/api/me", SignedIn, Nothing),
    ("DELETE", "/api/me", SignedIn, Nothing),
    ("GET", "/api/me/credits", SignedIn, Nothing),
    ("GET", "/api/me/credits/history", SignedIn, Nothing),
    ("GET", "/api/me/stats", SignedIn, Nothing),
    ("GET", "/api/me/export", SignedIn, Nothing),
    ("GET", "/api/admin/audit", Admin, Nothing),
    ("GET", "/api/admin/events", Admin, Nothing),
    ("POST", "/api/admin/events/evt_1/replay", Admin, Nothing),
    ("POST", "/api/admin/gifts", Admin, Json),
    ("GET", "/api/admin/users", Admin, Nothing),
    ("GET", "/api/admin/users/{user}", Admin, Nothing),
    ("POST", "/api/admin/users/{user}/role", Admin, Json),
    ("GET", "/api/admin/tasks", Admin, Nothing),
    ("GET", "/api/admin/cache", Admin, Nothing),
    ("POST", "/api/admin/cache/invalidate", Admin, Json),
    ("GET", "/api/admin/log", Admin, Nothing),
    ("GET", "/api/admin/overview", Admin, Nothing),
    ("GET", "/api/admin/alarms", Admin, Nothing),
    ("GET", "/api/admin/jobs", Admin, Nothing),
    ("POST", "/internal/cleanup", Scheduler, Nothing),
    ("POST", "/internal/tasks", Scheduler, Nothing),
    ("POST", "/internal/reconcile", Scheduler, Nothing),
    ("POST", "/internal/backup", Scheduler, Nothing),
    ("POST", "/internal/alarms", Scheduler, Nothing),
    ("GET", "/health", Open, Nothing),
    ("GET", "/health/live", Open, Nothing),
    ("GET", "/", Open, Nothing),
    ("GET", "/gallery/{task}", Open, Nothing),
    ("GET", "/credits/orders/{order}", Open, Nothing),
    ("GET", "/account", Open, Nothing),
    ("GET", "/admin/users", Open, Nothing),
    ("GET", "/assets/css/tokens.css", Open, Nothing),
    ("GET", "/docs", Open, Nothing),
    ("GET", "/openapi.json", Open, Nothing),
    ("GET", "/robots.txt", Open, Nothing),
    ("GET", "/favicon.ico", Open, Nothing),
];

/// Something of everything that is Ada's.
struct Things {
    ada: Person,
    eve: Person,
    upload: Value,
    task: String,
    order: String,
    session: String,
    identity: String,
    user: String,
}

async fn things(world: &World) -> Things {
    let ada = world.sign_in("ada@example.com").await;
    let upload = ada.upload("portrait.jpg").await;
    let task = ada.order_one().await;
    ada.wait_completed(&task).await;
    let order = ada.begin_purchase("credits-10").await["id"].as_str().unwrap().to_owned();
    let session = ada.get(200, "/auth/sessions").await.json()["sessions"][0]["id"].as_str().unwrap().to_owned();
    let identity = ada.get(200, "/auth/identities").await.json()["identities"][0]["id"].as_str().unwrap().to_owned();
    let user = ada.id().await;
    Things { eve: world.sign_in("eve@example.com").await, ada, upload, task, order, session, identity, user }
}

impl Things {
    fn path(&self, template: &str) -> String {
        template
            .replace("{upload}", self.upload["id"].as_str().unwrap())
            .replace("{key}", self.upload["key"].as_str().unwrap())
            .replace("{task}", &self.task)
            .replace("{order}", &self.order)
            .replace("{session}", &self.session)
            .replace("{identity}", &self.identity)
            .replace("{user}", &self.user)
    }

    /// A request as it should be, up to what the table says.
    fn request(&self, person: &Person, (method, path, _, takes): (&str, &str, Door, Takes)) -> RequestBuilder {
        let request = person.request(Method::from_bytes(method.as_bytes()).unwrap(), &self.path(path));
        match takes {
            Nothing => request,
            Json => request.json(&json!({})),
            Photo => request.header("content-type", "image/jpeg").body(photos::read("portrait.jpg")),
            Raw => request.body("{}"),
        }
    }
}

#[test]
fn every_route_of_the_manifest_is_in_the_table() {
    let manifest = e2e::manifest();
    let triggers = manifest["trigger"]["http"].as_array().unwrap();
    let routes: BTreeSet<&str> =
        triggers.iter().filter(|route| route.get("component").is_some()).map(|route| route["route"].as_str().unwrap()).collect();
    let fits = |route: &str, path: &str| match route.strip_suffix("/...") {
        Some(prefix) => path == prefix || path.starts_with(&format!("{prefix}/")),
        None => {
            route.split('/').count() == path.split('/').count()
                && route.split('/').zip(path.split('/')).all(|(want, is)| want.starts_with(':') || want == is)
        }
    };
    for route in &routes {
        assert!(ENDPOINTS.iter().any(|(_, path, ..)| fits(route, path)), "{route} is in spin.toml and not in the table");
    }
    for (_, path, ..) in ENDPOINTS {
        assert!(routes.iter().any(|route| fits(route, path)), "{path} is in the table and nowhere in spin.toml");
    }
    // And the endpoints that the components themselves name in their `route` functions.
    for (component, _) in manifest["component"].as_table().unwrap() {
        let source = std::fs::read_to_string(e2e::root().join(format!("components/{component}/src/lib.rs"))).unwrap();
        for line in source.lines().filter(|line| line.trim_start().starts_with("([\"") && line.contains("&Method::")) {
            let path = line.trim_start().trim_start_matches("([").split(']').next().unwrap();
            let segments: Vec<&str> = path.split(", ").collect();
            for method in ["GET", "POST", "DELETE"]
                .into_iter()
                .filter(|method| line.split("=>").next().unwrap().contains(&format!("Method::{method}")))
            {
                let known = ENDPOINTS.iter().any(|(known, endpoint, ..)| {
                    let parts: Vec<&str> = endpoint.trim_start_matches('/').split('/').collect();
                    let same = |(want, is): (&&str, &&str)| !want.starts_with('"') || want.trim_matches('"') == *is;
                    *known == method
                        && (segments.last().is_some_and(|last| last.contains("@ ..")) || parts.len() == segments.len())
                        && segments.iter().zip(&parts).all(same)
                });
                assert!(known, "{component}: {method} {path} is not in the table");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_gets_no_further_than_the_door() {
    let world = World::new().await;
    let things = things(&world).await;
    let before = (world.objects(), world.sql_number("SELECT count(*) FROM uploads"));
    for endpoint in ENDPOINTS {
        let stranger = world.stranger();
        let answer = stranger.ask(things.request(&stranger, *endpoint)).await;
        let (expected, code): (&[u16], _) = match endpoint.2 {
            Open => (&[200, 204, 302], None),
            SignedIn | Admin | Scheduler => (&[401], Some("unauthenticated")),
            Signed => (&[401], Some("invalid_signature")),
            Step => (&[401, 422], None),
        };
        assert!(expected.contains(&answer.status), "{endpoint:?}: {answer}");
        if let Some(code) = code {
            answer.problem(code);
        }
    }
    assert_eq!((world.objects(), world.sql_number("SELECT count(*) FROM uploads")), before);
    assert_eq!(things.ada.credits().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_else_finds_nothing_there() {
    let world = World::new().await;
    let things = things(&world).await;
    for endpoint in ENDPOINTS {
        let answer = match endpoint.2 {
            Admin => things.eve.send(403, things.request(&things.eve, *endpoint)).await.problem("forbidden"),
            Scheduler => things.eve.send(401, things.request(&things.eve, *endpoint)).await.problem("unauthenticated"),
            SignedIn if endpoint.1.contains('{') => things.eve.send(404, things.request(&things.eve, *endpoint)).await.problem("not_found"),
            _ => continue,
        };
        assert!(!answer.to_string().contains("ada@"), "{endpoint:?}");
    }
    // All of it is still there, for its owner.
    for path in ["/api/uploads/{upload}", "/api/tasks/{task}", "/api/orders/{order}"] {
        things.ada.get(200, &things.path(path)).await;
    }
    things.ada.get(302, &things.path("/files/{key}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_that_is_not_answered_is_refused_with_those_that_are() {
    let world = World::new().await;
    let things = things(&world).await;
    for (_, path, ..) in ENDPOINTS {
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS] {
            let known = |method: &Method| ENDPOINTS.iter().any(|(known, other, ..)| other == path && *known == method.as_str());
            if known(&method) {
                continue;
            }
            let answer = things.ada.send(405, things.ada.request(method, &things.path(path))).await;
            answer.problem("method_not_allowed");
            let allowed: BTreeSet<&str> = answer.header("allow").split(", ").filter(|method| *method != "HEAD").collect();
            let table: BTreeSet<&str> = ENDPOINTS.iter().filter(|(_, other, ..)| other == path).map(|(method, ..)| *method).collect();
            assert_eq!(allowed, table, "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_the_wrong_type_is_refused() {
    let variables = [("admin_emails".to_owned(), "ada@example.com".to_owned())].into();
    let world = World::with(e2e::Options { variables, ..Default::default() }).await;
    let things = things(&world).await;
    for endpoint in ENDPOINTS.iter().filter(|(.., takes)| matches!(takes, Json | Photo)) {
        let method = Method::from_bytes(endpoint.0.as_bytes()).unwrap();
        let path = things.path(endpoint.1);
        for content_type in ["text/plain", "application/xml", "application/x-www-form-urlencoded", ""] {
            let request = things.ada.request(method.clone(), &path).header("content-type", content_type).body("{}");
            things.ada.send(415, request).await.problem("unsupported_media_type");
        }
        if endpoint.3 == Json {
            for nonsense in ["", "{", "[]", "null", "\u{0}", "{\"a\":\u{1}}"] {
                let request = things.ada.request(method.clone(), &path).header("content-type", "application/json").body(nonsense);
                things.ada.send(422, request).await.problem("invalid_input");
            }
        }
    }
}

/// A body of so many bytes that is made while it is sent.
fn endless(bytes: usize) -> Body {
    let chunk = Bytes::from(vec![b' '; 64 * 1024]);
    let chunks = (0..bytes / chunk.len()).map(move |_| Ok::<_, std::io::Error>(chunk.clone()));
    Body::wrap_stream(futures::stream::iter(chunks))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_end_is_not_read_to_its_end() {
    let variables = [("admin_emails".to_owned(), "ada@example.com".to_owned())].into();
    let world = World::with(e2e::Options { variables, ..Default::default() }).await;
    let things = things(&world).await;
    let before = world.sql_number("SELECT count(*) FROM uploads");
    for endpoint in ENDPOINTS.iter().filter(|(.., takes)| *takes != Nothing) {
        let content_type = match endpoint.3 {
            Photo => "image/jpeg",
            _ => "application/json",
        };
        let size = if endpoint.3 == Photo { 12 << 20 } else { 1 << 20 };
        let request = things.ada.request(Method::from_bytes(endpoint.0.as_bytes()).unwrap(), &things.path(endpoint.1));
        let answer = things.ada.send(413, request.header("content-type", content_type).body(endless(size))).await;
        answer.problem("payload_too_large");
    }
    // Where no body is wanted, one does not matter.
    let request = things.ada.request(Method::POST, "/auth/link/github").header("content-type", "text/plain").body("x".repeat(1_000));
    things.ada.send(200, request).await;
    let sweep = world.stranger();
    sweep.send(200, sweep.request(Method::POST, "/internal/tasks").bearer_auth(CRON_SECRET).body("x".repeat(1_000))).await;
    assert_eq!(things.ada.credits().await, 2);
    assert_eq!(world.sql_number("SELECT count(*) FROM uploads"), before);
}
