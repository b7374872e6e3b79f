//! Who one is here: ways in, sessions, one's data, and going.

use serde_json::Value;

use crate::page::browse;
use crate::story::{balance, bring_photo, sign_in};

#[tokio::test(flavor = "multi_thread")]
async fn a_second_way_in_is_added_and_other_sessions_are_ended() {
    browse(async |page| {
        // The same person sits at another computer, too.
        let elsewhere = page.world.sign_in("ada@example.com").await;
        sign_in(page, "Ada Lovelace").await;
        page.click("Account and settings").await;
        page.click("Account").await;
        page.sees("ada@example.com").await;
        page.sees("This one").await;
        page.is_for_everybody().await;
        page.picture("account").await;

        page.click("End").await;
        page.sees("The session is over.").await;
        elsewhere.get(401, "/api/me").await;

        page.click("Add GitHub").await;
        page.sees("Who are you today?").await;
        page.click("Ada Lovelace").await;
        page.sees("GitHub is added. You can sign in with either now.").await;
        page.click("Remove Google").await;
        page.sees("Remove Google?").await;
        page.click("Remove").await;
        page.sees("Google is removed.").await;
        page.sees("Your only one, so it stays.").await;

        page.click("Sign out everywhere").await;
        page.sees("Sign out everywhere?").await;
        page.click("Sign out everywhere").await;
        page.sees("Continue with GitHub").await;
        page.click("Continue with GitHub").await;
        page.click("Ada Lovelace").await;
        balance(page, "3 credits").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_takes_everything_along_and_goes() {
    browse(async |page| {
        let downloads = page.downloads().await;
        sign_in(page, "Ada Lovelace").await;
        bring_photo(page).await;
        page.click("Quiff").await;
        page.click("Make pictures").await;
        page.pictures_are_there(".compare img").await;
        page.click("Open").await;
        page.click("Download").await;
        let picture = downloads.file(page).await;
        assert!(image::load_from_memory(&picture).is_ok(), "a picture of {} bytes", picture.len());

        page.click("Account and settings").await;
        page.click("Account").await;
        page.click("Download my data").await;
        let export: Value = serde_json::from_slice(&downloads.file(page).await).unwrap();
        assert_eq!(export["user"]["email"], "ada@example.com", "{export}");

        page.click("Delete my account").await;
        page.sees("Delete your account?").await;
        page.is_for_everybody().await;
        page.fill("Type “delete” to go on", "no").await;
        page.click_in("dialog", "Delete my account").await;
        page.sees("Please type “delete”.").await;
        page.fill("Type “delete” to go on", "delete").await;
        page.click_in("dialog", "Delete my account").await;
        page.sees("Your account is gone").await;
        page.is_for_everybody().await;
        assert_eq!(page.world.objects(), Vec::<String>::new());
        assert_eq!(page.world.sql_number("SELECT count(*) FROM users WHERE email LIKE 'ada@%'"), 0);

        page.click("To the start").await;
        page.sees("Continue with Google").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_signed_out_elsewhere_is_told_so_and_comes_back_to_where_they_were() {
    browse(async |page| {
        page.expects("/api/", 401);
        sign_in(page, "Ada Lovelace").await;
        page.click("Gallery").await;
        page.sees("No pictures yet").await;
        let elsewhere = page.world.sign_in("ada@example.com").await;
        elsewhere.send(204, elsewhere.request(http::Method::POST, "/auth/logout?all=true")).await;
        page.click("Studio").await;
        page.sees("You are signed out. Sign in again to go on.").await;
        page.sees("Continue with Google").await;
        page.click("Continue with Google").await;
        page.click("Ada Lovelace").await;
        page.sees("What would suit you?").await;
    })
    .await;
}
