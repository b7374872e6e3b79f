//! One person's browser: a fresh world, a fresh profile, and what a person does with a page.
//!
//! Things are found by what they are called, as a person finds them, and clicked where they are seen. A page is looked at until it shows what it
//! should, so no test sleeps. When a test ends well, so must the page: see [`Page::leave`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use e2e::{Options, PATIENCE, World, root};
use serde_json::{Value, json};
use servers::browser::{Browser, axe};
use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};
use url::Url;

use crate::driver::{Element, Key, Session};

/// What each script begins with.
const PEOPLE: &str = include_str!("people.js");
/// The usual window: a laptop's.
const DESK: (u32, u32) = (1280, 860);
/// The narrowest telephone.
const PHONE: (u32, u32) = (360, 740);

/// The pictures that the documents show.
const SHOWN: [&str; 7] = ["studio", "result", "gallery", "account-book", "dark", "phone", "admin"];

/// A browser is several processes, and so are two; more at once only wait for each other.
static TURNS: Semaphore = Semaphore::const_new(2);

/// Runs a story in a browser of its own, and looks whether all was well at its end.
pub async fn browse(story: impl AsyncFnOnce(&Page)) {
    browse_with(Options::default(), story).await;
}

/// [`browse`] in a world with something unusual about it.
pub async fn browse_with(options: Options, story: impl AsyncFnOnce(&Page)) {
    let Some(page) = Page::open(options).await else { return };
    story(&page).await;
    page.leave().await;
}

fn browser() -> Result<&'static Browser, String> {
    static BROWSER: OnceLock<Result<Browser, String>> = OnceLock::new();
    BROWSER.get_or_init(|| Browser::get(&root().join("target"))).as_ref().map_err(Clone::clone)
}

fn axe_script() -> Result<&'static str, String> {
    static AXE: OnceLock<Result<String, String>> = OnceLock::new();
    let read = || std::fs::read_to_string(axe(&root().join("target"))?).map_err(|error| error.to_string());
    AXE.get_or_init(read).as_deref().map_err(Clone::clone)
}

/// A page that somebody looks at, in a world of its own.
pub struct Page {
    pub world: World,
    session: Session,
    network: Mutex<Network>,
    /// What the console may say: parts of addresses, and the status that the server answers there on purpose.
    expected: Mutex<Vec<(String, u16)>>,
    _profile: TempDir,
    _turn: SemaphorePermit<'static>,
}

/// What the browser has asked for and been sent.
#[derive(Default)]
struct Network {
    /// By the browser's number of the request: address, kind, and the bytes that came over the wire.
    requests: BTreeMap<String, Fetched>,
}

/// One request of the browser's.
#[derive(Clone, Debug, Default)]
pub struct Fetched {
    pub url: String,
    /// `Document`, `Script`, `Stylesheet`, `Image`, `Fetch`, ...
    pub kind: String,
    /// With its head, as it came over the wire.
    pub bytes: f64,
}

impl Page {
    /// Opens a browser, or says why there is none.
    async fn open(options: Options) -> Option<Self> {
        let turn = TURNS.acquire().await.unwrap();
        let browser = match tokio::task::spawn_blocking(browser).await.unwrap() {
            Ok(browser) => browser,
            Err(why) => {
                println!("skipped: {why}");
                return None;
            }
        };
        let world = World::with(options).await;
        let profile = TempDir::new().unwrap();
        let session = Session::start(browser, profile.path()).await.unwrap_or_else(|why| panic!("the browser does not start: {why}"));
        let page = Self { world, session, network: Mutex::default(), expected: Mutex::default(), _profile: profile, _turn: turn };
        let _ = std::fs::remove_file(failure());
        page.window(DESK).await;
        Some(page)
    }

    // --- Going somewhere ---

    /// Types an address of the app's, or a whole one.
    pub async fn open_path(&self, path: &str) {
        let url = self.world.address().join(path).unwrap();
        self.session.go(url.as_str()).await.unwrap_or_else(|error| panic!("{url}: {error}"));
    }

