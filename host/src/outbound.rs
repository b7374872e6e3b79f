//! Outbound HTTP: the allow-list of each component, and the client behind it.

use std::{
    collections::BTreeMap,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use anyhow::{Result, bail, ensure};
use bytes::Bytes;
use http::{Uri, uri::Scheme};
use http_body_util::BodyExt;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody};

use crate::variables;

/// Spin's default for each phase of a call.
const DEFAULT_LIMIT: Duration = Duration::from_secs(600);

/// One line of `allowed_outbound_hosts`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Allowed {
    /// `None`: any.
    scheme: Option<String>,
    host: Host,
    ports: (u16, u16),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Any,
    /// `*.example.com`: what ends in `.example.com`.
    Below(String),
    Exact(String),
}

/// Where a component may go.
#[derive(Clone, Debug, Default)]
pub(crate) struct AllowList(Vec<Allowed>);

impl AllowList {
    /// Reads the lines of a component, filling their templates. A template that comes to nothing is skipped, as in Spin.
    pub(crate) fn parse(component: &str, lines: &[String], values: &BTreeMap<String, String>) -> Result<Self> {
        let mut list = Vec::new();
        for line in lines {
            let filled = variables::fill(line, values)?;
            if line.contains("{{") && ["", "http://", "https://"].contains(&filled.as_str()) {
                continue;
            }
            match Allowed::parse(&filled) {
                Ok(allowed) => list.push(allowed),
                Err(error) => bail!("[component.{component}] allowed_outbound_hosts {line:?}: {error}"),
            }
        }
        Ok(Self(list))
    }

    /// Whether a request may go to `uri`.
    pub(crate) fn allows(&self, uri: &Uri) -> bool {
        let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else { return false };
        let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
        let host = host.to_ascii_lowercase();
        self.0.iter().any(|allowed| {
            allowed.scheme.as_deref().is_none_or(|wanted| wanted == scheme)
                && (allowed.ports.0..=allowed.ports.1).contains(&port)
                && match &allowed.host {
                    Host::Any => true,
                    Host::Below(domain) => host.ends_with(domain.as_str()) && host.len() > domain.len(),
                    Host::Exact(wanted) => *wanted == host,
                }
        })
    }
}

impl Allowed {
    fn parse(text: &str) -> Result<Self> {
        let Some((scheme, rest)) = text.split_once("://") else { bail!("a host is written scheme://host[:port]") };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        ensure!(!rest.contains(['/', '?', '#', '@']), "only scheme, host and port may be given, no path");
        ensure!(rest != "self" && !rest.starts_with("self."), "http://self is not supported by this host");
        ensure!(!rest.ends_with(".spin.internal"), "service chaining (*.spin.internal) is not supported by this host");
        let (host, port) = match rest.strip_prefix('[') {
            Some(v6) => match v6.split_once(']') {
                Some((host, "")) => (format!("[{host}]"), None),
                Some((host, port)) => (format!("[{host}]"), port.strip_prefix(':')),
                None => bail!("the IPv6 address is not closed"),
            },
            None => match rest.split_once(':') {
                Some((host, port)) => (host.to_owned(), Some(port)),
                None => (rest.to_owned(), None),
            },
        };
        ensure!(!host.is_empty(), "the host is missing");
        ensure!(!host.contains("{{"), "the template is not closed");
        let ports = match port {
            None if scheme == "https" => (443, 443),
            None if scheme == "http" => (80, 80),
            None | Some("*") => (1, u16::MAX),
            Some(range) => match range.split_once("..") {
                // Half open, as Rust and Spin write it.
                Some((from, to)) => (from.parse()?, to.parse::<u16>()?.saturating_sub(1)),
                None => (range.parse()?, range.parse()?),
            },
        };
        // As it is written: requests come in lower case, so that, as in Spin, a line in another allows nothing.
        let host = match host.as_str() {
            "*" => Host::Any,
            other => match other.strip_prefix("*.") {
                Some(domain) => Host::Below(format!(".{domain}")),
                None => {
                    ensure!(!other.contains('*'), "a * may only stand for the whole host or its first part");
                    Host::Exact(other.to_owned())
                }
            },
        };
        Ok(Self { scheme: (scheme != "*").then(|| scheme.to_owned()), host, ports })
    }
}

