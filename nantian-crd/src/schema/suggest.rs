//! "Did you mean".

/// The candidate that `word` was probably meant to be: one from which at most a third of its letters differ.
///
/// ```
/// use nantian_crd::schema::suggest;
///
/// assert_eq!(suggest("HttpRoutes", ["Gateway", "HTTPRoute"]).as_deref(), Some("HTTPRoute"));
/// assert_eq!(suggest("Ingress", ["Gateway", "HTTPRoute"]), None);
/// ```
pub fn suggest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let word = word.to_lowercase();
    let most = match word.chars().count() {
        0..=2 => 0,
        length => (length / 3).max(1),
    };
    candidates
        .into_iter()
        .map(|candidate| (strsim::osa_distance(&word, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= most)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate.to_owned())
}
