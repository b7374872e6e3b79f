//! A world in which nearly a third of all callbacks and webhooks are lost and a tenth come twice: everything comes to its end all the same.

use e2e::{Options, Person, World};
use futures::stream::{self, StreamExt as _};
use sandbox::{Fault, PaymentEvent};
use serde_json::json;

/// The people it happens to.
const PEOPLE: usize = 4;

/// The next number of a splitmix64 sequence.
fn roll(dice: &mut u64) -> u64 {
    *dice = dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *dice;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

async fn order(person: &Person, upload: &str) {
    person.post_json(202, "/api/tasks", &json!({"upload_id": upload, "hairstyles": ["bob-cut"]})).await;
}

/// Buys; comes back from paying or not.
async fn purchase(person: &Person, product: &str, comes_back: bool) {
    let order = person.begin_purchase(product).await["id"].as_str().unwrap().to_owned();
    person.world.control().fire(&order, PaymentEvent::Pay).await.unwrap();
    if comes_back {
        let checkout =
            person.world.control().checkouts().into_iter().find(|checkout| checkout.request_id.as_ref() == Some(&order)).unwrap();
        person.get(302, &format!("/callback/payment?checkout_id={}", checkout.checkout_id)).await;
    }
}

async fn live(tasks: usize, purchases: usize) {
    let seed = u64::try_from(e2e::now()).unwrap();
    println!("seed {seed}");
    let variables = [("signup_credits".to_owned(), tasks.to_string()), ("rate_limit_per_hour".to_owned(), "0".to_owned())].into();
    let world = World::with(Options { variables, ..Options::default() }).await;
    let people: Vec<Person> = stream::iter(0..PEOPLE)
        .then(|n| {
            let world = world.clone();
            async move { world.sign_in(&format!("person{n}@example.com")).await }
        })
        .collect()
        .await;
    let uploads: Vec<String> = stream::iter(&people).then(|person| person.any_upload()).collect().await;
    for (number, (fault, rate)) in [
        (Fault::KieNoCallback, 0.3),
        (Fault::KieDuplicateCallback { copies: 2 }, 0.1),
        (Fault::KieFail { code: 501, msg: None }, 0.05),
        (Fault::CreemWebhookDrop, 0.3),
        (Fault::CreemWebhookDuplicate { copies: 2 }, 0.1),
        (Fault::CreemWebhookReorder, 0.1),
    ]
    .into_iter()
    .enumerate()
    {
        world.fault(fault.rate(rate, seed + number as u64));
    }

    let mut dice = seed;
    let pictures = stream::iter(0..tasks).for_each_concurrent(8, |n| order(&people[n % PEOPLE], &uploads[n % PEOPLE]));
    let returns: Vec<bool> = (0..purchases).map(|_| roll(&mut dice).is_multiple_of(2)).collect();
    let buying = stream::iter(returns.iter().enumerate()).for_each_concurrent(4, |(n, comes_back)| {
        // Everybody's first purchase is a plan.
        purchase(&people[n % PEOPLE], if n < PEOPLE { "basic-monthly" } else { "credits-10" }, *comes_back)
    });
    futures::join!(pictures, buying);
    for subscription in world.control().subscriptions() {
        world.control().fire(&subscription.subscription_id, PaymentEvent::Renew).await.unwrap();
    }

    // The sandbox draws for real; time that only the database sees must not run ahead of it.
    let drawn = async || {
        let open = world.control().kie_tasks().iter().filter(|task| task.outcome.is_none()).count();
        if open == 0 { Ok(()) } else { Err(format!("{open} at work")) }
    };
    while tokio::time::timeout(e2e::PATIENCE / 2, world.until("the provider", drawn)).await.is_err() {}

    // A quarter of an hour in steps of thirty seconds: the deadline of a task, and longer than an order waits to be asked about.
    for _ in 0..30 {
        world.db_time_passes(30);
        world.db_payments_are_due();
        world.sweep().await;
    }
    let count = |sql: &str| usize::try_from(world.sql_number(sql)).unwrap();
    assert_eq!(count("SELECT count(*) FROM ai_tasks"), tasks);
    assert_eq!(count("SELECT count(*) FROM ai_tasks WHERE status NOT IN ('completed', 'failed')"), 0, "{}", world.tail());
    assert_eq!(count("SELECT count(*) FROM orders WHERE status = 'completed'"), purchases, "{}", world.tail());
    assert_eq!(count("SELECT count(*) FROM subscription_periods"), 2 * PEOPLE.min(purchases));
    assert_eq!(count("SELECT count(*) FROM payment_events WHERE status = 'received'"), 0, "{}", world.tail());
    let failed = count("SELECT count(*) FROM ai_tasks WHERE status = 'failed'");
    // What was drawn was brought home; only what the provider itself failed at is paid back.
    let refused = world.control().kie_tasks().iter().filter(|task| task.outcome.as_deref() != Some("success")).count();
    assert_eq!(failed, refused, "{:?}", world.sql("SELECT failure_reason, count(*) FROM ai_tasks GROUP BY 1"));
    let spent = tasks - failed;
    let plans = PEOPLE.min(purchases);
    let expected = PEOPLE * tasks + plans * 2 * 25 + (purchases - plans) * 10 - spent;
    let mut balance = 0;
    for person in &people {
        balance += person.credits().await;
    }
    assert_eq!(usize::try_from(balance).unwrap(), expected);
    world.assert_books_balance();
    println!("{tasks} tasks ({failed} failed and paid back), {purchases} purchases, all final");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_lost_on_the_way_is_made_up_for() {
    live(40, 12).await;
}

/// The same at full size: `cargo test -p e2e --test it -- --ignored lossy`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes"]
async fn what_is_lost_on_the_way_is_made_up_for_a_thousand_times() {
    live(1_000, 200).await;
}
