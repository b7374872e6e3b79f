//! People for a measured app, made as people are: they sign in, upload a photo, order a picture.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::command::root;
use crate::http::{Answer, Connection, request};

/// The photo of the tests, a portrait of 160 KB.
pub fn photo() -> Result<Vec<u8>> {
    let photo = root().join("tests/photos/portrait.jpg");
    std::fs::read(&photo).with_context(|| format!("cannot read {}", photo.display()))
}

/// Somebody who is signed in.
#[derive(Clone)]
pub struct Person {
    pub app: SocketAddr,
    pub id: String,
    cookie: String,
}

impl Person {
    /// Signs in through the sandbox's Google, as a browser would.
    pub fn sign_in(app: SocketAddr, name: &str) -> Result<Self> {
        let cookie = sign_in(app, name)?;
        let mut person = Self { app, id: String::new(), cookie };
        person.id = person.text(200, "/user/id", &person.get("/api/me"))?;
        Ok(person)
    }

    pub fn get(&self, path: &str) -> Vec<u8> {
        request("GET", path, std::slice::from_ref(&self.cookie), b"")
    }

    pub fn post(&self, path: &str, content_type: &str, body: &[u8]) -> Vec<u8> {
        request("POST", path, &[self.cookie.clone(), format!("content-type: {content_type}")], body)
    }

    pub fn post_json(&self, path: &str, body: &Value) -> Vec<u8> {
        self.post(path, "application/json", body.to_string().as_bytes())
    }

    /// Uploads the photo of the tests.
    pub fn upload(&self) -> Result<Vec<u8>> {
        Ok(self.upload_of(&photo()?))
    }

    pub fn upload_of(&self, photo: &[u8]) -> Vec<u8> {
        self.post("/api/uploads", "image/jpeg", photo)
    }

    pub fn order(&self, upload: &str) -> Vec<u8> {
        self.post_json("/api/tasks", &serde_json::json!({"upload_id": upload, "hairstyles": ["bob-cut"], "model": "nano-banana-edit"}))
    }

    /// Sends a request, and answers one text of the JSON that comes back.
    pub fn text(&self, expected: u16, pointer: &str, request: &[u8]) -> Result<String> {
        text_at(&Connection::open(self.app)?.send(request)?, expected, pointer)
    }

    /// Uploads a photo and orders a picture of it; answers the upload's id and the task's number.
    pub fn order_one(&self) -> Result<(String, String)> {
        let upload = self.text(201, "/uploads/0/id", &self.upload()?)?;
        let task_no = self.text(202, "/tasks/0/task_no", &self.order(&upload))?;
        Ok((upload, task_no))
    }

    /// Waits until a task is completed.
    pub fn wait_completed(&self, task_no: &str) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        let look = self.get(&format!("/api/tasks/{task_no}"));
        loop {
            let status = self.text(200, "/task/status", &look)?;
            if status == "completed" {
                return Ok(());
            }
            if status == "failed" || Instant::now() > deadline {
                bail!("{task_no} should be completed and is {status}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Returns the cookies as they are sent.
fn sign_in(app: SocketAddr, name: &str) -> Result<String> {
    let mut cookies = BTreeMap::new();
    let mut address = app;
    let mut path = format!("/auth/login/google?login_hint={name}@example.com&redirect_to=/auth/session");
    for _ in 0..8 {
        let mut headers = Vec::new();
        if address == app && !cookies.is_empty() {
            headers.push(joined(&cookies));
        }
        headers.push("accept: */*".to_owned());
        let answer = Connection::open(address)?.send(&request("GET", &path, &headers, b""))?;
        if address == app {
            for cookie in answer.headers("set-cookie") {
                let pair = cookie.split(';').next().unwrap_or_default();
                if let Some((name, value)) = pair.split_once('=') {
                    cookies.insert(name.trim().to_owned(), value.trim().to_owned());
                }
            }
        }
        if answer.status == 200 && address == app {
            cookies.retain(|_, value| !value.is_empty());
            return Ok(joined(&cookies));
        }
        let Some(location) = answer.header("location").filter(|_| (300..400).contains(&answer.status)) else {
            bail!("{path} answered {}: {}", answer.status, answer.text());
        };
        if let Some(rest) = location.strip_prefix("http://") {
            let (authority, rest) = rest.split_once('/').unwrap_or((rest, ""));
            address = authority.parse().with_context(|| format!("{path} leads to {location}, away from this machine"))?;
            path = format!("/{rest}");
        } else if location.starts_with('/') {
            path = location.to_owned();
        } else {
            bail!("{path} leads to {location}, away from this machine");
        }
    }
    bail!("signing in leads in circles")
}

fn joined(cookies: &BTreeMap<String, String>) -> String {
    let pairs: Vec<_> = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("cookie: {}", pairs.join("; "))
}

fn text_at(answer: &Answer, expected: u16, pointer: &str) -> Result<String> {
    if answer.status != expected {
        bail!("{} instead of {expected}: {}", answer.status, answer.text());
    }
    let body: Value = serde_json::from_slice(&answer.body)?;
    let value = body.pointer(pointer).with_context(|| format!("no {pointer} in {body}"))?;
    Ok(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}
