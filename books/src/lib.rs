//! The rules of money in the plainest words, and random walks that hold the database to them.
//!
//! [`Model`] keeps lots, tasks, orders and plans in ordinary Rust, with none of the schema's machinery. [`walk`] does random things to a
//! database and to the model, and compares them after every step; the invariants of the crate `audit` are asked on the way. Whatever speaks
//! SQL can be walked: see [`Database`].

mod crowd;
mod model;
mod server;
mod sqlite;
mod walk;

pub use crowd::fill;
pub use model::{Model, Order};
pub use sqlite::Sqlite;
pub use walk::{Failure, Walk, walk};

/// A value of a statement or of its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Null,
    Integer(i64),
    Text(String),
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Self::Text(text.clone())
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl Value {
    /// The number, or 0.
    #[must_use]
    pub fn integer(&self) -> i64 {
        if let Self::Integer(number) = self { *number } else { 0 }
    }

    /// The text, or an empty one.
    #[must_use]
    pub fn text(&self) -> &str {
        if let Self::Text(text) = self { text } else { "" }
    }
}

/// What the database says no with.
pub type Refusal = String;

/// Something with the product's schema that runs one statement at a time.
pub trait Database {
    /// Runs a statement to its end.
    ///
    /// # Errors
    /// What the database said: the token of a trigger or the text of a constraint is in it.
    fn run(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Vec<Value>>, Refusal>;
}
