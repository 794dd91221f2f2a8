//! For whom a limit counts: the grammar `route|global|gateway|model|apiKey|user|ip|header:<name>`, joined
//! with `+`.

use std::fmt;
use std::str::FromStr;

use http::HeaderName;

use crate::error::InvalidScope;

/// The parts of a request that share one bucket.
///
/// Requests that agree in every part share it. Parts have no order, and a repeated one counts once:
/// `model+apiKey+model` is `apiKey+model`.
///
/// ```
/// use nantian_ratelimit::{Scope, ScopePart};
///
/// let scope: Scope = "model+apiKey".parse()?;
/// assert_eq!(scope.to_string(), "apiKey+model");
/// assert_eq!(scope, Scope::from(ScopePart::Model).and(ScopePart::ApiKey));
/// assert!("apikey".parse::<Scope>().is_err());
/// # Ok::<_, nantian_ratelimit::InvalidScope>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scope(Vec<ScopePart>);

/// One part of a [`Scope`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ScopePart {
    /// Everything that the policy sees shares one bucket.
    Global,
    /// The gateway or listener that took the request.
    Gateway,
    /// The route that matched. The default.
    Route,
    /// The credential that the client sent.
    ApiKey,
    /// The authenticated user.
    User,
    /// The client's address.
    Ip,
    /// The model that the request asks for.
    Model,
    /// The value of a request header.
    Header(HeaderName),
}

// === impl Scope ===

impl Scope {
    /// The scope `route`, which is the default.
    pub fn route() -> Self {
        Self(vec![ScopePart::Route])
    }

    /// The scope `global`.
    pub fn global() -> Self {
        Self(vec![ScopePart::Global])
    }

    /// The same scope with one more part.
    #[must_use]
    pub fn and(mut self, part: ScopePart) -> Self {
        self.0.push(part);
        Self::of(self.0)
    }

    /// The parts, in canonical order, at least one.
    pub fn parts(&self) -> &[ScopePart] {
        &self.0
    }

    /// Whether all requests share one bucket. Those of one route may be all there are, which nobody tells.
    pub(crate) fn is_global(&self) -> bool {
        self.0 == [ScopePart::Global]
    }

    fn of(mut parts: Vec<ScopePart>) -> Self {
        parts.sort_by(|a, b| {
            (a.code(), a.header().map(HeaderName::as_str))
                .cmp(&(b.code(), b.header().map(HeaderName::as_str)))
        });
        parts.dedup();
        Self(parts)
    }
}

impl Default for Scope {
    fn default() -> Self {
        Self::route()
    }
}

impl From<ScopePart> for Scope {
    fn from(part: ScopePart) -> Self {
        Self(vec![part])
    }
}

impl FromStr for Scope {
    type Err = InvalidScope;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split('+').map(|word| match word {
            "" => Err(InvalidScope::Empty(text.to_owned())),
            word => word.parse(),
        });
        Ok(Self::of(parts.collect::<Result<_, _>>()?))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, part) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str("+")?;
            }
            part.fmt(f)?;
        }
        Ok(())
    }
}

// === impl ScopePart ===

impl ScopePart {
    /// The part's name in the grammar; `header` for every header.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::Gateway => "gateway",
            Self::Route => "route",
            Self::ApiKey => "apiKey",
            Self::User => "user",
            Self::Ip => "ip",
            Self::Model => "model",
            Self::Header(_) => "header",
        }
    }

    fn header(&self) -> Option<&HeaderName> {
        match self {
            Self::Header(name) => Some(name),
            _ => None,
        }
    }

    /// The part's place in the canonical order, which keys are hashed with. Never 0.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Global => 1,
            Self::Gateway => 2,
            Self::Route => 3,
            Self::ApiKey => 4,
            Self::User => 5,
            Self::Ip => 6,
            Self::Model => 7,
            Self::Header(_) => 8,
        }
    }
}

impl FromStr for ScopePart {
    type Err = InvalidScope;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Ok(match word {
            "global" => Self::Global,
            "gateway" => Self::Gateway,
            "route" => Self::Route,
            "apiKey" => Self::ApiKey,
            "user" => Self::User,
            "ip" => Self::Ip,
            "model" => Self::Model,
            _ => {
                let name =
                    word.strip_prefix("header:").ok_or_else(|| InvalidScope::Unknown(word.to_owned()))?;
                let name = HeaderName::from_str(name).map_err(|_| InvalidScope::Header(word.to_owned()))?;
                Self::Header(name)
            }
        })
    }
}

impl fmt::Display for ScopePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            part => f.write_str(part.name()),
        }
    }
}