    /// The path of the page one is at.
    pub async fn path(&self) -> String {
        Url::parse(&self.session.url().await.unwrap()).unwrap().path().to_owned()
    }

    pub async fn reload(&self) {
        self.session.reload().await.unwrap();
    }

    pub async fn back(&self) {
        self.session.back().await.unwrap();
    }

    // --- What one does ---

    /// Clicks what is called so; the only one, once it is there.
    pub async fn click(&self, name: &str) {
        self.click_in("", name).await;
    }

    /// Clicks what is called so within what a selector finds.
    pub async fn click_in(&self, within: &str, name: &str) {
        let what = format!("`{name}` to click {within}");
        let script = "const [name, within] = arguments; const found = find(PRESSED, name, within); \
                      if (found.length === 1) bring(found[0]); return found.map((element) => [element, called(element)]);";
        self.until(&what, async || {
            let element = only(&self.try_script(script, json!([name, within])).await?)?;
            // What moves, or lies under something else, is tried again.
            self.session.click(&element).await
        })
        .await;
    }

    /// Clicks what a selector finds.
    pub async fn click_at(&self, selector: &str) {
        self.until(&format!("{selector} to click"), async || self.session.click(&self.session.find(selector).await?).await).await;
    }

    /// Fills a field that is called so, or chooses in it.
    pub async fn fill(&self, name: &str, value: &str) {
        let script = "const [name] = arguments; return find(FILLED, name).map((element) => [element, called(element)]);";
        self.until(&format!("a field `{name}`"), async || {
            let element = only(&self.try_script(script, json!([name])).await?)?;
            let list = self.try_script("return arguments[0].matches('select');", json!([element.json()])).await?;
            if list == false {
                self.session.clear(&element).await?;
            }
            // In a list, the letters choose what begins so.
            self.session.write(&element, value).await
        })
        .await;
    }

    /// Chooses a file in the page's only field for files.
    pub async fn choose_file(&self, file: &Path) {
        self.until("a field for files", async || self.session.write(&self.session.find("input[type=file]").await?, &shown(file)).await)
            .await;
    }

    /// Drops a file from the desktop on what a selector finds.
    pub async fn drop_file(&self, selector: &str, file: &Path) {
        let element = self.until(selector, async || self.session.find(selector).await).await;
        let script = "arguments[0].scrollIntoView({ block: 'center' }); const box = arguments[0].getBoundingClientRect(); \
                      return [box.left + box.width / 2, box.top + box.height / 2];";
        let at = self.script(script, json!([element.json()])).await;
        let data = json!({"items": [], "files": [shown(file)], "dragOperationsMask": 1});
        for kind in ["dragEnter", "dragOver", "drop"] {
            self.devtools("Input.dispatchDragEvent", json!({"type": kind, "x": at[0], "y": at[1], "data": data})).await;
        }
    }

    /// Pastes a picture from the clipboard.
    pub async fn paste_file(&self, file: &Path, content_type: &str) {
        let bytes = BASE64_STANDARD.encode(std::fs::read(file).unwrap());
        let script = "const [base64, type] = arguments; \
                      const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0)); \
                      const clipboardData = new DataTransfer(); clipboardData.items.add(new File([bytes], 'pasted', { type })); \
                      (document.activeElement ?? document.body).dispatchEvent(new ClipboardEvent('paste', { clipboardData, bubbles: true, cancelable: true }));";
        self.script(script, json!([bytes, content_type])).await;
    }

    /// Presses keys, one after the other.
    pub async fn press(&self, keys: impl IntoIterator<Item = Key>) {
        let letters = keys.into_iter().filter_map(|key| char::from_u32(key as u32));
        self.session.keys(letters).await.unwrap();
    }

