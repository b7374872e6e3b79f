//! The admins' pages: people, gifts, pictures, payments, the log and the books.

use e2e::Options;
use sandbox::Fault;
use serde_json::json;

use crate::page::{browse, browse_with};
use crate::story::{balance, sign_in};

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_looks_after_people_money_and_books() {
    let variables = [("admin_emails".to_owned(), "admin@example.com".to_owned())].into();
    browse_with(Options { variables, ..Options::default() }, async |page| {
        // What there is to look at: one picture made, one that failed, a payment, and a refund of something nobody knows.
        let ada = page.world.sign_in("ada@example.com").await;
        let made = ada.order_one().await;
        ada.wait_completed(&made).await;
        page.world.fault(Fault::KieFail { code: 501, msg: None }.once());
        let failed = ada.order_one().await;
        ada.wait_failed(&failed).await;
        let order = ada.begin_purchase("credits-50").await;
        ada.pay(&order).await;
        let early = json!({"id": "evt_early", "eventType": "refund.created", "created_at": 1, "object": {"id": "ref_1"}});
        page.world.control().send_payment_event(early).await;
        page.world.sweep().await;

        sign_in(page, "Admin").await;
        // The first visit gives the role to whose address is in the settings, so the way there is typed.
        page.open_path("/admin").await;
        page.sees("1 payment event is still open").await;
        page.sees("Success rate").await;
        page.is_for_everybody().await;
        page.picture("admin").await;

        page.click("People").await;
        page.fill("E-mail address", "ada@example.com").await;
        page.click("Search").await;
        page.sees_no("admin@example.com").await;
        page.is_for_everybody().await;
        page.click("ada@example.com").await;
        page.sees("Gift credits").await;
        page.is_for_everybody().await;
        page.fill("Credits", "0").await;
        page.click("Give credits").await;
        page.sees("A whole number from 1 to 10,000.").await;
        page.fill("Credits", "25").await;
        page.fill("Note", "for the wait").await;
        page.click("Give credits").await;
        page.sees("Ada Lovelace has 25 credits more.").await;
        assert_eq!(ada.credits().await, 77);

        page.click("Pictures").await;
        page.sees("ada@example.com").await;
        page.click("Failed").await;
        page.sees("1 credit came back.").await;
        page.is_for_everybody().await;

        page.click("Payments").await;
        page.sees("Paid").await;
        page.is_for_everybody().await;
        page.click("Replay the event refund.created").await;
        page.sees("It stays open and will be tried again.").await;

        page.click("Log").await;
        page.sees("Gave 25 credits").await;
        page.sees("for the wait").await;
        page.is_for_everybody().await;

        page.click("Books").await;
        page.sees("The books are right").await;
        page.is_for_everybody().await;
        page.picture("books").await;

        page.click("Operations").await;
        page.sees("All is well: nothing is wrong right now.").await;
        page.is_for_everybody().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gift_that_was_given_is_told_so_even_if_the_page_cannot_look_again() {
    let variables = [("admin_emails".to_owned(), "admin@example.com".to_owned())].into();
    browse_with(Options { variables, ..Options::default() }, async |page| {
        let ada = page.world.sign_in("ada@example.com").await;
        sign_in(page, "Admin").await;
        page.open_path("/admin").await;
        page.open_path(&format!("/admin/users/{}", ada.id().await)).await;
        page.fill("Credits", "25").await;
        // From now on this page reads nothing any more.
        let script = "const real = window.fetch; window.fetch = (path, options) => \
                      ((options?.method ?? 'GET') === 'GET' ? Promise.reject(new TypeError('no network')) : real(path, options));";
        page.script(script, json!([])).await;
        page.click("Give credits").await;
        page.sees("Ada Lovelace has 25 credits more.").await;
        assert_eq!(ada.credits().await, 28);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admins_pages_are_for_admins() {
    browse(async |page| {
        page.expects("/api/admin/", 403);
        sign_in(page, "Ada Lovelace").await;
        page.open_path("/admin").await;
        page.sees("This is for admins").await;
        page.is_for_everybody().await;
        page.click("To the studio").await;
        balance(page, "3 credits").await;
    })
    .await;
}
