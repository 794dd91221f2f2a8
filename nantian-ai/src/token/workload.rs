//! Identities that a platform gives to the program itself.

use std::path::PathBuf;

#[cfg(feature = "gcp")]
use super::google;
#[cfg(feature = "aws")]
use super::sts;
use super::{Identity, entra};
use crate::credential::{InvalidCredential, Scheme};

/// An identity that the program has where it runs, without a secret of its own.
///
/// What is known of it is in the environment, under the names that the cloud's own tools know. Whoever may
/// point a [`Target`](crate::Target) with a workload's identity to an endpoint is trusted with it: the
/// endpoint is shown its tokens.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Workload {
    /// A role of AWS that is assumed by a token in a file: IAM roles for service accounts (EKS).
    AwsRole {
        /// The role's ARN. Source: `AWS_ROLE_ARN`.
        role: String,
        /// The name of the session in AWS's records. Default: `nantian`. Source: `AWS_ROLE_SESSION_NAME`.
        session: String,
        /// The file. Source: `AWS_WEB_IDENTITY_TOKEN_FILE`.
        file: PathBuf,
        /// The base URL of STS. Default: that of the target's region. Source: `AWS_ENDPOINT_URL_STS`.
        endpoint: Option<String>,
    },
    /// A role of AWS whose credentials a neighbour hands out: Pod Identity (EKS), tasks (ECS).
    AwsContainer {
        /// The URL of the credentials. Source: `AWS_CONTAINER_CREDENTIALS_FULL_URI`, or
        /// `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI` at 169.254.170.2.
        url: String,
        /// A file with the token that the neighbour wants to see. Source:
        /// `AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE`.
        file: Option<PathBuf>,
    },
    /// An application of Entra ID that is proved by a token in a file: workload identity (AKS).
    Azure {
        /// The tenant. Source: `AZURE_TENANT_ID`.
        tenant: String,
        /// The application. Source: `AZURE_CLIENT_ID`.
        client: String,
        /// The file. Source: `AZURE_FEDERATED_TOKEN_FILE`.
        file: PathBuf,
        /// The base URL of the token endpoint. Default: that of the public cloud. Source:
        /// `AZURE_AUTHORITY_HOST`.
        authority: Option<String>,
    },
    /// The service account of a machine of Google's: Workload Identity (GKE), Compute Engine, Cloud Run.
    Google {
        /// Host, and port if any, of the metadata server. Default: `metadata.google.internal`. Source:
        /// `GCE_METADATA_HOST`.
        host: String,
    },
}

// === impl Workload ===

impl Workload {
    /// The identity that a scheme has here by this environment, [`std::env::var`] for example; `None` if it
    /// has none.
    ///
    /// Google names its own machines in no variable, so there is always one of Google, which may not answer.
    pub fn of_environment(scheme: Scheme, variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        match scheme {
            Scheme::Aws => Self::aws(&variable),
            Scheme::Azure => Some(Self::Azure {
                tenant: variable("AZURE_TENANT_ID")?,
                client: variable("AZURE_CLIENT_ID")?,
                file: variable("AZURE_FEDERATED_TOKEN_FILE")?.into(),
                authority: variable("AZURE_AUTHORITY_HOST"),
            }),
            Scheme::Gcp => Some(Self::Google {
                host: variable("GCE_METADATA_HOST").unwrap_or_else(|| "metadata.google.internal".to_owned()),
            }),
            _ => None,
        }
    }

    /// In the order in which AWS's own tools look.
    fn aws(variable: &impl Fn(&str) -> Option<String>) -> Option<Self> {
        if let (Some(role), Some(file)) = (variable("AWS_ROLE_ARN"), variable("AWS_WEB_IDENTITY_TOKEN_FILE"))
        {
            return Some(Self::AwsRole {
                role,
                session: variable("AWS_ROLE_SESSION_NAME").unwrap_or_else(|| "nantian".to_owned()),
                file: file.into(),
                endpoint: variable("AWS_ENDPOINT_URL_STS"),
            });
        }
        let relative = variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
        let url = relative
            .map(|path| format!("http://169.254.170.2{path}"))
            .or_else(|| variable("AWS_CONTAINER_CREDENTIALS_FULL_URI"))?;
        let file = variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE").map(PathBuf::from);
        Some(Self::AwsContainer { url, file })
    }

