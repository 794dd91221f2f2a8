//! Clients that stay with their endpoints.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use tempfile::TempDir;

use crate::support::{Backend, Message, Running, World, eventually, lb_policy, rule, to};

/// A client that keeps what it is given.
#[derive(Default)]
struct Client {
    cookies: BTreeMap<String, String>,
}

impl Client {
    async fn get(&mut self, gateway: &Running, path: &str) -> Message {
        let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let cookies = match &*cookies {
            [] => String::new(),
            some => format!("Cookie: {}\r\n", some.join("; ")),
        };
        let reply = gateway.ask(format!("GET {path} HTTP/1.1\r\nHost: h\r\n{cookies}\r\n")).await;
        for set in reply.all("set-cookie") {
            let (name, rest) = set.split_once('=').unwrap();
            self.cookies.insert(name.to_owned(), rest.split(';').next().unwrap().to_owned());
        }
        reply
    }

    /// Who answers.
    async fn who(&mut self, gateway: &Running, path: &str) -> String {
        let reply = self.get(gateway, path).await;
        assert_eq!(reply.status(), 200, "{reply:?}");
        reply.header("x-backend").unwrap().to_owned()
    }

    fn with(name: &str, value: impl Into<String>) -> Self {
        Self { cookies: [(name.to_owned(), value.into())].into() }
    }
}

/// Keys in a file of their own.
struct KeyFile {
    _directory: TempDir,
    path: PathBuf,
}

impl KeyFile {
    fn new(keys: &[u8]) -> Self {
        let directory = TempDir::new().unwrap();
        let file = Self { path: directory.path().join("keys"), _directory: directory };
        file.write(keys);
        file
    }

    fn write(&self, keys: &[u8]) {
        let lines = keys.iter().map(|&key| BASE64_STANDARD.encode([key; 32]) + "\n");
        fs::write(&self.path, lines.collect::<String>()).unwrap();
    }

    fn option(&self) -> [&str; 2] {
        ["--session-key-file", self.path.to_str().unwrap()]
    }
}

/// A rule that keeps sessions.
fn sticky(prefix: &str, spec: &str, rest: &str) -> String {
    rule(prefix, &format!("sessionPersistence: {{{spec}}}, {rest}"))
}

async fn three() -> [Backend; 3] {
    [Backend::echo("a").await, Backend::echo("b").await, Backend::echo("c").await]
}

fn world(backends: &[Backend; 3], spec: &str) -> World {
    World::new().service("a", &backends.each_ref()).route("sticky", &[sticky("/", spec, &to("a"))])
}

#[tokio::test]
async fn replicas_with_one_key_file_keep_the_same_sessions() {
    let backends = three().await;
    let keys = KeyFile::new(&[1]);
    let start = || world(&backends, "sessionName: stay").options(&keys.option()).start();
    let (one, other) = (start().await, start().await);
    for _ in 0..6 {
        let mut client = Client::default();
        let first = client.get(&one, "/").await;
        let cookie = first.header("set-cookie").unwrap();
        assert!(
            cookie.starts_with("stay=") && cookie.ends_with("; Path=/; HttpOnly; SameSite=Strict"),
            "{cookie}"
        );
        assert!(!cookie.contains("127.0.0.1") && !cookie.contains("demo"));
        for gateway in [&one, &other, &one, &other] {
            let next = client.get(gateway, "/").await;
            assert_eq!(next.header("x-backend"), first.header("x-backend"));
            assert_eq!(next.header("set-cookie"), None, "renewed only when it is due");
        }
    }
    let seen = backends.iter().flat_map(Backend::seen);
    assert!(
        seen.into_iter().all(|request| request.header("cookie").is_none()),
        "the token ends at the gateway"
    );
    let accepted = one.condition("HTTPRoute demo/sticky", "Accepted").await;
    assert!(!accepted["message"].as_str().unwrap().contains("random"), "{accepted}");
}

