//! What a response must not say to a client.

use http::{HeaderMap, HeaderValue, Response, StatusCode, Version, header};
use http_body::Body as _;

use super::{
    header_order::Order,
    hop_by_hop::{HopHeaders, remove_hop_by_hop},
};
use crate::observe::ObservedBody;

/// A response without the content that it may not have: that to HEAD, which says how long it would be (RFC
/// 9110, section 9.3.2), and one whose status has none (sections 15.3.5 and 15.4.5).
///
/// Of that to HEAD, content of unknown length is not made here: a backend has sent none, and what breaks off
/// is to break off.
pub(super) fn without_content(response: Response<ObservedBody>, is_head: bool) -> Response<ObservedBody> {
    if matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        let has_content = !response.body().is_end_stream();
        return if has_content { response.map(ObservedBody::emptied) } else { response };
    }
    if !is_head {
        return response;
    }
    let Some(length) = response.body().size_hint().exact().filter(|length| *length > 0) else {
        return response;
    };
    let mut response = response.map(ObservedBody::emptied);
    response.headers_mut().entry(header::CONTENT_LENGTH).or_insert(length.into());
    response
}

/// Makes one length of several equal ones (RFC 9110, section 8.6), as clients of HTTP/2 and many backends
/// want it; different ones do not get here.
pub(super) fn say_length_once(headers: &mut HeaderMap) {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else { return };
    if lengths.next().is_none() && !first.as_bytes().contains(&b',') {
        return;
    }
    let one = first.as_bytes().split(|byte| *byte == b',').next().unwrap_or_default();
    if let Ok(one) = HeaderValue::from_bytes(one.trim_ascii()) {
        headers.insert(header::CONTENT_LENGTH, one);
    }
}

/// Removes what the backend meant for the gateway; a change of protocol is announced again, and so is, where
/// the client can ask for it, one that the backend insists on (RFC 9110, section 15.5.22).
pub(super) fn without_hop_by_hop(
    mut response: Response<ObservedBody>,
    order: Order,
    version: Version,
) -> Response<ObservedBody> {
    let seen = HopHeaders::of(response.headers());
    if seen.transfer_encoding() || response.status() == StatusCode::NO_CONTENT {
        // The length is not that of the body (RFC 9112, section 6.3), or there is none (RFC 9110, section
        // 8.6).
        order.remove(response.headers_mut(), |name| *name == header::CONTENT_LENGTH);
    }
    say_length_once(response.headers_mut());
    let upgrade = remove_hop_by_hop(response.headers_mut(), seen, order);
    let is_announced = match response.status() {
        StatusCode::SWITCHING_PROTOCOLS => true,
        StatusCode::UPGRADE_REQUIRED => version == Version::HTTP_11,
        _ => false,
    };
    if let Some(protocol) = upgrade.filter(|_| is_announced) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        response.headers_mut().insert(header::UPGRADE, protocol);
    }
    response
}
