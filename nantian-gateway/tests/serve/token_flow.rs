//! What a limit of tokens lets through when many clients offer several times as much, over real connections.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{task::JoinSet, time::Instant};

use crate::support::{
    Backend, Wire, World, after,
    limits::{ai_service, on_route, post},
    rule, to_ai,
};

const CLIENTS: usize = 50;
/// Tokens: ten responses a second, and a minute's worth in the bucket.
const PER_SECOND: u64 = 1000;
const PER_MINUTE: u64 = 60 * PER_SECOND;
const RUN: Duration = Duration::from_secs(12);

/// A provider that streams answers of random length, slowly.
#[derive(Clone, Default)]
struct Provider {
    random: Arc<AtomicU64>,
    is_slow: Arc<AtomicBool>,
    /// Tokens of the responses that have ended.
    used: Arc<Mutex<Vec<u64>>>,
}

impl Provider {
    /// Evenly from 0 to 1, from a fixed seed.
    fn unit(&self) -> f64 {
        let step = |state: u64| {
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407)
        };
        let state = self.random.fetch_update(Relaxed, Relaxed, |state| Some(step(state))).unwrap();
        (step(state) >> 40) as f64 / (1u64 << 24) as f64
    }

    /// Log-normal, mean 100.
    fn tokens(&self) -> u64 {
        let normal = (0..12).map(|_| self.unit()).sum::<f64>() - 6.0;
        #[expect(clippy::cast_possible_truncation, reason = "six deviations are far below u64::MAX")]
        let tokens = (4.42 + 0.6 * normal).exp() as u64;
        tokens
    }

    async fn answer(&self, wire: &mut Wire) {
        wire.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            .await;
        for _ in 0..5 {
            if self.is_slow.load(Relaxed) {
                after(Duration::from_secs_f64(0.02 + 0.04 * self.unit())).await;
            }
            let event =
                "data: {\"id\":\"x\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"word\"}}]}\n\n";
            wire.send(format!("{:x}\r\n{event}\r\n", event.len())).await;
        }
        let tokens = self.tokens().max(2);
        let end = format!(
            "data: {{\"id\":\"x\",\"choices\":[],\"usage\":{{\"prompt_tokens\":1,\"completion_tokens\":{},\
             \"total_tokens\":{tokens}}}}}\n\ndata: [DONE]\n\n",
            tokens - 1
        );
        self.used.lock().unwrap().push(tokens);
        wire.send(format!("{:x}\r\n{end}\r\n0\r\n\r\n", end.len())).await;
    }

    fn total(&self) -> u64 {
        self.used.lock().unwrap().iter().sum()
    }
}

/// Asks until `end`, and pauses after a refusal; returns how often it asked.
async fn client(mut wire: Wire, end: Instant, pause: Duration, until_refused: bool) -> u64 {
    let request = post("/v1/chat/completions", "", r#"{"model":"m","stream":true,"messages":[]}"#);
    let mut asked = 0;
    while Instant::now() < end {
        asked += 1;
        match wire.ask(&request).await.status() {
            200 => {}
            429 if until_refused => break,
            429 => after(pause).await,
            status => panic!("{status}"),
        }
    }
    asked
}

#[tokio::test]
async fn fifty_clients_that_offer_five_times_the_limit_use_no_more_than_it() {
    let provider = Provider::default();
    let serving = provider.clone();
    let backend = Backend::raw(move |mut wire| {
        let provider = serving.clone();
        async move {
            while wire.message().await.is_ok() {
                provider.answer(&mut wire).await;
            }
        }
    })
    .await;
    let gateway = World::new()
        .manifest("llm", &ai_service("llm", "m", &backend))
        .route("web", &[rule("/v1", &to_ai("llm"))])
        .manifest("limits", &on_route(&format!("tokensPerMinute: {PER_MINUTE}")))
        .start()
        .await;
    let crowd = async |end, pause, until_refused| {
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            clients.spawn(client(gateway.connect().await, end, pause, until_refused));
        }
        clients.join_all().await.into_iter().sum::<u64>()
    };

    // The bucket is full from the beginning; it is emptied as fast as can be.
    let begun = Instant::now();
    crowd(begun + Duration::from_secs(60), Duration::ZERO, true).await;
    let (emptied, spent) = (begun.elapsed(), provider.total());
    let refilled = |time: Duration| PER_SECOND as f64 * time.as_secs_f64();
    assert!(spent as f64 >= PER_MINUTE as f64 * 0.98, "{spent} tokens in {emptied:?}");

    provider.is_slow.store(true, Relaxed);
    let slow = Instant::now();
    let asked = crowd(slow + RUN, Duration::from_millis(300), false).await;
    let (took, used) = (slow.elapsed(), provider.total() - spent);
    let mean = provider.total() / provider.used.lock().unwrap().len() as u64;
    let largest = *provider.used.lock().unwrap().iter().max().unwrap();
    let share = used as f64 / refilled(took);
    println!(
        "bucket: {spent} in {emptied:?}; then {used} in {took:?}, {share:.4} of the limit; {asked} asked, {mean} on average"
    );
    let offered = (asked * mean) as f64 / refilled(took);
    assert!(offered >= 5.0, "they offer {offered} times the limit");
    // Of a run this short the last response may be paid for after its end.
    assert!(used as f64 <= 1.01 * refilled(took) + largest as f64, "{share} of the limit");
    assert!(share >= 0.9, "only {share} of the limit");
    let total = (spent + used) as f64;
    let allowed = PER_MINUTE as f64 + refilled(begun.elapsed());
    assert!(total <= 1.01 * allowed, "{total} tokens, where bucket and refill are {allowed}");
}
