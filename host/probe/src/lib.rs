//! A guest for the host's own tests: it does what it is asked in the path, good or bad, and tells what it saw.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use serde_json::{Value, json};
use spin_sdk::{
    http::{EmptyBody, FullBody, IntoResponse, Request, body::IncomingBodyExt},
    http_service, key_value, sqlite, variables,
};

/// Requests this instance has served: shows reuse.
static SERVED: AtomicU64 = AtomicU64::new(0);

#[http_service]
async fn handle(request: Request) -> anyhow::Result<impl IntoResponse> {
    let served = SERVED.fetch_add(1, Relaxed) + 1;
    let path = request.uri().path().to_owned();
    let argument = request.uri().query().unwrap_or_default().to_owned();
    let told = match path.as_str() {
        "/seen" => seen(&request),
        "/served" => json!(served),
        "/panic" => panic!("as asked"),
        "/forever" => loop {
            std::hint::black_box(&served);
        },
        "/sleep" => {
            spin_sdk::time::sleep(Duration::from_millis(argument.parse()?)).await;
            json!("slept")
        }
        "/body" => json!(request.into_body().bytes().await.map_err(|error| anyhow::anyhow!("{error}"))?.len()),
        "/variable" => json!(variables::get(&argument).await.map_err(|error| error.to_string())),
        "/database" => json!(database(&argument).await.map_err(|error| error.to_string())),
        "/half-read" => json!(half_read().await.map_err(|error| error.to_string())),
        "/store" => json!(store(&argument).await.map_err(|error| error.to_string())),
        "/fetch" => json!(fetch(&argument).await),
        "/print" => {
            println!("a line from the probe");
            json!("printed")
        }
        "/grow" => json!(vec![1_u8; argument.parse::<usize>()? << 20].len()),
        _ => json!({"path": path}),
    };
    let body = Bytes::from(told.to_string());
    Ok(http::Response::builder().header("content-length", body.len()).body(FullBody::new(body))?)
}

fn seen(request: &Request) -> Value {
    let headers: Vec<_> =
        request.headers().iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap_or("?").to_owned())).collect();
    json!({"uri": request.uri().to_string(), "headers": headers})
}

async fn database(label: &str) -> Result<i64, sqlite::Error> {
    let connection = sqlite::Connection::open(label).await?;
    connection.execute("CREATE TABLE IF NOT EXISTS t (x)", []).await?.collect().await?;
    connection.execute("INSERT INTO t VALUES (?1)", [1_i64.into()]).await?.collect().await?;
    let rows = connection.execute("SELECT count(*) FROM t", []).await?.collect().await?;
    Ok(rows.first().and_then(|row| row.get(0)).unwrap_or_default())
}

/// Leaves a long result after its first row and asks for something else on the same connection.
async fn half_read() -> Result<u64, sqlite::Error> {
    let connection = sqlite::Connection::open_default().await?;
    let many = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 100000) SELECT x FROM n";
    let mut result = connection.execute(many, []).await?;
    result.next().await;
    let changes = connection.changes().await;
    drop(result);
    connection.execute("SELECT 1", []).await?.collect().await?;
    Ok(changes)
}

async fn store(label: &str) -> Result<Vec<String>, key_value::Error> {
    let store = key_value::Store::open(label).await?;
    store.set("a", "1").await?;
    store.set("b", "2").await?;
    store.delete("a").await?;
    store.get_keys().await.collect().await
}

async fn fetch(url: &str) -> Result<u16, String> {
    let request = http::Request::get(url).header("content-length", "0").body(EmptyBody::new()).map_err(|error| error.to_string())?;
    spin_sdk::http::send(request).await.map(|response| response.status().as_u16()).map_err(|error| error.to_string())
}
