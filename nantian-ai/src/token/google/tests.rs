use std::time::Duration;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use serde_json::{Value, json};

use super::*;

fn pair() -> (KeyPair, String) {
    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let base64 = STANDARD.encode(der.as_ref());
    let lines: Vec<_> = base64.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"));
    (pair, pem)
}

fn file(pem: &str) -> Value {
    json!({
        "type": "service_account",
        "project_id": "demo",
        "private_key_id": "key-1",
        "private_key": pem,
        "client_email": "gateway@demo.iam.gserviceaccount.com",
        "token_uri": "https://oauth2.googleapis.com/token",
        "universe_domain": "googleapis.com",
    })
}

#[test]
fn an_assertion_is_signed_by_the_accounts_key() {
    let (pair, pem) = pair();
    let account = Account::parse(&file(&pem).to_string()).unwrap();
    let request = account.request_at(UNIX_EPOCH + Duration::from_secs(1_000)).unwrap();
    assert_eq!(request.uri(), "https://oauth2.googleapis.com/token");
    let body = std::str::from_utf8(request.body()).unwrap();
    let assertion = body
        .strip_prefix("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=")
        .unwrap();

    let (signed, signature) = assertion.rsplit_once('.').unwrap();
    let (header, claims) = signed.split_once('.').unwrap();
    let read = |part: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    assert_eq!(read(header), json!({"alg": "RS256", "typ": "JWT", "kid": "key-1"}));
    assert_eq!(
        read(claims),
        json!({
            "iss": "gateway@demo.iam.gserviceaccount.com",
            "scope": "https://www.googleapis.com/auth/cloud-platform",
            "aud": "https://oauth2.googleapis.com/token",
            "iat": 1_000,
            "exp": 4_600,
        })
    );
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public.as_ref())
        .verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap())
        .unwrap();
}

#[test]
fn a_key_file_that_is_none_is_refused_without_naming_its_key() {
    let (_, pem) = pair();
    let body = pem.lines().nth(1).unwrap();
    let mut other_kind = file(&pem);
    other_kind["type"] = "authorized_user".into();
    let mut no_key = file(&pem);
    no_key.as_object_mut().unwrap().remove("private_key");
    let mut no_url = file(&pem);
    no_url["token_uri"] = "ftp://host".into();
    let files = [
        String::new(),
        body.to_owned(),
        other_kind.to_string(),
        no_key.to_string(),
        no_url.to_string(),
        file(body).to_string(),
        file("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----").to_string(),
        file(&pem.replace(' ', " RSA ")).to_string(),
    ];
    for file in files {
        let error = Account::parse(&file).unwrap_err().to_string();
        assert!(error.contains("service account") && !error.contains(body), "{error}");
    }
}

#[test]
fn an_account_is_printed_without_its_key() {
    let (_, pem) = pair();
    let shown = format!("{:?}", Account::parse(&file(&pem).to_string()).unwrap());
    assert!(shown.contains("gateway@demo") && !shown.contains("PRIVATE"), "{shown}");
}

#[test]
fn a_machine_asks_its_metadata_server() {
    let request = Account::own("metadata.google.internal").unwrap().request_at(UNIX_EPOCH).unwrap();
    assert_eq!(request.method(), "GET");
    assert_eq!(
        request.uri(),
        "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token"
    );
    assert_eq!(request.headers()["metadata-flavor"], "Google");
}
