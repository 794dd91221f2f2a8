//! The tokens that credentials of AIServices are exchanged for.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, header::HOST};
use http_body_util::{BodyExt as _, Limited};
use nantian_ai::{
    Scheme,
    token::{Exchange, TokenClient, Workload},
};
use tokio::time::timeout;

use super::{InvalidAiService, langfuse::LangfuseProject};
use crate::{
    body::{Body, BoxError},
    runtime::CallThread,
    tenancy::Tenancy,
    upstream::{Client, ClientConfig, Destination},
};

/// How long a token endpoint may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The most that is read of its answer, in bytes.
const MOST_SAID: usize = 64 * 1024;

/// Exchanges credentials for tokens, on a thread of its own, and knows who the gateway itself is.
#[derive(Debug)]
pub(crate) struct Tokens {
    config: ClientConfig,
    own: OwnIdentities,
    /// Each is started with the first credential that needs it, and has connections of its own.
    threads: Threads,
}

/// Where exchanges are made.
#[derive(Debug, Default)]
struct Threads {
    /// Those of the gateway itself, whose URLs come from its environment: metadata servers, as a rule.
    own: Option<CallThread>,
    /// Those of accounts in Secrets, which may name a URL.
    of_secrets: Option<CallThread>,
}

/// Who the gateway is at the clouds, whose AIServices may use that, and its project at Langfuse.
#[derive(Debug, Clone, Default)]
pub struct OwnIdentities {
    namespaces: BTreeSet<String>,
    known: Vec<(Scheme, Workload)>,
    langfuse: LangfuseProject,
}

/// Makes exchanges on a thread.
struct OnThread(CallThread);

// === impl Tokens ===

impl Tokens {
    /// No exchange yet; the client of their thread is made of `config`.
    pub(crate) fn new(config: ClientConfig, own: OwnIdentities) -> Self {
        Self { config, own, threads: Threads::default() }
    }

    /// The gateway's own identity, for an AIService of this namespace.
    pub(super) fn own(&self, namespace: &str, scheme: Scheme) -> Result<Workload, InvalidAiService> {
        self.own.of(namespace, scheme).cloned()
    }

    /// Who the gateway itself is.
    pub(crate) fn identities(&self) -> &OwnIdentities {
        &self.own
    }

    /// What exchanges are made by: those of the gateway's own identity, or those of accounts in Secrets.
    pub(super) fn client(&mut self, is_own: bool) -> Arc<dyn TokenClient> {
        let Threads { own, of_secrets } = &mut self.threads;
        let (kept, tenancy) = if is_own { (own, Tenancy::Single) } else { (of_secrets, self.config.tenancy) };
        let thread = match kept.take() {
            Some(thread) => Ok(thread),
            None => CallThread::start("tokens", ClientConfig { tenancy, ..self.config.clone() }),
        };
        match thread {
            Ok(thread) => Arc::new(OnThread(kept.insert(thread).clone())),
            Err(error) => {
                tracing::error!(%error, "credentials cannot be exchanged for tokens");
                Arc::new(drop::<Exchange>)
            }
        }
    }
}

// === impl OwnIdentities ===

impl OwnIdentities {
    /// What the environment says of the gateway, for AIServices of these namespaces.
    pub fn of_environment(
        namespaces: impl IntoIterator<Item = String>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Self {
        let known = [Scheme::Aws, Scheme::Azure, Scheme::Gcp].into_iter();
        let known = known.filter_map(|scheme| Some((scheme, Workload::of_environment(scheme, &variable)?)));
        Self {
            namespaces: namespaces.into_iter().collect(),
            known: known.collect(),
            langfuse: LangfuseProject::of_environment(&variable),
        }
    }

    /// The project at Langfuse, which any AIService may have told of its calls.
    pub(crate) fn langfuse(&self) -> &LangfuseProject {
        &self.langfuse
    }

    /// The identity that AIServices of a namespace may use at a cloud.
    pub(super) fn of(&self, namespace: &str, scheme: Scheme) -> Result<&Workload, InvalidAiService> {
        if !self.namespaces.contains(namespace) {
            return Err(InvalidAiService::Own);
        }
        let known = self.known.iter().find(|(cloud, _)| *cloud == scheme);
        known.map(|(_, workload)| workload).ok_or(InvalidAiService::NoIdentity { scheme })
    }
}

// === impl OnThread ===

impl TokenClient for OnThread {
    fn begin(&self, exchange: Exchange) {
        self.0.run(|client| exchange.through(async move |request| send(client, request).await));
    }
}

async fn send(client: Client, request: Request<Bytes>) -> Result<Response<Bytes>, BoxError> {
    let mut request = request.map(Body::full);
    let uri = request.uri();
    let authority = uri.authority().ok_or("the token endpoint's URL names no host")?.clone();
    let is_tls = uri.scheme() == Some(&http::uri::Scheme::HTTPS);
    let destination =
        Destination::of_url(&authority, is_tls).ok_or("the token endpoint's URL names no host")?;
    request.headers_mut().insert(HOST, authority.as_str().parse()?);
    let exchange = async {
        let (head, body) =
            client.send(destination, request).await.map_err(|unsent| unsent.error)?.into_parts();
        let said = Limited::new(body, MOST_SAID).collect().await?.to_bytes();
        Ok(Response::from_parts(head, said))
    };
    timeout(PATIENCE, exchange).await?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(namespace: &str, scheme: Scheme) -> Result<Workload, InvalidAiService> {
        let environment = [
            ("AZURE_TENANT_ID", "t"),
            ("AZURE_CLIENT_ID", "c"),
            ("AZURE_FEDERATED_TOKEN_FILE", "/run/token"),
        ];
        let variable = |name: &str| {
            let found = environment.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let own = OwnIdentities::of_environment(["trusted".to_owned()], variable);
        let config = ClientConfig::bare().unwrap();
        Tokens::new(config, own).own(namespace, scheme)
    }

    #[test]
    fn only_the_namespaces_that_are_named_may_use_the_gateways_identity() {
        assert!(matches!(own("trusted", Scheme::Azure), Ok(Workload::Azure { .. })));
        assert!(matches!(own("other", Scheme::Azure), Err(InvalidAiService::Own)));
        assert!(matches!(own("trusted", Scheme::Aws), Err(InvalidAiService::NoIdentity { .. })));
    }
}
