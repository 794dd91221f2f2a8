//! The few fields of a JSON body that limits count by, read without keeping anything else.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// The fields that are looked at; everything else is skipped without being kept.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Fields<'a> {
    #[serde(borrow)]
    model: Said<'a>,
    #[serde(borrow)]
    user: Said<'a>,
    #[serde(borrow)]
    safety_identifier: Said<'a>,
    #[serde(borrow)]
    metadata: Said<'a>,
}

/// A value of any kind: what is looked at if it is a string, or an object.
#[derive(Debug, Default)]
struct Said<'a> {
    text: Option<Cow<'a, str>>,
    user_id: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Member {
    UserId,
    #[serde(other)]
    Other,
}

struct SaidVisitor;

// === impl Fields ===

impl Fields<'_> {
    pub(super) fn model(&self) -> Option<&str> {
        self.model.text.as_deref()
    }

    /// The user, as the APIs of OpenAI, old and new, and of Anthropic call it.
    pub(super) fn user(&self) -> Option<&str> {
        let user = self.user.text.as_deref().or(self.safety_identifier.text.as_deref());
        user.or(self.metadata.user_id.as_deref())
    }
}

// === impl Said ===

impl<'de: 'a, 'a> Deserialize<'de> for Said<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SaidVisitor)
    }
}

impl<'de> Visitor<'de> for SaidVisitor {
    type Value = Said<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Said<'de>, E> {
        Ok(Said { text: Some(Cow::Borrowed(text)), user_id: None })
    }

    fn visit_str<E>(self, text: &str) -> Result<Said<'de>, E> {
        Ok(Said { text: Some(Cow::Owned(text.to_owned())), user_id: None })
    }

    fn visit_unit<E>(self) -> Result<Said<'de>, E> {
        Ok(Said::default())
    }

    fn visit_bool<E>(self, _: bool) -> Result<Said<'de>, E> {
        Ok(Said::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<Said<'de>, E> {
        Ok(Said::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Said<'de>, E> {
        Ok(Said::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Said<'de>, E> {
        Ok(Said::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Said<'de>, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Said::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Said<'de>, A::Error> {
        let mut user_id = None;
        while let Some(member) = members.next_key()? {
            match member {
                Member::UserId => user_id = members.next_value::<Said<'de>>()?.text,
                Member::Other => {
                    members.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Said { text: None, user_id })
    }
}
