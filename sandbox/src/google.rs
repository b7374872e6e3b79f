//! Google sign-in: the code flow with PKCE, signed id tokens with their keys, userinfo, and One Tap credentials.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{HeaderMap, StatusCode, header};
use jiff::Timestamp;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::consent::{self, Parameters, given};
use crate::fault::Fault;
use crate::page::page;
use crate::signature::{self, hmac_sha256, stable_number};
use crate::world::{World, fresh_id, locked, pause};

/// Google's name in its tokens, also when a stand-in makes them.
const ISSUER: &str = "https://accounts.google.com";
/// How long a code may be exchanged.
const CODE_LIFE: Duration = Duration::from_secs(600);
const KEY_ID: &str = "sandbox-key-1";

/// The sandbox's signing key: fixed, so that starting takes no time. It protects nothing.
const SIGNING_KEY: &str = include_str!("../testdata/sandbox-signing-key.pem");

pub(crate) struct Google {
    key: EncodingKey,
    public: Jwk,
    codes: Mutex<HashMap<String, Grant>>,
    tokens: Mutex<HashMap<String, String>>,
}

struct Grant {
    email: String,
    redirect_uri: String,
    nonce: Option<String>,
    challenge: Option<(String, bool)>,
    offline: bool,
    at: Instant,
}

/// A One Tap credential to be made, with what may be wrong about it. In JSON only `email` is needed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Credential {
    pub email: String,
    /// Default: the app's client id.
    pub aud: Option<String>,
    /// Default: stable for the e-mail address.
    pub sub: Option<String>,
    pub nonce: Option<String>,
    /// Unix seconds; default: in an hour.
    pub exp: Option<i64>,
    pub iss: Option<String>,
    /// Default: true.
    pub email_verified: Option<bool>,
    /// `RS256` (default), `HS256` (signed with the published key's modulus, as an attacker would) or `none`.
    pub alg: Option<String>,
    /// Default: the published one.
    pub kid: Option<String>,
    /// Default: the domain of an address that is not Google's own; an empty text leaves it out.
    pub hd: Option<String>,
}

impl Google {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let base64: String = SIGNING_KEY.lines().skip_while(|l| !l.starts_with("-----BEGIN")).filter(|l| !l.starts_with("-----")).collect();
        let der = STANDARD.decode(base64).context("the sandbox's signing key")?;
        let key = EncodingKey::from_rsa_der(&der);
        let mut public = Jwk::from_encoding_key(&key, Algorithm::RS256).context("the sandbox's signing key")?;
        public.common.key_id = Some(KEY_ID.into());
        public.common.public_key_use = Some(jsonwebtoken::jwk::PublicKeyUse::Signature);
        Ok(Self { key, public, codes: Mutex::default(), tokens: Mutex::default() })
    }

    pub(crate) fn forget(&self) {
        locked(&self.codes).clear();
        locked(&self.tokens).clear();
    }

    fn published(&self) -> Value {
        serde_json::to_value(&self.public).unwrap_or_default()
    }

    /// A signed id token (or one that is wrong in the way asked for).
    fn sign(&self, claims: &Value, alg: &str, kid: &str) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        if alg == "RS256" {
            let mut header = Header::new(Algorithm::RS256);
            header.kid = Some(kid.into());
            return jsonwebtoken::encode(&header, claims, &self.key).unwrap_or_default();
        }
        let unsigned = format!("{}.{}", part(&json!({ "alg": alg, "kid": kid, "typ": "JWT" })), part(claims));
        let signature = match alg {
            "none" => String::new(),
            _ => {
                let secret = self.published()["n"].as_str().unwrap_or_default().to_owned();
                URL_SAFE_NO_PAD.encode(hmac_sha256(secret.as_bytes(), unsigned.as_bytes()))
            }
        };
        format!("{unsigned}.{signature}")
    }
}

/// Makes a One Tap credential.
pub(crate) fn mint(world: &World, wish: &Credential) -> String {
    let mut claims = claims(world, &wish.email, wish.nonce.as_deref());
    let replace = |claims: &mut Value, name: &str, value: Value| claims[name] = value;
    if let Some(aud) = &wish.aud {
        replace(&mut claims, "aud", json!(aud));
        replace(&mut claims, "azp", json!(aud));
    }
    if let Some(sub) = &wish.sub {
        replace(&mut claims, "sub", json!(sub));
    }
    if let Some(exp) = wish.exp {
        replace(&mut claims, "exp", json!(exp));
    }
    if let Some(iss) = &wish.iss {
        replace(&mut claims, "iss", json!(iss));
    }
    if let Some(verified) = wish.email_verified {
        replace(&mut claims, "email_verified", json!(verified));
    }
    match wish.hd.as_deref() {
        Some("") => {
            claims.as_object_mut().map(|fields| fields.remove("hd"));
        }
        Some(hd) => replace(&mut claims, "hd", json!(hd)),
        None => {}
    }
    world.google.sign(&claims, wish.alg.as_deref().unwrap_or("RS256"), wish.kid.as_deref().unwrap_or(KEY_ID))
}

