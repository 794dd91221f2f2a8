//! Sessions: a client stays with its endpoint, by a token that it keeps.
//!
//! The token is opaque and authenticated (AES-256-GCM), is bound to the place that it was issued for, and
//! names no address: whoever alters it, brings one of another place, or one whose time is over, is treated as
//! if there were none. So are tokens of keys that are not in the ring. Replicas that share the keys share the
//! sessions.
//!
//! ```
//! use std::time::{Duration, SystemTime};
//! use http::{HeaderMap, header::SET_COOKIE};
//! use nantian_lb::session::{SessionConfig, SessionKeys, SessionName, Sessions};
//! use nantian_lb::{BalanceConfig, Balancer, Endpoint, PickContext};
//!
//! let config = SessionConfig::cookie(SessionName::new("stay")?).with_idle_timeout(Duration::from_secs(600));
//! let sessions = Sessions::new(config, "shop/rule 1", &SessionKeys::new([[7; 32]])?)?;
//! let balancer = Balancer::new([Endpoint::new("a", 1), Endpoint::new("b", 2)], &BalanceConfig::default());
//!
//! // The first request has no session. Its response starts one.
//! let now = SystemTime::now();
//! let first = balancer.pick(&PickContext::new())?;
//! let mut response = HeaderMap::new();
//! sessions.write(&mut response, now, None, first.in_flight());
//! let cookie = response[SET_COOKIE].to_str()?.split(';').next().unwrap_or_default().to_owned();
//!
//! // The next one goes to the same endpoint.
//! let request = HeaderMap::from_iter([(http::header::COOKIE, cookie.parse()?)]);
//! let session = sessions.find(&request, now).ok_or("no session")?;
//! let second = balancer.pick(&PickContext::new().with_session(&session))?;
//! assert_eq!(second.target(), first.target());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod config;
mod cookie;
mod keys;
mod sessions;
mod token;

pub use self::config::{
    CookieConfig, CookieLifetime, InvalidSession, InvalidSessionName, SameSite, SessionCarrier,
    SessionConfig, SessionName,
};
pub use self::keys::{NoRandomness, NoSessionKeys, SessionKeys};
pub use self::sessions::{Session, Sessions};
