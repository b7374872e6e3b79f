//! What people come for, from the door to the picture in their hand.

use e2e::root;

use crate::driver::Key;
use crate::page::{Page, browse};

/// A photo as it lies on somebody's desktop.
pub fn portrait() -> std::path::PathBuf {
    root().join("tests/photos/portrait.jpg")
}

/// In through the sandbox's Google, by a click on a name.
pub async fn sign_in(page: &Page, name: &str) {
    page.open_path("/").await;
    page.click("Continue with Google").await;
    page.sees("Who are you today?").await;
    page.click(name).await;
    page.sees("What would suit you?").await;
}

/// A photo in, until the page shows it.
pub async fn bring_photo(page: &Page) {
    page.choose_file(&portrait()).await;
    page.sees("Another photo").await;
}

/// What the button in the bar says one can spend.
pub async fn balance(page: &Page, text: &str) {
    page.until(&format!("a balance of {text}"), async || match page.text_of("#balance").await {
        found if found == text => Ok(()),
        found => Err(found),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_sees_a_picture_of_theirs_without_reading_anything() {
    browse(async |page| {
        page.world.control().change_settings(|settings| settings.kie_picture_px = 768);
        page.open_path("/").await;
        page.sees("Try the haircut before the scissors do").await;
        page.is_for_everybody().await;
        page.picture("welcome").await;

        page.click("Continue with Google").await;
        page.sees("Who are you today?").await;
        page.click("Ada Lovelace").await;
        page.sees("What would suit you?").await;
        balance(page, "3 credits").await;
        page.is_for_everybody().await;

        page.drop_file(".glass.drop", &portrait()).await;
        page.pictures_are_there(".glass img").await;
        page.click("Bob cut").await;
        page.click("Wolf cut").await;
        page.click("Copper").await;
        page.sees("2 pictures · 2 credits").await;
        page.sees("You have 3. 1 left after this.").await;
        page.is_for_everybody().await;
        page.picture("studio").await;

        page.click("Make pictures").await;
        page.sees("2 pictures are in the making.").await;
        balance(page, "1 credit").await;
        page.pictures_are_there(".compare img").await;
        page.sees("Before After").await;
        page.counts(2, ".thumb.completed").await;
        page.is_for_everybody().await;
        page.picture("result").await;

        // The line between before and after goes where it is moved to.
        page.click_at(".compare input").await;
        page.press([Key::Left, Key::Left, Key::Left]).await;
        page.holds("the line to have moved", "return parseFloat(document.querySelector('.compare').style.getPropertyValue('--at')) < 50;")
            .await;

        page.click("Open").await;
        page.sees("Copper").await;
        page.click("Side by side").await;
        page.pictures_are_there(".pair img").await;
        page.is_for_everybody().await;

        page.click("Gallery").await;
        page.pictures_are_there(".wall img").await;
        page.counts(2, ".wall img").await;
        page.is_for_everybody().await;
        page.picture("gallery").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_can_be_done_with_the_keyboard_alone() {
    browse(async |page| {
        page.open_path("/").await;
        page.sees("Try the haircut").await;
        page.tab_to("Continue with Google").await;
        page.press([Key::Enter]).await;
        page.sees("Who are you today?").await;
        page.tab_to("Grace Hopper").await;
        page.press([Key::Enter]).await;
        page.sees("What would suit you?").await;

        // The first stop on a page leads past what every page has.
        page.press([Key::Tab]).await;
        page.sees("Skip to the content").await;

        // The system's dialog for files is not the page's; that it can be asked for is.
        page.tab_to("choose a file").await;
        page.choose_file(&portrait()).await;
        page.pictures_are_there(".glass img").await;
        page.tab_to("Quiff").await;
        page.press([Key::Space]).await;
        page.tab_to("Make pictures").await;
        page.press([Key::Enter]).await;
        page.pictures_are_there(".compare img").await;
        page.tab_to("How much of the photo before is shown").await;
        page.press([Key::Right, Key::Right]).await;
        page.holds("the line to have moved", "return parseFloat(document.querySelector('.compare').style.getPropertyValue('--at')) > 50;")
            .await;

        page.tab_to("Account and settings").await;
        page.press([Key::Enter]).await;
        page.sees("Sign out").await;
        page.press([Key::Escape]).await;
        page.sees_no("Sign out").await;
        page.tab_to("Gallery").await;
        page.press([Key::Enter]).await;
        page.pictures_are_there(".wall img").await;
    })
    .await;
}
