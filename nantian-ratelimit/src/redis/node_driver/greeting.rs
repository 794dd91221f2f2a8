//! What a driver asks a server before decisions do.

use std::iter;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisError, Value, from_redis_value_ref};
use tokio::time::Instant;

use super::{NodeDriver, SECRET_KEY};
use crate::cost::Cost;
use crate::limit::Limit;
use crate::redis::ask::{bytes, carry_out, unexpected_answer};
use crate::redis::layout::slot_of;
use crate::redis::node::Link;
use crate::redis::script::{GREET, Order};
use crate::redis::shared_key::name_of;

/// Seconds after which a replica that has not greeted is gone.
const REPLICA_GONE: u32 = 10;

/// Names among which a node of a cluster finds one of a key that it has.
const MOST_NAMES: u128 = 1 << 16;

/// Keys that are looked for: their names end in another digit each, which puts them into all quarters of the
/// slots of a cluster.
const LOOKS: usize = 16;

const REPLICAS_KEY: &str = "nrl:{store}:replicas";

/// What a greeting found.
pub(super) struct Greeted {
    pub(super) took: Duration,
    pub(super) is_linked: bool,
}

impl NodeDriver {
    /// Agrees with the other replicas on the secret, counts them, and has the server decide as it does for
    /// requests: one that permits greetings alone is none to ask. Neither is one that took longer than
    /// decisions wait, as is said by how long it took.
    pub(super) async fn greet(
        &self,
        connection: &MultiplexedConnection,
        looks: bool,
    ) -> Result<Greeted, RedisError> {
        let (store, node) = (&self.store, &self.node);
        let is_home = self.is_home();
        let time = if is_home { Some(self.time(connection).await?) } else { None };
        let begun = Instant::now();
        let mut commands = Pipeline::new();
        if let Some(time) = time {
            let greeting = commands.cmd("EVAL").arg(GREET).arg(2).arg(SECRET_KEY).arg(REPLICAS_KEY);
            // A server that has forgotten the secret is told the one that all replicas still know.
            greeting.arg(&store.agreed.load().bytes).arg(&store.name.to_le_bytes()[..]);
            greeting.arg(REPLICA_GONE).arg(time);
        }
        self.rehearse(&mut commands);
        commands.cmd("INFO").arg("memory");
        let mut answers = self.answers(connection, &commands, commands.len()).await?.into_iter();
        let took = begun.elapsed();
        let mut next = || answers.next().ok_or_else(unexpected_answer);
        let greeted = if is_home { self.unless_elsewhere(next()?.extract_error())? } else { None };
        for rehearsed in [next()?, next()?] {
            self.unless_elsewhere(bytes(Ok(rehearsed)))?;
        }
        self.note_memory(next()?);
        if let Some(greeted) = greeted {
            store.learn(greeted)?;
        }
        if took > store.command_timeout {
            return Ok(Greeted { took, is_linked: false });
        }
        if looks {
            self.look(connection).await?;
        }
        let is_agreed = store.agreed.load().is_agreed;
        if is_agreed && node.link.load().is_none() {
            let scripts = self.load_scripts(connection).await?;
            node.link.store(Some(Arc::new(Link { connection: connection.clone(), scripts })));
        }
        Ok(Greeted { took, is_linked: is_agreed })
    }

    /// The server's time, in seconds.
    async fn time(&self, connection: &MultiplexedConnection) -> Result<u64, RedisError> {
        let mut commands = Pipeline::new();
        commands.cmd("TIME");
        let mut answers = self.answers(connection, &commands, 1).await?.into_iter();
        let answer = answers.next().ok_or_else(unexpected_answer)?;
        let Value::Array(time) = answer.extract_error()? else { return Err(unexpected_answer()) };
        time.first().map_or_else(|| Err(unexpected_answer()), |seconds| Ok(from_redis_value_ref(seconds)?))
    }

    /// What a node of a cluster answers, if it has the key: one that a key has left is well.
    fn unless_elsewhere<T>(&self, answer: Result<T, RedisError>) -> Result<Option<T>, RedisError> {
        match answer {
            Err(error) if !self.is_alone && is_elsewhere(&error) => {
                self.store.moved.notify_one();
                Ok(None)
            }
            answer => answer.map(Some),
        }
    }

    /// Adds two decisions on a key of this replica's own that the node has: one makes the levels, the next
    /// one writes them in place.
    fn rehearse(&self, commands: &mut Pipeline) {
        let limit = Limit::tokens_per_minute(6000);
        let name = self.store.name;
        let mut names = (0..MOST_NAMES).map(|number| name_of(name.wrapping_add(number)));
        let key = names.find(|key| self.has(|| slot_of(key))).unwrap_or_else(|| name_of(name));
        let script = self.store.scripts.first().map(String::as_str).unwrap_or_default();
        // The second one needs fewer than the first has the levels kept for.
        for tokens in [2, 1] {
            let order = Order::new(iter::once(&limit), Cost { requests: 0, tokens }, Duration::MAX, |_| 0);
            commands.add_command(carry_out("EVAL", script, &key, &order));
        }
    }

    /// Looks whether the server has all keys, by some in every part of a cluster.
    async fn look(&self, connection: &MultiplexedConnection) -> Result<(), RedisError> {
        let mut commands = Pipeline::new();
        for levels in 0..LOOKS {
            commands.cmd("GET").arg(name_of(levels as u128));
        }
        let mut answers = self.answers(connection, &commands, LOOKS).await?.into_iter();
        answers.try_for_each(|answer| answer.extract_error().map(drop))
    }

    /// Notes whether the server keeps all keys, if it says so.
    fn note_memory(&self, memory: Value) {
        let memory = bytes(Ok(memory)).unwrap_or_default();
        let is_bounded = field(&memory, "maxmemory").is_some_and(|most| most != "0");
        let forgets = field(&memory, "maxmemory_policy").is_some_and(|policy| policy != "noeviction");
        self.node.may_evict.store(is_bounded && forgets, Ordering::Relaxed);
    }

    /// Tells the server the scripts; returns what it calls them.
    async fn load_scripts(&self, connection: &MultiplexedConnection) -> Result<Box<[String]>, RedisError> {
        let mut commands = Pipeline::new();
        for script in &self.store.scripts {
            commands.cmd("SCRIPT").arg("LOAD").arg(script);
        }
        let answers = self.answers(connection, &commands, self.store.scripts.len()).await?;
        let names = answers
            .into_iter()
            .map(|name| String::from_utf8(bytes(Ok(name))?).map_err(|_| unexpected_answer()));
        names.collect()
    }
}

/// Whether an error says that a node of a cluster does not have a key, or is giving it away.
fn is_elsewhere(error: &RedisError) -> bool {
    matches!(error.code(), Some("MOVED" | "ASK" | "TRYAGAIN"))
}

/// The value of a field of what a server says of itself.
fn field<'a>(text: &'a [u8], name: &str) -> Option<&'a str> {
    let mut lines = std::str::from_utf8(text).ok()?.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}
