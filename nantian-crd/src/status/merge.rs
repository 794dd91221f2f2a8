//! Merging conditions into those of a status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// The API conventions allow no longer message.
pub(super) const MAX_MESSAGE: usize = 32_768;

/// Merges `new` into `conditions` by type and says whether anything changed.
///
/// `lastTransitionTime` moves to that of `new` only when the status changes. A condition that was seen at a
/// newer generation than `new` is left alone.
pub fn merge(conditions: &mut Vec<Condition>, mut new: Condition) -> bool {
    new.message.truncate(new.message.floor_char_boundary(MAX_MESSAGE));
    let Some(old) = conditions.iter_mut().find(|old| old.type_ == new.type_) else {
        conditions.push(new);
        return true;
    };
    if old.observed_generation > new.observed_generation {
        return false;
    }
    if old.status == new.status {
        new.last_transition_time = old.last_transition_time.clone();
    }
    let changed = *old != new;
    *old = new;
    changed
}
