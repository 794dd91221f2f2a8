//! Timeouts of a rule.

use std::time::Duration;

use gateway_api::experimental::httproutes::HttpRouteRulesTimeouts;

use crate::{
    ir::Timeouts,
    translate::fault::{Fault, Path},
};

/// Reads the timeouts of a rule; `0s` is no limit.
pub(super) fn read(spec: &HttpRouteRulesTimeouts, path: &Path<'_>) -> Result<Timeouts, Fault> {
    let request = duration(spec.request.as_deref(), &path.field("request"))?;
    let backend_request = duration(spec.backend_request.as_deref(), &path.field("backendRequest"))?;
    if let (Some(request), Some(backend_request)) = (request, backend_request)
        && backend_request > request
    {
        let message = format!("{backend_request:?} is longer than timeouts.request, {request:?}");
        return Err(Fault::unsupported(&path.field("backendRequest"), message));
    }
    Ok(Timeouts { request, backend_request })
}

fn duration(text: Option<&str>, path: &Path<'_>) -> Result<Option<Duration>, Fault> {
    let Some(text) = text else { return Ok(None) };
    let duration: nantian_crd::Duration = text.parse().map_err(|error| Fault::unsupported(path, error))?;
    Ok(Some(duration.as_std()).filter(|duration| !duration.is_zero()))
}
