//! Feature gates: alpha kinds are off until they are asked for.

use std::{fmt, str::FromStr};

use serde::Serialize;

/// A kind that is served only when its gate is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[non_exhaustive]
pub enum Feature {
    /// The kind AIService.
    AIService,
    /// The kind TokenPolicy.
    TokenPolicy,
    /// The kind WasmPlugin.
    WasmPlugin,
    /// The kind BackendLBPolicy.
    BackendLBPolicy,
}

impl Feature {
    /// Every gate, in the order of the documentation.
    pub const ALL: [Self; 4] = [Self::AIService, Self::TokenPolicy, Self::WasmPlugin, Self::BackendLBPolicy];

    /// The name on the command line, which is the kind's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AIService => "AIService",
            Self::TokenPolicy => "TokenPolicy",
            Self::WasmPlugin => "WasmPlugin",
            Self::BackendLBPolicy => "BackendLBPolicy",
        }
    }
}

/// Which gates are open. Default: none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FeatureGates {
    open: [bool; Feature::ALL.len()],
}

impl FeatureGates {
    /// Every gate open.
    pub const fn all() -> Self {
        Self { open: [true; Feature::ALL.len()] }
    }

    /// Whether the gate of `feature` is open.
    pub fn is_open(self, feature: Feature) -> bool {
        Feature::ALL.iter().zip(self.open).any(|(candidate, open)| *candidate == feature && open)
    }

    fn set(&mut self, feature: Feature, value: bool) {
        for (candidate, open) in Feature::ALL.iter().zip(&mut self.open) {
            if *candidate == feature {
                *open = value;
            }
        }
    }
}

/// A `--feature-gates` value that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidGates {
    /// No gate has this name.
    #[error(
        "unknown feature gate {0:?}, known are AllAlpha, AIService, TokenPolicy, WasmPlugin, BackendLBPolicy"
    )]
    Unknown(String),
    /// Neither `true` nor `false`.
    #[error("feature gate {name} needs true or false, not {value:?}")]
    NotABool {
        /// The gate.
        name: String,
        /// What stood behind the `=`.
        value: String,
    },
}

impl FromStr for FeatureGates {
    type Err = InvalidGates;

    /// Reads `AIService=true,TokenPolicy=false`; a later entry wins, `AllAlpha` stands for all.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut gates = Self::default();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let (name, value) = entry.split_once('=').unwrap_or((entry, "true"));
            let value = match value {
                "true" => true,
                "false" => false,
                _ => return Err(InvalidGates::NotABool { name: name.to_owned(), value: value.to_owned() }),
            };
            if name == "AllAlpha" {
                gates.open = [value; Feature::ALL.len()];
            } else if let Some(feature) = Feature::ALL.into_iter().find(|feature| feature.name() == name) {
                gates.set(feature, value);
            } else {
                return Err(InvalidGates::Unknown(name.to_owned()));
            }
        }
        Ok(gates)
    }
}

impl fmt::Display for FeatureGates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = Feature::ALL.map(|feature| format!("{}={}", feature.name(), self.is_open(feature)));
        f.write_str(&entries.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_are_closed_until_named() {
        let gates: FeatureGates = "AIService=true, WasmPlugin".parse().unwrap();
        assert!(gates.is_open(Feature::AIService));
        assert!(gates.is_open(Feature::WasmPlugin));
        assert!(!gates.is_open(Feature::TokenPolicy));
        assert_eq!("".parse(), Ok(FeatureGates::default()));
    }

    #[test]
    fn a_later_entry_wins_over_all_alpha() {
        let gates: FeatureGates = "AllAlpha=true,TokenPolicy=false".parse().unwrap();
        assert_eq!(
            gates.to_string(),
            "AIService=true,TokenPolicy=false,WasmPlugin=true,BackendLBPolicy=true"
        );
    }

    #[test]
    fn a_misspelt_gate_is_named() {
        assert_eq!(
            "AiService=true".parse::<FeatureGates>(),
            Err(InvalidGates::Unknown("AiService".to_owned()))
        );
        assert!("AIService=yes".parse::<FeatureGates>().is_err());
    }
}
