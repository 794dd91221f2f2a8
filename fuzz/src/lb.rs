//! What clients send as sessions.

use std::time::{Duration, SystemTime};

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{COOKIE, SET_COOKIE},
};
use nantian_lb::{
    BalanceConfig, Balancer, Endpoint, PickContext,
    session::{SessionConfig, SessionKeys, SessionName, Sessions},
};

/// Cookies of one name that are looked at.
const NAMESAKES: usize = 16;

/// Each line is a `Cookie` header, and the same a header that carries a session. A `$` in it stands for a
/// true token, a `%` for one in which a bit is changed. Only the true token is a session; whatever else is
/// sent is no error, and other cookies reach the endpoint as they were.
pub fn lb_session(lines: &[u8]) {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let cookies = sessions(SessionConfig::cookie);
    let token = token(&cookies, now);
    let flipped = lines.first().map_or(0, |&byte| usize::from(byte));
    let mut altered = token.clone();
    altered[flipped % token.len()] ^= 1 << (flipped % 7);

    let mut headers = HeaderMap::new();
    let header = HeaderName::from_static("stay");
    for line in lines.split(|&byte| byte == b'\n') {
        let mut text = Vec::new();
        for &byte in line {
            match byte {
                b'$' => text.extend_from_slice(&token),
                b'%' => text.extend_from_slice(&altered),
                byte => text.push(byte),
            }
        }
        if let Ok(value) = HeaderValue::from_bytes(&text) {
            headers.append(COOKIE, value.clone());
            headers.append(&header, value);
        }
    }

    let pairs = pairs(&headers);
    let namesakes = pairs.iter().filter_map(|pair| value_of_stay(pair)).take(NAMESAKES);
    let is_session = namesakes.into_iter().any(|value| value == token);
    assert_eq!(cookies.find(&headers, now).is_some(), is_session);

    let others: Vec<_> = pairs.into_iter().filter(|pair| value_of_stay(pair).is_none()).collect();
    let mut stripped = headers.clone();
    cookies.strip(&mut stripped);
    assert_eq!(self::pairs(&stripped), others);
    assert!(cookies.find(&stripped, now).is_none());

    // The same keys and place, so that the token is good there too.
    let in_header = sessions(SessionConfig::header);
    let is_session = headers.get_all(&header).iter().any(|value| value.as_bytes() == token);
    assert_eq!(in_header.find(&headers, now).is_some(), is_session);
    in_header.strip(&mut headers);
    assert!(headers.get(&header).is_none());
}

fn sessions(config: fn(SessionName) -> SessionConfig) -> Sessions {
    let keys = SessionKeys::new([[7; 32]]).expect("a key");
    let config = config(SessionName::new("stay").expect("a token"));
    Sessions::new(config, "shop/1", &keys).expect("nothing that cannot be kept")
}

fn token(sessions: &Sessions, now: SystemTime) -> Vec<u8> {
    let balancer = Balancer::new([Endpoint::new("a", ())], &BalanceConfig::default());
    let picked = balancer.pick(&PickContext::seeded(1)).expect("an endpoint");
    let mut headers = HeaderMap::new();
    sessions.write(&mut headers, now, None, picked.in_flight());
    let set = headers[SET_COOKIE].as_bytes();
    let value = &set["stay=".len()..];
    let end = value.iter().position(|&byte| byte == b';').expect("attributes follow");
    value[..end].to_vec()
}

/// The cookies of a request, blanks around them aside.
fn pairs(headers: &HeaderMap) -> Vec<Vec<u8>> {
    let mut pairs = Vec::new();
    for line in headers.get_all(COOKIE) {
        let mut pair = Vec::new();
        for &byte in line.as_bytes().iter().chain(b";") {
            if byte == b';' {
                pairs.push(pair.trim_ascii().to_vec());
                pair.clear();
            } else {
                pair.push(byte);
            }
        }
    }
    pairs.retain(|pair| !pair.is_empty());
    pairs
}

/// The value of a cookie if its name is `stay`.
fn value_of_stay(pair: &[u8]) -> Option<&[u8]> {
    let equals = pair.iter().position(|&byte| byte == b'=')?;
    let (name, value) = (pair[..equals].trim_ascii_end(), pair[equals + 1..].trim_ascii_start());
    if name != b"stay" {
        return None;
    }
    let is_quoted = value.len() >= 2 && value.starts_with(b"\"") && value.ends_with(b"\"");
    Some(if is_quoted { &value[1..value.len() - 1] } else { value })
}
