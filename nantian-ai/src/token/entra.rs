//! Applications of Microsoft Entra ID: client credentials, proved by a secret or by the token of a workload.

use std::fmt;
use std::path::PathBuf;

use bytes::Bytes;
use http::Request;
use serde::Deserialize;

use super::TokenError;
use super::identity::{form, proof};
use crate::credential::{InvalidCredential, Secret};
use crate::dialect::segment;

/// Where tokens are issued, unless another cloud is named.
const PUBLIC_CLOUD: &str = "https://login.microsoftonline.com";

/// What Azure OpenAI and the models of Foundry ask for.
const SCOPE: &str = "https://cognitiveservices.azure.com/.default";

/// How a token of a workload is shown (RFC 7523, 2.2).
const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// An application that may use a resource. `Debug` shows no secrets.
pub(crate) struct Application {
    url: String,
    client: String,
    proof: Proof,
}

enum Proof {
    Secret(Secret),
    File(PathBuf),
}

/// An account as `az ad sp create-for-rbac` prints it, with `--json-auth` or without, or by the names of
/// OAuth.
#[derive(Deserialize)]
struct Account {
    #[serde(alias = "tenantId", alias = "tenant_id")]
    tenant: String,
    #[serde(rename = "appId", alias = "clientId", alias = "client_id")]
    client: String,
    #[serde(
        rename = "password",
        alias = "clientSecret",
        alias = "client_secret",
        deserialize_with = "super::identity::secret"
    )]
    secret: Secret,
    #[serde(alias = "activeDirectoryEndpointUrl", alias = "authority_host")]
    authority: Option<String>,
}

// === impl Application ===

impl Application {
    /// Reads an account, which is an object of JSON.
    pub(crate) fn parse(account: &str) -> Result<Self, InvalidCredential> {
        const WHAT: &str = "an application of Entra ID";
        let refuse = |problem| InvalidCredential::Account { what: WHAT, problem };
        let account: Account = serde_json::from_str(account).map_err(|_| {
            refuse("it has to be an object with `tenant`, `appId` and `password`, or the names that they have elsewhere")
        })?;
        if account.secret.expose().is_empty() {
            return Err(refuse("its secret is empty"));
        }
        let authority = account.authority.as_deref();
        Self::new(authority, &account.tenant, account.client, Proof::Secret(account.secret)).map_err(refuse)
    }

    /// A workload that is the application by a token in a file.
    pub(super) fn federated(
        authority: Option<&str>,
        tenant: &str,
        client: String,
        file: PathBuf,
    ) -> Result<Self, &'static str> {
        Self::new(authority, tenant, client, Proof::File(file))
    }

    fn new(
        authority: Option<&str>,
        tenant: &str,
        client: String,
        proof: Proof,
    ) -> Result<Self, &'static str> {
        if tenant.is_empty() || client.is_empty() {
            return Err("its tenant or its own id is empty");
        }
        let authority = authority.unwrap_or(PUBLIC_CLOUD).trim_end_matches('/');
        super::identity::check_url(authority)?;
        Ok(Self { url: format!("{authority}/{}/oauth2/v2.0/token", segment(tenant)), client, proof })
    }

    /// RFC 6749, 4.4.2.
    pub(super) fn request(&self) -> Result<Request<Bytes>, TokenError> {
        let asked = [("grant_type", "client_credentials"), ("client_id", &self.client), ("scope", SCOPE)];
        match &self.proof {
            Proof::Secret(secret) => {
                form(&self.url, &[&asked[..], &[("client_secret", secret.expose())]].concat())
            }
            Proof::File(path) => {
                let token = proof(path)?;
                let shown = [("client_assertion_type", ASSERTION), ("client_assertion", token.expose())];
                form(&self.url, &[&asked[..], &shown].concat())
            }
        }
    }
}

impl fmt::Debug for Application {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Application")
            .field("url", &self.url)
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(application: &Application) -> (String, String) {
        let request = application.request().unwrap();
        (request.uri().to_string(), String::from_utf8(request.body().to_vec()).unwrap())
    }

    #[test]
    fn an_account_is_read_as_azures_tools_print_it() {
        let forms = [
            r#"{"tenant":"t/1","appId":"c","password":"s&=%","displayName":"gateway"}"#,
            r#"{"tenantId":"t/1","clientId":"c","clientSecret":"s&=%","subscriptionId":"u"}"#,
            r#"{"tenant_id":"t/1","client_id":"c","client_secret":"s&=%"}"#,
        ];
        for account in forms {
            let (url, body) = body(&Application::parse(account).unwrap());
            assert_eq!(url, "https://login.microsoftonline.com/t%2F1/oauth2/v2.0/token");
            assert_eq!(
                body,
                "grant_type=client_credentials&client_id=c&\
                 scope=https%3A%2F%2Fcognitiveservices.azure.com%2F.default&client_secret=s%26%3D%25"
            );
        }
        let china =
            r#"{"tenant":"t","appId":"c","password":"s","authority":"https://login.chinacloudapi.cn/"}"#;
        let (url, _) = body(&Application::parse(china).unwrap());
        assert_eq!(url, "https://login.chinacloudapi.cn/t/oauth2/v2.0/token");
    }

    #[test]
    fn an_account_that_is_none_is_refused_without_naming_its_secret() {
        for account in [
            "",
            "very-secret",
            r#"{"tenant":"t","appId":"c","password":""}"#,
            r#"{"tenant":"","appId":"c","password":"very-secret"}"#,
            r#"{"tenant":"t","password":"very-secret"}"#,
            r#"{"tenant":"t","appId":"c","password":"very-secret","authority":"login"}"#,
        ] {
            let error = Application::parse(account).unwrap_err().to_string();
            assert!(error.contains("Entra") && !error.contains("very-secret"), "{error}");
        }
    }

    #[test]
    fn a_workload_shows_the_token_that_its_file_holds_now() {
        let path = std::env::temp_dir().join(format!("nantian-entra-{}", std::process::id()));
        let workload = Application::federated(None, "t", "c".to_owned(), path.clone()).unwrap();
        let error = workload.request().unwrap_err();
        assert!(matches!(error, TokenError::Proof { .. }), "{error}");
        for token in ["one", "another"] {
            std::fs::write(&path, format!("{token}\n")).unwrap();
            let (_, body) = body(&workload);
            assert!(body.ends_with(&format!("%3Ajwt-bearer&client_assertion={token}")), "{body}");
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn an_application_is_printed_without_its_secret() {
        let account = r#"{"tenant":"t","appId":"c","password":"very-secret"}"#;
        let shown = format!("{:?}", Application::parse(account).unwrap());
        assert!(!shown.contains("very-secret"), "{shown}");
    }
}