    /// Presses Tab until the focus is on what is called so.
    pub async fn tab_to(&self, name: &str) {
        let mut passed = Vec::new();
        let focused = "const at = document.activeElement; return at && at !== document.body ? [called(at), covered(at)] : ['', false];";
        self.until(&format!("`{name}` to be reached with Tab"), async || {
            // What has been there before comes round again: then it was not on the page yet.
            for _ in 0..120 {
                self.press([Key::Tab]).await;
                let found = self.script(focused, json!([])).await;
                let at = found[0].as_str().unwrap_or_default().to_owned();
                if at.contains(name) {
                    assert_eq!(found[1], false, "`{at}` has the focus and something lies over it");
                    return Ok(());
                }
                if at.is_empty() && !passed.is_empty() {
                    break;
                }
                passed.push(at);
            }
            Err(format!("{:?}", std::mem::take(&mut passed)))
        })
        .await;
    }

    // --- What one sees ---

    /// Looks until this can be read on the page.
    pub async fn sees(&self, text: &str) {
        self.until(&format!("the words `{text}`"), async || {
            let all = self.text().await;
            if all.contains(text) { Ok(()) } else { Err(all) }
        })
        .await;
    }

    /// Looks until this can no longer be read on the page.
    pub async fn sees_no(&self, text: &str) {
        self.until(&format!("the words `{text}` to go"), async || {
            let all = self.text().await;
            if all.contains(text) { Err(all) } else { Ok(()) }
        })
        .await;
    }

    /// Everything that can be read on the page.
    pub async fn text(&self) -> String {
        self.script("return text();", json!([])).await.as_str().unwrap_or_default().to_owned()
    }

    /// What can be read in what a selector finds, once it is there.
    pub async fn text_of(&self, selector: &str) -> String {
        let script = "const found = document.querySelector(arguments[0]); return found && shown(found) ? tidy(found.innerText) : null;";
        self.until(selector, async || match self.try_script(script, json!([selector])).await? {
            Value::String(text) => Ok(text),
            _ => Err("there is none".into()),
        })
        .await
    }

    /// Looks until a script answers something true.
    pub async fn holds(&self, what: &str, script: &str) {
        self.until(what, async || match self.try_script(script, json!([])).await? {
            Value::Bool(true) => Ok(()),
            other => Err(other.to_string()),
        })
        .await;
    }

    /// How many things there are that a selector finds and a person sees.
    pub async fn count(&self, selector: &str) -> u64 {
        let script = "return [...document.querySelectorAll(arguments[0])].filter(shown).length;";
        self.script(script, json!([selector])).await.as_u64().unwrap()
    }

    /// Looks until there are so many things that a selector finds and a person sees.
    pub async fn counts(&self, expected: u64, selector: &str) {
        self.until(&format!("{expected} of {selector}"), async || match self.count(selector).await {
            found if found == expected => Ok(()),
            found => Err(format!("there are {found}")),
        })
        .await;
    }

    /// Looks until every picture that a selector finds is there, with all its pixels.
    pub async fn pictures_are_there(&self, selector: &str) {
        let script = "const all = [...document.querySelectorAll(arguments[0])].filter(shown); \
                      return all.length > 0 && all.every((picture) => picture.complete && picture.naturalWidth > 0);";
        self.until(&format!("the pictures {selector}"), async || {
            let there = self.try_script(script, json!([selector])).await?;
            if there == true { Ok(()) } else { Err("not all are loaded".into()) }
        })
        .await;
    }

    /// Scrolls until what a selector finds is at the top of the window, below the bar.
    pub async fn scroll_to(&self, selector: &str) {
        let script = "const found = document.querySelector(arguments[0]); \
                      window.scrollTo({ top: found.getBoundingClientRect().top + scrollY - 90, behavior: 'instant' });";
        self.script(script, json!([selector])).await;
    }

    // --- The window ---

