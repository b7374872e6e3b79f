//! The studio while something is slow, lost or under way: what is ordered is what one sees, and once; and nothing is taken out of one's hands.

use std::collections::BTreeSet;
use std::path::PathBuf;

use e2e::root;
use sandbox::Fault;
use serde_json::json;

use crate::driver::Key;
use crate::page::{Page, browse};
use crate::story::{balance, bring_photo, sign_in};

/// Keeps the answers back until `held[n]()` lets one go.
const HOLD: &str = "const answer = await send(); await new Promise((go) => (window.held ??= []).push(go)); return answer;";
/// Loses the first answer: what was asked for is done. Notes the keys of all.
const LOSE_THE_FIRST: &str = "(window.keys ??= []).push(options.headers['idempotency-key']); const answer = await send(); \
                              if (window.keys.length === 1) throw new TypeError('the answer is lost'); return answer;";
/// Says of the first that it is still worked on.
const STILL_AT_WORK: &str = "(window.keys ??= []).push(options.headers['idempotency-key']); if (window.keys.length > 1) return send(); \
                             return new Response(JSON.stringify({ code: 'conflict', detail: 'Still at work.' }), { status: 409 });";

/// Lets this page's POSTs to a path go another way from now on: `send()` sends one, `options` is what is sent.
async fn meddle(page: &Page, path: &str, way: &str) {
    let script = format!(
        "const [path] = arguments; const real = window.fetch; \
         window.fetch = async (to, options) => {{ \
           if (to !== path || options?.method !== 'POST') return real(to, options); \
           const send = () => real(to, options); {way} \
         }};"
    );
    page.script(&script, json!([path])).await;
}

/// Runs something on the page.
async fn run(page: &Page, script: &str) {
    page.script(script, json!([])).await;
}

fn photo(name: &str) -> PathBuf {
    root().join("tests/photos").join(name)
}

/// Ada with a photo and a bob cut in mind.
async fn choose(page: &Page) {
    sign_in(page, "Ada Lovelace").await;
    bring_photo(page).await;
    page.click("Bob cut").await;
    page.sees("1 picture · 1 credit").await;
}

/// Ada with a bob cut that is being made until `db_tasks_are_due`.
async fn order(page: &Page) {
    page.world.fault(Fault::KieNoCallback);
    choose(page).await;
    page.click("Make pictures").await;
    page.sees("One picture is in the making.").await;
    stay(page, 1).await;
}

/// So many pictures are being made, and nobody who looks asks the provider about them.
async fn stay(page: &Page, pictures: u64) {
    page.counts(pictures, ".strip-of .thumb.processing").await;
    page.world.db_write("UPDATE ai_tasks SET next_attempt_at = unixepoch() + 900 WHERE status = 'processing'", []);
}

/// Another photo in the place of the one that is there.
async fn bring_another(page: &Page) {
    run(page, "window.before = document.querySelector('.glass img').src;").await;
    page.choose_file(&photo("portrait.png")).await;
    let there = "const now = document.querySelector('.glass img')?.src; \
                 return Boolean(now) && now !== window.before && !document.querySelector('.glass .over');";
    page.holds("the other photo", there).await;
}

