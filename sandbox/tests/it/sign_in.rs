//! Signing in with Google and GitHub, as an app's server does it.

use std::collections::BTreeMap;

use http::StatusCode;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use sandbox::{Credential, Fault, signature};
use serde_json::{Value, json};
use url::Url;

use crate::{Bench, client, sandbox};

const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const GOOGLE_BACK: &str = "http://127.0.0.1:3000/auth/callback/google";
const GITHUB_BACK: &str = "http://127.0.0.1:3000/auth/callback/github";

fn query(url: &str) -> BTreeMap<String, String> {
    Url::parse(url).unwrap().query_pairs().into_owned().collect()
}

async fn authorize_google(bench: &Bench, email: &str) -> BTreeMap<String, String> {
    let variables = bench.variables();
    let challenge = signature::pkce_challenge(VERIFIER);
    let asked = [
        ("client_id", variables["google_client_id"].as_str()),
        ("response_type", "code"),
        ("scope", "openid email profile"),
        ("redirect_uri", GOOGLE_BACK),
        ("state", "the-state"),
        ("nonce", "the-nonce"),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
        ("login_hint", email),
    ];
    let asked: Vec<_> = asked.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    let url = Url::parse_with_params(&format!("{}/o/oauth2/v2/auth", variables["google_base_url"]), asked).unwrap();
    let answer = client().get(url).send().await.unwrap();
    if answer.status() == StatusCode::OK {
        return BTreeMap::from([("page".into(), answer.text().await.unwrap())]);
    }
    assert_eq!(answer.status(), 302);
    query(answer.headers()["location"].to_str().unwrap())
}