#[tokio::test]
async fn a_token_that_is_no_token_selects_afresh_and_never_fails() {
    let backends = three().await;
    let keys = KeyFile::new(&[1]);
    let rules =
        |second: &str| [sticky("/one", "sessionName: stay", &to("a")), sticky("/two", second, &to("a"))];
    let gateway = World::new()
        .service("a", &backends.each_ref())
        .route("sticky", &rules("sessionName: stay2"))
        .options(&keys.option())
        .start()
        .await;
    let mut client = Client::default();
    let home = client.who(&gateway, "/one").await;
    let token = client.cookies["stay"].clone();
    let stranger = world(&backends, "sessionName: stay").options(&KeyFile::new(&[2]).option()).start().await;
    let mut foreign = Client::default();
    foreign.get(&stranger, "/").await;
    let mut forged: Vec<String> = vec![
        String::new(),
        "127.0.0.1:80".to_owned(),
        "x".repeat(4000),
        token[1..].to_owned(),
        format!("{token}A"),
        foreign.cookies["stay"].clone(),
    ];
    for at in (0..token.len()).step_by(7) {
        let mut altered = token.clone().into_bytes();
        altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
        forged.push(String::from_utf8(altered).unwrap());
    }
    for value in forged {
        let mut client = Client::with("stay", value.clone());
        let reply = client.get(&gateway, "/one").await;
        assert_eq!(reply.status(), 200, "{value}");
        assert!(reply.header("set-cookie").is_some(), "{value}");
    }
    // The token of one rule under the name of the other.
    let reply = Client::with("stay2", token.clone()).get(&gateway, "/two").await;
    assert!(reply.header("set-cookie").is_some());
    let mut client = Client::with("stay", format!("forged; stay={token}"));
    for _ in 0..5 {
        assert_eq!(client.who(&gateway, "/one").await, home, "the valid one of two counts");
    }
}

#[tokio::test]
async fn keys_change_by_their_file_and_a_bad_file_changes_nothing() {
    let backends = three().await;
    let keys = KeyFile::new(&[1]);
    let gateway = world(&backends, "sessionName: stay").options(&keys.option()).start().await;
    let mut client = Client::default();
    let home = client.who(&gateway, "/").await;

    keys.write(&[2, 1]);
    eventually("the new key seals", async || {
        let mut newcomer = Client::default();
        newcomer.get(&gateway, "/").await;
        // The second byte tells the key.
        newcomer.cookies["stay"][..2] != client.cookies["stay"][..2]
    })
    .await;
    for _ in 0..5 {
        assert_eq!(client.who(&gateway, "/").await, home, "the old key still opens");
    }
    fs::write(&keys.path, "no key").unwrap();
    gateway.signal("HUP");
    let fault = gateway.log.more("--session-key-file", 0).await;
    assert!(fault.contains("line 1") && !fault.contains("no key\""), "{fault}");
    assert_eq!(client.who(&gateway, "/").await, home);
    keys.write(&[2]);
    eventually("the old key is gone", async || {
        client.get(&gateway, "/").await.header("set-cookie").is_some()
    })
    .await;
}

#[tokio::test]
async fn without_a_key_file_the_status_and_the_log_say_so() {
    let backends = three().await;
    let gateway = world(&backends, "sessionName: stay")
        .service("b", &backends.each_ref())
        .route("other", &[rule("/b", &to("b"))])
        .manifest("policy", &lb_policy("b", "sessionPersistence: {}"))
        .start()
        .await;
    for object in ["HTTPRoute demo/sticky", "BackendLBPolicy demo/b"] {
        let accepted = gateway.condition(object, "Accepted").await;
        assert_eq!(accepted["status"], "True");
        assert!(accepted["message"].as_str().unwrap().contains("--session-key-file"), "{accepted}");
        assert_eq!(gateway.log.count(&format!("{object}: sessions end with this process")), 1);
    }
    let mut client = Client::default();
    let home = client.who(&gateway, "/").await;
    for _ in 0..5 {
        assert_eq!(client.who(&gateway, "/").await, home);
    }
}

#[tokio::test]
async fn a_bad_key_file_is_told_and_nothing_is_served() {
    let keys = KeyFile::new(&[]);
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_nantian-gateway"))
        .args(["run", "--manifests", ".", "--admin-addr", "none"])
        .args(keys.option())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("--session-key-file") && said.contains("0 keys"), "{said}");
}

