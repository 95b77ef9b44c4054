//! What is read from the history.

use api_types::{TaskId, TaskSummary};
use rusqlite::types::{Type, Value};
use rusqlite::{Connection, OptionalExtension as _, Row, params_from_iter};

use crate::{StoredTask, TaskQuery};

/// One task, by its id.
pub(crate) fn task(connection: &Connection, id: TaskId) -> rusqlite::Result<Option<StoredTask>> {
    let mut statement = connection.prepare_cached("SELECT summary, record FROM history WHERE task_id = ?1")?;
    statement.query_row([id.0], |row| Ok(StoredTask { summary: summary(row)?, record: row.get(1)? })).optional()
}

/// One page, newest first.
pub(crate) fn tasks(connection: &Connection, query: &TaskQuery) -> rusqlite::Result<Vec<TaskSummary>> {
    let Conditions { sql, mut values } = Conditions::of(query);
    let order = "ORDER BY admitted_at_ms DESC, task_id DESC LIMIT ?";
    values.push(Value::Integer(i64::try_from(query.limit).unwrap_or(i64::MAX)));
    let mut statement = connection.prepare_cached(&format!("SELECT summary FROM history WHERE {sql} {order}"))?;
    statement.query_map(params_from_iter(values), summary)?.collect()
}

fn summary(row: &Row<'_>) -> rusqlite::Result<TaskSummary> {
    serde_json::from_str(row.get_ref(0)?.as_str()?)
        .map_err(|_| rusqlite::Error::FromSqlConversionFailure(0, Type::Text, UnreadableSummary.into()))
}

/// The parser's own words could repeat what was stored.
#[derive(Debug, thiserror::Error)]
#[error("the summary of a task has not the form it was written in")]
struct UnreadableSummary;

/// A query's filters as SQL, with the values in the order of their question marks.
struct Conditions {
    sql: String,
    values: Vec<Value>,
}

impl Conditions {
    fn of(query: &TaskQuery) -> Self {
        let mut all = Self { sql: "TRUE".to_owned(), values: Vec::new() };
        if let Some((admitted_at_ms, id)) = query.before {
            all.add("(admitted_at_ms, task_id) < (?, ?)", [admitted_at_ms.into(), id.0.into()]);
        }
        if !query.states.is_empty() {
            let marks = vec!["?"; query.states.len()].join(", ");
            let words = query.states.iter().map(|state| state.as_str().to_owned().into());
            all.add(&format!("state IN ({marks})"), words);
        }
        all.add_some("priority = ?", query.priority.map(|priority| priority.as_str().to_owned()));
        all.add_some("pool_id = ?", query.pool_id.clone());
        all.add_some("session_id = ?", query.session_id.map(|id| id.0));
        all.add_some("model_ref = ?", query.model_ref.clone());
        all.add_some("admitted_at_ms >= ?", query.since_ms);
        all.add_some("admitted_at_ms < ?", query.until_ms);
        all
    }

    fn add(&mut self, condition: &str, values: impl IntoIterator<Item = Value>) {
        self.sql.push_str(" AND ");
        self.sql.push_str(condition);
        self.values.extend(values);
    }

    fn add_some(&mut self, condition: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.add(condition, [value.into()]);
        }
    }
}
