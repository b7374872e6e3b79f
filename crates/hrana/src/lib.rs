//! Hrana 3, what libSQL servers speak over HTTP: how values are written, and a client that blocks, for tools and tests.
//!
//! The embedded host has a client of its own (`host/src/libsql.rs`), which streams and imitates Spin's.

use std::time::Duration;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Value as Json, json};

/// Blobs travel without padding, and are read with and without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_encode_padding(false).with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// How long the client waits for an answer: longer than a server waits for a lock.
const PATIENCE: Duration = Duration::from_secs(60);

/// A value of a statement or of its answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Integer(i64),
    Real(f64),
    Text(String),
    Blob(Vec<u8>),
}

impl Value {
    /// As it is sent. Integers are texts: not every reader of JSON can hold 64 bits.
    #[must_use]
    pub fn to_json(&self) -> Json {
        match self {
            Self::Null => json!({"type": "null"}),
            Self::Integer(number) => json!({"type": "integer", "value": number.to_string()}),
            Self::Real(number) => json!({"type": "float", "value": number}),
            Self::Text(text) => json!({"type": "text", "value": text}),
            Self::Blob(bytes) => json!({"type": "blob", "base64": BASE64.encode(bytes)}),
        }
    }

    /// As it comes; `None` for what is no value.
    #[must_use]
    pub fn from_json(json: &Json) -> Option<Self> {
        Some(match json["type"].as_str()? {
            "null" => Self::Null,
            "integer" => Self::Integer(json["value"].as_str()?.parse().ok()?),
            // A whole number may come without its point.
            "float" => Self::Real(json["value"].as_f64()?),
            "text" => Self::Text(json["value"].as_str()?.to_owned()),
            "blob" => Self::Blob(BASE64.decode(json["base64"].as_str()?).ok()?),
            _ => return None,
        })
    }
}

/// A statement as it is sent.
#[must_use]
pub fn statement(sql: &str, parameters: &[Value]) -> Json {
    json!({"sql": sql, "args": parameters.iter().map(Value::to_json).collect::<Vec<_>>(), "want_rows": true})
}

/// The first statement of a text: a server takes no more than one. A trigger's body is part of its statement.
#[must_use]
pub fn first_statement(sql: &str) -> &str {
    for (at, _) in sql.match_indices(';') {
        let first = &sql[..=at];
        // Text with a NUL in it is no statement; the server may say so.
        let Ok(text) = std::ffi::CString::new(first) else { return sql };
        // SAFETY: the pointer is to a text that ends in NUL and lives until after the call, which keeps nothing of it.
        if unsafe { rusqlite::ffi::sqlite3_complete(text.as_ptr()) } != 0 {
            return first;
        }
    }
    sql
}

/// Why a statement was not answered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database's own words: a token of a trigger, the text of a constraint, a lock.
    #[error("{0}")]
    Sql(String),
    /// The server is not there, or broke off: whether the statement had an effect is not known.
    #[error("the server is out of reach: {0}")]
    Unreachable(String),
    /// The server answered something else than a result: a wrong token, a stream that is over.
    #[error("the server answered {status}: {body}")]
    Answer { status: u16, body: String },
}

/// A client of one database. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    agent: ureq::Agent,
    pipeline: String,
    token: Option<String>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the token.
        write!(out, "Client({})", self.pipeline)
    }
}

impl Client {
    /// A client of the database at `url`, such as `https://name-org.turso.io`.
    #[must_use]
    pub fn new(url: &str, token: Option<&str>) -> Self {
        Self::with_patience(url, token, PATIENCE)
    }

    /// As [`Client::new`], with another limit for the time a call may take.
    #[must_use]
    pub fn with_patience(url: &str, token: Option<&str>, patience: Duration) -> Self {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(patience)).proxy(None).build();
        Self {
            agent: agent.into(),
            pipeline: format!("{}/v3/pipeline", url.trim_end_matches('/')),
            token: token.filter(|token| !token.is_empty()).map(|token| format!("Bearer {token}")),
        }
    }

    /// Runs one statement for itself and answers its rows.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn run(&self, sql: &str, parameters: &[Value]) -> Result<Vec<Vec<Value>>, Error> {
        let request = json!({"type": "execute", "stmt": statement(sql, parameters)});
        let answer = self.send(None, &[request, json!({"type": "close"})])?;
        rows(outcome(&answer)?)
    }

    /// As [`Client::run`], for how many rows were changed.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn change(&self, sql: &str, parameters: &[Value]) -> Result<u64, Error> {
        let request = json!({"type": "execute", "stmt": statement(sql, parameters)});
        let answer = self.send(None, &[request, json!({"type": "close"})])?;
        Ok(outcome(&answer)?["affected_row_count"].as_u64().unwrap_or_default())
    }

    /// Statements that belong together: a transaction lives as long as its stream. A server ends a stream that is idle for some seconds.
    #[must_use]
    pub fn stream(&self) -> Stream {
        Stream { client: self.clone(), baton: None }
    }

    fn send(&self, baton: Option<&str>, requests: &[Json]) -> Result<Json, Error> {
        let body = json!({"baton": baton, "requests": requests}).to_string();
        let mut request = self.agent.post(&self.pipeline).header("content-type", "application/json");
        if let Some(token) = &self.token {
            request = request.header("authorization", token);
        }
        let unreachable = |error: ureq::Error| Error::Unreachable(error.to_string());
        let mut answer = request.send(body).map_err(unreachable)?;
        let status = answer.status().as_u16();
        let body = answer.body_mut().with_config().limit(1 << 30).read_to_string().map_err(unreachable)?;
        match serde_json::from_str(&body) {
            Ok(json) if status == 200 => Ok(json),
            _ => Err(Error::Answer { status, body }),
        }
    }
}