#[tokio::test]
async fn two_backends_with_weights_keep_their_sessions_down_to_weight_0() {
    let backends = three().await;
    let split = |first: u32, second: u32| {
        format!(
            "backendRefs: [{{name: a, port: 80, weight: {first}}}, {{name: b, port: 80, weight: {second}}}]"
        )
    };
    let gateway = World::new()
        .service("a", &[&backends[0], &backends[1]])
        .service("b", &[&backends[2]])
        .route("sticky", &[sticky("/", "sessionName: stay", &split(50, 50))])
        .start()
        .await;
    let mut clients: Vec<_> = (0..60).map(|_| Client::default()).collect();
    let mut homes = Vec::new();
    for client in &mut clients {
        homes.push(client.who(&gateway, "/").await);
    }
    let of_second = homes.iter().filter(|home| *home == "c").count();
    assert!((10..50).contains(&of_second), "the first requests follow the weights: {of_second} of 60");
    gateway.edit_route("sticky", &[sticky("/", "sessionName: stay", &split(1, 0))]).await;
    for (client, home) in clients.iter_mut().zip(&homes) {
        assert_eq!(client.who(&gateway, "/").await, *home);
    }
    for _ in 0..10 {
        assert_ne!(Client::default().who(&gateway, "/").await, "c");
    }
    // The endpoint is gone: another one of the same backend; the backend is gone: another one.
    gateway.edit_service("a", &[&backends[1]]).await;
    gateway.edit_service("b", &[]).await;
    for client in &mut clients {
        assert_eq!(client.who(&gateway, "/").await, "b");
    }
}

#[tokio::test]
async fn a_session_of_a_policy_gives_way_to_that_of_a_rule_and_two_rules_share_none() {
    let backends = three().await;
    let gateway = World::new()
        .service("a", &backends.each_ref())
        .manifest("policy", &lb_policy("a", "sessionPersistence: {sessionName: of-policy, type: Header}"))
        .route(
            "sticky",
            &[
                rule("/policy", &to("a")),
                rule("/too", &to("a")),
                sticky("/rule", "sessionName: of-rule", &to("a")),
            ],
        )
        .start()
        .await;
    let first = gateway.get("/policy").await;
    let token = first.header("of-policy").expect("a header carries the session").to_owned();
    let ask = async |path: &str| {
        gateway.ask(format!("GET {path} HTTP/1.1\r\nHost: h\r\nOf-Policy: {token}\r\n\r\n")).await
    };
    for _ in 0..5 {
        let next = ask("/policy").await;
        assert_eq!(next.header("x-backend"), first.header("x-backend"));
        assert_eq!(next.header("of-policy"), None);
    }
    assert!(ask("/too").await.header("of-policy").is_some(), "another rule is another place");
    let of_rule = gateway.get("/rule").await;
    assert!(of_rule.header("of-policy").is_none());
    assert!(of_rule.header("set-cookie").unwrap().starts_with("of-rule="));
}

#[tokio::test]
async fn names_of_their_own_keep_the_rules_of_a_policy_apart() {
    let backends = three().await;
    let gateway = World::new()
        .service("a", &backends.each_ref())
        .manifest("policy", &lb_policy("a", "sessionPersistence: {}"))
        .route("sticky", &[rule("/one", &to("a")), rule("/two", &to("a"))])
        .start()
        .await;
    let mut client = Client::default();
    let homes = [client.who(&gateway, "/one").await, client.who(&gateway, "/two").await];
    assert_eq!(client.cookies.len(), 2);
    for _ in 0..5 {
        assert_eq!([client.who(&gateway, "/one").await, client.who(&gateway, "/two").await], homes);
    }
}

/// What a browser does: a cookie is sent for its path, and takes the place of one with its name and path
/// alone.
#[derive(Default)]
struct Browser {
    jar: BTreeMap<(String, String), String>,
}

impl Browser {
    async fn who(&mut self, gateway: &Running, path: &str) -> String {
        let is_for = |of: &str| path == of || path.starts_with(&format!("{}/", of.trim_end_matches('/')));
        let sent = self.jar.iter().filter(|((_, of), _)| is_for(of));
        let sent: Vec<_> = sent.map(|((name, _), value)| format!("{name}={value}")).collect();
        let mut client = Client::default();
        if !sent.is_empty() {
            let (name, value) =
                sent.join("; ").split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
            client = Client::with(&name, value);
        }
        let reply = client.get(gateway, path).await;
        for set in reply.all("set-cookie") {
            let (name, rest) = set.split_once('=').unwrap();
            let (value, attributes) = rest.split_once("; ").unwrap();
            let of = attributes.split("; ").find_map(|attribute| attribute.strip_prefix("Path=")).unwrap();
            self.jar.insert((name.to_owned(), of.to_owned()), value.to_owned());
        }
        reply.header("x-backend").unwrap().to_owned()
    }
}

