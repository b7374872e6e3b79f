//! `/api/products`, `/api/orders` and `/callback/payment`: buying credits.

use e2e::World;
use http::Method;
use sandbox::Fault;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_for_sale_is_open_to_everybody() {
    let world = World::new().await;
    let products = world.stranger().get(200, "/api/products").await.json()["products"].clone();
    let of_kind = |kind: &str| -> Vec<_> {
        let products = products.as_array().unwrap().iter().filter(|product| product["kind"] == kind);
        products.map(|p| (p["id"].as_str().unwrap(), p["credits"].as_i64().unwrap(), p["amount"].as_i64().unwrap())).collect()
    };
    assert_eq!(of_kind("pack"), [("credits-10", 10, 499), ("credits-50", 50, 1999), ("credits-200", 200, 5999)]);
    assert_eq!(of_kind("plan").len(), 6);
    let pro = products.as_array().unwrap().iter().find(|product| product["id"] == "pro-yearly").unwrap();
    assert_eq!((&pro["plan_type"], &pro["billing_cycle"], &pro["credits"]), (&json!("pro"), &json!("yearly"), &json!(60)));
    assert!(products[0]["provider_product_id"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_leads_to_the_payment_providers_page() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let order = ada.begin_purchase("credits-50").await;
    assert_eq!(
        (&order["status"], &order["product_id"], &order["credits"], &order["currency"]),
        (&json!("pending"), &json!("credits-50"), &json!(50), &json!("USD"))
    );
    assert!(order["payment_url"].as_str().unwrap().starts_with(&world.places().creem), "{order}");
    let [checkout] = &world.control().checkouts()[..] else { panic!("one checkout") };
    assert_eq!(checkout.request_id.as_deref(), order["id"].as_str());
    assert_eq!(checkout.email.as_deref(), Some("ada@example.com"));
    assert_eq!(ada.credits().await, 3, "an order is not a payment");
    assert_eq!(ada.get(200, "/api/orders").await.json()["orders"], json!([order]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_for_sale_cannot_be_ordered() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    assert_eq!(ada.post_json(422, "/api/orders", &json!({"product_id": "credits-1000000"})).await.wrong_fields(), ["product_id"]);
    assert_eq!(ada.post_json(422, "/api/orders", &json!({"product_id": "prod_credits_10"})).await.wrong_fields(), ["product_id"]);
    for body in [json!({}), json!({"product_id": "credits-10", "amount": 1}), json!({"product_id": 10})] {
        ada.post_json(422, "/api/orders", &body).await.problem("invalid_input");
    }
    ada.send(415, ada.request(Method::POST, "/api/orders").body("product_id=credits-10")).await.problem("unsupported_media_type");
    world.db_write("UPDATE products SET active = 0 WHERE id = 'credits-10'", []);
    assert_eq!(ada.post_json(422, "/api/orders", &json!({"product_id": "credits-10"})).await.wrong_fields(), ["product_id"]);
    assert_eq!((world.sql_number("SELECT count(*) FROM orders"), world.control().checkouts().len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_provider_that_is_down_leaves_a_cancelled_order() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    for fault in [Fault::CreemApiAnswers { status: 500 }, Fault::CreemApiAnswers { status: 429 }, Fault::CreemCheckoutAnswerLost] {
        world.control().clear_faults();
        world.fault(fault);
        ada.post_json(502, "/api/orders", &json!({"product_id": "credits-10"})).await.problem("provider_unavailable");
    }
    let orders = ada.get(200, "/api/orders").await.json()["orders"].clone();
    let statuses: Vec<_> = orders.as_array().unwrap().iter().map(|order| order["status"].clone()).collect();
    assert_eq!(statuses, ["cancelled", "cancelled", "cancelled"]);
    world.control().clear_faults();
    let order = ada.begin_purchase("credits-10").await;
    assert_eq!(ada.pay(&order).await["status"], "completed");
    assert_eq!(ada.credits().await, 13);
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_provider_that_does_not_answer_is_not_waited_for() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    world.fault(Fault::CreemApiSlow { ms: 80_000 });
    ada.post_json(502, "/api/orders", &json!({"product_id": "credits-10"})).await.problem("provider_unavailable");
    let orders = ada.get(200, "/api/orders").await.json()["orders"].clone();
    assert_eq!(orders[0]["status"], "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_back_from_paying_settles_an_order_whose_webhook_is_late() {
    let world = World::new().await;
    world.fault(Fault::CreemWebhookDrop);
    let ada = world.sign_in("ada@example.com").await;
    let order = ada.begin_purchase("credits-10").await;
    assert_eq!(ada.pay(&order).await["status"], "completed");
    assert_eq!(ada.credits().await, 13);
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn coming_back_without_having_paid_grants_nothing() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let order = ada.begin_purchase("credits-10").await;
    let checkout = world.control().checkouts()[0].checkout_id.clone();
    // The address can be written by hand; what it says does not count.
    let back = ada.get(302, &format!("/callback/payment?checkout_id={checkout}&order_id=ord_1&status=paid&signature=abc")).await;
    assert_eq!(back.header("location"), format!("/api/orders/{}", order["id"].as_str().unwrap()));
    let order = ada.get(200, back.header("location")).await.json()["order"].clone();
    assert_eq!((&order["status"], ada.credits().await), (&json!("pending"), 3));
    ada.get(404, "/callback/payment?checkout_id=ch_unknown").await.problem("not_found");
    for query in ["", "?checkout_id=", &format!("?checkout_id={}", "x".repeat(200))] {
        ada.get(422, &format!("/callback/payment{query}")).await.problem("invalid_input");
    }
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_comes_back_to_the_orders_page() {
    const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8";
    let world = World::new().await;
    world.fault(Fault::CreemWebhookDrop);
    let ada = world.sign_in("ada@example.com").await;
    let order = ada.begin_purchase("credits-10").await;
    let id = order["id"].as_str().unwrap();
    let back = world.control().pay(&world.control().checkouts()[0].checkout_id).await.unwrap().return_url.unwrap();
    let returned = async |accept: &str| -> String {
        let answer = ada.send(302, ada.request(Method::GET, &back).header("accept", accept)).await;
        answer.header("location").to_owned()
    };
    for accept in [BROWSER, "text/html", "application/json;q=0.1, TEXT/HTML;q=0.5"] {
        assert_eq!(returned(accept).await, format!("/credits/orders/{id}"), "{accept}");
    }
    for accept in ["*/*", "application/json", "application/json, text/html;q=0", "text/*"] {
        assert_eq!(returned(accept).await, format!("/api/orders/{id}"), "{accept}");
    }
    assert_eq!(ada.credits().await, 13);
    let unknown = ada.request(Method::GET, "/callback/payment?checkout_id=ch_unknown").header("accept", BROWSER);
    ada.send(404, unknown).await.problem("not_found");

    // The payment provider cannot be asked now: the page waits for its word. What the address says may only name a page.
    world.fault(Fault::CreemApiAnswers { status: 500 });
    assert_eq!(returned(BROWSER).await, format!("/credits/orders/{id}"));
    ada.get(502, &back).await.problem("provider_unavailable");
    for (query, page) in [("&request_id=..%2F..%2Fauth%2Flogout", "/credits"), ("&request_id=", "/credits"), ("", "/credits")] {
        let answer = ada.request(Method::GET, &format!("/callback/payment?checkout_id=ch_1{query}")).header("accept", BROWSER);
        assert_eq!(ada.send(302, answer).await.header("location"), page, "{query}");
    }
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn coming_back_twice_grants_once() {
    let world = World::new().await;
    world.fault(Fault::CreemWebhookDrop);
    let ada = world.sign_in("ada@example.com").await;
    ada.begin_purchase("credits-10").await;
    let checkout = world.control().checkouts()[0].checkout_id.clone();
    let paid = world.control().pay(&checkout).await.unwrap();
    let back = paid.return_url.unwrap();
    for _ in 0..3 {
        ada.get(302, &back).await;
    }
    // Whoever has the link may open it; it gives nothing to them.
    let eve = world.sign_in("eve@example.com").await;
    eve.get(302, &back).await;
    assert_eq!((ada.credits().await, eve.credits().await), (13, 3));
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_price_is_that_of_the_moment_of_the_order() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let order = ada.begin_purchase("credits-10").await;
    world.db_write("UPDATE products SET credits = 1, amount = 1 WHERE id = 'credits-10'", []);
    let order = ada.pay(&order).await;
    assert_eq!((&order["credits"], &order["amount"], ada.credits().await), (&json!(10), &json!(499), 13));
    assert!(!order["paid_at"].is_null());
    assert_eq!(order["payment_url"], Value::Null);
}
