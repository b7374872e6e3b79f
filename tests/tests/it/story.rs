//! The product as its users know it, from signing in to the last picture.

use std::time::Duration;

use e2e::photos::{self, difference};
use e2e::{Person, World};
use http::Method;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

/// The result pictures of a completed task, each looked at: a real picture, and visibly another one than the photo.
async fn look_at_results(person: &Person, task: &Value, photo: &[u8]) {
    let urls = task["result_urls"].as_array().unwrap();
    assert!(!urls.is_empty(), "{task}");
    for url in urls {
        let url = url.as_str().unwrap();
        assert!(url.starts_with(person.world.address().as_str()), "the picture should be ours: {url}");
        let picture = person.download(url).await;
        let difference = difference(&picture, photo);
        assert!(difference > 2.0, "the picture is the photo again (they differ by {difference} of 255): {task}");
    }
}

async fn whole_story(world: &World, person: &Person, photo: &str, upload: &str, model: &str) {
    let bytes = photos::read(photo);
    assert_eq!(person.credits().await, 3);

    // Two hairstyles at once.
    let body = json!({"upload_id": upload, "hairstyles": ["bob-cut", "buzz-cut"], "hair_color": "copper", "detail": "a little wild", "model": model});
    let answer = person.post_json(202, "/api/tasks", &body).await.json();
    assert_eq!(answer["credits"], json!({"spent": 2, "balance": 1}));
    let tasks: Vec<Value> = answer["tasks"].as_array().unwrap().clone();
    let styles: Vec<_> = tasks.iter().map(|task| task["hairstyle"].clone()).collect();
    assert_eq!(styles, ["bob-cut", "buzz-cut"], "in the order they were asked for");
    for task in &tasks {
        assert_eq!(task["model"], model);
        let task = person.wait_completed(task["task_no"].as_str().unwrap()).await;
        assert_eq!((&task["progress"], &task["price"], &task["failure_reason"]), (&json!(1.0), &json!(1), &Value::Null));
        assert!(task["completed_at"].as_i64().unwrap() >= task["created_at"].as_i64().unwrap());
        look_at_results(person, &task, &bytes).await;
    }
    assert_eq!(person.credits().await, 1);

    // The last credit, then none.
    let one = json!({"upload_id": upload, "hairstyles": ["afro"], "model": model});
    let third = person.post_json(202, "/api/tasks", &one).await.json()["tasks"][0]["task_no"].as_str().unwrap().to_owned();
    person.wait_completed(&third).await;
    let pictures_asked_for = world.control().kie_tasks().len();
    person.post_json(402, "/api/tasks", &one).await.problem("insufficient_credits");
    assert_eq!(person.get(200, "/api/tasks").await.json()["tasks"].as_array().unwrap().len(), 3, "a refused order leaves no task");
    assert_eq!(world.control().kie_tasks().len(), pictures_asked_for, "and asks the provider for nothing");
    assert_eq!(person.credits().await, 0);

    // More credits, and on it goes.
    let order = person.begin_purchase("credits-10").await;
    assert_eq!((&order["status"], &order["credits"], &order["amount"]), (&json!("pending"), &json!(10), &json!(499)));
    let order = person.pay(&order).await;
    assert_eq!((&order["status"], &order["payment_url"]), (&json!("completed"), &Value::Null));
    assert_eq!(person.credits().await, 10);
    let fourth = person.post_json(202, "/api/tasks", &one).await.json()["tasks"][0]["task_no"].as_str().unwrap().to_owned();
    let fourth = person.wait_completed(&fourth).await;
    assert_eq!(person.credits().await, 9);

    // A week later the photo is gone and the pictures are not.
    world.db_write("UPDATE uploads SET expires_at = unixepoch() - 1", []);
    world.control().age_objects("cache/", Duration::from_secs(8 * 86_400)).unwrap();
    assert!(world.sweep().await["deleted_files"].as_u64().unwrap() >= 1);
    person.get(404, &format!("/api/uploads/{upload}")).await.problem("not_found");
    let objects = world.objects();
    assert!(!objects.iter().any(|key| key.starts_with("cache/")), "{objects:?}");
    assert_eq!(objects.iter().filter(|key| key.starts_with("result/")).count(), 4, "{objects:?}");
    look_at_results(person, &fourth, &bytes).await;
    person.post_json(422, "/api/tasks", &one).await.problem("invalid_input");
    assert_eq!(person.credits().await, 9);
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_jpeg_to_pictures_with_google_and_the_default_model() {
    let world = World::new().await;
    let ada = world.sign_in("ada@example.com").await;
    let upload = ada.upload("portrait.jpg").await;
    assert_eq!((&upload["content_type"], &upload["size"]), (&json!("image/jpeg"), &json!(photos::read("portrait.jpg").len())));
    whole_story(&world, &ada, "portrait.jpg", upload["id"].as_str().unwrap(), "nano-banana-edit").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_png_to_pictures_with_github_and_the_4o_model() {
    let world = World::new().await;
    let octo = world.sign_in_github("octo@example.com").await;
    let upload = octo.upload("portrait.png").await;
    whole_story(&world, &octo, "portrait.png", upload["id"].as_str().unwrap(), "4o").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_form_with_two_photos_to_pictures_of_the_webp_with_the_kontext_model() {
    let world = World::new().await;
    let grace = world.sign_in("grace.hopper@gmail.com").await;
    let part = |name: &'static str| Part::bytes(photos::read(name)).file_name(name);
    let form = Form::new().part("file", part("portrait.jpg")).part("file", part("portrait.webp"));
    let uploads = grace.send(201, grace.request(Method::POST, "/api/uploads").multipart(form)).await.json()["uploads"].clone();
    let uploads = uploads.as_array().unwrap();
    let told: Vec<_> =
        uploads.iter().map(|upload| (upload["original_name"].as_str().unwrap(), upload["content_type"].as_str().unwrap())).collect();
    assert_eq!(told, [("portrait.jpg", "image/jpeg"), ("portrait.webp", "image/webp")]);
    whole_story(&world, &grace, "portrait.webp", uploads[1]["id"].as_str().unwrap(), "kontext").await;
}
