//! Retries of a rule.

use std::time::Duration;

use gateway_api::experimental::httproutes::HttpRouteRulesRetry;

use crate::{
    ir::RouteRetry,
    translate::fault::{Fault, Path},
};

/// How often a request is sent again if the rule does not say.
const ATTEMPTS: u32 = 1;
/// The wait before the first time if the rule does not say.
const BACKOFF: Duration = Duration::from_millis(25);

/// Reads the retries of a rule; 0 attempts are none.
pub(super) fn read(spec: &HttpRouteRulesRetry, path: &Path<'_>) -> Result<Option<RouteRetry>, Fault> {
    let attempts = match spec.attempts.map(u32::try_from) {
        None => ATTEMPTS,
        Some(Ok(attempts)) => attempts,
        Some(Err(_)) => {
            return Err(Fault::unsupported(&path.field("attempts"), "must be at least 0"));
        }
    };
    let backoff = match &spec.backoff {
        None => BACKOFF,
        Some(text) => {
            let backoff: nantian_crd::Duration =
                text.parse().map_err(|error| Fault::unsupported(&path.field("backoff"), error))?;
            backoff.as_std()
        }
    };
    let path_of_codes = path.field("codes");
    let codes = spec.codes.iter().flatten().enumerate().map(|(index, code)| match u16::try_from(*code) {
        Ok(code @ 400..=599) => Ok(code),
        _ => Err(Fault::unsupported(&path_of_codes.index(index), format_args!("{code} is not in 400..=599"))),
    });
    let codes = codes.collect::<Result<_, _>>()?;
    Ok((attempts > 0).then_some(RouteRetry { codes, attempts, backoff }))
}
