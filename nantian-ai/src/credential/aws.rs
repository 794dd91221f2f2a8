//! Signatures of requests to AWS (Signature Version 4), by its own crate.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use http::Request;
use http::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue};

use crate::body::RequestBody;
use crate::error::BoxError;

/// The service that signatures are for.
const SERVICE: &str = "bedrock";

/// What is signed of a request beside its method, path and body: what no proxy on the way has to change.
const SIGNED: [HeaderName; 2] = [CONTENT_TYPE, HOST];

/// Keys of an account, and the region that they are used in. `Debug` shows no secrets.
#[derive(Clone, Debug)]
pub(crate) struct Signer {
    credentials: Credentials,
    region: String,
}

// === impl Signer ===

impl Signer {
    /// Reads `access key:secret key` or `access key:secret key:session token`; `None` for anything else.
    pub(crate) fn new(secret: &str, region: &str) -> Option<Self> {
        let parts: Vec<_> = secret.splitn(3, ':').collect();
        // Two of them are sent as they are.
        if parts.iter().any(|part| part.is_empty() || HeaderValue::from_str(part).is_err()) {
            return None;
        }
        let (access_key, secret_key, token) = match parts[..] {
            [access_key, secret_key] => (access_key, secret_key, None),
            [access_key, secret_key, token] => (access_key, secret_key, Some(token.to_owned())),
            _ => return None,
        };
        let credentials = Credentials::new(access_key, secret_key, token, None, "Secret");
        Some(Self { credentials, region: region.to_owned() })
    }

    /// Signs a request that is sent now.
    pub(crate) fn sign_at(
        &self,
        now: SystemTime,
        request: &mut Request<RequestBody>,
    ) -> Result<(), BoxError> {
        let identity = self.credentials.clone().into();
        let params = SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(SERVICE)
            .time(now)
            .settings(SigningSettings::default())
            .build()?
            .into();
        let body = request.body().joined();
        let uri = request.uri().to_string();
        let headers = SIGNED.iter().filter_map(|name| {
            let value = request.headers().get(name)?.to_str().ok()?;
            Some((name.as_str(), value))
        });
        let signable =
            SignableRequest::new(request.method().as_str(), uri, headers, SignableBody::Bytes(&body))?;
        let (instructions, _) = sign(signable, &params)?.into_parts();
        for (name, value) in instructions.headers() {
            let mut value = HeaderValue::from_str(value)?;
            value.set_sensitive(true);
            request.headers_mut().insert(HeaderName::from_bytes(name.as_bytes())?, value);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn request(body: &'static str) -> Request<RequestBody> {
        Request::post("https://bedrock-runtime.eu-central-1.amazonaws.com/model/m%3A0/converse")
            .header("host", "bedrock-runtime.eu-central-1.amazonaws.com")
            .header("content-type", "application/json")
            .header("traceparent", "changes on the way")
            .body(RequestBody::from(vec![Bytes::from_static(body.as_bytes())]))
            .unwrap()
    }

    fn signature(now: SystemTime, body: &'static str) -> String {
        let mut request = request(body);
        Signer::new("AKID:secret", "eu-central-1").unwrap().sign_at(now, &mut request).unwrap();
        let value = &request.headers()["authorization"];
        assert!(value.is_sensitive());
        value.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_signature_is_of_the_body_the_time_and_the_region() {
        let signed = signature(NOW, "{}");
        let start = "AWS4-HMAC-SHA256 Credential=AKID/19700101/eu-central-1/bedrock/aws4_request, \
                     SignedHeaders=content-type;host;x-amz-date, Signature=";
        assert!(signed.starts_with(start), "{signed}");
        assert_eq!(signed, signature(NOW, "{}"));
        assert_ne!(signed, signature(NOW, "[]"));
        assert_ne!(signed, signature(NOW + Duration::from_secs(1), "{}"));
    }

    #[test]
    fn a_session_token_is_sent_and_signed() {
        let mut request = request("{}");
        let signer = Signer::new("AKID:secret:the:token", "eu-central-1").unwrap();
        signer.sign_at(NOW, &mut request).unwrap();
        assert_eq!(request.headers()["x-amz-security-token"], "the:token");
        assert!(request.headers()["x-amz-security-token"].is_sensitive());
        assert!(request.headers()["authorization"].to_str().unwrap().contains("x-amz-security-token"));
        let shown = format!("{signer:?}");
        assert!(!shown.contains("secret") || shown.contains("redacted"), "{shown}");
        assert!(!shown.contains("the:token"), "{shown}");
    }

    #[test]
    fn what_are_no_keys_is_refused() {
        for keys in ["", "AKID", "AKID:", ":secret", "AKID:secret:", "AKID:secret:to\nken", "AK\rID:secret"] {
            assert!(Signer::new(keys, "eu-central-1").is_none(), "{keys:?}");
        }
    }
}
