//! Which rows there are, and the one statement that sees them all.
//!
//! Several statements are no transaction on Spin: between two of them the database moves on, and a backup of both would be of a database that never
//! was. One SELECT sees one state, on SQLite and on libSQL. So a backup is one SELECT: all tables under each other, each row
//! with the number of its table before it. Values stay values of SQLite on the whole way (as JSON made by SQL, a blob or a real number would
//! not come back as it was), so shorter rows are filled up with NULLs. It is written anew each time from the schema there is: a table or a
//! column that a migration adds is backed up without a word here.

use std::{collections::BTreeMap, fmt::Write};

use crate::{Table, Value};

/// Answers name, SQL, whether it has no rowid, and of each column its name, its declared type and its place in the primary key. Tables that SQLite
/// and libSQL keep for themselves are theirs.
pub const PLAN: &str = r"
    SELECT l.name, s.sql, l.wr, c.name, c.type, c.pk
    FROM pragma_table_list AS l
    JOIN sqlite_schema AS s ON s.type = 'table' AND s.name = l.name
    JOIN pragma_table_info(l.name) AS c
    WHERE l.schema = 'main' AND l.type = 'table' AND l.name NOT LIKE 'sqlite\_%' ESCAPE '\' AND l.name NOT LIKE 'libsql\_%' ESCAPE '\'
    ORDER BY l.name, c.cid";

/// The schema itself is the first table of a backup.
const SCHEMA: &str = "sqlite_schema";
const SCHEMA_COLUMNS: [&str; 4] = ["type", "name", "tbl_name", "sql"];

/// The most SELECTs that SQLite takes in one statement.
const MOST: usize = 500;

/// One column, as [`PLAN`] answers it.
#[derive(Clone, Debug)]
pub struct Column {
    pub table: String,
    pub table_sql: String,
    pub without_rowid: bool,
    pub name: String,
    pub declared_type: String,
    /// From 1; 0: it is no part of the primary key.
    pub in_primary_key: i64,
}

/// What will be read.
#[derive(Clone, Debug)]
pub struct Plan {
    /// As the header of the backup has them; the schema is the first.
    pub tables: Vec<Table>,
    /// SQL of each table, to be found again by the statement itself.
    expected: BTreeMap<String, String>,
}

impl Plan {
    /// The plan for these columns.
    #[must_use]
    pub fn of(columns: &[Column]) -> Self {
        let mut tables = vec![Table { name: SCHEMA.to_owned(), columns: SCHEMA_COLUMNS.map(str::to_owned).to_vec() }];
        let mut expected = BTreeMap::new();
        for of_table in columns.chunk_by(|one, other| one.table == other.table) {
            let first = &of_table[0];
            let mut names: Vec<String> = of_table.iter().map(|column| column.name.clone()).collect();
            // The app sorts by it and hands it out in cursors, so it is to be the same again.
            if !first.without_rowid && !has_named_rowid(of_table) {
                names.insert(0, "rowid".to_owned());
            }
            expected.insert(first.table.clone(), first.table_sql.clone());
            tables.push(Table { name: first.table.clone(), columns: names });
        }
        Self { tables, expected }
    }

    /// The statement. Its rows have the number of their table first; what goes beyond a table's columns is filling.
    ///
    /// # Errors
    /// How many tables there are, when that is more than a statement takes.
    pub fn statement(&self) -> Result<String, usize> {
        if self.tables.len() > MOST {
            return Err(self.tables.len());
        }
        let width = self.tables.iter().map(|table| table.columns.len()).max().unwrap_or_default();
        let mut sql = String::new();
        for (number, table) in self.tables.iter().enumerate() {
            let _ = write!(sql, "{}SELECT {number}", if number == 0 { "" } else { " UNION ALL " });
            for column in &table.columns {
                let _ = write!(sql, ", {}", quoted(column));
            }
            for _ in table.columns.len()..width {
                sql.push_str(", NULL");
            }
            let _ = write!(sql, " FROM {}", quoted(&table.name));
            if number == 0 {
                sql.push_str(
                    r" WHERE tbl_name NOT LIKE 'sqlite\_%' ESCAPE '\' AND tbl_name NOT LIKE 'libsql\_%' ESCAPE '\' AND sql IS NOT NULL",
                );
            }
        }
        Ok(sql)
    }

    /// Compares a row of the schema with the plan: what the statement sees has to be what it was written for.
    ///
    /// # Errors
    /// The name of a table that is new or has changed since.
    pub fn saw(&mut self, table: usize, values: &[Value]) -> Result<(), String> {
        match (table, values) {
            (0, [Value::Text(kind), Value::Text(name), _, Value::Text(sql)]) if kind == "table" => match self.expected.remove(name) {
                Some(expected) if expected == *sql => Ok(()),
                _ => Err(name.clone()),
            },
            _ => Ok(()),
        }
    }

    /// Ends the comparison.
    ///
    /// # Errors
    /// The name of a table that the statement has not seen.
    pub fn saw_all(&self) -> Result<(), String> {
        self.expected.keys().next().map_or(Ok(()), |name| Err(name.clone()))
    }
}

/// Whether a column of the table is the rowid under another name: the whole primary key, and declared as exactly this.
fn has_named_rowid(columns: &[Column]) -> bool {
    let key: Vec<_> = columns.iter().filter(|column| column.in_primary_key > 0).collect();
    matches!(key.as_slice(), [only] if only.declared_type.eq_ignore_ascii_case("INTEGER"))
}

