//! The console as it is served: types, caching, compression, and a policy that lets a page load and reach nothing but what it needs.
//! What people see and do in it is in `tests/browser`.

use std::collections::BTreeSet;
use std::path::Path;

use e2e::{World, root};
use http::Method;

/// What an HTML page loads from us.
fn loads(html: &str) -> Vec<&str> {
    let of = |attribute: &'static str| html.split(attribute).skip(1).filter_map(|rest| rest.split('"').next());
    of("src=\"").chain(of("href=\"")).filter(|address| address.starts_with("/assets/")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_and_all_it_loads_is_there_with_its_type() {
    let world = World::new().await;
    let stranger = world.stranger();
    for path in ["/", "/gallery", "/gallery/TASK_1", "/credits/orders/x", "/account", "/admin", "/admin/users/x", "/docs"] {
        let page = stranger.get(200, path).await;
        assert_eq!((page.header("content-type"), page.header("cache-control")), ("text/html; charset=utf-8", "no-cache"), "{path}");
        let html = String::from_utf8_lossy(&page.body).into_owned();
        assert!(!html.contains("{{"), "{path}: a place that was not filled");
        for address in loads(&html) {
            let file = stranger.get(200, address).await;
            let expected = match address.rsplit('.').next().unwrap() {
                "css" => "text/css; charset=utf-8",
                "js" => "text/javascript; charset=utf-8",
                "svg" => "image/svg+xml",
                other => panic!("{address}: {other} is no type of the site"),
            };
            assert_eq!(file.header("content-type"), expected, "{address}");
            assert_eq!(file.header("cache-control"), "public, max-age=31536000, immutable", "{address}");
            assert!(!file.body.is_empty(), "{address}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_may_load_and_reach_nothing_but_what_it_needs() {
    let world = World::new().await;
    let page = world.stranger().get(200, "/").await;
    let policy = page.header("content-security-policy");
    let bucket = format!("img-src 'self' blob: data: {};", world.places().s3.as_str().trim_end_matches('/'));
    for part in [
        "default-src 'none';",
        "script-src 'self';",
        "style-src 'self';",
        "connect-src 'self';",
        "frame-ancestors 'none';",
        bucket.as_str(),
    ] {
        assert!(policy.contains(part), "{part}: {policy}");
    }
    for loose in ["unsafe", "*", "https:", "http: "] {
        assert!(!policy.contains(loose), "{loose}: {policy}");
    }
    assert_eq!((page.header("x-content-type-options"), page.header("referrer-policy")), ("nosniff", "same-origin"));
    let html = String::from_utf8_lossy(&page.body).into_owned();
    for inline in ["<script>", "<style", "style=\"", " onclick=", "javascript:"] {
        assert!(!html.contains(inline), "{inline}: the policy would refuse it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_a_file_already_is_told_so() {
    let world = World::new().await;
    let stranger = world.stranger();
    for path in ["/", "/docs", "/openapi.json", "/assets/css/tokens.css"] {
        let first = stranger.get(200, path).await;
        let again = stranger.request(Method::GET, path).header("if-none-match", first.header("etag"));
        let again = stranger.send(304, again).await;
        assert_eq!((again.header("etag"), again.body.len()), (first.header("etag"), 0), "{path}");
        let other = stranger.request(Method::GET, path).header("if-none-match", "\"another\"");
        assert_eq!(stranger.send(200, other).await.body, first.body, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_compressed_for_whoever_takes_it_so() {
    let world = World::new().await;
    let stranger = world.stranger();
    let path = "/assets/css/base.css";
    let plain = std::fs::read(root().join("components/web/site/css/base.css")).unwrap();
    let ask = |accepted: &'static str| stranger.send(200, stranger.request(Method::GET, path).header("accept-encoding", accepted));
    for accepted in ["gzip", "br, gzip;q=0.5", "*"] {
        let answer = ask(accepted).await;
        assert_eq!((answer.header("content-encoding"), answer.header("vary")), ("gzip", "accept-encoding"), "{accepted}");
        assert!(answer.body.len() < plain.len() / 2 && answer.body[..2] == [0x1f, 0x8b], "{accepted}");
        assert_eq!(answer.header("content-length"), answer.body.len().to_string(), "{accepted}");
    }
    let zipped = ask("gzip").await;
    for accepted in ["identity", "gzip;q=0", "br", ""] {
        let answer = ask(accepted).await;
        assert_eq!((answer.header("content-encoding"), answer.body.as_ref()), ("", plain.as_slice()), "{accepted}");
        assert_ne!(answer.header("etag"), zipped.header("etag"), "two forms of one file are two things to a cache");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_version_gets_what_there_is_and_nobody_keeps_it() {
    let world = World::new().await;
    let answer = world.stranger().get(200, "/assets/0123456789abcdef/js/main.js").await;
    assert_eq!(answer.header("cache-control"), "no-store");
    world.stranger().get(404, "/assets/0123456789abcdef/js/nothing.js").await.problem("not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_hairstyle_of_the_catalogue_has_its_drawing_and_no_drawing_is_without_one() {
    let world = World::new().await;
    let stranger = world.stranger();
    let catalogue = stranger.get(200, "/api/hairstyles").await.json();
    let wanted: BTreeSet<String> =
        catalogue["hairstyles"].as_array().unwrap().iter().map(|style| style["id"].as_str().unwrap().to_owned()).collect();
    let sheet = stranger.get(200, "/assets/hairstyles.svg").await;
    let sheet = String::from_utf8_lossy(&sheet.body).into_owned();
    let drawn: BTreeSet<String> =
        sheet.split("<symbol id=\"").skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned).collect();
    assert_eq!(drawn, wanted);
    // What the policy would refuse, or what would clash among symbols of one sheet.
    for wrong in ["<style", "style=", "<script", "href=", "url(", " class="] {
        assert!(!sheet.contains(wrong), "{wrong}");
    }
}

/// The scripts of the site, by their path in it.
fn scripts(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            scripts(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "js") {
            found.push((path.display().to_string(), std::fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn what_is_said_in_english_is_said_in_chinese() {
    let mut found = Vec::new();
    scripts(&root().join("components/web/site/js"), &mut found);
    let mut told = 0;
    for (path, text) in found {
        let Some(start) = text.find("= words({\n") else { continue };
        let block = &text[start..text[start..].find("\n});").map_or(text.len(), |end| start + end)];
        let (english, chinese) = block.split_once("\n  zh: {").unwrap_or_else(|| panic!("{path} speaks no Chinese"));
        let (english, chinese) = (keys(english), keys(&format!("{{{chinese}")));
        assert!(!english.is_empty(), "{path}");
        assert_eq!(english, chinese, "{path}");
        told += english.len();
    }
    assert!(told > 100, "only {told} words were found: they are written in another way now");
}

/// What the pages say in Chinese for a sentence of the server's is said for as long as the server says that sentence.
#[test]
fn sentences_of_the_server_that_the_pages_translate_are_those_it_says() {
    let api = std::fs::read_to_string(root().join("components/web/site/js/api.js")).unwrap();
    let said = api.split_once("const SAID = {\n").unwrap().1.split_once("\n};").unwrap().0;
    let mut sources = String::new();
    for folder in ["components", "crates"] {
        for package in std::fs::read_dir(root().join(folder)).unwrap() {
            for file in std::fs::read_dir(package.unwrap().path().join("src")).unwrap() {
                sources.push_str(&std::fs::read_to_string(file.unwrap().path()).unwrap_or_default());
            }
        }
    }
    let mut number = 0;
    for line in said.lines() {
        let sentence = line.trim().strip_prefix('"').and_then(|line| line.split_once("\": \"")).unwrap_or_else(|| panic!("{line}")).0;
        assert!(sources.contains(&format!("\"{sentence}\"")), "nobody says: {sentence}");
        number += 1;
    }
    assert!(number > 3, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_has_one_address_where_it_comes_with_its_policy() {
    let world = World::new().await;
    for path in ["/assets/index.html", "/assets/docs.html", "/assets/0123456789abcdef/index.html"] {
        world.stranger().get(404, path).await.problem("not_found");
    }
}

/// The names of a block's words: `name: "..."` and `name: (n) => ...`, outside of strings.
fn keys(block: &str) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    let mut word = String::new();
    let mut quote = None;
    let mut escaped = false;
    let mut before = ' ';
    for letter in block.chars() {
        match quote {
            Some(mark) => {
                if !escaped && letter == mark {
                    quote = None;
                }
                escaped = !escaped && letter == '\\';
            }
            None => match letter {
                '"' | '`' => quote = Some(letter),
                ':' if !word.is_empty() && (before == '{' || before == ',') => {
                    keys.insert(std::mem::take(&mut word));
                }
                letter if letter.is_alphanumeric() || letter == '_' => word.push(letter),
                letter if letter.is_whitespace() => {}
                letter => {
                    before = letter;
                    word.clear();
                }
            },
        }
    }
    keys.remove("en");
    keys
}