/// The line that would allow a request: what an operator has to add.
pub(crate) fn allowing_line(uri: &Uri) -> String {
    let authority = uri.authority().map_or("", http::uri::Authority::as_str);
    format!("{}://{authority}", uri.scheme_str().unwrap_or("https"))
}

/// What a call comes back with: the answer, and a future of what goes wrong with the request afterwards.
pub(crate) type Answer = (http::Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>);

/// The pooled client of an application.
#[derive(Clone)]
pub(crate) struct Outbound(Client<HttpConnector, WasiBody>);

impl Outbound {
    pub(crate) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        // Shorter than what servers keep: a connection that the other side is just closing would lose a request.
        Self(Client::builder(TokioExecutor::new()).pool_idle_timeout(Duration::from_secs(4)).build(connector))
    }

    /// Sends a request that has been allowed. Redirects are not followed.
    pub(crate) async fn send(self, request: http::Request<WasiBody>, options: Option<RequestOptions>) -> Result<Answer, Error> {
        if request.uri().scheme() == Some(&Scheme::HTTPS) {
            let (response, io) = wasmtime_wasi_http::default_send_request(request, options).await?;
            return Ok((response.map(BodyExt::boxed_unsync), Box::new(io)));
        }
        let limit = |pick: fn(&RequestOptions) -> Option<Duration>| options.as_ref().and_then(pick).unwrap_or(DEFAULT_LIMIT);
        let first = limit(|options| options.connect_timeout).max(limit(|options| options.first_byte_timeout));
        let between = limit(|options| options.between_bytes_timeout);
        let sent = tokio::time::timeout(first, self.0.request(request)).await;
        let response = sent.map_err(|_| Error::ConnectionReadTimeout)?.map_err(explain)?;
        let response = response.map(|body| Timed { body, between, sleep: None }.boxed_unsync());
        Ok((response, Box::new(std::future::ready(Ok(())))))
    }
}

fn explain(error: hyper_util::client::legacy::Error) -> Error {
    if error.is_connect() {
        return Error::ConnectionRefused;
    }
    Error::ConnectionTerminated
}

/// A body that gives up when nothing comes for a while.
struct Timed {
    body: hyper::body::Incoming,
    between: Duration,
    sleep: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl http_body::Body for Timed {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<http_body::Frame<Bytes>, Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.sleep = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Error::from)));
        }
        let between = self.between;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(between)));
        match sleep.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Some(Err(Error::ConnectionReadTimeout))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(lines: &[&str]) -> AllowList {
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        AllowList::parse("c", &lines, &BTreeMap::new()).expect("valid")
    }

    fn allows(lines: &[&str], uri: &str) -> bool {
        list(lines).allows(&uri.parse().expect("a URI"))
    }

    #[test]
    fn scheme_host_and_port_must_all_fit() {
        let lines = ["https://a.test", "http://b.test:8000", "*://c.test:*", "https://*.d.test", "http://e.test:10..20"];
        for uri in
            ["https://a.test/x", "https://A.test:443/", "http://b.test:8000/", "http://c.test:1/", "https://x.d.test/", "http://e.test:19/"]
        {
            assert!(allows(&lines, uri), "{uri}");
        }
        for uri in [
            "http://a.test/",
            "https://a.test:8443/",
            "https://a.test.evil/",
            "http://b.test/",
            "https://d.test/",
            "https://xd.test/",
            "http://e.test:20/",
        ] {
            assert!(!allows(&lines, uri), "{uri}");
        }
        assert!(!allows(&[], "http://a.test/"));
        assert!(!allows(&["https://A.test", "https://*.D.test"], "https://a.test/") && !allows(&["https://*.D.test"], "https://x.d.test/"));
    }

    #[test]
    fn a_template_that_comes_to_nothing_is_skipped_and_a_path_is_an_error() {
        let values = BTreeMap::from([("x".to_owned(), String::new())]);
        assert_eq!(AllowList::parse("c", &["{{ x }}".to_owned()], &values).expect("skipped").0, []);
        let error = AllowList::parse("c", &["https://a.test/path".to_owned()], &values).expect_err("a path").to_string();
        assert!(error.contains("component.c"), "{error}");
    }
}
