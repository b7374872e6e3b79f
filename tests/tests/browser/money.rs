//! Credits: spent, run out of, bought, given back, and each movement written down.

use sandbox::{Fault, PaymentEvent};

use crate::page::{Page, browse};
use crate::story::{balance, bring_photo, sign_in};

/// Ada at the shop's counter.
async fn shop(page: &Page) {
    sign_in(page, "Ada Lovelace").await;
    page.click("Credits").await;
    page.sees("Buy 10 credits").await;
}

/// On the payment provider's page.
async fn at_the_till(page: &Page, what: &str) {
    page.click(what).await;
    page.sees("Sandbox: nothing here is real, no money moves.").await;
}

/// What the order's page says its number is.
async fn order_number(page: &Page) -> String {
    page.path().await.rsplit('/').next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_runs_out_of_credits_buys_ten_and_goes_on() {
    browse(async |page| {
        sign_in(page, "Ada Lovelace").await;
        bring_photo(page).await;
        for style in ["Bob cut", "Afro", "Man bun"] {
            page.click(style).await;
        }
        page.sees("3 pictures · 3 credits").await;
        page.click("Make pictures").await;
        balance(page, "0 credits").await;
        page.counts(3, ".thumb.completed").await;
        page.click("Mullet").await;
        page.sees("1 more needed.").await;
        page.is_for_everybody().await;

        page.click("Buy credits").await;
        page.sees("Buy 10 credits").await;
        page.is_for_everybody().await;
        at_the_till(page, "Buy 10 credits").await;
        page.sees("$4.99").await;
        page.is_for_everybody().await;
        // A card that does not work first.
        page.click("Decline the card").await;
        page.sees("Your card was declined.").await;
        page.click("Pay").await;

        page.sees("Thank you, your credits are here").await;
        page.sees("You have 10 credits now.").await;
        balance(page, "10 credits").await;
        page.is_for_everybody().await;
        page.picture("thank-you").await;

        page.click("Account book").await;
        for movement in ["Bought 10 credits", "Picture: Bob cut", "Picture: Afro", "Picture: Man bun", "Welcome gift"] {
            page.sees(movement).await;
        }
        page.sees("Completed").await;
        page.sees("$4.99").await;
        page.is_for_everybody().await;
        page.scroll_to(".book").await;
        page.picture("account-book").await;

        page.click("Studio").await;
        // What was chosen before paying still is.
        page.sees("1 picture · 1 credit").await;
        page.click("Make pictures").await;
        balance(page, "9 credits").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_is_not_known_yet_is_waited_for_in_true_words() {
    browse(async |page| {
        shop(page).await;
        at_the_till(page, "Buy 50 credits").await;
        // The provider does not answer when it is asked, and its own word comes later.
        page.world.fault(Fault::CreemApiAnswers { status: 503 });
        page.world.fault(Fault::CreemWebhookDelay { ms: 6_000 });
        page.click("Pay").await;
        page.sees("Waiting for the payment").await;
        page.sees("this page looks again by itself").await;
        balance(page, "3 credits").await;
        page.is_for_everybody().await;

        page.sees("Thank you, your credits are here").await;
        page.sees("You have 53 credits now.").await;
        balance(page, "53 credits").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_pay_finds_the_order_waiting() {
    browse(async |page| {
        shop(page).await;
        at_the_till(page, "Buy 10 credits").await;
        page.back().await;
        page.sees("Your order of 10 credits for $4.99 waits for its payment.").await;
        balance(page, "3 credits").await;
        page.click_in(".waiting", "Pay now").await;
        page.click("Pay").await;
        page.sees("Thank you, your credits are here").await;
        balance(page, "13 credits").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_taken_and_cancelled_by_clicking() {
    browse(async |page| {
        shop(page).await;
        page.click("Yearly").await;
        page.sees("Saves").await;
        page.click("Monthly").await;
        at_the_till(page, "Take Pro").await;
        page.click("Pay").await;
        page.sees("Thank you, your plan has begun").await;
        balance(page, "63 credits").await;

        page.click("Credits").await;
        page.sees("Pro plan, paid monthly").await;
        page.sees("Active").await;
        page.is_for_everybody().await;
        page.picture("plan").await;
        page.click("Cancel the plan").await;
        page.sees("Cancel the Pro plan?").await;
        page.is_for_everybody().await;
        page.click("Keep it").await;
        page.sees_no("Cancel the Pro plan?").await;
        page.click("Cancel the plan").await;
        page.click("Cancel the plan").await;
        page.sees("It is cancelled and ends on").await;
        balance(page, "63 credits").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_takes_its_credits_and_says_so() {
    browse(async |page| {
        shop(page).await;
        at_the_till(page, "Buy 10 credits").await;
        page.click("Pay").await;
        page.sees("Thank you, your credits are here").await;
        let order = order_number(page).await;
        page.world.control().fire(&order, PaymentEvent::Refund { amount: None, status: None }).await.unwrap();
        page.reload().await;
        page.sees("Refunded").await;
        balance(page, "3 credits").await;
        page.is_for_everybody().await;
        page.click("Credits").await;
        page.sees("Taken back with the money").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_payment_provider_is_away_nothing_is_charged_and_it_says_so() {
    browse(async |page| {
        page.expects("/api/orders", 502);
        page.expects("/api/orders", 503);
        shop(page).await;
        page.world.fault(Fault::CreemApiAnswers { status: 503 });
        page.click("Buy 10 credits").await;
        page.sees("The payment provider cannot be reached right now. Nothing was charged.").await;
        page.world.control().clear_faults();
        at_the_till(page, "Buy 10 credits").await;
        page.click("Pay").await;
        page.sees("Thank you, your credits are here").await;
        balance(page, "13 credits").await;
    })
    .await;
}