/// Who somebody is to Google: 21 digits that never change for an address.
fn subject_of(email: &str) -> String {
    format!("1{:020}", stable_number(&format!("google {email}")))
}

fn domain_of(email: &str) -> Option<&str> {
    email.split_once('@').map(|(_, domain)| domain).filter(|d| !matches!(*d, "gmail.com" | "googlemail.com"))
}

fn profile(world: &World, email: &str) -> Value {
    let name = consent::name_of(email);
    let (first, last) = name.split_once(' ').unwrap_or((&name, ""));
    let subject = subject_of(email);
    let mut profile = json!({
        "sub": subject, "name": name, "given_name": first, "family_name": last,
        "picture": format!("{}/avatars/{subject}.svg", world.places.google), "email": email, "email_verified": true,
    });
    if let Some(domain) = domain_of(email) {
        profile["hd"] = json!(domain);
    }
    profile
}

fn claims(world: &World, email: &str, nonce: Option<&str>) -> Value {
    let now = Timestamp::now().as_second();
    let client = &world.credentials.google_client_id;
    let mut claims = profile(world, email);
    claims["iss"] = json!(ISSUER);
    claims["aud"] = json!(client);
    claims["azp"] = json!(client);
    claims["iat"] = json!(now);
    claims["exp"] = json!(now + 3_600);
    if let Some(nonce) = nonce {
        claims["nonce"] = json!(nonce);
    }
    claims
}

pub(crate) fn router(world: &Arc<World>) -> Router {
    Router::new()
        .route("/.well-known/openid-configuration", get(discovery))
        .route("/o/oauth2/v2/auth", get(authorize))
        .route("/token", post(token))
        .route("/oauth2/v3/certs", get(certs))
        .route("/v1/userinfo", get(userinfo))
        .route("/oauth2/v3/userinfo", get(userinfo))
        .route("/revoke", post(|| async { Json(json!({})) }))
        .route("/avatars/{file}", get(avatar))
        .with_state(Arc::clone(world))
}

async fn discovery(State(world): State<Arc<World>>) -> Json<Value> {
    let here = &world.places.google;
    Json(json!({
        "issuer": ISSUER, "authorization_endpoint": format!("{here}/o/oauth2/v2/auth"), "token_endpoint": format!("{here}/token"),
        "userinfo_endpoint": format!("{here}/v1/userinfo"), "revocation_endpoint": format!("{here}/revoke"),
        "jwks_uri": format!("{here}/oauth2/v3/certs"), "response_types_supported": ["code"],
        "response_modes_supported": ["query"], "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"], "scopes_supported": ["openid", "email", "profile"],
        "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
        "code_challenge_methods_supported": ["plain", "S256"], "grant_types_supported": ["authorization_code"],
    }))
}

fn error_page(status: StatusCode, code: &str) -> Response {
    (status, page("Access blocked", &format!("<p class=bad>Error {}: {code}</p>", status.as_u16()))).into_response()
}

