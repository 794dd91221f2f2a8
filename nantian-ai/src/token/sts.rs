//! Roles of AWS: keys for some hours, from STS or from a neighbour of the program.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderValue};
use http::{Request, Response};
use serde::Deserialize;

use super::TokenError;
use super::identity::{check_url, form, proof};
use super::issued::Issued;
use crate::credential::Secret;

/// A role whose keys can be had. `Debug` shows no secrets.
#[derive(Debug)]
pub(crate) struct Role {
    url: String,
    way: Way,
}

#[derive(Debug)]
enum Way {
    /// `AssumeRoleWithWebIdentity` of STS, by the token in a file.
    Assumed { role: String, session: String, file: PathBuf },
    /// The credentials endpoint of a container.
    Container { file: Option<PathBuf> },
}

/// Keys, as either of them names them.
struct Keys {
    access: Secret,
    secret: Secret,
    token: Secret,
    expiration: String,
}

/// What the endpoint of a container answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ContainerKeys {
    #[serde(deserialize_with = "super::identity::secret")]
    access_key_id: Secret,
    #[serde(deserialize_with = "super::identity::secret")]
    secret_access_key: Secret,
    #[serde(deserialize_with = "super::identity::secret")]
    token: Secret,
    expiration: String,
}

/// And what it answers instead.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Refused {
    code: String,
}

// === impl Role ===

impl Role {
    pub(super) fn assumed(
        role: String,
        session: String,
        file: PathBuf,
        endpoint: Option<String>,
        region: &str,
    ) -> Result<Self, &'static str> {
        let url = endpoint.unwrap_or_else(|| {
            let end = if region.starts_with("cn-") { ".cn" } else { "" };
            format!("https://sts.{region}.amazonaws.com{end}")
        });
        check_url(&url)?;
        Ok(Self { url, way: Way::Assumed { role, session, file } })
    }

    pub(super) fn of_container(url: String, file: Option<PathBuf>) -> Result<Self, &'static str> {
        check_url(&url)?;
        Ok(Self { url, way: Way::Container { file } })
    }

    pub(super) fn request(&self) -> Result<Request<Bytes>, TokenError> {
        match &self.way {
            Way::Assumed { role, session, file } => {
                let token = proof(file)?;
                let fields = [
                    ("Action", "AssumeRoleWithWebIdentity"),
                    ("Version", "2011-06-15"),
                    ("RoleArn", role),
                    ("RoleSessionName", session),
                    ("WebIdentityToken", token.expose()),
                ];
                form(&self.url, &fields)
            }
            Way::Container { file } => {
                let mut request =
                    Request::get(&self.url).body(Bytes::new()).map_err(|_| TokenError::Unreadable)?;
                if let Some(file) = file {
                    let token = proof(file)?;
                    let mut value =
                        HeaderValue::from_str(token.expose()).map_err(|_| TokenError::Unreadable)?;
                    value.set_sensitive(true);
                    request.headers_mut().insert(AUTHORIZATION, value);
                }
                Ok(request)
            }
        }
    }

    pub(super) fn read_at(&self, now: SystemTime, response: &Response<Bytes>) -> Result<Issued, TokenError> {
        let status = response.status();
        let body = response.body();
        let keys = match &self.way {
            Way::Assumed { .. } => {
                let xml = std::str::from_utf8(body).map_err(|_| TokenError::Unreadable)?;
                if !status.is_success() {
                    return Err(TokenError::of_status(status, element(xml, "Code")));
                }
                Keys::of_xml(xml)
            }
            Way::Container { .. } => {
                if !status.is_success() {
                    let refused: Refused = serde_json::from_slice(body).unwrap_or_default();
                    return Err(TokenError::of_status(status, Some(&refused.code)));
                }
                Keys::of_json(body)
            }
        };
        keys.and_then(|keys| keys.issued_at(now)).ok_or(TokenError::Unreadable)
    }
}

// === impl Keys ===

impl Keys {
    fn of_xml(xml: &str) -> Option<Self> {
        let keys = element(xml, "Credentials")?;
        Some(Self {
            access: element(keys, "AccessKeyId")?.into(),
            secret: element(keys, "SecretAccessKey")?.into(),
            token: element(keys, "SessionToken")?.into(),
            expiration: element(keys, "Expiration")?.to_owned(),
        })
    }