    async fn window(&self, (width, height): (u32, u32)) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", metrics).await;
    }

    /// Looks at the page on the narrowest telephone from now on.
    pub async fn on_a_phone(&self) {
        self.window(PHONE).await;
    }

    /// Looks at the page in the usual window from now on.
    pub async fn at_a_desk(&self) {
        self.window(DESK).await;
    }

    /// Likes it dark, or light, from now on; and still, so that nothing is looked at half way.
    pub async fn likes(&self, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}, {"name": "prefers-reduced-motion", "value": "reduce"}]);
        self.devtools("Emulation.setEmulatedMedia", json!({"features": features})).await;
    }

    /// Reads this language before others. Holds for pages that are opened from now on.
    pub async fn reads(&self, language: &str) {
        let agent = self.script("return navigator.userAgent;", json!([])).await;
        self.devtools("Emulation.setUserAgentOverride", json!({"userAgent": agent, "acceptLanguage": language})).await;
    }

    /// Pulls the network's plug, or puts it in again.
    pub async fn offline(&self, offline: bool) {
        let conditions = json!({"offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1});
        self.devtools("Network.emulateNetworkConditions", conditions).await;
    }

    /// Switches JavaScript off. Holds for pages that are opened from now on.
    pub async fn without_scripts(&self) {
        self.devtools("Emulation.setScriptExecutionDisabled", json!({"value": true})).await;
    }

    /// Where files that are saved go from now on.
    pub async fn downloads(&self) -> Downloads {
        let folder = TempDir::new().unwrap();
        self.devtools("Browser.setDownloadBehavior", json!({"behavior": "allow", "downloadPath": folder.path()})).await;
        Downloads(folder)
    }

    /// Keeps a picture of the window in `target/screenshots`; one of [`SHOWN`] in `docs/screenshots` too, smaller, where `SCREENSHOTS`
    /// is set to `keep`.
    pub async fn picture(&self, name: &str) {
        // Words that pass by are read by `sees`; here they would only lie over what is to be shown.
        let drawn = "document.querySelectorAll('.note').forEach((note) => note.remove()); return document.fonts.ready.then(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true)))));";
        self.script(drawn, json!([])).await;
        let png = self.photograph(json!({"format": "png"})).await.unwrap();
        write(&root().join("target/screenshots").join(format!("{name}.png")), &png);
        if SHOWN.contains(&name) && std::env::var("SCREENSHOTS").is_ok_and(|wish| wish == "keep") {
            let jpeg = self.photograph(json!({"format": "jpeg", "quality": 80})).await.unwrap();
            write(&root().join("docs/screenshots").join(format!("{name}.jpg")), &jpeg);
        }
    }

    // --- Looking closely ---

    /// Whether the page is one that everybody can use: at a desk in light and in dark, and on the narrowest telephone.
    pub async fn is_for_everybody(&self) {
        self.likes("light").await;
        self.on_a_phone().await;
        self.fits().await;
        self.nothing_is_in_the_way("light, on a phone").await;
        self.at_a_desk().await;
        self.fits().await;
        self.nothing_is_in_the_way("light").await;
        self.likes("dark").await;
        self.nothing_is_in_the_way("dark").await;
        self.likes("light").await;
    }

    /// Nothing is wider than the window.
    async fn fits(&self) {
        let script = "const all = document.scrollingElement; const wide = all.scrollWidth > innerWidth; \
            const reach = (element) => element.getBoundingClientRect().right > innerWidth + 0.5; \
            return [wide, wide ? [...document.body.querySelectorAll('*')].filter(reach).slice(0, 5).map((element) => element.outerHTML.slice(0, 160)) : [], innerWidth];";
        self.until("everything to fit into the window", async || {
            let found = self.script(script, json!([])).await;
            if found[0] == false { Ok(()) } else { Err(format!("{} px are not enough for {}", found[2], found[1])) }
        })
        .await;
    }

    /// axe-core finds nothing that keeps people from using the page.
    async fn nothing_is_in_the_way(&self, how: &str) {
        let script = match axe_script() {
            Ok(script) => script,
            Err(why) => return println!("skipped: {} was not checked with axe-core. {why}", self.path().await),
        };
        // In a world of its own, where the page's rules about scripts do not hold for it, and it does not touch the page's.
        let frame = self.devtools("Page.getFrameTree", json!({})).await["frameTree"]["frame"]["id"].clone();
        let world = self.devtools("Page.createIsolatedWorld", json!({"frameId": frame, "worldName": "axe"})).await;
        let context = world["executionContextId"].clone();
        self.devtools("Runtime.evaluate", json!({"contextId": context, "expression": script})).await;
        // What moves is at its end before colours are compared: a colour that goes over into another passes from element to element, frame by frame.
        let run = "(async () => { \
            for (let still = 0, frames = 0; still < 3 && frames < 200; frames += 1) { \
              await new Promise((next) => requestAnimationFrame(next)); \
              const moves = document.getAnimations().some((a) => a.playState === 'running' && a.effect?.getComputedTiming().endTime < 5000); \
              still = moves ? 0 : still + 1; \
            } \
            const { violations } = await axe.run(document, { resultTypes: ['violations'] }); \
            return JSON.stringify(violations.map(({ id, help, nodes }) => ({ id, help, nodes: nodes.map((node) => [node.html.slice(0, 200), node.failureSummary]) }))); })()";
        let ask = json!({"contextId": context, "expression": run, "awaitPromise": true, "returnByValue": true});
        let answer = self.devtools("Runtime.evaluate", ask).await;
        let found: Value = answer["result"]["value"].as_str().map_or(Value::Null, |found| serde_json::from_str(found).unwrap());
        if found != json!([]) {
            let picture = self.keep_failure().await;
            panic!("{} ({how}) keeps people out: {found:#}{answer}\n{}", self.path().await, picture.display());
        }
    }

    /// The server refuses something at this address on purpose, and browsers write that into the console by themselves.
    pub fn expects(&self, path: &str, status: u16) {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner).push((path.to_owned(), status));
    }

    /// All that the browser has fetched so far.
    pub async fn fetched(&self) -> Vec<Fetched> {
        let entries = self.session.log("performance").await.unwrap();
        let mut network = self.network.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in entries {
            let message: Value = serde_json::from_str(entry["message"].as_str().unwrap()).unwrap();
            network.hear(&message["message"]);
        }
        network.requests.values().cloned().collect()
    }

    /// The story is over: nothing was wrong in the console, nobody but this machine was asked for anything, and the books balance.
    async fn leave(self) {
        let mut complaints = Vec::new();
        let expected = std::mem::take(&mut *self.expected.lock().unwrap_or_else(PoisonError::into_inner));
        for entry in self.session.log("browser").await.unwrap() {
            let text = entry["message"].as_str().unwrap();
            let excused = entry["source"] == "network"
                && expected.iter().any(|(path, status)| {
                    text.contains(path.as_str())
                        && (text.contains(&format!("status of {status} ")) || (*status == 0 && text.contains("net::ERR_")))
                });
            if !excused && ["SEVERE", "WARNING"].contains(&entry["level"].as_str().unwrap()) {
                complaints.push(text.to_owned());
            }
        }
        assert!(complaints.is_empty(), "the console is not empty: {complaints:#?}{}", self.world.tail());
        let strangers: BTreeSet<String> = self.fetched().await.into_iter().map(|fetched| fetched.url).filter(|url| !is_here(url)).collect();
        assert!(strangers.is_empty(), "pages asked somebody else: {strangers:?}");
        self.world.assert_books_balance();
        self.session.end().await.unwrap();
    }

    // --- Behind it ---

    /// What a script answers; it can use what stands in `people.js`.
    pub async fn script(&self, script: &str, arguments: Value) -> Value {
        self.try_script(script, arguments).await.unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    async fn try_script(&self, script: &str, arguments: Value) -> Result<Value, String> {
        self.session.script(&format!("{PEOPLE}\n{script}"), arguments).await
    }

    async fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.session.devtools(command, parameters).await.unwrap_or_else(|why| panic!("{command}: {why}"))
    }

    async fn photograph(&self, form: Value) -> Result<Vec<u8>, String> {
        let answer = self.session.devtools("Page.captureScreenshot", form).await?;
        BASE64_STANDARD.decode(answer["data"].as_str().unwrap_or_default()).map_err(|error| error.to_string())
    }

    /// Looks again and again, as a person who waits does.
    pub async fn until<T>(&self, what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let last = match look().await {
                Ok(found) => return found,
                Err(last) => last,
            };
            if Instant::now() > deadline {
                let picture = self.keep_failure().await;
                let at = self.session.url().await.unwrap_or_default();
                panic!("waited {PATIENCE:?} in vain for {what}\n  at {at}: {}\n  last: {last}{}", picture.display(), self.world.tail());
            }
            tokio::time::sleep(std::time::Duration::from_millis(40)).await;
        }
    }

    /// What the page looked like when something was not as it should be.
    async fn keep_failure(&self) -> PathBuf {
        let file = failure();
        if let Ok(png) = self.photograph(json!({"format": "png"})).await {
            write(&file, &png);
        }
        file
    }
}

