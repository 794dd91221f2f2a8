//! The RequestMirror filter.

use super::filter_spec::MirrorSpec;
use crate::{
    ir::Share,
    translate::fault::{Fault, Path},
};

/// Reads the share of requests that are mirrored.
pub(super) fn share(spec: &MirrorSpec<'_>, path: &Path<'_>) -> Result<Share, Fault> {
    match (spec.percent, spec.fraction) {
        (None, None) => Ok(Share::ALL),
        (Some(_), Some(_)) => Err(Fault::unsupported(path, "percent and fraction exclude one another")),
        (Some(percent), None) => match u32::try_from(percent) {
            Ok(numerator @ 0..=100) => Ok(Share { numerator, denominator: 100 }),
            _ => Err(Fault::unsupported(&path.field("percent"), format_args!("{percent} is not in 0..=100"))),
        },
        (None, Some((numerator, denominator))) => {
            let denominator = denominator.unwrap_or(100);
            match (u32::try_from(numerator), u32::try_from(denominator)) {
                (Ok(numerator), Ok(denominator)) if denominator > 0 && numerator <= denominator => {
                    Ok(Share { numerator, denominator })
                }
                _ => {
                    let message = format!("{numerator} of {denominator} is no share");
                    Err(Fault::unsupported(&path.field("fraction"), message))
                }
            }
        }
    }
}
