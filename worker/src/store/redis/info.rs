//! What a server tells of itself with `INFO`.

use std::collections::HashMap;

use redis::aio::MultiplexedConnection;
use redis::{RedisError, cmd};

/// Lines of `name:value`.
#[derive(Debug, Default)]
pub(super) struct Info(HashMap<String, String>);

impl Info {
    /// Asks for one section, or for all that is told without being asked for it.
    pub(super) async fn ask(
        connection: &mut MultiplexedConnection,
        section: Option<&str>,
    ) -> Result<Self, RedisError> {
        let mut question = cmd("INFO");
        question.arg(section.as_slice());
        Ok(Self::read(&question.query_async::<String>(connection).await?))
    }

    pub(super) fn read(text: &str) -> Self {
        let pairs = text.lines().filter_map(|line| line.trim_end().split_once(':'));
        Self(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// The value of that name; empty: it is not told.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }
}

/// Whether the server understood and will not do it: the user may not, or there is no such command.
pub(super) fn is_refusal(error: &RedisError) -> bool {
    matches!(error.code(), Some("NOPERM" | "ERR"))
}