/// The folder of files that were saved.
pub struct Downloads(TempDir);

impl Downloads {
    /// Waits for a file, and takes it out of the folder.
    pub async fn file(&self, page: &Page) -> Vec<u8> {
        page.until("a saved file", async || {
            let files: Vec<PathBuf> = std::fs::read_dir(self.0.path()).unwrap().flatten().map(|entry| entry.path()).collect();
            match files.as_slice() {
                // While it comes, it has another name, or two.
                [file] if file.extension().is_some_and(|ending| ending != "crdownload") => {
                    let bytes = std::fs::read(file).map_err(|error| error.to_string())?;
                    std::fs::remove_file(file).map_err(|error| error.to_string())?;
                    Ok(bytes)
                }
                _ => Err(format!("{files:?}")),
            }
        })
        .await
    }
}

impl Network {
    /// An event of the browser's developer tools.
    fn hear(&mut self, message: &Value) {
        let parameters = &message["params"];
        let Some(id) = parameters["requestId"].as_str() else { return };
        match message["method"].as_str() {
            Some("Network.requestWillBeSent") => {
                // A redirect goes on under the same number.
                if let Some(mut before) = self.requests.remove(id) {
                    before.bytes = parameters["redirectResponse"]["encodedDataLength"].as_f64().unwrap_or_default();
                    self.requests.insert(format!("{id} before {}", parameters["timestamp"]), before);
                }
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let request = Fetched { url: text(&parameters["request"]["url"]), kind: text(&parameters["type"]), bytes: 0.0 };
                self.requests.insert(id.to_owned(), request);
            }
            Some("Network.loadingFinished") => {
                if let Some(request) = self.requests.get_mut(id) {
                    request.bytes = parameters["encodedDataLength"].as_f64().unwrap_or_default();
                }
            }
            _ => {}
        }
    }
}

