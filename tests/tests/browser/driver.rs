//! A browser that is told what to do: the few commands of WebDriver (w3.org/TR/webdriver2) that the stories take, which are JSON over HTTP, and the
//! browser's own developer tools beside them.

use std::path::Path;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use servers::browser::{Browser, Driver};

/// The name under which WebDriver hands out elements (12.1).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Keys that write nothing, as WebDriver calls them (17.4.2).
#[derive(Clone, Copy, Debug)]
pub enum Key {
    Tab = 0xe004,
    Enter = 0xe007,
    Escape = 0xe00c,
    Space = 0x20,
    Left = 0xe012,
    Right = 0xe014,
}

/// A running browser.
pub struct Session {
    client: reqwest::Client,
    url: String,
    /// The browser ends with it.
    _driver: Driver,
}

/// Something on a page.
#[derive(Clone, Debug)]
pub struct Element(String);

impl Element {
    /// One that a script has answered.
    pub fn of(value: &Value) -> Option<Self> {
        Some(Self(value[ELEMENT].as_str()?.to_owned()))
    }

    /// As an argument for a script.
    pub fn json(&self) -> Value {
        json!({ELEMENT: self.0})
    }
}

/// Why the browser did not do it, in its own words.
pub type Refusal = String;

impl Session {
    /// Starts a browser with a profile that lies in an empty folder.
    pub async fn start(browser: &Browser, profile: &Path) -> Result<Self, Refusal> {
        let driver = browser.drive()?;
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(120)).build().map_err(|error| error.to_string())?;
        let mut session = Self { client, url: format!("{}/session", driver.url()), _driver: driver };
        let answer = session.post("", json!({"capabilities": {"alwaysMatch": capabilities(browser.chromium(), profile)}})).await?;
        session.url = format!("{}/{}", session.url, answer["sessionId"].as_str().ok_or("no session")?);
        Ok(session)
    }

    /// Ends the browser.
    pub async fn end(self) -> Result<(), Refusal> {
        self.ask(Method::DELETE, "", None).await.map(drop)
    }

    pub async fn go(&self, url: &str) -> Result<(), Refusal> {
        self.post("/url", json!({"url": url})).await.map(drop)
    }

    pub async fn url(&self) -> Result<String, Refusal> {
        Ok(self.ask(Method::GET, "/url", None).await?.as_str().unwrap_or_default().to_owned())
    }

    pub async fn reload(&self) -> Result<(), Refusal> {
        self.post("/refresh", json!({})).await.map(drop)
    }

    pub async fn back(&self) -> Result<(), Refusal> {
        self.post("/back", json!({})).await.map(drop)
    }

    /// What a script answers; if it answers a promise, what that becomes.
    pub async fn script(&self, script: &str, arguments: Value) -> Result<Value, Refusal> {
        self.post("/execute/sync", json!({"script": script, "args": arguments})).await
    }

    /// The first element that a CSS selector finds.
    pub async fn find(&self, selector: &str) -> Result<Element, Refusal> {
        let found = self.post("/element", json!({"using": "css selector", "value": selector})).await?;
        Element::of(&found).ok_or_else(|| "no element".to_owned())
    }

    /// A click in the middle of it, if that is where it can be seen and nothing lies over it.
    pub async fn click(&self, element: &Element) -> Result<(), Refusal> {
        self.post(&format!("/element/{}/click", element.0), json!({})).await.map(drop)
    }

    pub async fn clear(&self, element: &Element) -> Result<(), Refusal> {
        self.post(&format!("/element/{}/clear", element.0), json!({})).await.map(drop)
    }

    /// Writes into a field; a field for files is given their paths.
    pub async fn write(&self, element: &Element, text: &str) -> Result<(), Refusal> {
        self.post(&format!("/element/{}/value", element.0), json!({"text": text})).await.map(drop)
    }

    /// Presses and lets go what makes these letters, one after the other.
    pub async fn keys(&self, letters: impl IntoIterator<Item = char>) -> Result<(), Refusal> {
        let presses: Vec<Value> = letters
            .into_iter()
            .flat_map(|letter| ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": letter.to_string()})))
            .collect();
        self.post("/actions", json!({"actions": [{"type": "key", "id": "keyboard", "actions": presses}]})).await.map(drop)
    }

    /// A command of the browser's developer tools.
    pub async fn devtools(&self, command: &str, parameters: Value) -> Result<Value, Refusal> {
        self.post("/goog/cdp/execute", json!({"cmd": command, "params": parameters})).await
    }

    /// What was written into one of the browser's logs since one has last looked: `browser`, the console, or `performance`, its developer tools.
    pub async fn log(&self, name: &str) -> Result<Vec<Value>, Refusal> {
        Ok(self.post("/se/log", json!({"type": name})).await?.as_array().cloned().unwrap_or_default())
    }

    async fn post(&self, command: &str, body: Value) -> Result<Value, Refusal> {
        self.ask(Method::POST, command, Some(body)).await
    }

    async fn ask(&self, method: Method, command: &str, body: Option<Value>) -> Result<Value, Refusal> {
        let mut request = self.client.request(method, format!("{}{command}", self.url));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.map_err(|error| format!("the browser is gone: {error}"))?;
        let well = answer.status().is_success();
        let mut body: Value = answer.json().await.map_err(|error| format!("the browser's driver speaks nonsense: {error}"))?;
        if well {
            return Ok(body["value"].take());
        }
        let text = |name: &str| body["value"][name].as_str().unwrap_or_default();
        Err(format!("{}: {}", text("error"), text("message").lines().next().unwrap_or_default()))
    }
}

fn capabilities(chromium: &Path, profile: &Path) -> Value {
    let arguments = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--no-default-browser-check",
        "--hide-scrollbars",
        "--lang=en-US",
        // Whoever drives it is heard through a pipe, and when that breaks it ends.
        "--remote-debugging-pipe",
        // It asks nobody but the pages' servers for anything; and should it, nobody hears it.
        "--disable-quic",
        "--disable-sync",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-default-apps",
        "--disable-extensions",
        "--disable-domain-reliability",
        "--disable-features=OptimizationHints,MediaRouter,Translate,AutofillServerCommunication,CertificateTransparencyComponentUpdater",
        "--metrics-recording-only",
        "--no-pings",
        "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost",
    ];
    let mut arguments: Vec<String> = arguments.map(str::to_owned).into();
    arguments.push(format!("--user-data-dir={}", profile.display()));
    json!({
        "browserName": "chrome",
        "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        "goog:chromeOptions": {
            "binary": chromium,
            "args": arguments,
            "perfLoggingPrefs": {"enableNetwork": true, "enablePage": false},
            "prefs": {"intl.accept_languages": "en-US,en", "credentials_enable_service": false, "profile.password_manager_enabled": false},
        },
    })
}