async fn authorize(State(world): State<Arc<World>>, RawQuery(query): RawQuery) -> Response {
    let asked = consent::parameters(query.unwrap_or_default().as_bytes());
    if given(&asked, "client_id") != Some(world.credentials.google_client_id.as_str()) {
        return error_page(StatusCode::UNAUTHORIZED, "invalid_client");
    }
    let redirect_uri = given(&asked, "redirect_uri").unwrap_or_default().to_owned();
    let Some(back) = consent::may_return_to(&world, &redirect_uri) else {
        return error_page(StatusCode::BAD_REQUEST, "redirect_uri_mismatch");
    };
    let scopes = given(&asked, "scope").unwrap_or_default();
    let method = given(&asked, "code_challenge_method").unwrap_or("plain");
    if given(&asked, "response_type") != Some("code") || !scopes.split(' ').any(|s| s == "openid") || !matches!(method, "plain" | "S256") {
        return error_page(StatusCode::BAD_REQUEST, "invalid_request");
    }
    let state = given(&asked, "state").unwrap_or_default();
    let email = given(&asked, "login_hint").filter(|hint| hint.contains('@')).map(str::to_lowercase);
    let refused = asked.contains_key(consent::DENY) || world.faults.strikes(email.as_deref().unwrap_or_default(), &Fault::GoogleDenies);
    if refused {
        return consent::send_back(back, &[("error", "access_denied"), ("state", state)]);
    }
    let Some(email) = email else {
        if given(&asked, "prompt") == Some("none") {
            return consent::send_back(back, &[("error", "interaction_required"), ("state", state)]);
        }
        return consent::ask("Google", "login_hint", &asked);
    };
    // The real codes contain a slash, which has to be decoded once and not twice.
    let code = format!("4/0A{}", fresh_id(""));
    let grant = Grant {
        email: email.clone(),
        redirect_uri,
        nonce: given(&asked, "nonce").map(str::to_owned),
        challenge: given(&asked, "code_challenge").map(|c| (c.to_owned(), method == "S256")),
        offline: given(&asked, "access_type") == Some("offline"),
        at: Instant::now(),
    };
    locked(&world.google.codes).insert(code.clone(), grant);
    let mut answer = vec![
        ("state", state),
        ("code", code.as_str()),
        ("scope", "email profile openid https://www.googleapis.com/auth/userinfo.profile https://www.googleapis.com/auth/userinfo.email"),
        ("authuser", "0"),
        ("prompt", "none"),
    ];
    if let Some(domain) = domain_of(&email) {
        answer.push(("hd", domain));
    }
    if world.settings().google_callback_iss {
        answer.push(("iss", ISSUER));
    }
    consent::send_back(back, &answer)
}

fn token_error(status: StatusCode, error: &str, description: &str) -> Response {
    (status, Json(json!({ "error": error, "error_description": description }))).into_response()
}

async fn token(State(world): State<Arc<World>>, headers: HeaderMap, body: Bytes) -> Response {
    let mut form = consent::parameters(&body);
    add_basic_credentials(&headers, &mut form);
    let code = given(&form, "code").unwrap_or_default();
    let email = locked(&world.google.codes).get(code).map(|g| g.email.clone()).unwrap_or_default();
    let subject = format!("POST /token {email}");
    let slow = world.faults.strike(&subject, |fault| match fault {
        Fault::GoogleTokenSlow { ms } => Some(*ms),
        _ => None,
    });
    if let Some(ms) = slow {
        pause(ms).await;
    }
    let told = world.faults.strike(&subject, |fault| match fault {
        Fault::GoogleTokenAnswers { status } => StatusCode::from_u16(*status).ok(),
        _ => None,
    });
    if let Some(status) = told {
        return token_error(status, "internal_failure", "As told by the sandbox.");
    }
    match exchange(&world, &form) {
        Ok(grant) => Json(tokens(&world, &grant, &subject)).into_response(),
        Err((status, error, description)) => token_error(status, error, description),
    }
}

fn add_basic_credentials(headers: &HeaderMap, form: &mut Parameters) {
    let basic = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(|v| v.strip_prefix("Basic "));
    let decoded = basic.and_then(|b| STANDARD.decode(b).ok()).and_then(|b| String::from_utf8(b).ok());
    if let Some((id, secret)) = decoded.as_deref().and_then(|pair| pair.split_once(':')) {
        form.insert("client_id".into(), id.into());
        form.insert("client_secret".into(), secret.into());
    }
}

fn exchange(world: &World, form: &Parameters) -> Result<Grant, (StatusCode, &'static str, &'static str)> {
    let bad = |error, description| Err((StatusCode::BAD_REQUEST, error, description));
    let credentials = &world.credentials;
    if given(form, "client_id") != Some(credentials.google_client_id.as_str()) {
        return Err((StatusCode::UNAUTHORIZED, "invalid_client", "The OAuth client was not found."));
    }
    if given(form, "client_secret") != Some(credentials.google_client_secret.as_str()) {
        return Err((StatusCode::UNAUTHORIZED, "invalid_client", "Unauthorized"));
    }
    match given(form, "grant_type") {
        Some("authorization_code") => {}
        None => return bad("invalid_request", "Missing required parameter: grant_type"),
        Some(_) => return bad("unsupported_grant_type", "Invalid grant_type"),
    }
    let Some(code) = given(form, "code") else {
        return bad("invalid_request", "Missing required parameter: code");
    };
    if !code.starts_with("4/") {
        return bad("invalid_grant", "Malformed auth code.");
    }
    // Taken out before anything else is looked at: a code that failed once is gone.
    let grant = match locked(&world.google.codes).remove(code) {
        Some(grant) if grant.at.elapsed() <= CODE_LIFE => grant,
        _ => return bad("invalid_grant", "Bad Request"),
    };
    if given(form, "redirect_uri") != Some(grant.redirect_uri.as_str()) {
        return bad("redirect_uri_mismatch", "Bad Request");
    }
    if let Some((challenge, hashed)) = &grant.challenge {
        let Some(verifier) = given(form, "code_verifier") else {
            return bad("invalid_grant", "Missing code verifier.");
        };
        let shown = if *hashed { signature::pkce_challenge(verifier) } else { verifier.to_owned() };
        if shown != *challenge {
            return bad("invalid_grant", "Invalid code verifier.");
        }
    }
    Ok(grant)
}