/// The only element of `[[element, name], ...]`.
fn only(found: &Value) -> Result<Element, String> {
    let found = found.as_array().map(Vec::as_slice).unwrap_or_default();
    match found {
        [] => Err("there is none".into()),
        [one] => Element::of(&one[0]).ok_or_else(|| "no element".to_owned()),
        several => Err(format!("there are {}: {:?}", several.len(), several.iter().map(|one| one[1].to_string()).collect::<Vec<_>>())),
    }
}

/// Where this test leaves a picture of its failure.
fn failure() -> PathBuf {
    let test = std::thread::current().name().unwrap_or("test").replace("::", "-");
    root().join("target/screenshots").join(format!("failed-{test}.png"))
}

/// Whether an address leads nowhere but to this machine. The browser's own pages, and what is written out in an address, lead nowhere at all.
fn is_here(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| match url.scheme() {
        "http" | "https" | "ws" | "wss" => matches!(url.host_str(), Some("127.0.0.1" | "localhost")),
        scheme => ["about", "blob", "chrome", "data"].contains(&scheme),
    })
}

fn shown(file: &Path) -> String {
    file.canonicalize().unwrap_or_else(|error| panic!("{}: {error}", file.display())).display().to_string()
}

fn write(file: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, bytes).unwrap();
}