async fn exchange_google(bench: &Bench, code: &str, changes: &[(&str, &str)]) -> (u16, Value) {
    let variables = bench.variables();
    let mut form = BTreeMap::from([
        ("grant_type", "authorization_code"),
        ("code", code),
        ("client_id", variables["google_client_id"].as_str()),
        ("client_secret", variables["google_client_secret"].as_str()),
        ("redirect_uri", GOOGLE_BACK),
        ("code_verifier", VERIFIER),
    ]);
    form.extend(changes.iter().copied());
    let answer = client().post(format!("{}/token", variables["google_token_base_url"])).form(&form).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// The claims, if the token stands every check an app makes.
async fn verify(bench: &Bench, token: &str) -> Result<Value, String> {
    let variables = bench.variables();
    let url = format!("{}/oauth2/v3/certs", variables["google_certs_base_url"]);
    let keys: JwkSet = client().get(url).send().await.unwrap().json().await.unwrap();
    let header = decode_header(token).map_err(|e| e.to_string())?;
    let key = keys.find(&header.kid.unwrap_or_default()).ok_or("unknown key")?;
    let mut rules = Validation::new(Algorithm::RS256);
    rules.set_audience(&[&variables["google_client_id"]]);
    rules.set_issuer(&["https://accounts.google.com"]);
    let key = DecodingKey::from_jwk(key).unwrap();
    decode::<Value>(token, &key, &rules).map(|t| t.claims).map_err(|e| e.to_string())
}

#[tokio::test]
async fn a_person_signs_in_with_google() {
    let bench = sandbox().await;
    let back = authorize_google(&bench, "Ada@example.com").await;
    assert_eq!(back["state"], "the-state");
    assert_eq!(back["iss"], "https://accounts.google.com");
    assert!(back["code"].contains('/'));
    let (status, tokens) = exchange_google(&bench, &back["code"], &[]).await;
    assert_eq!(status, 200, "{tokens}");
    let claims = verify(&bench, tokens["id_token"].as_str().unwrap()).await.unwrap();
    assert_eq!(
        (&claims["email"], &claims["nonce"], &claims["hd"]),
        (&json!("ada@example.com"), &json!("the-nonce"), &json!("example.com"))
    );
    assert_eq!((&claims["email_verified"], &claims["name"]), (&json!(true), &json!("Ada Lovelace")));
    let url = format!("{}/v1/userinfo", bench.places().google);
    let info: Value = client().get(url).bearer_auth(tokens["access_token"].as_str().unwrap()).send().await.unwrap().json().await.unwrap();
    assert_eq!(info["sub"], claims["sub"]);

    // A code is good once.
    let (status, error) = exchange_google(&bench, &back["code"], &[]).await;
    assert_eq!((status, &error["error"]), (400, &json!("invalid_grant")));
    // The same person is the same subject in another sandbox.
    let other = sandbox().await;
    let back = authorize_google(&other, "ada@example.com").await;
    let (_, tokens) = exchange_google(&other, &back["code"], &[]).await;
    assert_eq!(verify(&other, tokens["id_token"].as_str().unwrap()).await.unwrap()["sub"], claims["sub"]);
}

#[tokio::test]
async fn google_checks_what_it_is_given() {
    let bench = sandbox().await;
    for (change, error) in [
        (("code_verifier", "wrong-wrong-wrong-wrong-wrong-wrong-wrong-wrong"), "invalid_grant"),
        (("code_verifier", ""), "invalid_grant"),
        (("redirect_uri", "http://127.0.0.1:3000/elsewhere"), "redirect_uri_mismatch"),
        (("client_secret", "wrong"), "invalid_client"),
        (("client_id", "wrong"), "invalid_client"),
        (("grant_type", "password"), "unsupported_grant_type"),
    ] {
        let back = authorize_google(&bench, "ada@example.com").await;
        assert_eq!(exchange_google(&bench, &back["code"], &[change]).await.1["error"], error);
    }
    let page = authorize_google(&bench, "").await.remove("page").unwrap();
    assert!(page.contains("ada@example.com") && page.contains("Another e-mail"));
    let variables = bench.variables();
    let url = format!(
        "{}/o/oauth2/v2/auth?client_id={}&response_type=code&scope=openid",
        variables["google_base_url"], variables["google_client_id"]
    );
    assert_eq!(client().get(format!("{url}&redirect_uri=https://evil.example/")).send().await.unwrap().status(), 400);
    bench.control().fault(Fault::GoogleDenies.once());
    assert_eq!(authorize_google(&bench, "ada@example.com").await["error"], "access_denied");
}

#[tokio::test]
async fn google_tokens_go_wrong_as_told() {
    let bench = sandbox().await;
    for (fault, why) in [
        (Fault::GoogleWrongAud, "InvalidAudience"),
        (Fault::GoogleWrongIss, "InvalidIssuer"),
        (Fault::GoogleExpired, "ExpiredSignature"),
        (Fault::GoogleBrokenSignature, "InvalidSignature"),
        (Fault::GoogleUnknownKey, "unknown key"),
    ] {
        bench.control().fault(fault.clone().once());
        let back = authorize_google(&bench, "ada@example.com").await;
        let (_, tokens) = exchange_google(&bench, &back["code"], &[]).await;
        let error = verify(&bench, tokens["id_token"].as_str().unwrap()).await.unwrap_err();
        assert!(error.contains(why), "{fault:?}: {error}");
    }
    bench.control().fault(Fault::GoogleWrongNonce.once());
    bench.control().fault(Fault::GoogleEmailUnverified.once());
    let back = authorize_google(&bench, "ada@example.com").await;
    let (_, tokens) = exchange_google(&bench, &back["code"], &[]).await;
    let claims = verify(&bench, tokens["id_token"].as_str().unwrap()).await.unwrap();
    assert_ne!(claims["nonce"], "the-nonce");
    assert_eq!(claims["email_verified"], false);
    bench.control().fault(Fault::GoogleTokenAnswers { status: 500 }.once());
    assert_eq!(exchange_google(&bench, "4/x", &[]).await.0, 500);
}

#[tokio::test]
async fn one_tap_credentials_are_minted_right_and_wrong() {
    let bench = sandbox().await;
    let control = bench.control();
    let wish = Credential { email: "grace.hopper@gmail.com".into(), nonce: Some("n".into()), ..Default::default() };
    let claims = verify(&bench, &control.google_credential(&wish)).await.unwrap();
    assert!(claims.get("hd").is_none());
    for wrong in [
        Credential { aud: Some("another-app".into()), ..wish.clone() },
        Credential { exp: Some(1_700_000_000), ..wish.clone() },
        Credential { alg: Some("none".into()), ..wish.clone() },
        Credential { alg: Some("HS256".into()), ..wish.clone() },
        Credential { iss: Some("https://evil.example".into()), ..wish.clone() },
        Credential { kid: Some("nobody".into()), ..wish.clone() },
    ] {
        assert!(verify(&bench, &control.google_credential(&wrong)).await.is_err(), "{wrong:?}");
    }
}

async fn authorize_github(bench: &Bench, extra: &str) -> BTreeMap<String, String> {
    let variables = bench.variables();
    let challenge = signature::pkce_challenge(VERIFIER);
    let url = format!(
        "{}/login/oauth/authorize?client_id={}&redirect_uri={GITHUB_BACK}&scope=read:user%20user:email&state=s&code_challenge={challenge}&code_challenge_method=S256&{extra}",
        variables["github_base_url"], variables["github_client_id"]
    );
    query(client().get(url).send().await.unwrap().headers()["location"].to_str().unwrap())
}

async fn exchange_github(bench: &Bench, code: &str, verifier: &str) -> Value {
    let variables = bench.variables();
    let form = [
        ("client_id", variables["github_client_id"].as_str()),
        ("client_secret", variables["github_client_secret"].as_str()),
        ("code", code),
        ("redirect_uri", GITHUB_BACK),
        ("code_verifier", verifier),
    ];
    let url = format!("{}/login/oauth/access_token", variables["github_base_url"]);
    let answer = client().post(url).header("accept", "application/json").form(&form).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.json().await.unwrap()
}

#[tokio::test]
async fn a_person_signs_in_with_github() {
    let bench = sandbox().await;
    let back = authorize_github(&bench, "login=octo").await;
    let token = exchange_github(&bench, &back["code"], VERIFIER).await;
    assert_eq!(token["scope"], "read:user,user:email");
    let api = |path: &str| client().get(format!("{}{path}", bench.places().github)).bearer_auth(token["access_token"].as_str().unwrap());
    assert_eq!(api("/user").send().await.unwrap().status(), 403, "no User-Agent");
    let user: Value = api("/user").header("user-agent", "app").send().await.unwrap().json().await.unwrap();
    assert_eq!((&user["login"], &user["email"]), (&json!("octo"), &Value::Null));
    assert!(user["id"].is_i64() || user["id"].is_u64());
    let emails: Value = api("/user/emails").header("user-agent", "app").send().await.unwrap().json().await.unwrap();
    let primary = emails.as_array().unwrap().iter().find(|e| e["primary"] == true).unwrap();
    assert_eq!((&primary["email"], &primary["verified"]), (&json!("octo@example.com"), &json!(true)));
    assert_eq!(exchange_github(&bench, &back["code"], VERIFIER).await["error"], "bad_verification_code");
    let stranger = client().get(format!("{}/user", bench.places().github)).bearer_auth("x").header("user-agent", "app");
    assert_eq!(stranger.send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn github_goes_wrong_as_told() {
    let bench = sandbox().await;
    let control = bench.control();
    let back = authorize_github(&bench, "login_hint=ada@example.com").await;
    assert_eq!(exchange_github(&bench, &back["code"], "wrong").await["error"], "bad_verification_code");
    control.fault(Fault::GithubDenies.once());
    assert_eq!(authorize_github(&bench, "login=octo").await["error"], "access_denied");
    control.fault(Fault::GithubEmailUnverified.once());
    control.fault(Fault::GithubNoEmailScope.matching("ada"));
    for (who, status) in [("octo", 200), ("ada@example.com", 404)] {
        let back = authorize_github(&bench, &format!("login={who}")).await;
        let token = exchange_github(&bench, &back["code"], VERIFIER).await;
        let emails = client().get(format!("{}/user/emails", bench.places().github)).bearer_auth(token["access_token"].as_str().unwrap());
        let answer = emails.header("user-agent", "app").send().await.unwrap();
        assert_eq!(answer.status(), status);
        if status == 200 {
            assert!(answer.text().await.unwrap().contains("\"verified\":false"));
        }
    }
}

#[tokio::test]
async fn github_answers_forms_to_those_who_ask_for_nothing() {
    let bench = sandbox().await;
    let url = format!("{}/login/oauth/access_token", bench.places().github);
    let text = client().post(url).form(&[("client_id", "wrong")]).send().await.unwrap().text().await.unwrap();
    assert!(text.starts_with("error=incorrect_client_credentials"), "{text}");
}
