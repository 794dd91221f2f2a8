//! Which kinds the API server serves.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResourceList;
use kube::{Client, Error, api::ApiResource};

use crate::source::kind::Kind;

/// The kinds among `wanted` that are served now, each in the newest version that the gateway knows.
///
/// # Errors
/// When the server cannot be asked.
pub(super) async fn served(client: &Client, wanted: &[Kind]) -> Result<Vec<(Kind, ApiResource)>, Error> {
    let mut asked: Vec<(String, Option<APIResourceList>)> = Vec::new();
    let mut found = Vec::new();
    for kind in wanted {
        for version in kind.info().versions {
            let api_version = kind.info().api_version_of(version);
            if !asked.iter().any(|(known, _)| *known == api_version) {
                let resources = resources(client, &api_version).await?;
                asked.push((api_version.clone(), resources));
            }
            let list =
                asked.iter().find(|(known, _)| *known == api_version).and_then(|(_, list)| list.as_ref());
            let resource = list.and_then(|list| resource(list, *kind, version));
            if let Some(resource) = resource {
                found.push((*kind, resource));
                break;
            }
        }
    }
    Ok(found)
}

/// The kinds of a group and version; `None` where there is no such thing.
async fn resources(client: &Client, api_version: &str) -> Result<Option<APIResourceList>, Error> {
    let resources = match api_version {
        "v1" => client.list_core_api_resources(api_version).await,
        _ => client.list_api_group_resources(api_version).await,
    };
    match resources {
        Ok(list) => Ok(Some(list)),
        Err(Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

fn resource(list: &APIResourceList, kind: Kind, version: &str) -> Option<ApiResource> {
    let info = kind.info();
    let can_be_watched =
        |verbs: &[String]| ["list", "watch"].iter().all(|verb| verbs.iter().any(|known| known == verb));
    let is_it = |name: &str| !name.contains('/');
    let found = list.resources.iter().find(|resource| {
        resource.kind == info.name && is_it(&resource.name) && can_be_watched(&resource.verbs)
    })?;
    Some(ApiResource {
        group: info.group.to_owned(),
        version: version.to_owned(),
        api_version: info.api_version_of(version),
        kind: info.name.to_owned(),
        plural: found.name.clone(),
    })
}
