//! AIService: credentials that are exchanged for tokens, at token endpoints over HTTP.

use std::{fs, time::Duration};

use serde_json::json;
use tempfile::TempDir;

use crate::support::{
    Backend, Running, World,
    limits::{ai_service, post},
    rule, to_ai,
};

const CHAT: &str = r#"{"choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10}}"#;
const CONVERSE: &str = r#"{"output":{"message":{"role":"assistant","content":[{"text":"hi"}]}},"stopReason":"end_turn","usage":{"inputTokens":9,"outputTokens":1,"totalTokens":10}}"#;
const GENERATED: &str = r#"{"candidates":[{"content":{"role":"model","parts":[{"text":"hi"}]},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":9,"candidatesTokenCount":1}}"#;

fn answer(status: &str, kind: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

async fn provider(body: &'static str) -> Backend {
    Backend::answering(move |_| answer("200 OK", "application/json", body)).await
}

/// A token endpoint of OAuth 2.0, whose tokens are the accounts that they are for.
async fn token_endpoint() -> Backend {
    Backend::answering(|request| {
        let form = request.text();
        let field =
            |name: &str| form.split('&').find_map(|field| field.strip_prefix(name)).map(str::to_owned);
        match field("client_secret=") {
            Some(secret) if secret.starts_with("wrong") => {
                let refusal = json!({"error": "invalid_client", "error_description": "Bad wrong-secret"});
                answer("401 Unauthorized", "application/json", &refusal.to_string())
            }
            secret => {
                let token =
                    secret.map_or_else(|| "of-an-assertion".to_owned(), |secret| format!("for-{secret}"));
                let granted = json!({"token_type": "Bearer", "access_token": token, "expires_in": 3599});
                answer("200 OK", "application/json", &granted.to_string())
            }
        }
    })
    .await
}

fn secret(data: &serde_json::Value) -> String {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "account", "namespace": "demo"}, "stringData": data})
        .to_string()
}

