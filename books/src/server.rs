//! A database on a libSQL server, every statement a request of its own.

use crate::{Database, Refusal, Value};

impl Database for hrana::Client {
    fn run(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Vec<Value>>, Refusal> {
        let parameters: Vec<_> = parameters
            .iter()
            .map(|value| match value {
                Value::Null => hrana::Value::Null,
                Value::Integer(number) => hrana::Value::Integer(*number),
                Value::Text(text) => hrana::Value::Text(text.clone()),
            })
            .collect();
        let rows = hrana::Client::run(self, sql, &parameters).map_err(|error| error.to_string())?;
        let read = |value| match value {
            hrana::Value::Integer(number) => Value::Integer(number),
            hrana::Value::Text(text) => Value::Text(text),
            _ => Value::Null,
        };
        Ok(rows.into_iter().map(|row| row.into_iter().map(read).collect()).collect())
    }
}
