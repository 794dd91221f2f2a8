//! What token endpoints answer.

use std::{convert::Infallible, path::Path, sync::Arc};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Request, Response, header::AUTHORIZATION};
use nantian_ai::{
    Credential, Surface, Target, TargetConfig,
    token::{Exchange, Workload},
};

use super::MODEL;
use crate::draw::Draw;

const PATH: &str = "/v1/chat/completions";

/// Who asks for a token.
#[derive(Clone, Copy)]
enum Asker {
    Azure,
    AwsContainer,
    AwsRole,
}

/// Whatever a token endpoint answers, there is a credential for a request afterwards or a reason why not.
pub fn ai_token(input: &[u8]) {
    let Some((mut draw, body)) = Draw::split(input) else { return };
    let asker = draw.of(&[Asker::Azure, Asker::AwsContainer, Asker::AwsRole]);
    let status = draw.of(&[200, 400, 503]);
    let answer = Bytes::copy_from_slice(body);
    let client = move |exchange: Exchange| {
        let answer = Response::builder().status(status).body(answer.clone()).expect("the status is valid");
        let made = exchange.through(async |_| Ok::<_, Infallible>(answer)).now_or_never();
        made.expect("the answer is there");
    };
    let target = Target::with_tokens(asker.config(), Arc::new(client)).expect("the target is valid");
    let is_ready = target.ready(0).now_or_never().expect("the exchange is made").is_ok();

    let request = Request::post(PATH);
    let surface = Surface::detect(request.method_ref().expect("it has one"), PATH, &Default::default());
    let (head, ()) = request.body(()).expect("the request is valid").into_parts();
    let prepared = target
        .prepare(&surface.expect("the path is known"), head, Bytes::from_static(b"{\"messages\":[]}"))
        .expect("the body is an object");
    let mut request = prepared.into_request();
    target.sign_at(std::time::SystemTime::now(), 0, &mut request);
    assert_eq!(request.headers().contains_key(AUTHORIZATION), is_ready);
}

// === impl Asker ===

impl Asker {
    fn config(self) -> TargetConfig {
        let aws = |workload| {
            TargetConfig::new("fuzz", "bedrock", MODEL)
                .with_endpoint("https://bedrock-runtime.eu-central-1.amazonaws.com")
                .with_credential(Credential::workload(workload))
        };
        match self {
            Self::Azure => TargetConfig::new("fuzz", "azure-openai", MODEL)
                .with_endpoint("https://fuzz.openai.azure.com")
                .with_credential(Credential::azure(r#"{"tenant":"t","appId":"c","password":"s"}"#)),
            Self::AwsContainer => aws(Workload::AwsContainer {
                url: "http://169.254.170.23/v1/credentials".to_owned(),
                file: None,
            }),
            Self::AwsRole => aws(Workload::AwsRole {
                role: "arn:aws:iam::1:role/x".to_owned(),
                session: "fuzz".to_owned(),
                // Any text will do.
                file: Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"),
                endpoint: None,
            }),
        }
    }
}