fn service(provider: &str, model: &str, endpoint: &Backend, rest: &str) -> String {
    format!(
        "
apiVersion: gateway.nantian.dev/v1alpha1
kind: AIService
metadata: {{name: chat, namespace: demo}}
spec: {{provider: {provider}, model: '{model}', endpoint: \"http://{}\"{rest}}}
",
        endpoint.address
    )
}

fn application(secret: &str, tokens: &Backend) -> serde_json::Value {
    json!({
        "AZURE_TENANT_ID": "tenant",
        "AZURE_CLIENT_ID": "client",
        "AZURE_CLIENT_SECRET": secret,
        "AZURE_AUTHORITY_HOST": format!("http://{}", tokens.address),
    })
}

async fn ask(gateway: &Running) -> crate::support::Message {
    let body = r#"{"model":"any","messages":[{"role":"user","content":"Hi"}]}"#;
    gateway.ask(post("/v1/chat/completions", "authorization: Bearer of-the-client\r\n", body)).await
}

#[tokio::test]
async fn an_application_of_entra_id_is_exchanged_once_and_anew_when_its_secret_is_rotated() {
    let (tokens, provider) = (token_endpoint().await, provider(CHAT).await);
    let auth = ", auth: {type: azure, secret: account}";
    let gateway = World::new()
        .manifest("service", &service("azure-openai", "gpt-4o", &provider, auth))
        .manifest("secret", &secret(&application("very-secret-one", &tokens)))
        .route("llm", &[rule("/", &to_ai("chat"))])
        .start()
        .await;
    for _ in 0..3 {
        assert_eq!(ask(&gateway).await.status(), 200);
        assert_eq!(provider.last().all("authorization"), ["Bearer for-very-secret-one"]);
    }
    assert_eq!(tokens.seen().len(), 1);
    let asked = tokens.last();
    assert_eq!(asked.start, "POST /tenant/oauth2/v2.0/token HTTP/1.1");
    let scope = "scope=https%3A%2F%2Fcognitiveservices.azure.com%2F.default";
    assert!(asked.text().contains(scope), "{}", asked.text());

    gateway.edit("secret", &secret(&application("very-secret-two", &tokens))).await;
    assert_eq!(ask(&gateway).await.status(), 200);
    assert_eq!(provider.last().all("authorization"), ["Bearer for-very-secret-two"]);

    let shown = format!("{}{}", gateway.config().await, gateway.log.text());
    assert!(!shown.contains("very-secret"), "{shown}");
}

#[tokio::test]
async fn a_refused_application_is_told_in_the_log_and_another_service_is_asked() {
    let (tokens, azure, other) = (token_endpoint().await, provider(CHAT).await, provider(CHAT).await);
    let auth = ", auth: {type: azure, secret: account}";
    let both = to_ai("chat, weight: 1}, {group: gateway.nantian.dev, kind: AIService, name: other");
    let gateway = World::new()
        .manifest("service", &service("azure-openai", "gpt-4o", &azure, auth))
        .manifest("other", &ai_service("other", "m", &other))
        .manifest("secret", &secret(&application("wrong-secret", &tokens)))
        .route("llm", &[rule("/alone", &to_ai("chat")), rule("/", &both)])
        .start()
        .await;
    let body = r#"{"model":"chat","messages":[{"role":"user","content":"Hi"}]}"#;
    let reply = gateway.ask(post("/alone/v1/chat/completions", "", body)).await;
    assert_eq!(reply.status(), 502);
    assert_eq!(reply.json()["error"]["code"], "upstream_auth");
    let line = gateway.log.more("invalid_client", 0).await;
    assert!(!line.contains("wrong-secret"), "{line}");
    assert_eq!(ask(&gateway).await.status(), 200);
    assert_eq!(gateway.ask(post("/v1/chat/completions", "", body)).await.status(), 200);
    assert_eq!((azure.seen().len(), other.seen().len()), (0, 2));
}

#[tokio::test]
async fn the_key_of_a_service_account_signs_what_google_exchanges() {
    let (tokens, provider) = (token_endpoint().await, provider(GENERATED).await);
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let file = json!({
        "type": "service_account",
        "client_email": "gateway@demo.iam.gserviceaccount.com",
        "private_key_id": "key-1",
        "private_key": key.serialize_pem(),
        "token_uri": format!("http://{}/token", tokens.address),
    });
    let file = serde_json::to_string_pretty(&file).unwrap();
    let auth = ", auth: {type: gcp, secret: account}";
    let gateway = World::new()
        .manifest("service", &service("gemini", "gemini-3-pro", &provider, auth))
        .manifest("secret", &secret(&json!({"key.json": file})))
        .route("llm", &[rule("/", &to_ai("chat"))])
        .start()
        .await;
    let reply = ask(&gateway).await;
    assert_eq!(reply.status(), 200, "{}", reply.text());
    assert_eq!(provider.last().all("authorization"), ["Bearer of-an-assertion"]);
    let asked = tokens.last();
    assert_eq!(asked.start, "POST /token HTTP/1.1");
    assert_eq!(asked.all("host"), [tokens.address.to_string()]);
    assert!(
        asked
            .text()
            .starts_with("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=eyJ")
    );
}

#[tokio::test]
async fn an_account_that_is_none_is_told_in_the_status() {
    let provider = provider(CHAT).await;
    for (kind, data, told) in [
        ("gcp", json!({"key.json": "{\"type\": \"authorized_user\"}"}), "service account"),
        ("azure", json!({"account": "very-secret"}), "Entra ID"),
        ("azure", json!({"AZURE_TENANT_ID": "t", "AZURE_CLIENT_ID": "c"}), "Entra ID"),
    ] {
        let auth = format!(", auth: {{type: {kind}, secret: account}}");
        let gateway = World::new()
            .manifest("service", &service("azure-openai", "gpt-4o", &provider, &auth))
            .manifest("secret", &secret(&data))
            .route("llm", &[rule("/", &to_ai("chat"))])
            .start()
            .await;
        let resolved = gateway.condition("AIService demo/chat", "ResolvedRefs").await;
        let message = resolved["message"].as_str().unwrap();
        assert_eq!(resolved["status"], "False", "{kind}");
        assert!(message.contains(told) && !message.contains("very-secret"), "{message}");
    }
}

/// STS, which gives keys of the role for the token of the workload.
async fn sts() -> Backend {
    Backend::answering(|request| {
        let form = request.text();
        assert!(form.contains("Action=AssumeRoleWithWebIdentity"), "{form}");
        assert!(form.contains("RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fai"), "{form}");
        assert!(form.ends_with("WebIdentityToken=of-the-pod"), "{form}");
        let end = aws_time_after(Duration::from_secs(3600));
        let keys = format!(
            "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>\
             <AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>s</SecretAccessKey>\
             <SessionToken>session</SessionToken><Expiration>{end}</Expiration>\
             </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
        );
        answer("200 OK", "text/xml", &keys)
    })
    .await
}

/// The time in a while, as AWS writes it.
fn aws_time_after(time: Duration) -> String {
    let then = aws_smithy_types::DateTime::from(std::time::SystemTime::now() + time);
    then.fmt(aws_smithy_types::date_time::Format::DateTime).unwrap()
}

#[tokio::test]
async fn the_role_of_the_gateway_is_used_in_the_namespaces_that_may() {
    let (sts, provider) = (sts().await, provider(CONVERSE).await);
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("token");
    fs::write(&file, "of-the-pod").unwrap();
    let gateway = async |namespaces: &str| {
        let auth = ", region: eu-central-1, auth: {type: aws}";
        World::new()
            .variable("AWS_ROLE_ARN", "arn:aws:iam::1:role/ai")
            .variable("AWS_WEB_IDENTITY_TOKEN_FILE", file.to_str().unwrap())
            .variable("AWS_ENDPOINT_URL_STS", &format!("http://{}", sts.address))
            .options(&["--identity-namespaces", namespaces])
            .manifest("service", &service("bedrock", "anthropic.claude-haiku-4-5", &provider, auth))
            .route("llm", &[rule("/", &to_ai("chat"))])
            .start()
            .await
    };
    let trusting = gateway("other,demo").await;
    for _ in 0..2 {
        let reply = ask(&trusting).await;
        assert_eq!(reply.status(), 200, "{}", reply.text());
    }
    let seen = provider.last();
    assert_eq!(seen.all("x-amz-security-token"), ["session"]);
    let signed = seen.header("authorization").unwrap();
    assert!(signed.starts_with("AWS4-HMAC-SHA256 Credential=ASIAROLE/"), "{signed}");
    assert_eq!(sts.seen().len(), 1);

    let distrusting = gateway("other").await;
    let programmed = distrusting.condition("AIService demo/chat", "Programmed").await;
    assert_eq!(programmed["status"], "False", "{programmed}");
    let message = programmed["message"].as_str().unwrap();
    assert!(message.contains("may not use the gateway's own identity"), "{message}");
    assert_eq!(ask(&distrusting).await.status(), 500);
    assert_eq!(sts.seen().len(), 1);
}

#[tokio::test]
async fn an_ai_service_that_no_route_names_is_not_programmed_without_an_identity_either() {
    let provider = provider(CONVERSE).await;
    let auth = ", region: eu-central-1, auth: {type: aws}";
    let service = service("bedrock", "anthropic.claude-haiku-4-5", &provider, auth);
    for (namespaces, told) in
        [("other", "may not use the gateway's own identity"), ("demo", "names no identity of type aws")]
    {
        let options = ["--identity-namespaces", namespaces];
        let gateway = World::new().options(&options).manifest("service", &service).start().await;
        let programmed = gateway.condition("AIService demo/chat", "Programmed").await;
        assert_eq!(programmed["status"], "False", "{programmed}");
        assert!(programmed["message"].as_str().unwrap().contains(told), "{programmed}");
    }
}
