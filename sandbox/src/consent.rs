//! What the two sign-in providers share: the people one can be, the page that asks who one is, and the rule for
//! where a browser may be sent back to.

use std::collections::BTreeMap;

use axum::response::{IntoResponse, Redirect, Response};
use url::{Host, Url};

use crate::page::{escape, page};
use crate::world::World;

/// The people offered on the consent pages. Any other e-mail address works just as well.
pub(crate) const PEOPLE: [(&str, &str); 4] = [
    ("Ada Lovelace", "ada@example.com"),
    ("Grace Hopper", "grace.hopper@gmail.com"),
    ("Katherine Johnson", "katherine@nasa.example"),
    ("Admin", "admin@example.com"),
];

/// An authorization request's query or a token request's form. Of a repeated parameter the last counts.
pub(crate) type Parameters = BTreeMap<String, String>;

pub(crate) fn parameters(encoded: &[u8]) -> Parameters {
    url::form_urlencoded::parse(encoded).into_owned().collect()
}

/// The value of a parameter that is there and not empty.
pub(crate) fn given<'a>(parameters: &'a Parameters, name: &str) -> Option<&'a str> {
    parameters.get(name).map(String::as_str).filter(|v| !v.is_empty())
}

/// A person's name from the address, when it is none of [`PEOPLE`].
pub(crate) fn name_of(email: &str) -> String {
    if let Some((name, _)) = PEOPLE.iter().find(|(_, known)| *known == email) {
        return (*name).to_owned();
    }
    let local = email.split('@').next().unwrap_or_default();
    let words = local.split(['.', '_', '-', '+']).filter(|w| !w.is_empty());
    let capital = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_uppercase().chain(letters).collect::<String>()).unwrap_or_default()
    };
    words.map(capital).collect::<Vec<_>>().join(" ")
}

/// The registered addresses of the sandbox's apps: anything on loopback, and the app's own host.
pub(crate) fn may_return_to(world: &World, uri: &str) -> Option<Url> {
    let url = Url::parse(uri).ok()?;
    let plain = url.fragment().is_none() && url.username().is_empty() && url.password().is_none();
    let loopback = match url.host()? {
        Host::Ipv4(ip) => ip.is_loopback(),
        Host::Ipv6(ip) => ip.is_loopback(),
        Host::Domain(name) => name == "localhost" || name.ends_with(".localhost"),
    };
    let apps_own = world.app_url().is_some_and(|app| app.host_str() == url.host_str());
    (plain && matches!(url.scheme(), "http" | "https") && (loopback || apps_own)).then_some(url)
}

/// Sends the browser back with these parameters added.
pub(crate) fn send_back(mut url: Url, parameters: &[(&str, &str)]) -> Response {
    url.query_pairs_mut().extend_pairs(parameters);
    // 302, as both providers do.
    let mut answer = Redirect::to(url.as_str()).into_response();
    *answer.status_mut() = http::StatusCode::FOUND;
    answer
}

/// The page that asks who one is. Each choice is this request again with `hint` set, which needs no further click.
pub(crate) fn ask(provider: &str, hint: &str, asked: &Parameters) -> Response {
    let link = |name: &str, value: &str| {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(asked.iter().filter(|(n, _)| n.as_str() != name)).append_pair(name, value);
        escape(&format!("?{}", query.finish()))
    };
    let people: String =
        PEOPLE.iter().map(|(name, email)| format!("<a class=button href=\"{}\"><b>{name}</b><br>{email}</a>", link(hint, email))).collect();
    let hidden: String = asked
        .iter()
        .filter(|(name, _)| name.as_str() != hint)
        .map(|(name, value)| format!("<input type=hidden name=\"{}\" value=\"{}\">", escape(name), escape(value)))
        .collect();
    let body = format!(
        "<p>Who are you today?</p>{people}<form method=get>{hidden}<label for=other>Another e-mail</label>\
         <input id=other name={hint} type=email required placeholder=\"somebody@example.com\"><button class=main>Continue</button></form>\
         <a class=button href=\"{}\">Refuse</a>",
        link(DENY, "yes")
    );
    page(&format!("Sign in with {provider}"), &body).into_response()
}

/// The parameter of the page's "Refuse".
pub(crate) const DENY: &str = "sandbox_refuse";
