//! Buying credits: what is for sale, the order and its checkout, the way back from paying, and the plan one has.

use http::{Method, StatusCode};
use idempotency::Work;
use limit::Class;
use order::{Opened, Opening, Order, reconcile, subscription};
use payment::{Creem, Purchase};
use problem::{Code, Problem};
use serde::Deserialize;
use serde_json::json;
use service::{Call, Reply, Request, Service, reply};
use spin_sdk::{http::IntoResponse, http_service};

static SERVICE: Service = Service {
    name: "orders",
    settings: &[
        "public_url",
        "session_secret",
        "data_encryption_key",
        "trusted_proxy",
        "rate_limit_per_hour",
        "creem_base_url",
        "creem_api_key",
    ],
};

#[http_service]
async fn handle(request: Request) -> impl IntoResponse {
    service::serve(&SERVICE, request, route).await
}

async fn route(call: Call) -> Result<Reply, Problem> {
    let segments = call.segments()?;
    let path: Vec<&str> = segments.iter().map(String::as_str).collect();
    match (path.as_slice(), &call.method) {
        (["api", "products"], &Method::GET | &Method::HEAD) => reply::ok(&json!({"products": order::products().await?})),
        (["api", "orders"], &Method::POST) => create(call).await,
        (["api", "orders"], &Method::GET | &Method::HEAD) => list(&call).await,
        (["api", "orders", id], &Method::GET | &Method::HEAD) => show(&call, id).await,
        (["callback", "payment"], &Method::GET) => back(&call).await,
        (["api", "subscription"], &Method::GET | &Method::HEAD) => plan(&call).await,
        (["api", "subscription", "cancel"], &Method::POST) => cancel_plan(&call).await,
        (["api", "orders"], _) => Err(Problem::method_not_allowed("GET, HEAD, POST")),
        (["api", "products" | "subscription"] | ["api", "orders", _], _) => Err(Problem::method_not_allowed("GET, HEAD")),
        (["callback", "payment"], _) => Err(Problem::method_not_allowed("GET")),
        (["api", "subscription", "cancel"], _) => Err(Problem::method_not_allowed("POST")),
        _ => Err(Problem::not_found("address")),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    product_id: String,
}

/// POST /api/orders `{product_id}`: the intent first, then the checkout, then the link between them.
async fn create(mut call: Call) -> Result<Reply, Problem> {
    let caller = limit::writer(&call, Class::Orders).await?;
    let (input, body) = call.json_and_bytes::<Input>().await?;
    idempotency::once(&call, &caller.user_id, "POST /api/orders", &body, async |work| {
        let order = buy(&call, &caller.user_id, &input.product_id, work).await?;
        Ok((StatusCode::CREATED, json!({"order": order})))
    })
    .await
}

async fn buy(call: &Call, user_id: &str, product_id: &str, work: Option<&Work>) -> Result<Order, Problem> {
    let begun = match work {
        Some(work) if work.resumed => order::resume(user_id, &work.id).await?,
        _ => None,
    };
    let opening = match begun {
        Some(opening) => opening,
        None => order::open(user_id, product_id, work.map(|work| work.id.as_str()), clock::now()).await?,
    };
    let opened = match opening {
        Opening::Opened(opened) => opened,
        // The same request was cut off after its checkout was made.
        Opening::Continued(order) => return Ok(order),
        Opening::NoProduct => return Err(Problem::invalid("product_id", "There is no such product; see /api/products.")),
        Opening::HasPlan => return Err(Problem::new(Code::Conflict, "You have a plan already; see /api/subscription.")),
    };
    match check_out(call, user_id, &opened).await {
        Ok(order) => Ok(order),
        Err(problem) => {
            // Nobody was given a page to pay on, so nobody can: the order is over. If this fails too, the order only stays pending.
            if let Err(error) = order::cancel(&opened.id, clock::now()).await {
                meter::log(json!({"level": "error", "event": "order_not_cancelled", "order": opened.id, "cause": format!("{error:?}")}));
            }
            Err(problem)
        }
    }
}

async fn check_out(call: &Call, user_id: &str, opened: &Opened) -> Result<Order, Problem> {
    let success_url = format!("{}/callback/payment", call.settings.public_url()?);
    let purchase = Purchase {
        product_id: &opened.provider_product_id,
        order_id: &opened.id,
        user_id,
        email: &opened.email,
        success_url: &success_url,
    };
    let checkout = Creem::from_settings(&call.settings)?.create_checkout(&purchase).await?;
    let page = checkout
        .checkout_url
        .as_deref()
        .filter(|page| payment::is_checkout_page(call.settings.text("creem_base_url").unwrap_or_default(), page));
    let page = page.ok_or_else(|| {
        Problem::new(Code::ProviderUnavailable, "The payment provider gave no page to pay on.")
            .because("checkout_url missing or not creem's")
    })?;
    let order = order::attach(&opened.id, &checkout, page, clock::now()).await?;
    order.ok_or_else(|| Problem::internal("the order changed while its checkout was opened"))
}

/// GET /api/orders?limit=&offset=&cursor=
async fn list(call: &Call) -> Result<Reply, Problem> {
    let caller = limit::reader(call).await?;
    let page = call.page()?;
    let orders = order::list(&caller.user_id, &page).await?;
    let next_cursor = page.next(orders.len(), orders.last().map(|order| (order.created_at, order.id.as_str())));
    reply::ok(&json!({"orders": orders, "limit": page.limit, "offset": page.offset, "next_cursor": next_cursor}))
}

/// GET /api/orders/{id}
async fn show(call: &Call, id: &str) -> Result<Reply, Problem> {
    let caller = limit::reader(call).await?;
    let order = order::by_id(&caller.user_id, id).await?.ok_or_else(|| Problem::not_found("order"))?;
    reply::ok(&json!({"order": order}))
}

/// GET /callback/payment: the buyer is back. A browser is led to the order's page, anything else to the order itself.
async fn back(call: &Call) -> Result<Reply, Problem> {
    let page = call.takes_html();
    match settle(call).await {
        Ok(order_id) if page => reply::redirect(&format!("/credits/orders/{order_id}")),
        Ok(order_id) => reply::redirect(&format!("/api/orders/{order_id}")),
        // Somebody who has just paid is not shown an error: the order's page waits until the provider's word comes another way. That it
        // is their order is found out there, so the address may name it.
        Err(problem) if page && matches!(problem.code, Code::ProviderUnavailable | Code::RateLimited) => {
            service::count_fault(&SERVICE, &problem).await;
            meter::log(json!({"level": "warn", "event": "payment_return_unsettled", "code": problem.code, "cause": problem.cause}));
            match call.query("request_id").filter(|id| is_order_id(id)) {
                Some(order_id) => reply::redirect(&format!("/credits/orders/{order_id}")),
                None => reply::redirect("/credits"),
            }
        }
        Err(problem) => Err(problem),
    }
}

/// Answers the order that was paid for. What the address says is not trusted (it can be copied and replayed); the payment provider is
/// asked, and if it says "paid" the order is settled just as its webhook would.
async fn settle(call: &Call) -> Result<String, Problem> {
    let id = call.query("checkout_id").filter(|id| !id.is_empty() && id.len() <= 100);
    let id = id.ok_or_else(|| Problem::invalid("checkout_id", "The payment provider's reference is missing."))?;
    limit::client(call, Class::Returns).await?;
    let creem = Creem::from_settings(&call.settings)?;
    let checkout = match creem.checkout(id).await {
        Ok(checkout) => checkout,
        Err(payment::Error::Refused { status, .. }) if status == StatusCode::NOT_FOUND || status == StatusCode::BAD_REQUEST => {
            return Err(Problem::not_found("checkout"));
        }
        Err(error) => return Err(error.into()),
    };
    let settled = reconcile::follow(&creem, &checkout, clock::now()).await?;
    meter::log(
        json!({"level": "info", "event": "payment_return", "checkout": checkout.id, "status": checkout.status, "settled": format!("{settled:?}")}),
    );
    checkout.request_id.filter(|id| is_order_id(id)).ok_or_else(|| Problem::not_found("order"))
}

/// Whether a text can be an order's id, and so part of an address.
fn is_order_id(text: &str) -> bool {
    !text.is_empty() && text.len() <= 100 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// GET /api/subscription: null for somebody who never had a plan.
async fn plan(call: &Call) -> Result<Reply, Problem> {
    let caller = limit::reader(call).await?;
    reply::ok(&json!({"subscription": subscription::of_user(&caller.user_id).await?}))
}

/// POST /api/subscription/cancel: no further payment; what is paid stays.
async fn cancel_plan(call: &Call) -> Result<Reply, Problem> {
    let caller = limit::writer(call, Class::Orders).await?;
    idempotency::once(call, &caller.user_id, "POST /api/subscription/cancel", b"", async |_| {
        let plan = subscription::of_user(&caller.user_id).await?.filter(|plan| plan.status == "active");
        let plan = plan.ok_or_else(|| Problem::not_found("active plan"))?;
        if !plan.ends_with_period {
            let provider_id = plan.provider_id.as_deref().ok_or_else(|| {
                Problem::new(Code::Conflict, "The payment provider has not confirmed this plan yet. Try again in a minute.").retry_after(60)
            })?;
            let news = Creem::from_settings(&call.settings)?.cancel_subscription(provider_id).await?;
            let news = payment::Subscription { last_transaction: None, ..news };
            subscription::apply(&news, None, None, clock::now()).await?;
        }
        Ok((StatusCode::OK, json!({"subscription": subscription::of_user(&caller.user_id).await?})))
    })
    .await
}