/// A connection that lasts.
#[derive(Debug)]
pub struct Stream {
    client: Client,
    baton: Option<String>,
}

impl Stream {
    /// Runs one statement.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn run(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Vec<Value>>, Error> {
        rows(&self.request(&json!({"type": "execute", "stmt": statement(sql, parameters)}))?)
    }

    /// Runs all statements of a text, up to the first that fails.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn sequence(&mut self, sql: &str) -> Result<(), Error> {
        self.request(&json!({"type": "sequence", "sql": sql})).map(drop)
    }

    /// Whether no transaction is open.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn is_autocommit(&mut self) -> Result<bool, Error> {
        let answer = self.client.send(self.baton.as_deref(), &[json!({"type": "get_autocommit"})])?;
        self.baton = answer["baton"].as_str().map(str::to_owned);
        Ok(answer["results"][0]["response"]["is_autocommit"].as_bool().unwrap_or(true))
    }

    fn request(&mut self, request: &Json) -> Result<Json, Error> {
        let answer = self.client.send(self.baton.as_deref(), std::slice::from_ref(request));
        // A stream that broke is gone, and its transaction with it.
        let answer = answer.inspect_err(|_| self.baton = None)?;
        self.baton = answer["baton"].as_str().map(str::to_owned);
        outcome(&answer).cloned()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(baton) = self.baton.take() {
            // Ends what was left open at once; otherwise the server would after a while.
            let _ = self.client.send(Some(&baton), &[json!({"type": "close"})]);
        }
    }
}

/// The result of the first request.
fn outcome(answer: &Json) -> Result<&Json, Error> {
    let first = &answer["results"][0];
    if first["type"] == "ok" {
        return Ok(&first["response"]["result"]);
    }
    Err(Error::Sql(first["error"]["message"].as_str().map_or_else(|| answer.to_string(), str::to_owned)))
}

fn rows(result: &Json) -> Result<Vec<Vec<Value>>, Error> {
    let unknown = || Error::Sql("the server sent a value of an unknown kind".into());
    let row = |row: &Json| row.as_array().into_iter().flatten().map(|value| Value::from_json(value).ok_or_else(unknown)).collect();
    result["rows"].as_array().into_iter().flatten().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_arrive_as_they_left() {
        let values = [
            Value::Null,
            Value::Integer(i64::MIN),
            Value::Integer(9_007_199_254_740_993),
            Value::Real(1.5),
            Value::Text("ä'\"".into()),
            Value::Blob(vec![1, 2, 255]),
        ];
        for value in values {
            assert_eq!(Value::from_json(&value.to_json()).as_ref(), Some(&value));
        }
        assert_eq!(Value::from_json(&json!({"type": "blob", "base64": "AQI="})), Some(Value::Blob(vec![1, 2])));
        assert_eq!(Value::from_json(&json!({"type": "integer", "value": "ten"})), None);
    }

    #[test]
    fn the_first_statement_is_found_behind_texts_comments_and_bodies() {
        assert_eq!(first_statement("SELECT 1"), "SELECT 1");
        assert_eq!(first_statement("SELECT 1; SELECT 2"), "SELECT 1;");
        assert_eq!(first_statement("SELECT ';', \";\" /* ; */ -- ;\n; SELECT 2"), "SELECT ';', \";\" /* ; */ -- ;\n;");
        let trigger = "CREATE TRIGGER a AFTER INSERT ON t BEGIN SELECT 1; SELECT 2; END;";
        assert_eq!(first_statement(&format!("{trigger} SELECT 3")), trigger);
    }

    #[test]
    fn a_client_does_not_show_its_token() {
        let client = Client::new("https://a.test/", Some("geheim"));
        assert_eq!(format!("{client:?}"), "Client(https://a.test/v3/pipeline)");
    }
}