#[tokio::test]
async fn cookies_are_for_every_path_and_those_of_two_rules_do_not_take_each_others_place() {
    let backends = three().await;
    let gateway = World::new()
        .service("a", &backends.each_ref())
        .manifest("policy", &lb_policy("a", "sessionPersistence: {sessionName: stay}"))
        .route("one", &[rule("/one", &to("a"))])
        .route("two", &[rule("/two", &to("a")), rule("/two/deeper", &to("a"))])
        .start()
        .await;
    let paths = ["/one", "/two", "/two/deeper"];
    for _ in 0..5 {
        let mut browser = Browser::default();
        let mut homes = Vec::new();
        for path in paths {
            homes.push(browser.who(&gateway, path).await);
        }
        let names: BTreeSet<_> = browser.jar.keys().map(|(name, _)| name.as_str()).collect();
        assert_eq!((browser.jar.len(), names.len()), (3, 3), "{names:?}");
        assert!(names.contains("stay"), "the first of them has the name that is wanted: {names:?}");
        assert!(
            browser.jar.keys().all(|(_, path)| path == "/"),
            "whatever somebody in front makes of the path"
        );
        for _ in 0..5 {
            for (path, home) in paths.iter().zip(&homes) {
                assert_eq!(browser.who(&gateway, path).await, *home, "{path}");
            }
        }
    }
}

#[tokio::test]
async fn a_policy_may_have_the_later_shape_with_a_path() {
    let backends = three().await;
    let cookie = "absoluteTimeout: 1h, cookie: {name: stay, path: /shop, lifetimeType: Permanent}";
    let gateway = World::new()
        .service("a", &backends.each_ref())
        .service("b", &backends.each_ref())
        .manifest("policy-a", &lb_policy("a", &format!("sessionPersistence: {{{cookie}}}")))
        .manifest("policy-b", &lb_policy("b", "sessionPersistence: {type: Header, header: {name: X-Stay}}"))
        .route("a", &[rule("/shop/cart", &to("a")), rule("/b", &to("b"))])
        .start()
        .await;
    let mut client = Client::default();
    let first = client.get(&gateway, "/shop/cart").await;
    let set = first.header("set-cookie").unwrap();
    assert!(
        set.starts_with("stay=") && set.ends_with("; Path=/shop; Max-Age=3600; HttpOnly; SameSite=Strict"),
        "{set}"
    );
    for _ in 0..5 {
        assert_eq!(client.who(&gateway, "/shop/cart").await, first.header("x-backend").unwrap());
    }
    assert!(gateway.get("/b").await.header("x-stay").is_some());
}

/// Of a token that can be read; of one that cannot, this tells what would stand in it.
#[tokio::test]
async fn no_response_shows_an_address_or_a_pod_even_to_who_decodes_it() {
    let backend = Backend::echo("a").await;
    let gateway = World::new()
        .manifest("service-a", &of_pod(&backend))
        .route(
            "sticky",
            &[
                sticky("/cookie", "sessionName: stay", &to("a")),
                sticky("/header", "sessionName: X-Stay, type: Header", &to("a")),
            ],
        )
        .start()
        .await;
    let octets = [&[127, 0, 0, 1][..], &backend.address.port().to_be_bytes()].concat();
    let pod = "shop-7d4b9-x2x7p";
    let secrets = [
        b"127.0.0.1".to_vec(),
        pod.into(),
        backend.address.port().to_string().into(),
        octets,
        b"demo".to_vec(),
    ];
    let shows = |bytes: &[u8], secret: &[u8]| bytes.windows(secret.len()).any(|part| part == secret);
    let mut tokens = Vec::new();
    for path in ["/cookie", "/header"] {
        for _ in 0..3 {
            let reply = gateway.get(path).await;
            let head = format!("{reply:?}");
            assert!(!head.contains(pod) && !head.contains("127.0.0.1"), "{head}");
            let set = reply
                .header("set-cookie")
                .map(|set| set.trim_start_matches("stay=").split(';').next().unwrap());
            let token = set.or(reply.header("x-stay")).unwrap().to_owned();
            let decoded = base64::prelude::BASE64_URL_SAFE_NO_PAD.decode(&token).unwrap();
            for secret in &secrets {
                assert!(!shows(&decoded, secret), "{token}");
            }
            tokens.push(token);
        }
    }
    tokens.sort();
    tokens.dedup();
    assert_eq!(tokens.len(), 6, "one endpoint, and no two tokens are alike");
}

/// The Service `a` with one endpoint that is a pod.
fn of_pod(backend: &Backend) -> String {
    let slice = crate::support::service("a", "http", &[backend]);
    slice.replace(
        "endpoints: [{addresses",
        "endpoints: [{targetRef: {kind: Pod, name: shop-7d4b9-x2x7p, namespace: demo}, addresses",
    )
}

