//! Whatever the AI provider and the network do, the page says what is so, and the credit's way back can be seen.

use e2e::Options;
use sandbox::Fault;

use crate::page::{Page, browse, browse_with};
use crate::story::{balance, bring_photo, sign_in};

/// Ada with a photo, who has just asked for a bob cut.
async fn order(page: &Page) {
    sign_in(page, "Ada Lovelace").await;
    bring_photo(page).await;
    page.click("Bob cut").await;
    page.click("Make pictures").await;
    page.sees("One picture is in the making.").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_picture_is_said_to_be_in_the_making_until_it_is_there() {
    browse(async |page| {
        page.world.fault(Fault::KieDelay { ms: 7_000 });
        order(page).await;
        balance(page, "2 credits").await;
        page.sees("In the making. This usually takes less than a minute; you may leave this page.").await;
        assert_eq!(page.count(".compare").await, 0, "nothing is shown as done that is not");
        page.is_for_everybody().await;
        page.picture("waiting").await;

        // Whoever leaves and comes back finds it where it was.
        page.click("Gallery").await;
        page.sees("In the making").await;
        page.reload().await;
        page.click("Studio").await;
        page.sees("In the making. This usually takes less than a minute").await;
        page.pictures_are_there(".compare img").await;
        page.sees("Done").await;
        balance(page, "2 credits").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_picture_says_why_and_gives_its_credit_back() {
    browse(async |page| {
        page.world.fault(Fault::KieFail { code: 501, msg: None }.once());
        page.world.fault(Fault::KieDelay { ms: 1_500 }.once());
        order(page).await;
        balance(page, "2 credits").await;
        page.sees("Failed").await;
        page.sees("1 credit came back.").await;
        balance(page, "3 credits").await;
        page.is_for_everybody().await;
        page.picture("failed").await;

        // The second try goes well.
        page.click("Try again").await;
        page.pictures_are_there(".compare img").await;
        balance(page, "2 credits").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credit_comes_back_before_the_eyes_of_whoever_looks_at_the_account_book() {
    browse(async |page| {
        page.world.fault(Fault::KieFail { code: 501, msg: None }.once());
        page.world.fault(Fault::KieDelay { ms: 3_000 }.once());
        order(page).await;
        page.click("Credits").await;
        page.sees("Enough for 2 pictures.").await;
        // The picture fails while this page watches something else.
        let elsewhere = page.world.sign_in("ada@example.com").await;
        page.until("the picture to fail", async || {
            let tasks = elsewhere.get(200, "/api/tasks").await.json();
            if tasks["tasks"][0]["status"] == "failed" { Ok(()) } else { Err(tasks.to_string()) }
        })
        .await;
        page.click("Gallery").await;
        balance(page, "3 credits").await;
        page.click("Credits").await;
        page.sees("Enough for 3 pictures.").await;
        page.sees("Credit returned").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_comes_even_if_the_callback_is_lost() {
    browse(async |page| {
        page.world.fault(Fault::KieNoCallback);
        order(page).await;
        page.until("the provider to have made it", async || {
            let tasks = page.world.control().kie_tasks();
            if tasks.iter().all(|task| task.outcome.is_some()) { Ok(()) } else { Err(format!("{tasks:?}")) }
        })
        .await;
        page.sees("In the making").await;
        // After a minute without a word, whoever looks has it asked for. The minute is passed here.
        page.world.db_tasks_are_due();
        page.pictures_are_there(".compare img").await;
        balance(page, "2 credits").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_takes_no_orders_costs_nothing() {
    browse(async |page| {
        page.world.fault(Fault::KieCreateAnswers { code: 422, msg: None, http_status: None });
        sign_in(page, "Ada Lovelace").await;
        bring_photo(page).await;
        page.click("Bob cut").await;
        page.click("Make pictures").await;
        page.sees("1 credit came back.").await;
        balance(page, "3 credits").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_away_is_said_to_be_gone_and_the_page_finds_back_by_itself() {
    browse_with(Options { processes: Some(&[]), ..Options::default() }, async |page| {
        // What browsers write into the console when nobody answers.
        page.expects("", 0);
        page.world.fault(Fault::KieDelay { ms: 9_000 });
        order(page).await;
        page.sees("In the making. This usually takes less than a minute").await;
        page.world.kill(0);
        page.sees("The connection is gone for the moment. The picture is still being made").await;
        page.world.resume(0);
        page.sees_no("The connection is gone").await;
        page.pictures_are_there(".compare img").await;
        page.sees("Done").await;
        balance(page, "2 credits").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_opened_without_a_network_says_so_and_can_be_tried_again() {
    browse(async |page| {
        page.expects("", 0);
        sign_in(page, "Ada Lovelace").await;
        page.click("Gallery").await;
        page.sees("No pictures yet").await;
        page.offline(true).await;
        page.click("Credits").await;
        page.sees("The server cannot be reached. Check your connection; nothing was lost.").await;
        page.is_for_everybody().await;
        page.offline(false).await;
        page.click("Try again").await;
        page.sees("Buy 10 credits").await;
    })
    .await;
}
