//! A console for everybody: light to load, small screens, Chinese, dark, and no JavaScript.

use crate::page::{Page, browse};
use crate::story::{bring_photo, sign_in};

/// What a first visit may weigh, pictures aside.
const FIRST_LOAD: f64 = 150_000.0;

#[tokio::test(flavor = "multi_thread")]
async fn the_first_load_is_light() {
    browse(async |page| {
        page.open_path("/").await;
        page.sees("Try the haircut").await;
        let door = weight(page).await;
        page.click("Continue with Google").await;
        page.click("Ada Lovelace").await;
        page.sees("Make pictures").await;
        let studio = weight(page).await;
        println!("without pictures: {door:.0} bytes to the door, {studio:.0} bytes to the studio");
        // Less than this would mean that nothing was counted.
        assert!(door > 5_000.0 && studio > door);
        assert!(studio < FIRST_LOAD);
    })
    .await;
}

/// The bytes that have come from the app so far, heads and all, but for pictures.
async fn weight(page: &Page) -> f64 {
    let app = page.world.address().as_str().to_owned();
    let fetched = page.fetched().await.into_iter().filter(|fetched| fetched.url.starts_with(&app) && fetched.kind != "Image");
    fetched.map(|fetched| fetched.bytes).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_way_goes_on_a_small_telephone() {
    browse(async |page| {
        page.world.control().change_settings(|settings| settings.kie_picture_px = 768);
        page.on_a_phone().await;
        sign_in(page, "Katherine Johnson").await;
        bring_photo(page).await;
        page.click("Pixie cut").await;
        page.click("Make pictures").await;
        page.pictures_are_there(".compare img").await;
        page.picture("phone").await;
        page.click("Gallery").await;
        page.pictures_are_there(".wall img").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_speaks_chinese_to_who_reads_chinese() {
    browse(async |page| {
        page.reads("zh-CN,zh;q=0.9").await;
        page.open_path("/").await;
        page.sees("先看效果，再动剪刀").await;
        page.is_for_everybody().await;
        page.click("使用 Google 登录").await;
        page.click("Ada Lovelace").await;
        page.sees("什么发型适合您？").await;
        page.is_for_everybody().await;
        page.picture("chinese").await;

        // Another language is a choice away, and stays chosen.
        page.click("账户与设置").await;
        page.click("English").await;
        page.sees("What would suit you?").await;
        page.reload().await;
        page.sees("What would suit you?").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_dark_for_who_likes_it_dark() {
    browse(async |page| {
        page.likes("dark").await;
        sign_in(page, "Ada Lovelace").await;
        let dark = "const [red, green, blue] = getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number); return red + green + blue < 200;";
        page.holds("a dark page", dark).await;
        bring_photo(page).await;
        page.picture("dark").await;
        page.click("Account and settings").await;
        page.click("Light").await;
        page.holds("a light page", &dark.replace('<', ">")).await;
        page.reload().await;
        page.sees("What would suit you?").await;
        page.holds("a light page still", &dark.replace('<', ">")).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_javascript_it_says_what_it_needs() {
    browse(async |page| {
        page.without_scripts().await;
        page.open_path("/").await;
        page.sees("This page needs JavaScript").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_sent_to_a_page_gets_there_after_signing_in() {
    browse(async |page| {
        page.open_path("/gallery").await;
        page.click("Continue with GitHub").await;
        page.click("Ada Lovelace").await;
        page.sees("No pictures yet").await;
        page.is_for_everybody().await;
        assert_eq!(page.path().await, "/gallery");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_of_the_api_is_a_page_for_everybody() {
    browse(async |page| {
        page.open_path("/").await;
        page.click("API description").await;
        page.sees("API").await;
        assert_eq!(page.path().await, "/docs");
        page.is_for_everybody().await;
        page.picture("api").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_leads_nowhere_says_so_and_shows_the_way_back() {
    browse(async |page| {
        sign_in(page, "Ada Lovelace").await;
        page.open_path("/gallery/not/here").await;
        page.sees("There is no such page").await;
        page.is_for_everybody().await;
        page.click("To the start").await;
        page.sees("What would suit you?").await;

        // A picture of somebody else's, or of nobody's.
        page.expects("/api/tasks/", 404);
        page.open_path("/gallery/TASK_1_abc").await;
        page.sees("It is not there any more.").await;
        page.is_for_everybody().await;
    })
    .await;
}