/// A name, for SQL.
#[must_use]
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use rusqlite::{Connection, types::ValueRef};

    use super::*;

    fn plan(database: &Connection) -> Plan {
        let mut statement = database.prepare(PLAN).expect("a statement");
        let read = |row: &rusqlite::Row<'_>| {
            Ok(Column {
                table: row.get(0)?,
                table_sql: row.get(1)?,
                without_rowid: row.get(2)?,
                name: row.get(3)?,
                declared_type: row.get(4)?,
                in_primary_key: row.get(5)?,
            })
        };
        let columns: Vec<Column> = statement.query_map([], read).expect("rows").map(|row| row.expect("a row")).collect();
        Plan::of(&columns)
    }

    fn rows(database: &Connection, plan: &Plan) -> Vec<(usize, Vec<Value>)> {
        let mut statement = database.prepare(&plan.statement().expect("few tables")).expect("a statement");
        let mut rows = statement.query([]).expect("rows");
        let mut found = Vec::new();
        while let Some(row) = rows.next().expect("a row") {
            let table: usize = row.get(0).expect("a number");
            let value = |at| match row.get_ref(at + 1).expect("a value") {
                ValueRef::Null => Value::Null,
                ValueRef::Integer(number) => Value::Integer(number),
                ValueRef::Real(number) => Value::Real(number),
                ValueRef::Text(text) => Value::Text(String::from_utf8(text.to_vec()).expect("UTF-8")),
                ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
            };
            found.push((table, (0..plan.tables[table].columns.len()).map(value).collect()));
        }
        found
    }

    #[test]
    fn one_statement_answers_every_row_as_it_is() {
        let database = Connection::open_in_memory().expect("a database");
        let schema = r#"
            CREATE TABLE loose (a, b TEXT, c REAL, "od""d name" NUMERIC);
            CREATE TABLE strict (n INTEGER NOT NULL PRIMARY KEY, t TEXT, r REAL, b BLOB, x ANY) STRICT;
            CREATE TABLE keyed (k TEXT NOT NULL PRIMARY KEY, v INT) STRICT, WITHOUT ROWID;
            CREATE TABLE almost (id INT PRIMARY KEY, twice INTEGER GENERATED ALWAYS AS (id * 2));
            CREATE INDEX strict_t ON strict (t);
            CREATE VIEW seen AS SELECT n FROM strict;
            CREATE TRIGGER kept BEFORE DELETE ON loose BEGIN SELECT RAISE(ABORT, 'kept'); END;
            INSERT INTO loose (rowid, a, b, c, "od""d name") VALUES (7, '1', 1, 1, '1'), (9, x'00ff', NULL, 9e999, 1.5);
            INSERT INTO strict VALUES (9223372036854775807, 'é' || char(0) || '"', 5e-324, x'', '1'), (-9223372036854775808, '', -0.0, NULL, 1);
            INSERT INTO keyed VALUES ('k', 9007199254740993);
            INSERT INTO almost (id) VALUES (4);"#;
        database.execute_batch(schema).expect("a schema");
        let mut plan = plan(&database);
        let columns = |name: &str| plan.tables.iter().find(|table| table.name == name).expect(name).columns.clone();
        assert_eq!(columns("loose"), ["rowid", "a", "b", "c", "od\"d name"]);
        assert_eq!(columns("strict"), ["n", "t", "r", "b", "x"]);
        assert_eq!(columns("keyed"), ["k", "v"]);
        assert_eq!(columns("almost"), ["rowid", "id"], "INT is not INTEGER, and what is computed is computed again");
        let rows = rows(&database, &plan);
        let of = |name: &str| {
            let number = plan.tables.iter().position(|table| table.name == name).expect(name);
            rows.iter().filter(|(table, _)| *table == number).map(|(_, values)| values.clone()).collect::<Vec<_>>()
        };
        let text = |text: &str| Value::Text(text.to_owned());
        assert_eq!(of("sqlite_schema").len(), 7);
        assert_eq!(
            of("loose"),
            [
                vec![Value::Integer(7), text("1"), text("1"), Value::Real(1.0), Value::Integer(1)],
                vec![Value::Integer(9), Value::Blob(vec![0, 255]), Value::Null, Value::Real(f64::INFINITY), Value::Real(1.5)],
            ]
        );
        let strict = of("strict");
        assert_eq!(strict[0], [Value::Integer(i64::MIN), text(""), Value::Real(-0.0), Value::Null, Value::Integer(1)]);
        assert_eq!(strict[1], [Value::Integer(i64::MAX), text("é\0\""), Value::Real(5e-324), Value::Blob(vec![]), text("1")]);
        assert_eq!(of("keyed"), [[text("k"), Value::Integer(9_007_199_254_740_993)]]);

        for (table, values) in &rows {
            plan.saw(*table, values).expect("as planned");
        }
        plan.saw_all().expect("all of it");
    }

    #[test]
    fn a_schema_that_moves_on_between_plan_and_statement_is_noticed() {
        let database = Connection::open_in_memory().expect("a database");
        database.execute_batch("CREATE TABLE a (x); CREATE TABLE b (x);").expect("a schema");
        for (change, named) in [("CREATE TABLE c (x)", "c"), ("ALTER TABLE a ADD COLUMN y", "a"), ("ALTER TABLE b RENAME TO d", "d")] {
            let mut plan = plan(&database);
            database.execute_batch(change).expect(change);
            // The statement itself fails when a table has gone, so only the schema is read.
            let schema = Plan { tables: plan.tables[..1].to_vec(), expected: BTreeMap::new() };
            let noticed = rows(&database, &schema).iter().find_map(|(table, values)| plan.saw(*table, values).err());
            assert_eq!(noticed.as_deref(), Some(named), "{change}");
        }
        let mut plan = plan(&database);
        plan.expected.insert("gone".into(), String::new());
        assert!(plan.saw_all().is_err());
    }
}
