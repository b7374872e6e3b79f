//! The lines of a backup: a [`Header`], then the rows (`[table, value, ...]`), then an [`End`].

use std::{collections::BTreeMap, fmt};

use fingerprint::hex;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, Visitor},
    ser::{SerializeMap, SerializeSeq},
};

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`crate::FORMAT`].
    pub format: u32,
    pub id: String,
    /// Unix seconds.
    pub created_at: i64,
    /// The version of the app.
    pub app: String,
    /// A row names its table by its place in this list.
    pub tables: Vec<Table>,
}

/// A table, and its columns in the order in which a row's values follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    pub name: String,
    pub columns: Vec<String>,
}

/// The last line: how many rows of each table there were.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    pub rows: BTreeMap<String, u64>,
}

/// A value exactly as SQLite holds it. In JSON: null, a whole number, a string, `{"real": "3ff8000000000000"}` (the bits, because decimal digits
/// do not always say the same number), `{"blob": "00ff"}`.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Integer(i64),
    Real(f64),
    Text(String),
    Blob(Vec<u8>),
}

/// A row on its way out.
pub(crate) struct Row<'a>(pub(crate) usize, pub(crate) &'a [Value]);

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(1 + self.1.len()))?;
        list.serialize_element(&self.0)?;
        for value in self.1 {
            list.serialize_element(value)?;
        }
        list.end()
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let tagged = |serializer: S, tag: &str, hex: &str| {
            let mut map = serializer.serialize_map(Some(1))?;
            map.serialize_entry(tag, hex)?;
            map.end()
        };
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Integer(number) => serializer.serialize_i64(*number),
            Self::Real(number) => tagged(serializer, "real", &format!("{:016x}", number.to_bits())),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Blob(bytes) => tagged(serializer, "blob", &hex(bytes)),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of SQLite")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Integer(number))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Value, E> {
        i64::try_from(number).map(Value::Integer).map_err(E::custom)
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let Some((tag, digits)) = map.next_entry::<String, String>()? else { return Err(de::Error::custom("an empty value")) };
        let bits = || u64::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 16).map(f64::from_bits);
        let value = match tag.as_str() {
            "real" => bits().map(Value::Real),
            "blob" => unhex(&digits).map(Value::Blob),
            _ => None,
        };
        value.ok_or_else(|| de::Error::custom("neither a real nor a blob"))
    }
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    if !digits.len().is_multiple_of(2) || !digits.is_ascii() {
        return None;
    }
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::Integer),
            // Every bit pattern but those that SQLite itself cannot hold: it makes NULL of NaN.
            any::<f64>().prop_filter("a number", |number| !number.is_nan()).prop_map(Value::Real),
            any::<String>().prop_map(Value::Text),
            prop::collection::vec(any::<u8>(), 0..40).prop_map(Value::Blob),
        ]
    }

    #[test]
    fn the_ends_of_each_type_come_back() {
        let values = [
            Value::Integer(i64::MIN),
            Value::Integer(i64::MAX),
            Value::Integer((1 << 53) + 1),
            Value::Real(-0.0),
            Value::Real(5e-324),
            Value::Real(f64::INFINITY),
            Value::Real(1.0),
            Value::Text("\0\u{2028}\u{fffe}\"\\\n発\u{10ffff}".into()),
            Value::Text(String::new()),
            Value::Blob(vec![]),
            Value::Null,
        ];
        for value in values {
            let line = serde_json::to_string(&value).expect("JSON");
            let back: Value = serde_json::from_str(&line).expect(&line);
            assert_eq!(format!("{back:?}"), format!("{value:?}"));
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for line in ["1.5", "{}", "[]", "true", r#"{"real":"1"}"#, r#"{"blob":"0"}"#, r#"{"blob":"0g"}"#, "9223372036854775808"] {
            assert!(serde_json::from_str::<Value>(line).is_err(), "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_row_is_one_line_and_comes_back(table in 0..500_usize, values in prop::collection::vec(value(), 0..8)) {
            let line = serde_json::to_string(&Row(table, &values)).expect("JSON");
            prop_assert!(!line.contains('\n'));
            let mut back: Vec<Value> = serde_json::from_str(&line).expect("a row");
            prop_assert_eq!(back.remove(0), Value::Integer(i64::try_from(table).expect("small")));
            prop_assert_eq!(back, values);
        }
    }
}
