//! One backup: from one statement into one object, and its manifest last.

use backup::{
    FORMAT, Header, Manifest, Packer, Value,
    schema::{Column, PLAN, Plan},
};
use database::{Row, run};
use job::Run;
use problem::{Code, Problem};
use seal::Keys;
use spin_sdk::sqlite;
use storage::{Bucket, Description, Writer, key};

/// Makes a backup and answers its manifest.
///
/// # Errors
/// The database's and the store's. There is no backup then.
pub async fn store(bucket: &Bucket, keys: &Keys, run: &Run) -> Result<Manifest, Problem> {
    let plan = plan().await?;
    // The database's clock: of two hosts' clocks one may run ahead, and the newest backup is the one with the latest id.
    let created_at = run.started_at;
    let id = backup::id(created_at)?;
    let app = env!("CARGO_PKG_VERSION").to_owned();
    let header = Header { format: FORMAT, id: id.clone(), created_at, app, tables: plan.tables.clone() };
    let packer = Packer::begin(keys, header)?;
    let mut writer = bucket.writer(&key::backup_data(&id), Description::private("application/octet-stream"))?;
    let manifest = match write(plan, packer, &mut writer).await {
        Ok(manifest) => manifest,
        Err(problem) => {
            writer.abort().await;
            return Err(problem);
        }
    };
    writer.finish().await?;
    // Whoever has lost the lease leaves an object without a manifest, which goes in a day.
    run.reached(&id).await?;
    let text = serde_json::to_vec_pretty(&manifest).map_err(Problem::internal)?;
    bucket.put(&key::backup_manifest(&id), &Description::private("application/json"), text.into()).await?;
    Ok(manifest)
}

async fn plan() -> Result<Plan, Problem> {
    let column = |row: &Row| Column {
        table: row.text(0),
        table_sql: row.text(1),
        without_rowid: row.integer(2) != 0,
        name: row.text(3),
        declared_type: row.text(4),
        in_primary_key: row.integer(5),
    };
    let columns: Vec<Column> = run(PLAN, Vec::new()).await?.iter().map(column).collect();
    Ok(Plan::of(&columns))
}

async fn write(mut plan: Plan, mut packer: Packer, writer: &mut Writer<'_>) -> Result<Manifest, Problem> {
    let statement =
        plan.statement().map_err(|tables| Problem::internal(format!("{tables} tables are more than one statement can read")))?;
    let mut rows = database::stream(&statement, Vec::new()).await?;
    loop {
        let batch = rows.next().await?;
        if batch.is_empty() {
            break;
        }
        for row in batch {
            let (table, values) = read(row, &plan)?;
            plan.saw(table, &values).map_err(moved_on)?;
            packer.row(table, &values)?;
        }
        let ready = packer.take();
        if !ready.is_empty() {
            writer.push(&ready).await?;
        }
    }
    plan.saw_all().map_err(moved_on)?;
    let (rest, manifest) = packer.finish()?;
    writer.push(&rest).await?;
    Ok(manifest)
}

/// The number of a row's table and its values, without what it was filled up with.
fn read(row: Row, plan: &Plan) -> Result<(usize, Vec<Value>), Problem> {
    let mut values = row.values().into_iter();
    let table = match values.next() {
        Some(sqlite::Value::Integer(number)) => usize::try_from(number).ok().and_then(|number| Some((number, plan.tables.get(number)?))),
        _ => None,
    };
    let (number, table) = table.ok_or_else(|| Problem::internal("a row that names no table"))?;
    let value = |value| match value {
        sqlite::Value::Null => Value::Null,
        sqlite::Value::Integer(number) => Value::Integer(number),
        sqlite::Value::Real(number) => Value::Real(number),
        sqlite::Value::Text(text) => Value::Text(text),
        sqlite::Value::Blob(bytes) => Value::Blob(bytes),
    };
    Ok((number, values.take(table.columns.len()).map(value).collect()))
}

fn moved_on(table: String) -> Problem {
    let told = "The schema has changed while the backup began. The next one will have it.";
    Problem::new(Code::Conflict, told).because(format!("table {table} is not what it was when the statement was written"))
}
