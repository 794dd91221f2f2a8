use redis::{AsyncConnectionConfig, RedisConnectionInfo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;
use crate::redis::items::Items;
use crate::redis::node::Link;
use crate::redis::shared_key::SharedKey;
use crate::redis::{RedisStore, SharedLimiter};
use crate::{Cost, Limit, Policy};

/// How long the driver waits for an answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Has lost all scripts, takes so long for what it reads at once, and after so many commands that call a
/// script falls silent. Returns how many it has carried out.
async fn forget(mut stream: DuplexStream, delay: Duration, calls: usize) -> usize {
    let (mut heard, mut buffer) = (String::new(), vec![0; 1 << 16]);
    let (mut answered, mut carried_out) = (0, 0);
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        sleep(delay).await;
        heard += &String::from_utf8_lossy(&buffer[..count]);
        let whole = heard.rsplit_once("\r\n").map_or("", |(whole, _)| whole);
        let greetings = whole.matches("SETINFO").count();
        let answers = whole.split("\r\n").filter_map(|word| match word {
            "SETINFO" => Some("+OK\r\n"),
            "EVALSHA" => Some("-NOSCRIPT No matching script\r\n"),
            "EVAL" => Some("$2\r\nok\r\n"),
            _ => None,
        });
        let answers: Vec<_> = answers.take(greetings + calls).collect();
        carried_out = answers.iter().filter(|answer| answer.starts_with('$')).count();
        stream.write_all(answers[answered..].concat().as_bytes()).await.unwrap();
        answered = answers.len();
    }
    carried_out
}

fn limit() -> Limit {
    Limit::tokens_per_hour(100)
}

/// Has a driver tell the server that so many callers are to take `items` more each.
async fn correct(client: DuplexStream, callers: u16, items: i64) -> (SharedLimiter, Vec<SharedKey>) {
    let settings = RedisConnectionInfo::default();
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let (connection, io) = MultiplexedConnection::new_with_config(&settings, client, config).await.unwrap();
    let url = "redis://store.test/0".parse().unwrap();
    let (store, _driver) = RedisStore::builder(url).connect_timeout(PATIENCE).build();
    let limiter = store.limiter("quota", Policy::builder().limit(limit()).build().unwrap());
    let (group, now) = (limiter.group(), limiter.group().now());
    let keys: Vec<_> = (0..callers).map(|caller| limiter.key(&caller.to_le_bytes())).collect();
    let corrections = keys.iter().map(|key| {
        drop(group.note(&group.current(), now, key.own(), Cost::tokens(10)));
        Correction::new(Arc::clone(group), key.clone(), Items::new([(&limit(), items)].into_iter()))
    });
    let corrections = corrections.collect();

    let (node, tasks) = Node::new(store.0.url.endpoint.clone());
    node.link.store(Some(Arc::new(Link { connection, scripts: Box::new(["script".to_owned()]) })));
    let driver = NodeDriver::alone(Arc::clone(&store.0), node, tasks);
    tokio::select! {
        () = io => panic!("the connection broke off"),
        () = driver.send(corrections) => {}
    }
    (limiter, keys)
}

#[tokio::test(start_paused = true)]
async fn what_was_settled_waits_once_for_a_server_that_falls_silent() {
    let (client, server) = duplex(1 << 16);
    tokio::spawn(forget(server, Duration::ZERO, 20));
    let begun = Instant::now();
    let (limiter, keys) = correct(client, 20, 5).await;
    assert!((PATIENCE..PATIENCE * 2).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    let group = limiter.group();
    for key in &keys {
        let report = group.report(group.now(), key).expect("it is told later");
        assert_eq!(report.items().of(&limit()), 5);
        report.delivered();
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_given_back_arrives_at_a_slow_server_that_has_lost_the_script() {
    let (client, server) = duplex(1 << 16);
    let server = tokio::spawn(forget(server, Duration::from_millis(10), usize::MAX / 2));
    let callers = u16::try_from(BATCH).unwrap();
    correct(client, callers, -5).await;
    assert_eq!(server.await.unwrap(), BATCH);
}
