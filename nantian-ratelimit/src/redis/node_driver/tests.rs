use redis::RedisConnectionInfo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;
use crate::redis::RedisStore;
use crate::redis::items::Items;
use crate::{Cost, Limit, Policy};

/// Has lost all scripts, and after so many commands that call one falls silent.
async fn forget_and_freeze(mut stream: DuplexStream, calls: usize) {
    let (mut heard, mut buffer, mut greetings, mut answered) = (String::new(), vec![0; 1 << 16], 0, 0);
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        heard += &String::from_utf8_lossy(&buffer[..count]);
        let known = (heard.matches("SETINFO").count(), heard.matches("EVALSHA").count().min(calls));
        let answer = "+OK\r\n".repeat(known.0 - greetings)
            + &"-NOSCRIPT No matching script\r\n".repeat(known.1 - answered);
        (greetings, answered) = known;
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_settled_waits_once_for_a_server_that_falls_silent() {
    const PATIENCE: Duration = Duration::from_secs(1);
    let (client, server) = duplex(1 << 16);
    tokio::spawn(forget_and_freeze(server, 20));
    let settings = RedisConnectionInfo::default();
    let (connection, io) = MultiplexedConnection::new(&settings, client).await.unwrap();
    let url = "redis://store.test/0".parse().unwrap();
    let (store, _driver) = RedisStore::builder(url).connect_timeout(PATIENCE).build();
    let limit = Limit::tokens_per_hour(100);
    let limiter = store.limiter("quota", Policy::builder().limit(limit.clone()).build().unwrap());
    let (group, now) = (limiter.group(), limiter.group().now());
    let keys: Vec<_> = (0..20_u8).map(|caller| limiter.key(&[caller])).collect();
    let corrections = keys.iter().map(|key| {
        drop(group.current().note(now, key.own(), Cost::tokens(10)));
        Correction::new(Arc::clone(group), key.clone(), Items::new([(&limit, 5)].into_iter()))
    });
    let corrections = corrections.collect();

    let (node, tasks) = Node::new(store.0.url.endpoint.clone());
    node.link.store(Some(Arc::new(Link { connection, scripts: Box::new(["script".to_owned()]) })));
    let driver = NodeDriver::alone(Arc::clone(&store.0), node, tasks);
    let begun = Instant::now();
    tokio::select! {
        () = io => panic!("the connection broke off"),
        () = driver.send(corrections) => {}
    }
    assert!((PATIENCE..PATIENCE * 2).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    for key in &keys {
        let report = group.report(group.now(), key).expect("it is told later");
        assert_eq!(report.items().of(&limit), 5);
        report.delivered();
    }
}