fn tokens(world: &World, grant: &Grant, subject: &str) -> Value {
    let access_token = fresh_id("ya29.");
    locked(&world.google.tokens).insert(access_token.clone(), grant.email.clone());
    let mut claims = claims(world, &grant.email, grant.nonce.as_deref());
    claims["at_hash"] = json!(URL_SAFE_NO_PAD.encode(&<sha2::Sha256 as sha2::Digest>::digest(access_token.as_bytes())[..16]));
    let mut kid = KEY_ID;
    let strikes = |fault: Fault| world.faults.strikes(subject, &fault);
    if strikes(Fault::GoogleWrongNonce) {
        claims["nonce"] = json!("another-nonce");
    }
    if strikes(Fault::GoogleWrongAud) {
        claims["aud"] = json!("another-app.apps.googleusercontent.com");
        claims["azp"] = claims["aud"].clone();
    }
    if strikes(Fault::GoogleWrongIss) {
        claims["iss"] = json!("https://accounts.example.com");
    }
    if strikes(Fault::GoogleExpired) {
        let now = Timestamp::now().as_second();
        claims["iat"] = json!(now - 7_200);
        claims["exp"] = json!(now - 3_600);
    }
    if strikes(Fault::GoogleEmailUnverified) {
        claims["email_verified"] = json!(false);
    }
    if strikes(Fault::GoogleUnknownKey) {
        kid = "unpublished-key";
    }
    let mut id_token = world.google.sign(&claims, "RS256", kid);
    if strikes(Fault::GoogleBrokenSignature) {
        let other = world.google.sign(&json!({ "exp": 1 }), "RS256", kid);
        let (claims, _) = id_token.rsplit_once('.').unwrap_or((&id_token, ""));
        id_token = format!("{claims}.{}", other.rsplit('.').next().unwrap_or_default());
    }
    let mut tokens = json!({
        "access_token": access_token, "expires_in": 3599, "token_type": "Bearer", "id_token": id_token,
        "scope": "openid https://www.googleapis.com/auth/userinfo.email https://www.googleapis.com/auth/userinfo.profile",
    });
    if grant.offline {
        tokens["refresh_token"] = json!(fresh_id("1//"));
    }
    tokens
}

async fn certs(State(world): State<Arc<World>>) -> Response {
    let told = world.faults.strike("GET /oauth2/v3/certs", |fault| match fault {
        Fault::GoogleCertsAnswer { status } => StatusCode::from_u16(*status).ok(),
        _ => None,
    });
    if let Some(status) = told {
        return (status, "As told by the sandbox.").into_response();
    }
    // Google publishes two keys at a time. The first one here signs nothing: who takes the first without looking
    // at its id fails, as with the real one half of the time.
    let mut idle = world.google.published();
    idle["kid"] = json!("sandbox-key-0");
    let modulus: Vec<u8> = (0..32).flat_map(|i| (stable_number(&format!("idle key {i}")) | 1 << 63).to_be_bytes()).collect();
    idle["n"] = json!(URL_SAFE_NO_PAD.encode(modulus));
    let keys = json!({ "keys": [idle, world.google.published()] });
    ([(header::CACHE_CONTROL, "public, max-age=22000, must-revalidate, no-transform")], Json(keys)).into_response()
}

async fn userinfo(State(world): State<Arc<World>>, headers: HeaderMap) -> Response {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(|v| v.strip_prefix("Bearer "));
    let email = bearer.and_then(|token| locked(&world.google.tokens).get(token).cloned());
    match email {
        Some(email) => Json(profile(&world, &email)).into_response(),
        None => token_error(StatusCode::UNAUTHORIZED, "invalid_request", "Invalid Credentials"),
    }
}

/// A face for everybody: a coloured circle.
pub(crate) async fn avatar(Path(file): Path<String>) -> Response {
    let hue = stable_number(&file) % 360;
    let svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 96 96\"><rect width=\"96\" height=\"96\" fill=\"hsl({hue},60%,55%)\"/>\
         <circle cx=\"48\" cy=\"38\" r=\"18\" fill=\"#fff\"/><path d=\"M12 96a36 34 0 0 1 72 0z\" fill=\"#fff\"/></svg>"
    );
    ([(header::CONTENT_TYPE, "image/svg+xml")], svg).into_response()
}