    /// How the identity is shown to providers.
    pub(crate) fn scheme(&self) -> Scheme {
        match self {
            Self::AwsRole { .. } | Self::AwsContainer { .. } => Scheme::Aws,
            Self::Azure { .. } => Scheme::Azure,
            Self::Google { .. } => Scheme::Gcp,
        }
    }

    /// Checks the identity; tokens are for a region.
    #[cfg_attr(not(feature = "aws"), expect(unused_variables, reason = "only AWS has regions"))]
    pub(crate) fn identity(&self, region: &str) -> Result<Identity, InvalidCredential> {
        let made = match self.clone() {
            #[cfg(feature = "aws")]
            Self::AwsRole { role, session, file, endpoint } => {
                sts::Role::assumed(role, session, file, endpoint, region).map(Identity::Aws)
            }
            #[cfg(feature = "aws")]
            Self::AwsContainer { url, file } => sts::Role::of_container(url, file).map(Identity::Aws),
            Self::Azure { tenant, client, file, authority } => {
                entra::Application::federated(authority.as_deref(), &tenant, client, file)
                    .map(Identity::Entra)
            }
            #[cfg(feature = "gcp")]
            Self::Google { host } => google::Account::own(&host).map(Identity::Google),
            #[cfg(not(all(feature = "aws", feature = "gcp")))]
            _ => return Err(InvalidCredential::NotBuiltIn { scheme: self.scheme() }),
        };
        made.map_err(|problem| InvalidCredential::Account { what: "the workload's identity", problem })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(scheme: Scheme, environment: &[(&str, &str)]) -> Option<Workload> {
        Workload::of_environment(scheme, |name| {
            let found = environment.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn a_role_of_aws_is_known_by_its_file_or_by_a_neighbour() {
        let file = ("AWS_WEB_IDENTITY_TOKEN_FILE", "/run/token");
        let neighbour = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/v1/credentials");
        assert_eq!(of(Scheme::Aws, &[]), None);
        assert_eq!(of(Scheme::Aws, &[file]), None);
        assert!(matches!(
            of(Scheme::Aws, &[("AWS_ROLE_ARN", "arn:aws:iam::1:role/x"), file, neighbour]),
            Some(Workload::AwsRole { session, .. }) if session == "nantian"
        ));
        let container = of(Scheme::Aws, &[neighbour]);
        assert_eq!(container, Some(Workload::AwsContainer { url: neighbour.1.to_owned(), file: None }));
        assert!(matches!(
            of(Scheme::Aws, &[("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/x")]),
            Some(Workload::AwsContainer { url, .. }) if url == "http://169.254.170.2/v2/x"
        ));
    }

    #[test]
    fn an_application_of_azure_needs_all_three_of_its_variables() {
        let all = [
            ("AZURE_TENANT_ID", "t"),
            ("AZURE_CLIENT_ID", "c"),
            ("AZURE_FEDERATED_TOKEN_FILE", "/run/token"),
        ];
        assert!(of(Scheme::Azure, &all).is_some());
        for without in 0..all.len() {
            let mut some = all.to_vec();
            some.remove(without);
            assert_eq!(of(Scheme::Azure, &some), None);
        }
        assert_eq!(of(Scheme::Azure, &[all[0], all[1], ("AZURE_FEDERATED_TOKEN_FILE", "")]), None);
    }

    #[test]
    fn other_schemes_have_no_workloads() {
        assert_eq!(of(Scheme::Bearer, &[]), None);
    }
}
