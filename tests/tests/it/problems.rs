//! What every route does the same way: methods, unknown addresses, request ids, log lines, and what never gets into the log.

use std::collections::BTreeSet;
use std::time::Duration;

use e2e::{CRON_SECRET, DATA_KEY, Options, Person, SESSION_SECRET, World, contract, photos, root};
use http::Method;
use sandbox::{Credential, Credentials};
use serde_json::{Value, json};

/// Every route with the methods it answers to.
const ROUTES: [(&str, &str); 66] = [
    ("/auth/login/google", "GET"),
    ("/auth/login/github", "GET"),
    ("/auth/callback/google", "GET"),
    ("/auth/callback/github", "GET"),
    ("/auth/google", "POST"),
    ("/auth/google/nonce", "GET"),
    ("/auth/link/github", "POST"),
    ("/auth/session", "GET, HEAD"),
    ("/auth/logout", "POST"),
    ("/auth/sessions", "GET, HEAD"),
    ("/auth/sessions/abc", "DELETE"),
    ("/auth/identities", "GET, HEAD"),
    ("/auth/identities/abc", "DELETE"),
    ("/api/uploads", "GET, HEAD, POST"),
    ("/api/uploads/abc", "GET, HEAD, DELETE"),
    ("/api/uploads/presign", "POST"),
    ("/api/uploads/abc/complete", "POST"),
    ("/files/cache/u/1_a.jpg", "GET, HEAD"),
    ("/api/tasks", "GET, HEAD, POST"),
    ("/api/tasks/TASK_1", "GET, HEAD"),
    ("/api/tasks/TASK_1/cancel", "POST"),
    ("/api/tasks/TASK_1/events", "GET"),
    ("/api/hairstyles", "GET, HEAD"),
    ("/api/hair-colors", "GET, HEAD"),
    ("/webhooks/kie/abc", "POST"),
    ("/api/products", "GET, HEAD"),
    ("/api/orders", "GET, HEAD, POST"),
    ("/api/orders/abc", "GET, HEAD"),
    ("/callback/payment", "GET"),
    ("/webhooks/creem", "POST"),
    ("/api/me", "GET, HEAD, DELETE"),
    ("/api/me/stats", "GET, HEAD"),
    ("/api/me/export", "GET"),
    ("/api/me/credits", "GET, HEAD"),
    ("/api/me/credits/history", "GET, HEAD"),
    ("/api/subscription", "GET, HEAD"),
    ("/api/subscription/cancel", "POST"),
    ("/api/admin/audit", "GET, HEAD"),
    ("/api/admin/events", "GET, HEAD"),
    ("/api/admin/gifts", "POST"),
    ("/api/admin/events/abc/replay", "POST"),
    ("/api/admin/users", "GET, HEAD"),
    ("/api/admin/users/abc", "GET, HEAD"),
    ("/api/admin/users/abc/role", "POST"),
    ("/api/admin/tasks", "GET, HEAD"),
    ("/api/admin/cache", "GET, HEAD"),
    ("/api/admin/cache/invalidate", "POST"),
    ("/api/admin/log", "GET, HEAD"),
    ("/api/admin/overview", "GET, HEAD"),
    ("/api/admin/alarms", "GET, HEAD"),
    ("/api/admin/jobs", "GET, HEAD"),
    ("/internal/cleanup", "POST"),
    ("/internal/tasks", "POST"),
    ("/internal/reconcile", "POST"),
    ("/internal/backup", "POST"),
    ("/internal/alarms", "POST"),
    ("/health", "GET, HEAD"),
    ("/health/live", "GET, HEAD"),
    ("/", "GET, HEAD"),
    ("/gallery/abc", "GET, HEAD"),
    ("/credits", "GET, HEAD"),
    ("/account", "GET, HEAD"),
    ("/admin/users", "GET, HEAD"),
    ("/docs", "GET, HEAD"),
    ("/openapi.json", "GET, HEAD"),
    ("/assets/css/tokens.css", "GET, HEAD"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_method_is_told_the_right_ones() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    for (path, allow) in ROUTES {
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            if allow.split(", ").any(|allowed| allowed == method.as_str()) {
                continue;
            }
            let answer = ada.send(405, ada.request(method, path)).await;
            answer.problem("method_not_allowed");
            assert_eq!(answer.header("allow"), allow, "{answer}");
        }
    }
    assert_eq!(ada.credits().await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_get_is_answered_head_is_too() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    for (path, allow) in ROUTES.into_iter().filter(|(_, allow)| allow.contains("HEAD")) {
        let get = ada.ask(ada.request(Method::GET, path)).await;
        let head = ada.ask(ada.request(Method::HEAD, path)).await;
        assert_eq!((head.status, head.body.len()), (get.status, 0), "{path} ({allow})");
        assert_eq!(head.header("content-type"), get.header("content-type"), "{path}");
    }
}

fn description() -> Value {
    serde_json::from_str(&std::fs::read_to_string(root().join("components/web/site/openapi.json")).unwrap()).unwrap()
}

#[test]
fn what_the_description_says_about_head_is_so() {
    let description = description();
    let text = description["info"]["description"].as_str().unwrap();
    let said = text.split_once("answers HEAD too, but for ").unwrap().1.split_once(" take GET alone").unwrap().0;
    let said: BTreeSet<&str> = said.split('`').skip(1).step_by(2).collect();
    let fits = |path: &str, route: &str| {
        let (parts, segments): (Vec<&str>, Vec<&str>) = (path.split('/').collect(), route.split('/').collect());
        let same = |(part, segment): (&&str, &&str)| part == segment || part.starts_with('{');
        (parts.len() == segments.len() || path == "/files/{key}") && parts.iter().zip(&segments).all(same)
    };
    let operations = contract::operations();
    let read: Vec<&str> = operations.iter().filter(|(method, _)| method == "GET").map(|(_, path)| path.as_str()).collect();
    let alone = |path: &&&str| {
        let mut routes = ROUTES.iter().filter(|(route, allow)| allow.contains("GET") && fits(path, route)).peekable();
        assert!(routes.peek().is_some(), "{path} is described and not in the table above");
        routes.all(|(_, allow)| !allow.contains("HEAD"))
    };
    assert_eq!(said, read.iter().filter(alone).copied().collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_component_answers_has_neither_a_body_nor_an_id() {
    let world = World::with(Options { request_timeout: Some(Duration::from_secs(4)), ..Options::default() }).await;
    let ada = world.sign_in("ada@example.com").await;
    world.host_may_answer(400);
    let nowhere = ada.send(400, ada.request(Method::GET, "/api/me").header("host", "no host at all")).await;
    world.fault(sandbox::Fault::S3Slow { ms: 20_000, method: Some("PUT".into()), prefix: None });
    world.host_may_answer(504);
    let late = ada.send(504, ada.upload_request("image/jpeg", photos::read("portrait.jpg"))).await;
    for answer in [nowhere, late] {
        assert_eq!((answer.body.len(), answer.header("x-request-id")), (0, ""), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_holds_more_than_is_described_is_refused() {
    let variables = [("admin_emails".to_owned(), "ada@example.com".to_owned())].into();
    let world = World::with(Options { variables, ..Options::default() }).await;
    let ada = world.sign_in("ada@example.com").await;
    let description = description();
    let mut bodies = 0;
    for (path, methods) in description["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let Some(schema) = operation.pointer("/requestBody/content/application~1json/schema/$ref") else { continue };
            let schema = description.pointer(schema.as_str().unwrap().trim_start_matches('#')).unwrap();
            assert_eq!(schema["additionalProperties"], false, "{path}");
            let request = ada.request(method.to_uppercase().parse().unwrap(), &path.replace("{id}", &ada.id().await));
            let answer = ada.send(422, request.json(&json!({"surprise": 1}))).await;
            let detail = answer.problem("invalid_input")["detail"].clone();
            assert!(detail.as_str().unwrap().contains("unknown field `surprise`"), "{answer}");
            bodies += 1;
        }
    }
    assert!(bodies >= 7, "{bodies}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_of_another_value_than_is_described_is_refused_and_changes_nothing() {
    let variables = [("admin_emails".to_owned(), "ada@example.com".to_owned())].into();
    let world = World::with(Options { variables, ..Options::default() }).await;
    let ada = world.sign_in("ada@example.com").await;
    let key = ada.upload("portrait.jpg").await["key"].as_str().unwrap().to_owned();
    let description = description();
    let mut names = BTreeSet::new();
    for (path, methods) in description["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            for parameter in operation["parameters"].as_array().unwrap() {
                let Some(words) = parameter["schema"]["enum"].as_array().filter(|_| parameter["in"] == "query") else { continue };
                let name = parameter["name"].as_str().unwrap();
                for value in ["", "yes", "TRUE", "0"] {
                    assert!(!words.contains(&json!(value)));
                    let (method, query) =
                        (method.to_uppercase().parse().unwrap(), format!("{}?{name}={value}", path.replace("{key}", &key)));
                    let request = if path.starts_with("/internal/") {
                        world.stranger().request(method, &query).bearer_auth(CRON_SECRET)
                    } else {
                        ada.request(method, &query)
                    };
                    let answer = ada.send(422, request).await;
                    assert_eq!(answer.wrong_fields(), [name], "{answer}");
                }
                names.insert(name.to_owned());
            }
        }
    }
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["all", "download", "now", "state", "status"]);
    assert_eq!(world.sql_number("SELECT count(*) FROM job_runs"), 0);
    ada.get(200, "/api/me").await;
    for value in ["1", "true"] {
        ada.get(302, &format!("/files/{key}?download={value}")).await;
    }
    ada.post(204, "/auth/logout?all=true").await;
    ada.get(401, "/api/me").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_address_is_not_found() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    // Those of nobody, in the manifest's fixed words.
    for path in ["/nothing", "/api", "/api/nothing", "/webhooks/kie", "/webhooks/kie/a/b", "/webhooks", "/internal", "/index.php"] {
        for person in [&ada, &world.stranger()] {
            let answer = person.get(404, path).await;
            assert_eq!(answer.header("content-type"), "application/problem+json", "{answer}");
            let problem = answer.json();
            assert_eq!((&problem["code"], &problem["status"], &problem["type"]), (&json!("not_found"), &json!(404), &json!("about:blank")));
            assert_eq!(answer.header("x-request-id"), "", "no component was asked: {answer}");
        }
    }
    // Those below a component's own.
    for path in [
        "/auth",
        "/auth/nothing",
        "/auth/login",
        "/auth/login/facebook",
        "/auth/callback/facebook?state=x&code=y",
        "/api/tasks/TASK_1/nothing",
        "/api/uploads/a/b",
        "/api/orders/a/b",
        "/api/me/nothing",
        "/health/nothing",
        "/assets/nothing.js",
        "/assets/css/..%2F..%2Flib.rs",
        "/files",
    ] {
        ada.get(404, path).await.problem("not_found");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strange_ids_are_not_found_and_never_a_fault_of_ours() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let long = "x".repeat(5_000);
    let ids = ["'", "%27%20OR%201=1--", "%00", "%F0%9F%92%87", "%FF%FE", "..%2F..", "-1", "null", "%25", "a%0D%0Ab", long.as_str()];
    let routes = [
        "/api/uploads/{}",
        "/api/tasks/{}",
        "/api/orders/{}",
        "/files/{}",
        "/files/cache/{}/1_a.jpg",
        "/files/result/hairstyle/{}/result_1.png",
        "/auth/login/{}",
    ];
    for id in ids {
        for route in routes {
            ada.get(404, &route.replace("{}", id)).await.problem("not_found");
        }
        ada.post(404, &format!("/api/tasks/{id}/cancel")).await.problem("not_found");
        ada.delete(404, &format!("/api/uploads/{id}")).await.problem("not_found");
        ada.delete(404, &format!("/auth/sessions/{id}")).await.problem("not_found");
    }
    for text in ["\0", "\u{1f487}", "'; DROP TABLE users; --", &long] {
        ada.post_json(422, "/api/tasks", &json!({"upload_id": text, "hairstyles": ["bob-cut"]})).await.problem("invalid_input");
        ada.post_json(422, "/api/tasks", &json!({"upload_id": "x", "hairstyles": [text]})).await.problem("invalid_input");
        ada.post_json(422, "/api/orders", &json!({"product_id": text})).await.problem("invalid_input");
    }
    let nested = format!("{}1{}", "[".repeat(20_000), "]".repeat(20_000));
    let request = ada.request(Method::POST, "/api/tasks").header("content-type", "application/json").body(nested);
    ada.send(422, request).await.problem("invalid_input");
    assert!(world.events("request").iter().all(|line| line["status"].as_u64().unwrap() < 500), "{}", world.tail());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_busy_is_told_so_and_nothing_is_lost() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let upload = ada.any_upload().await;
    let writer = world.db_hold_the_pen();
    let answer = ada.ask(ada.request(Method::POST, "/api/tasks").json(&json!({"upload_id": upload, "hairstyles": ["bob-cut"]}))).await;
    assert_eq!(answer.status, 503, "{answer}");
    answer.problem("service_unavailable");
    assert!(!answer.header("retry-after").is_empty(), "{answer}");
    // Reading goes on.
    assert_eq!(ada.credits().await, 3);
    drop(writer);
    let task = ada.order_one().await;
    ada.wait_completed(&task).await;
    assert_eq!(ada.credits().await, 2);
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_may_end_with_a_slash() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    for path in ["/api/me/", "/api/uploads/", "/api/orders/", "/health/"] {
        ada.get(200, path).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_carries_its_request_id_and_what_it_took() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    for (path, _) in ROUTES {
        let answer = ada.ask(ada.request(Method::GET, path)).await;
        let id = answer.header("x-request-id").to_owned();
        assert!((8..=64).contains(&id.len()), "{answer}");
        assert!(answer.header("server-timing").starts_with("total;dur="), "{answer}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{answer}");
        assert!(!answer.header("cache-control").is_empty(), "{answer}");
        let length = answer.header("content-length");
        assert_eq!(length.parse::<usize>().ok(), Some(answer.body.len()), "without it a kept connection waits: {answer}");
        let lines: Vec<_> = world.events("request").into_iter().filter(|line| line["request_id"] == id.as_str()).collect();
        assert_eq!(lines.len(), 1, "one line for one request: {answer}{}", world.tail());
        let shown = ["TASK_1", "1_a.jpg", "tokens.css", "openapi.json"].iter().fold(path.to_owned(), |path, name| path.replace(name, "*"));
        assert_eq!((&lines[0]["path"], &lines[0]["status"], &lines[0]["method"]), (&json!(shown), &json!(answer.status), &json!("GET")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_may_bring_its_own_id() {
    let world = World::new().await;
    let stranger = world.stranger();
    let with = |id: &str| stranger.request(Method::GET, "/api/me").header("x-request-id", id);
    for id in ["order-12345", "0198c0de-0000-7000-8000-000000000000", "a.b_c-d.e"] {
        let answer = stranger.send(401, with(id)).await;
        assert_eq!(answer.header("x-request-id"), id);
        assert_eq!(answer.problem("unauthenticated")["request_id"], id);
        assert!(world.events("request").iter().any(|line| line["request_id"] == id));
    }
    for id in ["short", "has space in it", "quote\"inside-it", &"x".repeat(65), "<script>alert</script>"] {
        let answer = stranger.send(401, with(id)).await;
        assert_ne!(answer.header("x-request-id"), id);
        assert!(!world.tail().contains(id), "{id}{}", world.tail());
    }
}

/// Everything a person does, so that everything that could be logged is.
async fn live(world: &World) -> (Person, Vec<(&'static str, String)>) {
    let ada = world.stranger();
    let back = ada.begin_sign_in("google", "ada@example.com", "/").await;
    let of = |name: &str| url::Url::parse(&back).unwrap().query_pairs().find(|(key, _)| key == name).unwrap().1.into_owned();
    let (state, code) = (of("state"), of("code"));
    ada.get(302, &back).await;
    let mut secrets = vec![("the state of a sign-in", state), ("the code of a sign-in", code)];

    let octo = world.sign_in_github("octo@example.com").await;
    let grace = world.stranger();
    let nonce = Some(grace.one_tap_nonce().await);
    secrets.push(("the secret of a nonce", grace.cookie("__onetap").unwrap()));
    let credential =
        world.control().google_credential(&Credential { email: "grace.hopper@gmail.com".into(), nonce, ..Credential::default() });
    grace.post_json(200, "/auth/google", &json!({"credential": credential})).await;
    grace.post_json(401, "/auth/google", &json!({"credential": format!("{credential}x")})).await;
    secrets.push(("an id token", credential));
    world.stranger().get(401, &back).await;

    let task = ada.order_one().await;
    let task = ada.wait_completed(&task).await;
    let link = ada.get(302, task["result_urls"][0].as_str().unwrap()).await.header("location").to_owned();
    let signature = url::Url::parse(&link).unwrap().query_pairs().find(|(key, _)| key == "X-Amz-Signature").unwrap().1.into_owned();
    secrets.push(("the signature of a link", signature));
    let order = ada.begin_purchase("credits-10").await;
    ada.pay(&order).await;
    for path in ["/api/me", "/api/me/credits", "/api/me/credits/history", "/auth/sessions", "/auth/session", "/api/orders"] {
        ada.get(200, path).await;
    }
    world.sweep().await;
    world.stranger().post(401, "/internal/cleanup").await;

    // In their own words: one that is allowed, one that is not.
    let upload = octo.any_upload().await;
    for (expected, words) in [(202, "like grandmother Augusta's"), (422, "[deny] like uncle Babbage's")] {
        octo.post_json(expected, "/api/tasks", &json!({"upload_id": upload, "hairstyles": ["bob-cut"], "detail": words})).await;
    }
    for text in ["grandmother", "Augusta", "Babbage", "Change only the hair"] {
        secrets.push(("a wish or a prompt", text.into()));
    }
    octo.get(200, "/api/me/export").await;

    // And what goes wrong.
    world.control().fault(sandbox::Fault::KieFail { code: 501, msg: None }.once());
    let failed = ada.order_one().await;
    ada.wait_failed(&failed).await;
    world.control().fault(sandbox::Fault::KieCreateAnswers { code: 422, msg: None, http_status: None }.once());
    ada.order_one().await;
    world.control().fault(sandbox::Fault::CreemApiAnswers { status: 500 }.once());
    ada.post_json(502, "/api/orders", &json!({"product_id": "credits-10"})).await;
    world.control().fault(sandbox::Fault::S3Answers { status: 403, method: None, prefix: None }.once());
    ada.send(503, ada.upload_request("image/jpeg", photos::read("portrait.jpg"))).await;
    world.stranger().sign_in_with("github", "ada@example.com", "/").await;
    let guess = ada.request(Method::GET, "/api/me?token=query-secret-5d1e").header("authorization", "Bearer guessed-secret-2f7a.AAAA");
    ada.send(401, guess).await;
    secrets.push(("a guessed token", "guessed-secret-2f7a".into()));
    secrets.push(("a query", "query-secret-5d1e".into()));

    for (who, person) in [("Ada's", &ada), ("Octo's", &octo), ("Grace's", &grace)] {
        let token = person.token().unwrap();
        let (id, seal) = token.split_once('.').unwrap();
        assert!(id.len() == 43 && seal.len() == 43, "{who} {token}");
        secrets.extend([("the id of a session", id.to_owned()), ("the seal of a session", seal.to_owned())]);
    }
    (ada, secrets)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_and_no_address_of_a_person_gets_into_the_log() {
    let world = World::new().await;
    let (ada, mut secrets) = live(&world).await;
    ada.post(204, "/auth/logout").await;
    let Credentials {
        s3_access_key_id,
        s3_secret_access_key,
        kie_api_key,
        kie_webhook_hmac_key,
        creem_api_key,
        creem_webhook_secret,
        google_client_id: _,
        google_client_secret,
        github_client_id: _,
        github_client_secret,
    } = Credentials::default();
    let keys = [
        s3_access_key_id,
        s3_secret_access_key,
        kie_api_key,
        kie_webhook_hmac_key,
        creem_api_key,
        creem_webhook_secret,
        google_client_secret,
        github_client_secret,
        SESSION_SECRET.into(),
        CRON_SECRET.into(),
        DATA_KEY.into(),
    ];
    secrets.extend(keys.map(|key| ("a key of the app", key)));
    for text in ["ada@example.com", "octo@example.com", "grace.hopper", "@example", "Lovelace"] {
        secrets.push(("a person", text.into()));
    }
    for text in ["X-Amz-Signature", "X-Amz-Credential", "__session", "__signin", "Bearer ", "code_verifier", "id_token", "access_token"] {
        secrets.push(("a carrier of secrets", text.into()));
    }
    let logs = world.logs();
    assert!(logs.len() > 50, "the story is in the log");
    for (what, secret) in &secrets {
        let found: Vec<_> = logs.iter().filter(|line| line.contains(secret.as_str())).collect();
        assert!(found.is_empty(), "{what} ({secret}) is in the log:\n{found:#?}");
    }
    // The components' lines are all JSON: what is not would be a panic or a stray print.
    let strays: Vec<_> = logs.iter().filter(|line| serde_json::from_str::<serde_json::Value>(line).is_err()).collect();
    assert!(strays.is_empty(), "{strays:#?}");
}
