//! Random walks over HTTP: one person orders, buys, is refunded and renewed in any order, and after every step has the credits that the
//! plain model of the package `books` says.

use books::Model;
use e2e::{Options, Person, World};
use sandbox::{Fault, PaymentEvent};
use serde_json::{Value, json};

/// The next number of a splitmix64 sequence, below `bound`.
fn roll(dice: &mut u64, bound: u64) -> u64 {
    *dice = dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *dice;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) % bound
}

struct Walker {
    world: World,
    ada: Person,
    model: Model,
    /// Paid packs, and what of their 499 cents went back.
    packs: Vec<(String, i64)>,
    plan: Option<String>,
}

impl Walker {
    /// Orders one to three pictures that succeed, fail at the provider or are refused by it.
    async fn order(&mut self, dice: &mut u64) {
        let styles = ["bob-cut", "quiff", "pixie-cut"];
        let many = 1 + usize::try_from(roll(dice, 3)).unwrap();
        let fate = roll(dice, 4);
        match fate {
            0 => drop(self.world.control().fault(Fault::KieFail { code: 501, msg: None })),
            1 => drop(self.world.control().fault(Fault::KieCreateAnswers { code: 422, msg: None, http_status: None })),
            _ => {}
        }
        let body = json!({"upload_id": self.ada.any_upload().await, "hairstyles": styles[..many]});
        let request = self.ada.request(http::Method::POST, "/api/tasks").json(&body);
        let answer = self.ada.ask(request).await;
        let enough = self.model.balance(e2e::now()) >= i64::try_from(many).unwrap();
        assert_eq!(answer.status, if enough { 202 } else { 402 }, "{answer}");
        if enough {
            let tasks: Vec<String> =
                answer.json()["tasks"].as_array().unwrap().iter().map(|task| task["task_no"].as_str().unwrap().to_owned()).collect();
            for task in &tasks {
                self.ada.wait_final(task).await;
            }
            let rows = self.world.sql(&format!(
                "SELECT id, status, created_at, updated_at FROM ai_tasks WHERE task_no IN ('{}') ORDER BY id",
                tasks.join("','")
            ));
            for row in &rows {
                let (id, created_at) = (row[0].as_str().unwrap(), row[2].as_i64().unwrap());
                assert!(self.model.spend(id, 1, created_at));
            }
            for row in &rows {
                let failed = row[1] == "failed";
                assert_eq!(failed, fate < 2, "{row:?}{}", self.world.tail());
                if failed {
                    assert!(self.model.move_task(row[0].as_str().unwrap(), "failed", row[3].as_i64().unwrap()));
                }
            }
        }
        self.world.control().clear_faults();
    }

    /// Buys ten credits, told by the webhook, by coming back, or by both.
    async fn buy(&mut self, dice: &mut u64) {
        let by = roll(dice, 3);
        if by == 0 {
            self.world.fault(Fault::CreemWebhookDrop.once());
        }
        let order = self.ada.begin_purchase("credits-10").await;
        let id = order["id"].as_str().unwrap().to_owned();
        if by == 2 {
            self.world.control().fire(&id, PaymentEvent::Pay).await.unwrap();
        } else {
            self.ada.pay(&order).await;
        }
        self.world.control().clear_faults();
        let paid_at = self.world.sql_number(&format!("SELECT paid_at FROM orders WHERE id = '{id}'"));
        self.model.grant(&format!("order:{id}"), 10, None, paid_at);
        let order = books::Order {
            status: "completed",
            created_at: paid_at,
            credits: 10,
            lasts: None,
            list: 499,
            paid: 499,
            told: Some(499),
            refunded: 0,
            disputed_at: None,
            is_plan: false,
            transaction: Some(id.clone()),
        };
        self.model.orders.insert(id.clone(), order);
        self.packs.push((id, 0));
    }

    /// A part of the money goes back, or is disputed; the news comes twice.
    async fn money_back(&mut self, dice: &mut u64) {
        if self.packs.is_empty() {
            return;
        }
        let which = usize::try_from(roll(dice, self.packs.len() as u64)).unwrap();
        let (id, refunded) = self.packs[which].clone();
        let amount = 1 + i64::try_from(roll(dice, 300)).unwrap();
        let (event, disputed) = match roll(dice, 4) {
            0 => (PaymentEvent::Dispute, Some(true)),
            _ if refunded + amount > 499 => return,
            _ => (PaymentEvent::Refund { amount: Some(amount), status: None }, None),
        };
        self.world.control().fire(&id, event).await.unwrap();
        self.world.control().fire(&id, PaymentEvent::Resend).await.unwrap();
        if disputed.is_none() {
            self.packs[which].1 += amount;
        }
        self.model.money_back(&id, Some(499), self.packs[which].1, disputed, e2e::now());
    }

    /// A plan is bought, and then renewed; each payment is a month's credits.
    async fn plan(&mut self) {
        let subscription = match &self.plan {
            None => {
                let order = self.ada.begin_purchase("basic-monthly").await;
                self.world.control().fire(order["id"].as_str().unwrap(), PaymentEvent::Pay).await.unwrap();
                self.world.control().subscriptions()[0].subscription_id.clone()
            }
            Some(subscription) => {
                self.world.control().fire(subscription, PaymentEvent::Renew).await.unwrap();
                self.world.control().fire(subscription, PaymentEvent::Resend).await.unwrap();
                subscription.clone()
            }
        };
        self.plan = Some(subscription);
        let newest = "SELECT id, expires_at, created_at FROM credit_lots WHERE id LIKE 'period:%' ORDER BY rowid DESC LIMIT 1";
        let row: Vec<Value> = self.world.sql(newest).remove(0);
        self.model.grant(row[0].as_str().unwrap(), 25, row[1].as_i64(), row[2].as_i64().unwrap());
    }
}

async fn walk(seed: u64) {
    println!("seed {seed}");
    let world = World::with(Options { variables: [("signup_credits".to_owned(), "0".to_owned())].into(), ..Options::default() }).await;
    let ada = world.sign_in("ada@example.com").await;
    let mut walker = Walker { world: world.clone(), ada: ada.clone(), model: Model::default(), packs: Vec::new(), plan: None };
    let mut dice = seed;
    for step in 0..24 {
        match roll(&mut dice, 10) {
            0..=3 => walker.order(&mut dice).await,
            4..=5 => walker.buy(&mut dice).await,
            6..=8 => walker.money_back(&mut dice).await,
            _ => walker.plan().await,
        }
        assert_eq!(ada.credits().await, walker.model.balance(e2e::now()), "seed {seed} step {step}{}", world.tail());
    }
    world.assert_books_balance();
    assert_eq!(world.sql_number("SELECT count(*) FROM payment_events WHERE status = 'received'"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_one_does_over_http_the_balance_is_what_the_model_says() {
    let seed = u64::try_from(e2e::now()).unwrap();
    let walks = (0..6).map(|number| walk(seed + number));
    futures::future::join_all(walks).await;
}
