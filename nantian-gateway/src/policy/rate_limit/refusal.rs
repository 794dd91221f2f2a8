//! What limits around learn of the refusals of those within.

use http::{Extensions, Response};
use nantian_ratelimit::{Denied, Unavailable};
use nantian_wasm::respond::ReplacedExtensions;

/// Says of what a plugin has put in the place of a limit's refusal that it is one: to limits around it costs
/// nothing.
pub(crate) fn keep_refusal<B>(mut response: Response<B>) -> Response<B> {
    let extensions = response.extensions_mut();
    if let Some(ReplacedExtensions(mut replaced)) = extensions.remove() {
        keep::<Denied>(&mut replaced, extensions);
        keep::<Unavailable>(&mut replaced, extensions);
    }
    response
}

fn keep<T: Clone + Send + Sync + 'static>(replaced: &mut Extensions, extensions: &mut Extensions) {
    if let Some(refusal) = replaced.remove::<T>() {
        extensions.insert(refusal);
    }
}