    fn of_json(body: &[u8]) -> Option<Self> {
        let keys: ContainerKeys = serde_json::from_slice(body).ok()?;
        Some(Self {
            access: keys.access_key_id,
            secret: keys.secret_access_key,
            token: keys.token,
            expiration: keys.expiration,
        })
    }

    fn issued_at(&self, now: SystemTime) -> Option<Issued> {
        let end = DateTime::from_str(&self.expiration, Format::DateTime).ok()?;
        let end = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(end.secs().try_into().ok()?))?;
        let life = end.duration_since(now).ok().filter(|life| !life.is_zero())?;
        let secret =
            Secret::joined(&[self.access.expose(), ":", self.secret.expose(), ":", self.token.expose()]);
        Some(Issued { secret, life })
    }
}

/// What stands between the tags of an element that has no attributes.
fn element<'x>(xml: &'x str, name: &str) -> Option<&'x str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    Some(rest.split_once(&format!("</{name}>"))?.0.trim())
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("expiration", &self.expiration).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn role(file: impl Into<PathBuf>) -> Role {
        let role = "arn:aws:iam::123456789012:role/ai".to_owned();
        Role::assumed(role, "nantian".to_owned(), file.into(), None, "eu-central-1").unwrap()
    }

    fn answer(status: u16, body: &'static str) -> Response<Bytes> {
        Response::builder().status(status).body(Bytes::from_static(body.as_bytes())).unwrap()
    }

    #[test]
    fn a_role_is_assumed_by_the_token_of_the_workload() {
        let file = std::env::temp_dir().join(format!("nantian-sts-{}", std::process::id()));
        std::fs::write(&file, "eyJ0\n").unwrap();
        let request = role(&file).request().unwrap();
        std::fs::remove_file(file).unwrap();
        assert_eq!(request.uri(), "https://sts.eu-central-1.amazonaws.com/");
        assert_eq!(
            request.body(),
            "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&\
             RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fai&RoleSessionName=nantian&WebIdentityToken=eyJ0"
        );
    }

    #[test]
    fn keys_are_read_as_sts_writes_them() {
        let body = "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\n  \
            <AssumeRoleWithWebIdentityResult><SubjectFromWebIdentityToken>s</SubjectFromWebIdentityToken>\
            <Credentials><SessionToken>tok/+==</SessionToken><SecretAccessKey>sec</SecretAccessKey>\
            <Expiration>1970-01-01T01:00:00Z</Expiration><AccessKeyId>ASIA</AccessKeyId></Credentials>\
            </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>";
        let issued = role("").read_at(NOW, &answer(200, body)).unwrap();
        assert_eq!(issued.secret.expose(), "ASIA:sec:tok/+==");
        assert_eq!(issued.life, Duration::from_secs(3600));
    }

    #[test]
    fn keys_are_read_as_a_container_is_handed_them() {
        let role = Role::of_container("http://169.254.170.23/v1/credentials".to_owned(), None).unwrap();
        assert!(role.request().unwrap().headers().get("authorization").is_none());
        let body = r#"{"AccessKeyId":"ASIA","SecretAccessKey":"sec","Token":"tok",
            "AccountId":"123456789012","Expiration":"1970-01-01T00:30:00.5Z"}"#;
        let issued = role.read_at(NOW, &answer(200, body)).unwrap();
        assert_eq!((issued.secret.expose(), issued.life.as_secs()), ("ASIA:sec:tok", 1800));
    }

    #[test]
    fn what_is_no_key_is_no_token() {
        let role = role("");
        for body in ["", "<html></html>", "<Credentials></Credentials>"] {
            assert!(matches!(role.read_at(NOW, &answer(200, body)), Err(TokenError::Unreadable)), "{body}");
        }
        let refusal = "<ErrorResponse><Error><Type>Sender</Type><Code>InvalidIdentityToken</Code>\
            <Message>No OpenIDConnect provider found</Message></Error></ErrorResponse>";
        let error = role.read_at(NOW, &answer(400, refusal)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the token endpoint refused the credential with 400 Bad Request: InvalidIdentityToken"
        );
        let late = role.read_at(NOW + Duration::from_secs(7200), &answer(200, "<Credentials></Credentials>"));
        assert!(late.is_err());
    }
}
