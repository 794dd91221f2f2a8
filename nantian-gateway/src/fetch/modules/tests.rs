use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    time::Instant,
};

use super::*;

fn modules() -> Modules {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = TlsConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let tls = tls.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
    let (networks, tenancy) = (SourceNetworks::default(), Tenancy::Single);
    Modules::new(FetchConfig { networks, tenancy, tls: Arc::new(tls) })
}

fn key(namespace: impl Into<String>, url: String) -> ModuleKey {
    ModuleKey { namespace: namespace.into(), url, credentials: None, sha256: None }
}

/// Where the first connections get these answers, and all others a module.
async fn origin(first: Vec<&'static [u8]>) -> String {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", server.local_addr().unwrap());
    crate::runtime::spawn(async move {
        let mut first = first.into_iter();
        while let Ok((mut stream, _)) = server.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            let answer = first.next().unwrap_or(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n\0asm");
            let _ = stream.write_all(answer).await;
        }
    });
    url
}

/// Whether a module of a namespace comes though as many as `silent` are asked for of sources that say
/// nothing, and have been for this long.
async fn comes_beside(silent: Vec<String>, long: Duration, url: String) -> bool {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let says_nothing = server.local_addr().unwrap();
    let modules = modules();
    for (n, namespace) in silent.into_iter().enumerate() {
        modules.get(&key(namespace, format!("http://{says_nothing}/{n}")));
    }
    sleep(long).await;
    // What answers does so in the time of this machine.
    tokio::time::resume();
    let wanted = key("wanted", url);
    let comes = async {
        while !matches!(modules.get(&wanted), Fetched::Ready(_)) {
            modules.changed().await;
        }
    };
    timeout(Duration::from_secs(20), comes).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn sources_that_say_nothing_do_not_keep_out_what_is_new() {
    let silent = (0..=MAX_IN_FLIGHT).map(|n| format!("silent-{n}")).collect();
    assert!(comes_beside(silent, ATTEMPT + Duration::from_secs(1), origin(Vec::new()).await).await);
}

#[tokio::test(start_paused = true)]
async fn first_attempts_of_one_namespace_do_not_keep_out_another() {
    let silent = vec!["silent".to_owned(); 20];
    assert!(comes_beside(silent, Duration::from_secs(1), origin(Vec::new()).await).await);
}

#[tokio::test(start_paused = true)]
async fn further_attempts_of_one_namespace_do_not_keep_out_another() {
    let silent = vec!["silent".to_owned(); 12];
    let unavailable = b"HTTP/1.1 503 Not Now\r\ncontent-length: 0\r\n\r\n";
    let url = origin(vec![unavailable, unavailable]).await;
    assert!(comes_beside(silent, ATTEMPT * 5 / 2, url).await);
}

#[test]
fn bytes_that_are_not_the_ones_are_fetched_ever_more_seldom() {
    let other = FetchError::NoModule;
    let silent = FetchError::Timeout { limit: ATTEMPT };
    let waits = |error| (0..16).fold(FIRST_WAIT, |wait, _| next_wait(wait, error)).as_secs();
    assert_eq!((waits(&other), waits(&silent)), (900, 60));
    assert_eq!(next_wait(LONGEST_WAIT_FOR_OTHER_BYTES, &silent), LONGEST_WAIT);
}

/// What becomes of the first attempt at a server that answers with these bytes, then says nothing.
async fn first_attempt(answer: Vec<u8>) -> Fetched {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", server.local_addr().unwrap());
    let (modules, key) = (modules(), key("demo", url));
    assert_eq!(modules.get(&key), Fetched::Pending);
    let serving = async {
        let (mut stream, _) = server.accept().await.unwrap();
        let _ = stream.read(&mut [0; 1024]).await;
        // Who has seen enough closes.
        let _ = stream.write_all(&answer).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = modules.changed() => modules.get(&key),
        () = serving => unreachable!("it serves for ever"),
    }
}

#[tokio::test(start_paused = true)]
async fn server_that_says_nothing_is_given_up_soon_and_one_that_stops_after_half_a_minute() {
    let begun = Instant::now();
    let fetched = first_attempt(Vec::new()).await;
    assert_eq!(fetched, Fetched::Failed("127.0.0.1 has said nothing for 5s".to_owned()));
    assert_eq!(begun.elapsed().as_secs(), 5);
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n\0asm".to_vec();
    let begun = Instant::now();
    assert_eq!(first_attempt(head).await, Fetched::Failed("not there after 30s".to_owned()));
    assert_eq!(begun.elapsed().as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn who_was_silent_once_is_waited_for_longer() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (modules, key) = (modules(), key("demo", format!("http://{}/", server.local_addr().unwrap())));
    modules.get(&key);
    let mut waits = Vec::new();
    while waits.len() < 2 {
        let (mut stream, _) = server.accept().await.unwrap();
        let begun = Instant::now();
        // Until it is given up.
        while stream.read(&mut [0; 1024]).await.is_ok_and(|count| count > 0) {}
        waits.push(begun.elapsed().as_secs());
    }
    assert_eq!(waits, [5, 30]);
}

#[tokio::test(start_paused = true)]
async fn silent_sources_of_a_namespace_keep_its_others_waiting_for_seconds_only() {
    // In four places one after the other.
    let silent = vec!["wanted".to_owned(); 12];
    let long = FIRST_SILENCE * 3 + Duration::from_secs(1);
    assert!(comes_beside(silent, long, origin(Vec::new()).await).await);
}

#[tokio::test]
async fn module_without_end_is_given_up_at_the_limit() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n".to_vec();
    let fetched = first_attempt([head, vec![0; crate::fetch::MAX_BYTES + 1]].concat()).await;
    let told = "what came has more than 33554432 bytes, which is what a module may have";
    assert_eq!(fetched, Fetched::Failed(told.to_owned()));
}

#[tokio::test]
async fn module_at_a_url_may_be_compressed_and_is_pinned_by_its_own_digest() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, b"\0asm").unwrap();
    let gzip = gzip.finish().unwrap();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", gzip.len());
    let answer: &'static [u8] = [head.as_bytes(), &gzip].concat().leak();
    for (sha256, comes) in [(Digest::of(b"\0asm"), true), (Digest::of(&gzip), false)] {
        let (url, modules) = (origin(vec![answer]).await, modules());
        let key = ModuleKey { sha256: Some(sha256.to_string()), ..key("demo", url) };
        modules.get(&key);
        modules.changed().await;
        match modules.get(&key) {
            Fetched::Ready(bytes) if comes => assert_eq!(bytes, &b"\0asm"[..]),
            Fetched::Failed(why) if !comes => assert!(why.contains("spec.wasm.sha256"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn what_is_no_module_is_asked_for_again() {
    let error_page = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>".to_vec();
    let Fetched::Failed(why) = first_attempt(error_page).await else { panic!("it is kept") };
    assert!(why.contains("no WebAssembly module"), "{why}");
}

#[tokio::test]
async fn bytes_on_their_way_are_bounded_until_nobody_has_them() {
    let (origin, modules) = (origin(Vec::new()).await, modules());
    let keys: Vec<_> =
        (0..=MAX_IN_FLIGHT).map(|n| key(format!("demo-{n}"), format!("{origin}/{n}"))).collect();
    let ready = || keys.iter().filter(|key| matches!(modules.get(key), Fetched::Ready(_))).count();
    while ready() < MAX_IN_FLIGHT {
        modules.changed().await;
    }
    let held = keys.iter().map(|key| modules.get(key)).collect::<Vec<_>>();
    let last = keys.iter().position(|key| modules.get(key) == Fetched::Pending).unwrap();
    modules.retain(&keys[last..=last]);
    assert_eq!(modules.inner.room.available_permits(), 0, "the bytes are still somebody's");
    drop(held);
    while modules.get(&keys[last]) == Fetched::Pending {
        modules.changed().await;
    }
    assert!(matches!(modules.get(&keys[last]), Fetched::Ready(_)));
}
