//! A local SQLite database, in memory.

use std::path::Path;

use rusqlite::{Connection, params_from_iter, types::ValueRef};

use crate::{Database, Refusal, Value};

/// An in-memory database with the product's schema.
pub struct Sqlite(Connection);

impl Sqlite {
    /// An empty one with the migrations of this folder applied.
    ///
    /// # Errors
    /// Those of the migrations.
    pub fn migrated(folder: &Path) -> Result<Self, Refusal> {
        let mut connection = Connection::open_in_memory().map_err(|error| error.to_string())?;
        migrations::apply_to(&mut connection, folder).map_err(|error| error.to_string())?;
        connection.pragma_update(None, "foreign_keys", true).map_err(|error| error.to_string())?;
        connection.set_prepared_statement_cache_capacity(128);
        Ok(Self(connection))
    }

    /// An existing file, to look at.
    ///
    /// # Errors
    /// When it is not there or no database.
    pub fn open(path: &Path) -> Result<Self, Refusal> {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        Ok(Self(Connection::open_with_flags(path, flags).map_err(|error| error.to_string())?))
    }
}

impl Database for Sqlite {
    fn run(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Vec<Value>>, Refusal> {
        let explain = |error: rusqlite::Error| match error {
            rusqlite::Error::SqliteFailure(_, Some(text)) => text,
            other => other.to_string(),
        };
        let mut statement = self.0.prepare_cached(sql).map_err(explain)?;
        let columns = statement.column_count();
        let values = parameters.iter().map(|value| match value {
            Value::Null => rusqlite::types::Value::Null,
            Value::Integer(number) => rusqlite::types::Value::Integer(*number),
            Value::Text(text) => rusqlite::types::Value::Text(text.clone()),
        });
        let mut rows = statement.query(params_from_iter(values)).map_err(explain)?;
        let mut answer = Vec::new();
        while let Some(row) = rows.next().map_err(explain)? {
            let read = |at| {
                Ok(match row.get_ref(at)? {
                    ValueRef::Integer(number) => Value::Integer(number),
                    ValueRef::Text(bytes) => Value::Text(String::from_utf8_lossy(bytes).into_owned()),
                    _ => Value::Null,
                })
            };
            answer.push((0..columns).map(read).collect::<Result<_, rusqlite::Error>>().map_err(explain)?);
        }
        Ok(answer)
    }
}
