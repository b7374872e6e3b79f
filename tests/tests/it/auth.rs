//! `/auth/...`: signing in and out, and what a session is worth.

use std::time::Duration;

use e2e::{Calls, Person, World};
use futures::join;
use host::Moment;
use http::{Method, header};
use sandbox::{Credential, Fault, Service};
use serde_json::{Value, json};
use url::Url;

fn cookies_set(answer: &e2e::Answer) -> Vec<&str> {
    answer.headers.get_all(header::SET_COOKIE).iter().map(|value| value.to_str().unwrap()).collect()
}

fn parameter(url: &str, name: &str) -> String {
    let url = Url::parse(url).unwrap();
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
}

async fn with_bearer(person: &Person, expected: u16, path: &str, token: &str) -> e2e::Answer {
    person.send(expected, person.request(Method::GET, path).bearer_auth(token)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_new_is_welcomed_with_three_credits() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let session = ada.get(200, "/auth/session").await.json();
    assert_eq!(
        (&session["user"]["email"], &session["user"]["name"], &session["credits"]),
        (&json!("ada@example.com"), &json!("Ada Lovelace"), &json!(3))
    );
    assert_eq!(session["user"]["role"], "user");
    assert_eq!(world.sql_number("SELECT count(*) FROM signin_logs"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_person_twice_is_one_user_with_three_credits() {
    let world = World::new().await;
    for _ in 0..2 {
        assert_eq!(world.sign_in("ada@example.com").await.credits().await, 3);
        assert_eq!(world.sign_in_github("octo@example.com").await.credits().await, 3);
    }
    assert_eq!(world.sql_number("SELECT count(*) FROM users"), 2);
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_person_in_two_tabs_at_once_is_one_user() {
    let world = World::new().await;
    let tabs = futures::future::join_all((0..6).map(|_| world.sign_in("ada@example.com"))).await;
    assert_eq!(tabs.len(), 6);
    assert_eq!(world.sql_number("SELECT count(*) FROM users"), 1);
    assert_eq!(tabs[0].credits().await, 3);
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_signs_in_another_way_is_a_conflict_not_a_takeover() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let stranger = world.stranger();
    let answer = stranger.sign_in_with("github", "ada@example.com", "/").await;
    assert_eq!(answer.status, 409, "{answer}");
    answer.problem("conflict");
    assert_eq!(stranger.token(), None);
    stranger.get(401, "/api/me").await;
    assert_eq!(world.sql_number("SELECT count(*) FROM user_auth"), 1);
    assert_eq!(ada.credits().await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_login_asks_the_provider_with_state_nonce_and_pkce() {
    let world = World::new().await;
    for (provider, place, path) in
        [("google", &world.places().google, "/o/oauth2/v2/auth"), ("github", &world.places().github, "/login/oauth/authorize")]
    {
        let browser = world.stranger();
        let answer = browser.get(302, &format!("/auth/login/{provider}?redirect_to=/studio")).await;
        let to = answer.header("location");
        assert!(to.starts_with(&format!("{place}{path}?")), "{to}");
        assert_eq!(parameter(to, "redirect_uri"), format!("{}auth/callback/{provider}", world.address()));
        assert_eq!(parameter(to, "code_challenge_method"), "S256");
        assert_eq!(parameter(to, "code_challenge").len(), 43);
        assert_eq!(parameter(to, "state").len(), 43);
        assert_eq!(parameter(to, "nonce").is_empty(), provider == "github");
        assert_eq!(browser.cookie("__signin"), Some(parameter(to, "state")));
        let again = world.stranger().get(302, &format!("/auth/login/{provider}")).await;
        assert_ne!(parameter(again.header("location"), "state"), parameter(to, "state"));
    }
    // States are kept as hashes: reading the database completes nobody's sign-in.
    assert_eq!(world.sql_number("SELECT count(*) FROM one_time_tokens WHERE length(token_hash) = 64"), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_comes_back_to_where_one_wanted_and_never_elsewhere() {
    let world = World::new().await;
    let wishes = [
        ("/studio?x=1", "/studio?x=1"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example/", "/"),
        ("javascript:alert(1)", "/"),
        ("/a\r\nset-cookie: x=y", "/"),
        ("", "/"),
    ];
    for (wish, place) in wishes {
        let answer = world.stranger().sign_in_with("google", "ada@example.com", wish).await;
        assert_eq!((answer.status, answer.header("location")), (302, place), "redirect_to={wish:?}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_ends_in_the_browser_that_began_it() {
    let world = World::new().await;
    let attacker = world.stranger();
    let back = attacker.begin_sign_in("google", "ada@example.com", "/").await;
    let victim = world.stranger();
    victim.get(401, &back).await.problem("unauthenticated");
    assert_eq!(victim.token(), None, "nobody is signed in as somebody else by following a link");
    // With a sign-in of its own under way it is refused all the same.
    victim.begin_sign_in("google", "grace.hopper@gmail.com", "/").await;
    victim.get(401, &back).await.problem("unauthenticated");
    // The link still serves the browser it belongs to.
    attacker.get(302, &back).await;
    assert!(attacker.token().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_serves_once() {
    let world = World::new().await;
    let ada = world.stranger();
    let back = ada.begin_sign_in("google", "ada@example.com", "/").await;
    let state = parameter(&back, "state");
    ada.get(302, &back).await;
    assert_eq!(ada.cookie("__signin"), None, "the browser forgets it");
    let replay = world.stranger();
    let request = replay.request(Method::GET, &back).header("cookie", format!("__signin={state}"));
    replay.send(401, request).await.problem("unauthenticated");
    assert_eq!(world.sql_number("SELECT count(*) FROM sessions"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_with_one_provider_is_not_finished_at_another() {
    let world = World::new().await;
    let browser = world.stranger();
    let back = browser.begin_sign_in("google", "ada@example.com", "/").await;
    let crossed = back.replace("/auth/callback/google", "/auth/callback/github");
    browser.get(401, &crossed).await.problem("unauthenticated");
    assert_eq!(browser.token(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_that_took_too_long_is_over() {
    let world = World::new().await;
    let browser = world.stranger();
    let back = browser.begin_sign_in("google", "ada@example.com", "/").await;
    world.db_write("UPDATE one_time_tokens SET expires_at = unixepoch() - 1", []);
    browser.get(401, &back).await.problem("unauthenticated");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_without_its_parts_is_refused() {
    let world = World::new().await;
    let browser = world.stranger();
    for query in ["", "?state=&code=x", "?code=x", "?state=abc&code=x", "?error=access_denied"] {
        browser.get(401, &format!("/auth/callback/google{query}")).await.problem("unauthenticated");
    }
    let back = browser.begin_sign_in("google", "ada@example.com", "/").await;
    browser.get(401, &format!("{back}&code=another")).await.problem("unauthenticated");
    assert_eq!(world.sql_number("SELECT count(*) FROM users"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_who_declines_is_not_signed_in() {
    let world = World::new().await;
    world.fault(Fault::GoogleDenies);
    world.fault(Fault::GithubDenies);
    for provider in ["google", "github"] {
        let answer = world.stranger().sign_in_with(provider, "ada@example.com", "/").await;
        assert_eq!(answer.status, 401, "{answer}");
        answer.problem("unauthenticated");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_token_that_is_wrong_in_any_way_signs_nobody_in() {
    let world = World::new().await;
    let wrong = [
        Fault::GoogleWrongNonce,
        Fault::GoogleWrongAud,
        Fault::GoogleWrongIss,
        Fault::GoogleExpired,
        Fault::GoogleUnknownKey,
        Fault::GoogleBrokenSignature,
        Fault::GoogleEmailUnverified,
    ];
    for fault in wrong {
        world.control().clear_faults();
        world.fault(fault.clone());
        let answer = world.stranger().sign_in_with("google", "ada@example.com", "/").await;
        assert_eq!(answer.status, 401, "{fault:?}: {answer}");
        answer.problem("unauthenticated");
    }
    for fault in [Fault::GithubEmailUnverified, Fault::GithubNoEmailScope] {
        world.control().clear_faults();
        world.fault(fault.clone());
        let answer = world.stranger().sign_in_with("github", "ada@example.com", "/").await;
        assert_eq!(answer.status, 401, "{fault:?}: {answer}");
    }
    assert_eq!(world.sql_number("SELECT count(*) FROM users"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_down_is_told_apart_from_a_refusal() {
    let world = World::new().await;
    world.fault(Fault::GoogleTokenAnswers { status: 500 });
    world.fault(Fault::GithubTokenAnswers { status: 500 });
    for provider in ["google", "github"] {
        let answer = world.stranger().sign_in_with(provider, "ada@example.com", "/").await;
        assert_eq!(answer.status, 502, "{answer}");
        answer.problem("provider_unavailable");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_one_tap_credential_signs_in() {
    let world = World::new().await;
    let ada = world.stranger();
    let nonce = Some(ada.one_tap_nonce().await);
    let credential = world.control().google_credential(&Credential { email: "ada@example.com".into(), nonce, ..Credential::default() });
    let answer = ada.post_json(200, "/auth/google", &json!({"credential": credential})).await.json();
    assert_eq!((&answer["user"]["email"], &answer["credits"]), (&json!("ada@example.com"), &json!(3)));
    let token = answer["token"].as_str().unwrap();
    assert_eq!(ada.token().as_deref(), Some(token), "the cookie and the token are the same session");
    // A client without cookies uses the token.
    with_bearer(&world.stranger(), 200, "/api/me", token).await;
    // It is the same person as over the redirects.
    world.sign_in("ada@example.com").await;
    assert_eq!(world.sql_number("SELECT count(*) FROM users"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_one_tap_credential_that_is_wrong_in_any_way_is_refused() {
    let world = World::new().await;
    let email = || "ada@example.com".to_owned();
    let wrong = [
        ("for another app", Credential { email: email(), aud: Some("somebody-else".into()), ..Credential::default() }),
        ("expired", Credential { email: email(), exp: Some(e2e::now() - 3_600), ..Credential::default() }),
        ("unverified", Credential { email: email(), email_verified: Some(false), ..Credential::default() }),
        ("from another issuer", Credential { email: email(), iss: Some("https://evil.example".into()), ..Credential::default() }),
        ("signed with the public key", Credential { email: email(), alg: Some("HS256".into()), ..Credential::default() }),
        ("not signed", Credential { email: email(), alg: Some("none".into()), ..Credential::default() }),
        ("for another browser", Credential { email: email(), nonce: Some("another".into()), ..Credential::default() }),
        ("signed with an unknown key", Credential { email: email(), kid: Some("nobody's".into()), ..Credential::default() }),
    ];
    let browser = world.stranger();
    for (what, wish) in wrong {
        let nonce = wish.nonce.clone().or(Some(browser.one_tap_nonce().await));
        let credential = world.control().google_credential(&Credential { nonce, ..wish });
        let answer = browser.ask(browser.request(Method::POST, "/auth/google").json(&json!({"credential": credential}))).await;
        assert_eq!(answer.status, 401, "{what}: {answer}");
        answer.problem("unauthenticated");
        assert!(cookies_set(&answer).is_empty(), "{what}");
    }
    browser.post_json(401, "/auth/google", &json!({"credential": "nonsense"})).await.problem("unauthenticated");
    browser.post_json(422, "/auth/google", &json!({})).await.problem("invalid_input");
    assert_eq!(world.sql_number("SELECT count(*) FROM users"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_told_so_and_nothing_is_written() {
    let world = World::new().await;
    let stranger = world.stranger();
    let answer = stranger.get(200, "/auth/session").await;
    assert_eq!(answer.json(), json!({"user": null, "credits": 0}));
    assert_eq!(answer.calls(), Calls::default());
    assert!(cookies_set(&answer).is_empty());
    assert_eq!(world.sql_number("SELECT count(*) FROM sessions"), 0);
    // A token that is not ours is as good as none, and costs nothing to find out.
    for token in ["", ".", "abc", "abc.def", "AAAA.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
        let answer = with_bearer(&stranger, 200, "/auth/session", token).await;
        assert_eq!((answer.json()["user"].clone(), answer.calls()), (Value::Null, Calls::default()), "{token}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_sees_nothing_of_anybodys() {
    let world = World::new().await;
    let stranger = world.stranger();
    let everything = [
        (Method::GET, "/api/me"),
        (Method::GET, "/api/me/credits"),
        (Method::GET, "/api/me/credits/history"),
        (Method::GET, "/api/me/stats"),
        (Method::GET, "/api/uploads"),
        (Method::POST, "/api/uploads"),
        (Method::GET, "/api/uploads/0198c0de"),
        (Method::DELETE, "/api/uploads/0198c0de"),
        (Method::GET, "/files/cache/u/1_a.jpg"),
        (Method::GET, "/api/tasks"),
        (Method::POST, "/api/tasks"),
        (Method::GET, "/api/tasks/TASK_1_abcdef"),
        (Method::POST, "/api/tasks/TASK_1_abcdef/cancel"),
        (Method::GET, "/api/orders"),
        (Method::POST, "/api/orders"),
        (Method::GET, "/api/orders/0198c0de"),
        (Method::GET, "/auth/sessions"),
        (Method::DELETE, "/auth/sessions/0198c0de"),
    ];
    for (method, path) in everything {
        let answer = stranger.send(401, stranger.request(method, path)).await;
        answer.problem("unauthenticated");
        assert_eq!(answer.header("www-authenticate"), "Bearer", "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_anothers_is_not_there() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let upload = ada.upload("portrait.jpg").await;
    let upload_id = upload["id"].as_str().unwrap();
    let task = ada.order_one().await;
    let done = ada.wait_completed(&task).await;
    let order = ada.begin_purchase("credits-10").await;
    let order_id = order["id"].as_str().unwrap();
    let session = ada.get(200, "/auth/sessions").await.json()["sessions"][0]["id"].as_str().unwrap().to_owned();
    let picture = done["result_urls"][0].as_str().unwrap();

    let eve = world.sign_in("eve@example.com").await;
    for path in [
        format!("/api/uploads/{upload_id}"),
        format!("/files/{}", upload["key"].as_str().unwrap()),
        format!("/api/tasks/{task}"),
        format!("/api/orders/{order_id}"),
        picture.to_owned(),
    ] {
        eve.get(404, &path).await.problem("not_found");
        // And it is there for its owner.
        let status = ada.ask(ada.request(Method::GET, &path)).await.status;
        assert!(matches!(status, 200 | 302), "{path}: {status}");
    }
    eve.delete(404, &format!("/api/uploads/{upload_id}")).await.problem("not_found");
    eve.post(404, &format!("/api/tasks/{task}/cancel")).await.problem("not_found");
    eve.delete(404, &format!("/auth/sessions/{session}")).await.problem("not_found");
    let body = json!({"upload_id": upload_id, "hairstyles": ["bob-cut"]});
    assert_eq!(eve.post_json(422, "/api/tasks", &body).await.wrong_fields(), ["upload_id"]);
    for (list, field) in [("/api/uploads", "uploads"), ("/api/tasks", "tasks"), ("/api/orders", "orders")] {
        assert_eq!(eve.get(200, list).await.json()[field], json!([]), "{list}");
    }
    assert_eq!((eve.credits().await, ada.credits().await), (3, 2));
    ada.get(200, "/api/me").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logging_out_ends_the_session_at_once() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let token = ada.token().unwrap();
    with_bearer(&world.stranger(), 200, "/api/me", &token).await;
    let answer = ada.post(204, "/auth/logout").await;
    assert!(cookies_set(&answer).iter().any(|cookie| cookie.starts_with("__session=;") && cookie.contains("Max-Age=0")), "{answer}");
    assert_eq!(ada.token(), None);
    // The token is dead wherever it was copied to.
    with_bearer(&world.stranger(), 401, "/api/me", &token).await.problem("unauthenticated");
    assert_eq!(with_bearer(&world.stranger(), 200, "/auth/session", &token).await.json()["user"], Value::Null);
    // Logging out twice, or without having been in, is no mistake.
    ada.post(204, "/auth/logout").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_listed_and_ended_one_by_one_or_all() {
    let world = World::new().await;
    let (phone, laptop, tablet) =
        (world.sign_in("ada@example.com").await, world.sign_in("ada@example.com").await, world.sign_in("ada@example.com").await);
    let listed = laptop.get(200, "/auth/sessions").await.json()["sessions"].as_array().unwrap().clone();
    assert_eq!(listed.len(), 3);
    assert_eq!(listed.iter().filter(|session| session["current"] == true).count(), 1);
    let phones = phone.get(200, "/auth/sessions").await.json()["sessions"].as_array().unwrap().clone();
    let phones = phones.iter().find(|session| session["current"] == true).unwrap()["id"].as_str().unwrap().to_owned();
    laptop.delete(204, &format!("/auth/sessions/{phones}")).await;
    phone.get(401, "/api/me").await;
    tablet.get(200, "/api/me").await;
    laptop.post(204, "/auth/logout?all=true").await;
    tablet.get(401, "/api/me").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_out_everywhere_can_be_repeated_until_it_is_done() {
    // Each of the three in turn: whichever is ended first or last, it is the one that asks.
    for own in 0..3 {
        let folder = tempfile::TempDir::new().unwrap();
        let cache = folder.path().join("kv.db");
        let world = World::with(e2e::Options { key_value: Some(host::KvLocation::File(cache.clone())), ..Default::default() }).await;
        let mut others = Vec::new();
        for _ in 0..3 {
            others.push(world.sign_in("ada@example.com").await);
        }
        let caller = others.remove(own);
        let listed = caller.get(200, "/auth/sessions").await.json()["sessions"].as_array().unwrap().clone();
        let own = listed.iter().find(|session| session["current"] == true).unwrap()["id"].as_str().unwrap().to_owned();
        let store = rusqlite::Connection::open(&cache).unwrap();
        store.busy_timeout(e2e::PATIENCE).unwrap();
        // The cache will not give up what it knows of the others.
        let stuck = format!(
            "CREATE TRIGGER stuck BEFORE DELETE ON spin_key_value WHEN OLD.key LIKE 'session:%' AND OLD.key <> 'session:{own}' \
             BEGIN SELECT RAISE(ABORT, 'stuck'); END"
        );
        store.execute_batch(&stuck).unwrap();
        caller.post(503, "/auth/logout?all=true").await.problem("service_unavailable");
        store.execute_batch("DROP TRIGGER stuck").unwrap();
        caller.post(204, "/auth/logout?all=true").await;
        for other in &others {
            other.get(401, "/api/me").await.problem("unauthenticated");
        }
        assert_eq!(store.query_row("SELECT count(*) FROM spin_key_value WHERE key LIKE 'session:%'", [], |row| row.get(0)), Ok(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_has_expired_is_over_even_where_the_cache_is_empty() {
    let folder = tempfile::TempDir::new().unwrap();
    let cache = folder.path().join("kv.db");
    let world = World::with(e2e::Options { key_value: Some(host::KvLocation::File(cache.clone())), ..Default::default() }).await;
    let ada = world.sign_in("ada@example.com").await;
    let empty = || rusqlite::Connection::open(&cache).unwrap().execute("DELETE FROM spin_key_value", []).unwrap();
    assert!(empty() >= 1);
    ada.get(200, "/api/me").await;
    world.db_write("UPDATE sessions SET expires_at = unixepoch() - 1", []);
    empty();
    ada.get(401, "/api/me").await.problem("unauthenticated");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scheme_of_a_token_may_be_written_in_any_case() {
    let world = World::new().await;
    let token = world.sign_in("ada@example.com").await.token().unwrap();
    let client = world.stranger();
    // RFC 9110, 11.1.
    for scheme in ["Bearer", "bearer", "BEARER"] {
        client.send(200, client.request(Method::GET, "/api/me").header("authorization", format!("{scheme} {token}"))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_is_given_what_the_operator_says() {
    for credits in [0, 7] {
        let variables = [("signup_credits".to_owned(), credits.to_string())].into();
        let world = World::with(e2e::Options { variables, ..Default::default() }).await;
        assert_eq!(world.sign_in("ada@example.com").await.credits().await, credits);
        world.assert_books_balance();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_in_starts_a_new_session_and_ends_the_browsers_old_one() {
    let world = World::new().await;
    let browser = world.sign_in("ada@example.com").await;
    let first = browser.token().unwrap();
    browser.sign_in_with("google", "ada@example.com", "/").await;
    let second = browser.token().unwrap();
    assert_ne!(first.split('.').next(), second.split('.').next(), "an id somebody may know is not kept");
    with_bearer(&world.stranger(), 401, "/api/me", &first).await;
    with_bearer(&world.stranger(), 200, "/api/me", &second).await;
    assert_eq!(world.sql_number("SELECT count(*) FROM sessions WHERE expires_at > 0"), 1);
    // A cookie planted before the sign-in does not become a session.
    let planted = world.stranger();
    let back = planted.begin_sign_in("google", "grace.hopper@gmail.com", "/").await;
    let state = planted.cookie("__signin").unwrap();
    planted.send(302, planted.request(Method::GET, &back).header("cookie", format!("__session=planted.AAAA; __signin={state}"))).await;
    assert!(!planted.token().unwrap().starts_with("planted"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cookies_are_out_of_reach_of_scripts_and_other_sites() {
    let world = World::new().await;
    let ada = world.stranger();
    let login = ada.get(302, "/auth/login/google").await;
    let [signin] = cookies_set(&login)[..] else { panic!("{login}") };
    let back = ada.begin_sign_in("google", "ada@example.com", "/").await;
    let answer = ada.get(302, &back).await;
    let session = cookies_set(&answer).into_iter().find(|cookie| cookie.starts_with("__session=")).unwrap();
    for cookie in [signin, session] {
        for attribute in ["HttpOnly", "SameSite=Lax", "Path=/"] {
            assert!(cookie.split("; ").any(|part| part == attribute), "{attribute} is missing: {cookie}");
        }
        assert!(!cookie.contains("Secure"), "over plain HTTP a browser would drop it: {cookie}");
        assert!(!cookie.contains("Domain"), "{cookie}");
    }
    assert!(session.contains(&format!("Max-Age={}", 30 * 86_400)), "{session}");
    assert!(signin.contains("Max-Age=600"), "{signin}");
    assert_eq!(answer.header("cache-control"), "no-store");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_app_is_served_over_https_its_cookies_are_secure() {
    let options =
        e2e::Options { public_url: Some("https://app.example".into()), credentials: Some(e2e::real_credentials()), ..Default::default() };
    let world = World::with(options).await;
    let browser = world.stranger();
    // The browser keeps a Secure cookie from a plain connection to itself; this test brings it along.
    let answer = browser.get(200, "/auth/google/nonce").await;
    let set = cookies_set(&answer)[0].to_owned();
    let one_tap = set.split(';').next().unwrap().to_owned();
    let nonce = Some(answer.json()["nonce"].as_str().unwrap().to_owned());
    let credential = world.control().google_credential(&Credential { email: "ada@example.com".into(), nonce, ..Credential::default() });
    let with =
        |cookie: String| browser.request(Method::POST, "/auth/google").header("cookie", cookie).json(&json!({"credential": credential}));
    // A neighbour under our domain can plant cookies here, but none with this prefix: without it they count for nothing.
    assert!(one_tap.starts_with("__Host-__onetap="), "{one_tap}");
    browser.send(401, with(one_tap.replace("__Host-", ""))).await.problem("unauthenticated");
    let answer = browser.send(200, with(one_tap)).await;
    let [session, forgotten] = cookies_set(&answer)[..] else { panic!("{answer}") };
    assert!(session.starts_with("__session="), "{session}");
    let login = browser.get(302, "/auth/login/google").await;
    let [signin] = cookies_set(&login)[..] else { panic!("{login}") };
    assert!(signin.starts_with("__Host-__signin="), "{signin}");
    for cookie in [session, forgotten, signin, set.as_str()] {
        assert!(cookie.split("; ").any(|part| part == "Secure") && cookie.contains("; Path=/;") && !cookie.contains("Domain"), "{cookie}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_session_cookie_that_a_neighbour_planted_signs_nobody_in() {
    let world = World::new().await;
    let (ada, eve) = (world.sign_in("ada@example.com").await, world.sign_in("eve@example.com").await);
    let (mine, planted) = (ada.token().unwrap(), eve.token().unwrap());
    let with = |cookie: String| ada.request(Method::GET, "/api/me").header("cookie", cookie);
    // Of two with one name a browser sends the one with the longer path first: what Ada does would be done in Eve's account.
    for cookie in [format!("__session={planted}; __session={mine}"), format!("__session={mine}; other=x; __session={planted}")] {
        ada.send(401, with(cookie)).await.problem("unauthenticated");
    }
    ada.send(200, with(format!("__session={mine}; __session={mine}"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_failing_does_not_sign_anybody_out() {
    let folder = tempfile::TempDir::new().unwrap();
    let cache = folder.path().join("kv.db");
    let world = World::with(e2e::Options { key_value: Some(host::KvLocation::File(cache.clone())), ..Default::default() }).await;
    let ada = world.sign_in("ada@example.com").await;
    let connection = rusqlite::Connection::open(&cache).unwrap();
    connection.busy_timeout(Duration::from_secs(5)).unwrap();
    connection.execute("DROP TABLE spin_key_value", []).unwrap();
    ada.get(200, "/api/me").await;
    assert!(!world.events("cache_failed").is_empty(), "somebody should hear of it{}", world.tail());
    // A session that cannot be taken out of the cache would live on there: that is said, not hidden.
    ada.post(503, "/auth/logout").await.problem("service_unavailable");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_sites_page_changes_nothing_with_somebodys_cookie() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let order = json!({"product_id": "credits-10"});
    let ours = world.address().origin().ascii_serialization();
    let elsewhere = [
        [("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")],
        [("sec-fetch-site", "same-site"), ("origin", "https://other.app.example")],
        [("x-nothing", ""), ("origin", "https://evil.example")],
        [("x-nothing", ""), ("origin", "null")],
    ];
    for headers in elsewhere {
        let with = |method: Method, path: &str| {
            headers.iter().fold(ada.request(method, path), |request, (name, value)| request.header(*name, *value))
        };
        ada.send(403, with(Method::POST, "/api/orders").json(&order)).await.problem("forbidden");
        ada.send(403, with(Method::POST, "/api/uploads").header("content-type", "image/png").body("x")).await.problem("forbidden");
        ada.send(403, with(Method::POST, "/auth/logout")).await.problem("forbidden");
        ada.send(403, with(Method::DELETE, "/api/me")).await.problem("forbidden");
        // A form of another site brings no cookie along; the answer must not take it away either.
        let form =
            headers.iter().fold(world.stranger().request(Method::POST, "/auth/logout"), |form, (name, value)| form.header(*name, *value));
        let refused = ada.send(403, form).await;
        refused.problem("forbidden");
        assert_eq!(refused.header("set-cookie"), "");
        ada.send(403, with(Method::POST, "/auth/google").json(&json!({"credential": "x"}))).await.problem("forbidden");
        // Reading is no change, and what a page reads of another site its browser does not show to it.
        ada.send(200, with(Method::GET, "/api/me")).await;
        // A token is not sent by itself.
        let client = world.stranger();
        let bearer =
            headers.iter().fold(client.request(Method::POST, "/api/orders"), |request, (name, value)| request.header(*name, *value));
        client.send(201, bearer.bearer_auth(ada.token().unwrap()).json(&order)).await;
    }
    for headers in [[("sec-fetch-site", "same-origin"), ("origin", ours.as_str())], [("x-nothing", ""), ("origin", ours.as_str())]] {
        let request = headers.iter().fold(ada.request(Method::POST, "/api/orders"), |request, (name, value)| request.header(*name, *value));
        ada.send(201, request.json(&order)).await;
    }
    assert_eq!(ada.get(200, "/api/me").await.json()["credits"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_after_its_thirty_days_also_where_it_is_cached() {
    let folder = tempfile::TempDir::new().unwrap();
    let cache = folder.path().join("kv.db");
    let world = World::with(e2e::Options { key_value: Some(host::KvLocation::File(cache.clone())), ..Default::default() }).await;
    let ada = world.sign_in("ada@example.com").await;
    let store = rusqlite::Connection::open(&cache).unwrap();
    store.busy_timeout(e2e::PATIENCE).unwrap();
    store.execute("DELETE FROM spin_key_value", []).unwrap();
    let end = e2e::now() + 3;
    world.db_write("UPDATE sessions SET expires_at = ?1", [end]);
    ada.get(200, "/api/me").await;
    let kept: String =
        store.query_row("SELECT CAST(value AS TEXT) FROM spin_key_value WHERE key LIKE 'session:%'", [], |row| row.get(0)).unwrap();
    let kept: serde_json::Value = serde_json::from_str(&kept).unwrap();
    assert!(kept["expires_at"].as_i64().unwrap() <= end, "{kept}");
    world.until("the end of the session", async || if e2e::now() > end { Ok(()) } else { Err("not yet".into()) }).await;
    ada.get(401, "/api/me").await.problem("unauthenticated");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_ended_while_it_begins_does_not_rise_again() {
    let world = World::new().await;
    // Signing out everywhere, at the very moment in which the row is there and the cache does not know of it yet.
    world.db_write(
        "CREATE TRIGGER ended_at_once AFTER INSERT ON sessions BEGIN UPDATE sessions SET expires_at = 0 WHERE id_hash = NEW.id_hash; END",
        [],
    );
    let ada = world.stranger();
    let answer = ada.sign_in_with("google", "ada@example.com", "/").await;
    assert_eq!(answer.status, 401, "{answer}");
    ada.get(401, "/api/me").await.problem("unauthenticated");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_nobody_sealed_is_no_session() {
    let folder = tempfile::TempDir::new().unwrap();
    let cache = folder.path().join("kv.db");
    let world = World::with(e2e::Options { key_value: Some(host::KvLocation::File(cache.clone())), ..Default::default() }).await;
    let (ada, eve) = (world.sign_in("ada@example.com").await, world.sign_in("eve@example.com").await);
    let store = rusqlite::Connection::open(&cache).unwrap();
    store.busy_timeout(e2e::PATIENCE).unwrap();
    // Whoever can write to the cache, but has no key, says that every session is Ada's.
    let stored = json!({"user_id": ada.id().await, "resting_until": 0}).to_string();
    let entry = json!({"expires_at": e2e::now() + 600, "value": stored}).to_string().into_bytes();
    assert_eq!(store.execute("UPDATE spin_key_value SET value = ?1 WHERE key LIKE 'session:%'", [entry]).unwrap(), 2);
    assert_eq!(eve.get(200, "/api/me").await.json()["user"]["email"], "eve@example.com");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_nobody_uses_ends_and_one_in_use_goes_on() {
    let folder = tempfile::TempDir::new().unwrap();
    let cache = folder.path().join("kv.db");
    let world = World::with(e2e::Options { key_value: Some(host::KvLocation::File(cache.clone())), ..Default::default() }).await;
    let store = rusqlite::Connection::open(&cache).unwrap();
    store.busy_timeout(e2e::PATIENCE).unwrap();
    // What key-value knows of a session is a day's worth; then the table is asked.
    let a_day_passes = || store.execute("DELETE FROM spin_key_value", []).unwrap();
    let ada = world.sign_in("ada@example.com").await;
    let six_days_pass = || {
        let sql = "UPDATE sessions SET created_at = created_at - ?1, last_seen_at = last_seen_at - ?1, expires_at = expires_at - ?1";
        world.db_write(sql, [6 * 86_400]);
        a_day_passes();
    };
    six_days_pass();
    ada.get(200, "/api/me").await;
    assert!(world.sql_number("SELECT unixepoch() - last_seen_at FROM sessions") < 60, "its use is noted");
    // Used every six days it goes on, but not beyond thirty.
    for _ in 0..3 {
        six_days_pass();
        ada.get(200, "/api/me").await;
    }
    six_days_pass();
    ada.get(401, "/api/me").await.problem("unauthenticated");

    let grace = world.sign_in("grace@example.com").await;
    world.db_write("UPDATE sessions SET created_at = created_at - 626400", []);
    a_day_passes();
    grace.get(401, "/api/me").await.problem("unauthenticated");
    world.sweep().await;
    assert_eq!(world.sql_number("SELECT count(*) FROM sessions"), 1, "key-value may know it for another day");
    world.db_write("UPDATE sessions SET created_at = created_at - 86400", []);
    world.sweep().await;
    assert_eq!(world.sql_number("SELECT count(*) FROM sessions"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_one_tap_token_serves_once_and_only_in_its_browser() {
    let world = World::new().await;
    let ada = world.stranger();
    let nonce = ada.one_tap_nonce().await;
    let secret = ada.cookie("__onetap").unwrap();
    assert_ne!(nonce, secret, "whoever reads the token does not know the cookie");
    let credential = world.control().google_credential(&Credential {
        email: "ada@example.com".into(),
        nonce: Some(nonce.clone()),
        ..Credential::default()
    });
    let body = json!({"credential": credential});
    // Somebody who has read the token.
    let eve = world.stranger();
    eve.post_json(401, "/auth/google", &body).await.problem("unauthenticated");
    eve.one_tap_nonce().await;
    eve.post_json(401, "/auth/google", &body).await.problem("unauthenticated");
    let request = eve.request(Method::POST, "/auth/google").header("cookie", format!("__onetap={nonce}"));
    eve.send(401, request.json(&body)).await.problem("unauthenticated");
    ada.post_json(200, "/auth/google", &body).await;
    let request = ada.request(Method::POST, "/auth/google").header("cookie", format!("__onetap={secret}"));
    ada.send(401, request.json(&body)).await.problem("unauthenticated");
    assert_eq!(world.sql_number("SELECT count(*) FROM sessions"), 1);
    // Asking for a nonce leaves nothing behind.
    let before = world.sql_number("SELECT count(*) FROM one_time_tokens");
    assert_eq!(world.stranger().get(200, "/auth/google/nonce").await.calls(), Calls::default());
    assert_eq!(world.sql_number("SELECT count(*) FROM one_time_tokens"), before);
}

async fn link(person: &Person, provider: &str, email: &str) -> e2e::Answer {
    let url = person.post(200, &format!("/auth/link/{provider}?redirect_to=/studio")).await.json()["url"].as_str().unwrap().to_owned();
    let mut url = Url::parse(&url).unwrap();
    let name = if provider == "google" { "login_hint" } else { "login" };
    url.query_pairs_mut().append_pair(name, email);
    let consent = person.get(302, url.as_str()).await;
    person.ask(person.request(Method::GET, consent.header("location"))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_way_to_sign_in_is_added_by_whoever_is_signed_in() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let back = link(&ada, "github", "octo@example.com").await;
    assert_eq!((back.status, back.header("location")), (302, "/studio"), "{back}");
    assert_eq!(world.sign_in_github("octo@example.com").await.id().await, ada.id().await);
    assert_eq!(world.sql_number("SELECT count(*) FROM users"), 1);
    // Again is fine; somebody else's is not.
    assert_eq!(link(&ada, "github", "octo@example.com").await.status, 302);
    let grace = world.sign_in("grace.hopper@gmail.com").await;
    assert_eq!(link(&grace, "github", "octo@example.com").await.status, 409);
    // Begun in one account and finished in another it counts for nothing.
    let url = ada.post(200, "/auth/link/google").await.json()["url"].as_str().unwrap().to_owned();
    let consent = ada.get(302, &format!("{url}&login_hint=eve%40example.com")).await;
    ada.sign_in_with("google", "ada@example.com", "/").await;
    assert_eq!(
        ada.ask(ada.request(Method::GET, consent.header("location"))).await.status,
        401,
        "the newer sign-in took the browser's state"
    );
    world.stranger().post(401, "/auth/link/google").await.problem("unauthenticated");
    // A session that is older than an hour has to prove itself first.
    world.db_write("UPDATE sessions SET created_at = created_at - 3700", []);
    ada.post(403, "/auth/link/google").await.problem("forbidden");
    assert_eq!(world.sql_number("SELECT count(*) FROM user_auth"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_has_changed_hands_opens_nothing() {
    let world = World::new().await;
    // A company gives an address to the next one; the identity behind it is another.
    let first = world.stranger();
    let nonce = Some(first.one_tap_nonce().await);
    let of = |sub: &str, nonce| Credential { email: "desk@company.example".into(), sub: Some(sub.into()), nonce, ..Credential::default() };
    first.post_json(200, "/auth/google", &json!({"credential": world.control().google_credential(&of("1", nonce))})).await;
    let next = world.stranger();
    let nonce = Some(next.one_tap_nonce().await);
    let credential = world.control().google_credential(&of("2", nonce));
    next.post_json(409, "/auth/google", &json!({"credential": credential})).await.problem("conflict");
    assert_eq!(next.token(), None);
    assert_eq!(world.sql_number("SELECT count(*) FROM user_auth"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_names_another_issuer_is_refused() {
    let world = World::new().await;
    let ada = world.stranger();
    let back = ada.begin_sign_in("google", "ada@example.com", "/").await;
    let url = Url::parse(&back).unwrap();
    let pairs: Vec<(String, String)> =
        url.query_pairs().filter(|(name, _)| name != "iss").map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
    let mut wrong = url.clone();
    wrong.query_pairs_mut().clear().extend_pairs(&pairs).append_pair("iss", "https://accounts.evil.example");
    ada.get(401, wrong.as_str()).await.problem("unauthenticated");
    assert_eq!(ada.token(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_to_sign_in_is_taken_away_and_the_last_one_stays() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    link(&ada, "github", "octo@example.com").await;
    let octo = world.sign_in_github("octo@example.com").await;
    let ways = ada.get(200, "/auth/identities").await.json()["identities"].as_array().unwrap().clone();
    let providers: Vec<&str> = ways.iter().map(|way| way["provider"].as_str().unwrap()).collect();
    assert_eq!(providers, ["google", "github"]);
    let path = |at: usize| format!("/auth/identities/{}", ways[at]["id"].as_str().unwrap());
    // Nobody else's, and not in a session that is older than an hour.
    world.sign_in("eve@example.com").await.delete(404, &path(0)).await.problem("not_found");
    world.stranger().delete(401, &path(1)).await.problem("unauthenticated");
    world.db_write("UPDATE sessions SET created_at = created_at - 3700", []);
    ada.delete(403, &path(1)).await.problem("forbidden");
    world.db_write("UPDATE sessions SET created_at = created_at + 3700", []);

    ada.delete(204, &path(1)).await;
    octo.get(401, "/api/me").await.problem("unauthenticated");
    ada.get(200, "/api/me").await;
    assert_eq!(world.events("identity_removed")[0]["provider"], "github");
    // What is not taken away ends nothing.
    let phone = world.sign_in("ada@example.com").await;
    ada.delete(404, &path(1)).await.problem("not_found");
    ada.delete(409, &path(0)).await.problem("conflict");
    phone.get(200, "/api/me").await;
    // It opens an account of its own now.
    assert_ne!(world.sign_in_github("octo@example.com").await.id().await, ada.id().await);
    assert_eq!(ada.get(200, "/auth/identities").await.json()["identities"].as_array().unwrap().len(), 1);
}

/// Takes a way to sign in away, cut off at this call; answers whether it came to it.
async fn taken_away_with_a_crash(call: u64, moment: Moment) -> bool {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    link(&ada, "github", "octo@example.com").await;
    let octo = world.sign_in_github("octo@example.com").await;
    octo.get(200, "/api/me").await;
    let ways = ada.get(200, "/auth/identities").await.json()["identities"].as_array().unwrap().clone();
    let path = format!("/auth/identities/{}", ways[1]["id"].as_str().unwrap());
    world.crash_at("auth", call, moment);
    ada.ask(ada.request(Method::DELETE, &path)).await;
    let crashed = world.crashed();
    let again = ada.ask(ada.request(Method::DELETE, &path)).await;
    assert!(matches!(again.status, 204 | 404), "call {call} {moment:?}: {again}");
    assert_eq!(world.sql_number("SELECT count(*) FROM user_auth"), 1, "call {call} {moment:?}");
    let still_in = octo.ask(octo.request(Method::GET, "/api/me")).await;
    assert_eq!(still_in.status, 401, "call {call} {moment:?}: {still_in}");
    ada.get(200, "/api/me").await;
    crashed
}

#[tokio::test(flavor = "multi_thread")]
async fn wherever_taking_a_way_to_sign_in_away_is_cut_off_no_session_that_began_with_it_is_left() {
    for call in 1.. {
        let crashed = join!(taken_away_with_a_crash(call, Moment::Before), taken_away_with_a_crash(call, Moment::After));
        if crashed == (false, false) {
            assert!(call > 5, "it makes more calls than {call}");
            return;
        }
        assert!(call < 50, "it goes on for ever");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_ways_to_sign_in_that_are_taken_away_at_once_one_stays() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    link(&ada, "github", "octo@example.com").await;
    let ways = ada.get(200, "/auth/identities").await.json()["identities"].as_array().unwrap().clone();
    let answers = futures::future::join_all(ways.iter().map(|way| {
        let request = ada.request(Method::DELETE, &format!("/auth/identities/{}", way["id"].as_str().unwrap()));
        ada.ask(request)
    }))
    .await;
    let mut statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [204, 409], "{answers:?}");
    assert_eq!(world.sql_number("SELECT count(*) FROM user_auth"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn adding_a_way_to_sign_in_exchanges_the_session() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let phone = world.sign_in("ada@example.com").await;
    let before = ada.token().unwrap();
    let back = link(&ada, "github", "octo@example.com").await;
    assert!(cookies_set(&back).iter().any(|cookie| cookie.starts_with("__session=")), "{back}");
    assert_ne!(ada.token().unwrap(), before);
    with_bearer(&world.stranger(), 401, "/api/me", &before).await.problem("unauthenticated");
    ada.get(200, "/api/me").await;
    phone.get(200, "/api/me").await;
    assert_eq!(world.events("identity_added")[0]["provider"], "github");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_name_unknown_keys_do_not_make_us_ask_google_each_time() {
    let folder = tempfile::TempDir::new().unwrap();
    let cache = folder.path().join("kv.db");
    let world = World::with(e2e::Options { key_value: Some(host::KvLocation::File(cache.clone())), ..Default::default() }).await;
    let asked = || world.heard(Service::Google, "GET /oauth2/v3/certs");
    let forged =
        |number: usize| Credential { email: "ada@example.com".into(), kid: Some(format!("forged-{number}")), ..Credential::default() };
    for number in 0..6 {
        world.stranger().one_tap(401, forged(number)).await.problem("unauthenticated");
    }
    assert_eq!(asked(), 1);
    // Who is genuine is let in meanwhile.
    world.stranger().one_tap(200, Credential { email: "ada@example.com".into(), ..Credential::default() }).await;
    assert_eq!(asked(), 1);
    // A minute later it may be that Google has new keys.
    let store = rusqlite::Connection::open(&cache).unwrap();
    store.busy_timeout(e2e::PATIENCE).unwrap();
    let kept = "SELECT CAST(value AS TEXT) FROM spin_key_value WHERE key = 'config:google_keys'";
    let mut kept: serde_json::Value = serde_json::from_str(&store.query_row(kept, [], |row| row.get::<_, String>(0)).unwrap()).unwrap();
    let keys = seal::Keys::from_settings(&config::Settings::from_values([("data_encryption_key", e2e::DATA_KEY)])).unwrap();
    let mut published: serde_json::Value = keys.open_json("config:google_keys", kept["value"].as_str().unwrap()).unwrap();
    published["fetched_at"] = json!(e2e::now() - 61);
    kept["value"] = json!(keys.seal_json("config:google_keys", &published).unwrap());
    let sql = "UPDATE spin_key_value SET value = ?1 WHERE key = 'config:google_keys'";
    assert_eq!(store.execute(sql, [kept.to_string().into_bytes()]).unwrap(), 1);
    for number in 6..9 {
        world.stranger().one_tap(401, forged(number)).await.problem("unauthenticated");
    }
    assert_eq!(asked(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn googles_button_leaves_google_alone_as_well_when_it_is_down() {
    let world = World::new().await;
    world.fault(Fault::GoogleCertsAnswer { status: 503 });
    let ada = || Credential { email: "ada@example.com".into(), ..Credential::default() };
    for _ in 0..7 {
        world.stranger().one_tap(502, ada()).await.problem("provider_unavailable");
    }
    assert_eq!(world.heard(Service::Google, "GET /oauth2/v3/certs"), 5, "after five failures nobody asks for a while");
    assert_eq!(world.events("provider_left_alone").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_that_is_not_let_in_comes_back_to_the_console() {
    let world = World::new().await;
    let stranger = world.stranger();
    let back = "/auth/callback/google?state=made-up&code=x";
    // A program is told the problem, a person is shown a page that says it in words.
    stranger.get(401, back).await.problem("unauthenticated");
    let answer = stranger.send(302, stranger.request(Method::GET, back).header("accept", "text/html,*/*;q=0.8")).await;
    assert_eq!(answer.header("location"), "/?sign_in=unauthenticated");
    let told = world.events("sign_in_failed");
    assert_eq!((told.len(), told[0]["code"].as_str()), (1, Some("unauthenticated")), "{}", world.tail());
    // What is a fault of somebody else's counts for the alarms all the same.
    let there = stranger.begin_sign_in("google", "ada@example.com", "/").await;
    world.fault(Fault::GoogleTokenAnswers { status: 500 });
    let answer = stranger.send(302, stranger.request(Method::GET, &there).header("accept", "text/html")).await;
    assert_eq!(answer.header("location"), "/?sign_in=provider_unavailable");
    assert_eq!(world.sql_number("SELECT coalesce(sum(errors), 0) FROM request_errors WHERE component = 'auth'"), 1);
}