fn tasks(page: &Page) -> i64 {
    page.world.sql_number("SELECT count(*) FROM ai_tasks")
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_photo_is_on_its_way_nothing_is_ordered_of_the_one_before() {
    browse(async |page| {
        choose(page).await;

        // One that does not arrive leaves the one before where it was.
        page.expects("/api/uploads", 503);
        page.world.fault(Fault::S3Answers { status: 503, method: Some("PUT".into()), prefix: None });
        page.choose_file(&photo("portrait.png")).await;
        page.sees("The service is not available for a moment.").await;
        page.world.control().clear_faults();
        page.pictures_are_there(".glass img").await;
        page.holds("the order to be possible", "return document.querySelector('#go').getAttribute('aria-disabled') === 'false';").await;

        meddle(page, "/api/uploads", HOLD).await;
        page.choose_file(&photo("portrait.png")).await;
        page.holds("the upload", "return window.held?.length === 1;").await;
        page.click("Make pictures").await;
        page.sees("Sending the photo").await;
        page.holds("the order to have to wait", "return document.querySelector('#go').getAttribute('aria-disabled') === 'true';").await;

        // Of two that are brought the later one counts, although the first arrives after it.
        page.choose_file(&photo("portrait.webp")).await;
        page.holds("the other upload", "return window.held.length === 2;").await;
        run(page, "window.held[1]();").await;
        page.counts(0, ".glass .over").await;
        run(page, "window.held[0](); return new Promise((done) => setTimeout(done, 100));").await;
        page.click("Make pictures").await;
        page.pictures_are_there(".compare img").await;
        balance(page, "2 credits").await;
        assert_eq!(tasks(page), 1);
        let of = "SELECT u.content_type FROM ai_tasks t JOIN uploads u ON u.id = t.input_params ->> 'upload_id'";
        assert_eq!(page.world.sql_text(of), "image/webp");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_leaves_the_page_is_filmed_no_longer() {
    browse(async |page| {
        sign_in(page, "Ada Lovelace").await;
        page.click("Gallery").await;
        page.sees("No pictures yet").await;
        page.click("Studio").await;
        page.sees("Drop a photo here").await;
        let camera = "window.tracks = []; \
                      navigator.mediaDevices.getUserMedia = async () => { \
                        if (window.asks) await new Promise((go) => (window.allow = go)); \
                        const sheet = document.createElement('canvas'); sheet.getContext('2d'); const stream = sheet.captureStream(); \
                        window.tracks.push(...stream.getTracks()); return stream; };";
        run(page, camera).await;

        page.click("Take a photo").await;
        page.counts(1, "dialog[open]").await;
        page.holds("the camera to run", "return window.tracks.length === 1 && window.tracks[0].readyState === 'live';").await;
        page.back().await;
        page.sees("No pictures yet").await;
        page.counts(0, "dialog").await;
        page.holds("the camera to be off", "return window.tracks[0].readyState === 'ended';").await;

        // Somebody leaves while the browser asks, and then allows it.
        page.click("Studio").await;
        run(page, "window.asks = true;").await;
        page.click("Take a photo").await;
        page.holds("the question", "return Boolean(window.allow);").await;
        page.click("Gallery").await;
        page.sees("No pictures yet").await;
        run(page, "window.allow();").await;
        page.holds("the camera to be off", "return window.tracks.length === 2 && window.tracks[1].readyState === 'ended';").await;
        page.counts(0, "dialog").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_whose_answer_is_lost_is_made_once_however_often_it_is_tried() {
    browse(async |page| {
        choose(page).await;
        meddle(page, "/api/tasks", LOSE_THE_FIRST).await;
        page.click("Make pictures").await;
        page.sees("The server cannot be reached.").await;
        assert_eq!(tasks(page), 1, "it arrived");

        // Also from a page that was rendered since.
        page.click("Gallery").await;
        page.sees("Bob cut").await;
        page.click("Studio").await;
        page.sees("1 picture · 1 credit").await;
        page.click("Make pictures").await;
        page.sees("One picture is in the making.").await;
        page.holds("one key for both", "return window.keys.length === 2 && window.keys[0] === window.keys[1];").await;
        page.pictures_are_there(".compare img").await;
        balance(page, "2 credits").await;
        assert_eq!(tasks(page), 1);

        // The same once more, on purpose, is another order.
        page.click("Bob cut").await;
        page.click("Make pictures").await;
        balance(page, "1 credit").await;
        assert_eq!(tasks(page), 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_whose_answer_is_lost_is_made_once_even_if_the_page_is_loaded_anew() {
    browse(async |page| {
        choose(page).await;
        meddle(page, "/api/tasks", LOSE_THE_FIRST).await;
        page.click("Make pictures").await;
        page.sees("The server cannot be reached.").await;
        page.reload().await;
        page.sees("1 picture · 1 credit").await;
        page.click("Make pictures").await;
        page.sees("One picture is in the making.").await;
        page.pictures_are_there(".compare img").await;
        balance(page, "2 credits").await;
        assert_eq!(tasks(page), 1);
        // It is known now what came of it: the same once more is another order, also after that.
        page.reload().await;
        page.click("Bob cut").await;
        page.click("Make pictures").await;
        balance(page, "1 credit").await;
        assert_eq!(tasks(page), 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_lost_answer_another_photo_is_another_order() {
    browse(async |page| {
        choose(page).await;
        meddle(page, "/api/tasks", LOSE_THE_FIRST).await;
        page.click("Make pictures").await;
        page.sees("The server cannot be reached.").await;
        bring_another(page).await;
        page.click("Make pictures").await;
        page.sees("One picture is in the making.").await;
        page.holds("a key for each", "return window.keys.length === 2 && window.keys[0] !== window.keys[1];").await;
        page.pictures_are_there(".compare img").await;
        balance(page, "1 credit").await;
        assert_eq!(tasks(page), 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_still_worked_on_is_said_to_be_and_pressed_again_with_the_same_key() {
    browse(async |page| {
        choose(page).await;
        meddle(page, "/api/tasks", STILL_AT_WORK).await;
        page.click("Make pictures").await;
        page.sees("Your order from before is still being worked on. Press again in a moment").await;
        page.click("Make pictures").await;
        page.sees("One picture is in the making.").await;
        page.holds("one key for both", "return window.keys.length === 2 && window.keys[0] === window.keys[1];").await;
        page.pictures_are_there(".compare img").await;
        balance(page, "2 credits").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_an_order_is_on_its_way_nothing_is_ordered_twice_and_what_is_chosen_meanwhile_stays() {
    browse(async |page| {
        choose(page).await;
        meddle(page, "/api/tasks", HOLD).await;
        page.click("Make pictures").await;
        page.holds("the order", "return window.held?.length === 1;").await;
        // The price changes, and with it what stands beside the button.
        page.click("Afro").await;
        page.sees("2 pictures · 2 credits").await;
        page.click_at("#go").await;
        page.fill("Anything else about the hair?", "shorter").await;
        run(page, "window.field = document.activeElement;").await;
        run(page, "window.held[0]();").await;
        page.sees("One picture is in the making.").await;
        page.sees("1 picture · 1 credit").await;
        let pressed =
            "return [...document.querySelectorAll('.style[aria-pressed=true]')].map((style) => style.id).join() === 'style-afro';";
        page.holds("what was chosen meanwhile", pressed).await;
        let writing = "return document.activeElement === window.field && window.field.id === 'detail' && window.field.value === 'shorter';";
        page.holds("the field one writes in", writing).await;
        page.pictures_are_there(".compare img").await;
        balance(page, "2 credits").await;
        assert_eq!(tasks(page), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_that_is_refused_at_once_is_not_said_to_be_in_the_making() {
    browse(async |page| {
        page.world.fault(Fault::KieCreateAnswers { code: 422, msg: None, http_status: None }.once());
        choose(page).await;
        page.click("Afro").await;
        page.click("Make pictures").await;
        page.sees("One picture is in the making.").await;
        page.sees("1 credit came back.").await;
        page.counts(1, ".thumb.completed").await;
        page.counts(1, ".thumb.failed").await;
        balance(page, "2 credits").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_that_takes_long_is_said_to_even_if_nothing_is_heard_of_it_any_more() {
    browse(async |page| {
        order(page).await;
        page.sees("This usually takes less than a minute").await;
        // A minute and more: the estimate goes no further, and in a few seconds it is late.
        page.world.db_write("UPDATE ai_tasks SET created_at = created_at - 84", []);
        page.reload().await;
        page.sees("This one takes longer than usual.").await;
        page.sees_no("This usually takes less than a minute").await;
        page.click("Gallery").await;
        page.click("Bob cut").await;
        page.sees("This one takes longer than usual.").await;
        page.sees_no("This usually takes less than a minute").await;

        page.world.db_tasks_are_due();
        page.pictures_are_there(".compare img").await;
        balance(page, "2 credits").await;
    })
    .await;
}

/// The tasks of which the page listens to the events, or has; once there are so many.
async fn streams(page: &Page, least: usize) -> BTreeSet<String> {
    page.until(&format!("{least} streams"), async || {
        let urls = page.fetched().await.into_iter().map(|fetched| fetched.url);
        let tasks: BTreeSet<String> = urls.filter_map(|url| Some(url.strip_suffix("/events")?.rsplit('/').next()?.to_owned())).collect();
        if tasks.len() >= least { Ok(tasks) } else { Err(format!("{tasks:?}")) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_pictures_at_a_time_all_arrive() {
    browse(async |page| {
        page.world.fault(Fault::KieNoCallback);
        sign_in(page, "Ada Lovelace").await;
        page.world.db_gift("many", 20, e2e::now(), None);
        page.reload().await;
        balance(page, "23 credits").await;
        bring_photo(page).await;
        for (from, left) in [(0, "15 credits"), (8, "7 credits")] {
            page.script(
                "const [from] = arguments; [...document.querySelectorAll('.style')].slice(from, from + 8).forEach((style) => style.click());",
                json!([from]),
            )
            .await;
            page.sees("8 pictures · 8 credits").await;
            page.click("Make pictures").await;
            balance(page, left).await;
            page.sees("8 pictures are in the making.").await;
        }
        stay(page, 16).await;
        let listens = streams(page, 3).await;
        assert_eq!(listens.len(), 3, "the rest of the page needs connections too");

        // A stream that has ended is taken over by a picture that had none.
        let first = listens.first().unwrap().as_str();
        page.world.db_write("UPDATE ai_tasks SET next_attempt_at = 0 WHERE task_no = ?1", [first]);
        page.counts(1, ".strip-of .thumb.completed").await;
        streams(page, 4).await;

        page.world.db_tasks_are_due();
        page.counts(16, ".strip-of .thumb.completed").await;
        assert!(!page.text().await.contains("The connection is gone"));
        balance(page, "7 credits").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_nobody_looks_at_hangs_up_and_listens_again_when_somebody_does() {
    browse(async |page| {
        order(page).await;
        let away = "Object.defineProperty(document, 'hidden', { configurable: true, value: true }); \
                    document.dispatchEvent(new Event('visibilitychange'));";
        run(page, away).await;
        page.until("the stream to end", async || {
            let ended = page.world.events("stream_ended");
            if ended.iter().any(|line| line["ended"] == "gone") { Ok(()) } else { Err(format!("{ended:?}")) }
        })
        .await;
        page.world.db_tasks_are_due();
        run(page, "delete document.hidden; document.dispatchEvent(new Event('visibilitychange'));").await;
        page.pictures_are_there(".compare img").await;
        balance(page, "2 credits").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_photo_that_cannot_be_shown_is_only_gone_if_the_server_says_so() {
    browse(async |page| {
        sign_in(page, "Ada Lovelace").await;
        bring_photo(page).await;
        page.expects("cache/", 503);
        page.world.fault(Fault::S3Answers { status: 503, method: Some("GET".into()), prefix: None });
        page.click("Gallery").await;
        page.sees("No pictures yet").await;
        page.click("Studio").await;
        page.until("the server to be asked about the photo", async || {
            let asked = page.fetched().await.into_iter().any(|fetched| fetched.url.contains("/api/uploads/"));
            if asked { Ok(()) } else { Err("it was not".into()) }
        })
        .await;
        page.sees("Another photo").await;
        page.sees("Choose a hairstyle.").await;
        page.sees_no("Nobody knows this photo any more.").await;

        page.expects("cache/", 404);
        page.expects("/api/uploads/", 404);
        page.world.db_write("UPDATE uploads SET expires_at = unixepoch()", []);
        page.click("Gallery").await;
        page.sees("No pictures yet").await;
        page.click("Studio").await;
        page.sees("Nobody knows this photo any more. Choose another one.").await;
        page.sees("Bring a photo first.").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trying_again_with_a_photo_that_is_gone_leaves_the_chosen_one_alone() {
    browse(async |page| {
        page.world.fault(Fault::KieFail { code: 501, msg: None }.once());
        order(page).await;
        page.click("Your photo").await;
        bring_another(page).await;
        page.world.db_write("UPDATE uploads SET expires_at = unixepoch() WHERE content_type = 'image/jpeg'", []);
        page.world.db_tasks_are_due();
        balance(page, "3 credits").await;
        page.click_at(".thumb.failed").await;
        page.expects("/api/tasks", 422);
        page.click("Try again").await;
        page.sees("Nobody knows this photo any more.").await;
        // The other one is still there to order of.
        page.sees("Choose a hairstyle.").await;
        page.click("Afro").await;
        page.click("Make pictures").await;
        page.counts(1, ".thumb.processing").await;
        page.world.db_tasks_are_due();
        page.pictures_are_there(".compare img").await;
        balance(page, "2 credits").await;
    })
    .await;
}

/// Holds what a selector finds, and lets the picture's progress begin anew, so that it surely goes on.
async fn hold(page: &Page, selector: &str) {
    let script =
        "window.held = document.querySelector(arguments[0]); window.held.focus(); window.told = document.querySelector('progress').value;";
    page.script(script, json!([selector])).await;
    page.world.db_write("UPDATE ai_tasks SET created_at = unixepoch() - 4", []);
    page.holds("the progress to go on", "return document.querySelector('progress').value !== window.told;").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_holds_with_the_keyboard_is_not_taken_away_while_pictures_are_made() {
    browse(async |page| {
        page.world.fault(Fault::KieNoCallback);
        choose(page).await;
        page.click("Afro").await;
        page.click("Man bun").await;
        page.sees("3 pictures · 3 credits").await;
        // All that there is: for a moment nothing is left to order with.
        page.tab_to("Make pictures").await;
        page.press([Key::Enter]).await;
        page.sees("3 pictures are in the making.").await;
        balance(page, "0 credits").await;
        stay(page, 3).await;
        page.holds("the focus where it was", "return document.activeElement.id === 'go';").await;

        let still = "return document.activeElement === window.held;";
        hold(page, ".thumb.processing").await;
        page.holds("the thumbnail", still).await;
        page.click("Gallery").await;
        page.counts(3, ".hung progress").await;
        hold(page, ".hung").await;
        page.holds("the link", still).await;
        page.press([Key::Enter]).await;
        page.sees("Ordered").await;
        hold(page, "h1").await;
        page.holds("the heading", still).await;

        // When it is done the focus stays with the same picture.
        page.click("Studio").await;
        page.counts(3, ".thumb.processing").await;
        run(page, "window.held = document.querySelector('.thumb.processing'); window.held.focus();").await;
        page.world.db_tasks_are_due();
        page.counts(3, ".thumb.completed").await;
        page.holds("the same thumbnail", "return document.activeElement.dataset.task === window.held.dataset.task;").await;
    })
    .await;
}