#[tokio::test]
async fn an_expired_token_selects_afresh() {
    let backends = three().await;
    let gateway = world(&backends, "sessionName: stay, absoluteTimeout: 1s").start().await;
    let mut client = Client::default();
    client.who(&gateway, "/").await;
    let old = client.cookies["stay"].clone();
    eventually("it is over", async || {
        let mut client = Client::with("stay", old.clone());
        let reply = client.get(&gateway, "/").await;
        assert_eq!(reply.status(), 200);
        reply.header("set-cookie").is_some()
    })
    .await;
}

#[tokio::test]
async fn a_session_wins_over_a_hash_and_lasts_while_its_endpoint_drains() {
    let backends = three().await;
    let gateway = World::new()
        .service("a", &backends.each_ref())
        .manifest(
            "policy",
            &lb_policy(
                "a",
                "sessionPersistence: {sessionName: stay, absoluteTimeout: 1h, cookieConfig: {lifetimeType: Permanent}}, \
                 loadBalancing: {consistentHash: {keyType: Header, headerName: x-user}}",
            ),
        )
        .route("sticky", &[rule("/", &to("a"))])
        .start()
        .await;
    let mut client = Client::default();
    let first = client.get(&gateway, "/").await;
    assert!(first.header("set-cookie").unwrap().contains("; Max-Age=3600;"));
    let home = first.header("x-backend").unwrap().to_owned();
    let cookie = &client.cookies["stay"];
    for user in 0..12 {
        let request = format!("GET / HTTP/1.1\r\nHost: h\r\nX-User: {user}\r\nCookie: stay={cookie}\r\n\r\n");
        assert_eq!(gateway.ask(request).await.header("x-backend"), Some(&*home));
    }
    let slice = |ready: bool, index: usize, backend: &Backend| {
        format!(
            "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: a-{index}, namespace: demo, labels: {{kubernetes.io/service-name: a}}}}
addressType: IPv4
ports: [{{name: http, port: {}}}]
endpoints: [{{addresses: [127.0.0.1], conditions: {{ready: {ready}, serving: true, terminating: {}}}}}]
",
            backend.address.port(),
            !ready
        )
    };
    let mut manifest = "
apiVersion: v1
kind: Service
metadata: {name: a, namespace: demo}
spec: {ports: [{name: http, port: 80, appProtocol: http}]}
"
    .to_owned();
    for (index, (name, backend)) in ["a", "b", "c"].iter().zip(&backends).enumerate() {
        manifest += &slice(*name != home, index, backend);
    }
    gateway.edit("service-a", &manifest).await;
    assert_eq!(client.who(&gateway, "/").await, home, "it drains");
    for _ in 0..10 {
        assert_ne!(Client::default().who(&gateway, "/").await, home, "no new request");
    }
}

#[tokio::test]
async fn what_cannot_keep_sessions_is_refused() {
    let backends = three().await;
    let affine = "
apiVersion: v1
kind: Service
metadata: {name: affine, namespace: demo}
spec: {sessionAffinity: ClientIP, ports: [{port: 80}]}
";
    let gateway = World::new()
        .service("a", &backends.each_ref())
        .manifest("affine", affine)
        .route("affine", &[sticky("/1", "sessionName: s", &to("affine"))])
        .route("twice", &[sticky("/2", "sessionName: s", &to("a")), sticky("/3", "sessionName: s", &to("a"))])
        .route("name", &[sticky("/4", "sessionName: 'a b'", &to("a"))])
        .route("endless", &[sticky("/5", "cookieConfig: {lifetimeType: Permanent}", &to("a"))])
        .route("idle", &[sticky("/6", "absoluteTimeout: 1m, idleTimeout: 2m", &to("a"))])
        .start()
        .await;
    for (route, path) in [
        ("affine", "spec.rules[0].sessionPersistence"),
        ("twice", "spec.rules[1].sessionPersistence.sessionName"),
        ("name", "spec.rules[0].sessionPersistence.sessionName"),
        ("endless", "spec.rules[0].sessionPersistence.absoluteTimeout"),
        ("idle", "spec.rules[0].sessionPersistence.idleTimeout"),
    ] {
        let accepted = gateway.condition(&format!("HTTPRoute demo/{route}"), "Accepted").await;
        assert_eq!(accepted["status"], "False", "{route}");
        assert!(accepted["message"].as_str().unwrap().starts_with(path), "{route}: {accepted}");
    }
}
