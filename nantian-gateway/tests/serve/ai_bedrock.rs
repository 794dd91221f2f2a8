//! AIService: AWS Bedrock behind the gateway. The provider here answers only what is signed as AWS wants it,
//! which it finds out by doing the sum itself.

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message as Frame};
use sha2::{Digest as _, Sha256};

use crate::support::{
    Backend, Message, Running, World,
    limits::{limits, post},
    rule, to_ai,
};

const MODEL: &str = "us.anthropic.claude-sonnet-4-5-20250929-v1:0";
const PATH: &str = "/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0";

const REPLY: &str = r#"{"output":{"message":{"role":"assistant","content":[{"text":"hi"}]}},"stopReason":"end_turn","usage":{"inputTokens":91,"outputTokens":9,"totalTokens":100}}"#;

const EVENTS: [(&str, &str); 5] = [
    ("messageStart", r#"{"role":"assistant"}"#),
    ("contentBlockDelta", r#"{"contentBlockIndex":0,"delta":{"text":"hi"}}"#),
    ("contentBlockStop", r#"{"contentBlockIndex":0}"#),
    ("messageStop", r#"{"stopReason":"end_turn"}"#),
    ("metadata", r#"{"usage":{"inputTokens":91,"outputTokens":9,"totalTokens":100}}"#),
];

/// Keys of an account.
#[derive(Clone, Copy)]
struct Account {
    id: &'static str,
    secret: &'static str,
    token: Option<&'static str>,
}

const FIRST: Account = Account { id: "AKIDFIRST", secret: "wJalrXUtnFEMI/K7MDENG", token: None };
const SECOND: Account =
    Account { id: "AKIDSECOND", secret: "bPxRfiCYEXAMPLEKEY", token: Some("FwoG:ZXI+vYXdz") };

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// RFC 2104.
fn hmac(key: &[u8], message: &str) -> Vec<u8> {
    let mut block = [0_u8; 64];
    block[..key.len()].copy_from_slice(key);
    let pad = |with: u8| block.map(|byte| byte ^ with);
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().to_vec()
}

/// Whether the account has signed the request for the region.
fn is_signed(request: &Message, account: Account, region: &str) -> bool {
    let Some(signed) = request.header("authorization") else { return false };
    let (Some(date), Some((_, signed))) = (request.header("x-amz-date"), signed.split_once("SignedHeaders="))
    else {
        return false;
    };
    let Some((names, signature)) = signed.split_once(", Signature=") else { return false };
    let needed = ["content-type", "host", "x-amz-date"];
    let named: Vec<_> = names.split(';').collect();
    let token = request.header("x-amz-security-token");
    if !needed.iter().all(|name| named.contains(name)) || token != account.token {
        return false;
    }
    let mut parts = request.start.split(' ');
    let (method, path) = (parts.next().unwrap(), parts.next().unwrap().replace('%', "%25"));
    let headers: String =
        named.iter().map(|name| format!("{name}:{}\n", request.header(name).unwrap())).collect();
    let content = hex(Sha256::digest(&request.body));
    let canonical = format!("{method}\n{path}\n\n{headers}\n{names}\n{content}");
    let day = &date[..8];
    let scope = format!("{day}/{region}/bedrock/aws4_request");
    let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex(Sha256::digest(canonical)));
    let start = format!("AWS4{}", account.secret).into_bytes();
    let key = [day, region, "bedrock", "aws4_request"].iter().fold(start, |key, part| hmac(&key, part));
    let credential = format!("Credential={}/{scope}, ", account.id);
    request.header("authorization").unwrap().contains(&credential) && hex(hmac(&key, &to_sign)) == signature
}

fn response(status: u16, content_type: &str, body: &[u8]) -> Vec<u8> {
    let mut reply = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    reply.extend(body);
    reply
}

fn frames() -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, payload) in EVENTS {
        let header =
            |name: &'static str, value: &'static str| Header::new(name, HeaderValue::String(value.into()));
        let frame = Frame::new(payload.as_bytes().to_vec())
            .add_header(header(":event-type", name))
            .add_header(header(":content-type", "application/json"))
            .add_header(header(":message-type", "event"));
        write_message_to(&frame, &mut bytes).unwrap();
    }
    bytes
}

/// Bedrock, as an account has it.
async fn bedrock(account: Account) -> Backend {
    Backend::answering(move |request| {
        if !is_signed(request, account, "eu-central-1") {
            let refusal = br#"{"message":"The security token of arn:aws:iam::1:user/x is invalid."}"#;
            return response(403, "application/json", refusal);
        }
        match request.start.split(' ').nth(1).and_then(|path| path.strip_prefix(PATH)) {
            Some("/converse") => response(200, "application/json", REPLY.as_bytes()),
            Some("/converse-stream") => response(200, "application/vnd.amazon.eventstream", &frames()),
            _ => response(404, "application/json", br#"{"message":"no such model"}"#),
        }
    })
    .await
}

fn secret(account: Account) -> String {
    let token = account.token.map(|token| format!(", aws_session_token: \"{token}\"")).unwrap_or_default();
    format!(
        "
apiVersion: v1
kind: Secret
metadata: {{name: account, namespace: demo}}
stringData: {{aws_access_key_id: {}, aws_secret_access_key: {}{token}}}
",
        account.id, account.secret
    )
}

fn service(provider: &Backend) -> String {
    format!(
        "
apiVersion: gateway.nantian.dev/v1alpha1
kind: AIService
metadata: {{name: claude, namespace: demo}}
spec:
  provider: bedrock
  model: {MODEL}
  endpoint: http://{}
  region: eu-central-1
  auth: {{secret: account}}
",
        provider.address
    )
}

async fn gateway(provider: &Backend, account: Account, limit: Option<&str>) -> Running {
    let world = World::new()
        .manifest("account", &secret(account))
        .manifest("service", &service(provider))
        .route("llm", &[rule("/", &to_ai("claude"))]);
    match limit {
        None => world,
        Some(limit) => world.manifest("limits", &limits("limits", "kind: HTTPRoute, name: llm", limit)),
    }
    .start()
    .await
}

fn ask(path: &str, messages: &str, stream: bool) -> String {
    let body = format!(
        r#"{{"model":"any","max_tokens":9,"stream":{stream},"{messages}":[{{"role":"user","content":"Hi"}}]}}"#
    );
    post(path, "Authorization: Bearer sk-client\r\nx-amz-security-token: of-the-client\r\n", &body)
}

#[tokio::test]
async fn clients_of_each_dialect_are_answered_and_their_credentials_stay_here() {
    let provider = bedrock(FIRST).await;
    let gateway = gateway(&provider, FIRST, None).await;
    for (path, messages, end) in [
        ("/v1/chat/completions", "messages", "[DONE]"),
        ("/v1/responses", "input", "response.completed"),
        ("/v1/messages", "messages", "message_stop"),
        ("/api/chat", "messages", "\"done\":true"),
    ] {
        let reply = gateway.ask(ask(path, messages, false)).await;
        assert_eq!(reply.status(), 200, "{path}: {}", reply.text());
        assert!(reply.text().contains("hi"), "{path}: {}", reply.text());
        let reply = gateway.ask(ask(path, messages, true)).await;
        assert_eq!(reply.status(), 200, "{path}: {}", reply.text());
        assert!(reply.text().contains(end), "{path}: {}", reply.text());
        assert!(provider.last().headers.iter().all(|(_, value)| !value.contains("client")), "{path}");
    }
    assert_eq!(provider.seen().len(), 8);
}

#[tokio::test]
async fn other_keys_are_used_without_a_restart_and_refused_ones_are_this_sides_fault() {
    let provider = bedrock(SECOND).await;
    let gateway = gateway(&provider, FIRST, None).await;
    let refused = gateway.ask(ask("/v1/chat/completions", "messages", false)).await;
    assert_eq!(refused.status(), 502, "{}", refused.text());
    assert!(!refused.text().contains("arn:aws"), "{}", refused.text());

    gateway.edit("account", &secret(SECOND)).await;
    let reply = gateway.ask(ask("/v1/chat/completions", "messages", false)).await;
    assert_eq!(reply.status(), 200, "{}", reply.text());
}

#[tokio::test]
async fn the_usage_of_frames_counts_against_a_limit_on_tokens() {
    let provider = bedrock(FIRST).await;
    let gateway = gateway(&provider, FIRST, Some("tokensPerHour: 210")).await;
    for stream in [false, true] {
        assert_eq!(gateway.ask(ask("/v1/messages", "messages", stream)).await.status(), 200);
    }
    let refused = gateway.ask(ask("/v1/messages", "messages", false)).await;
    assert_eq!((refused.status(), refused.header("x-ratelimit-remaining-tokens")), (429, Some("10")));
}
