//! Reads JSON objects and keeps account of what nobody has read.

use std::borrow::Cow;

use super::{Value, fault};
use crate::ir::{Fault, Json, Losses, arguments, given_arguments};

/// A request that says something its dialect does not allow, or that the other dialect cannot even
/// approximate.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{field}` {problem}")]
#[non_exhaustive]
pub struct Invalid {
    /// The field's path, without indices.
    pub field: Cow<'static, str>,
    /// What is wrong with it.
    pub problem: Cow<'static, str>,
}

/// The members of an object. `null` is absent.
pub(crate) struct Fields {
    members: Vec<(String, Value)>,
    at: &'static str,
}

// === impl Invalid ===

impl Invalid {
    pub(crate) fn new(field: impl Into<Cow<'static, str>>, problem: impl Into<Cow<'static, str>>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }
}

// === impl Fields ===

impl Fields {
    /// Reads the outermost object of a body.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Invalid> {
        Self::outermost(Value::parse(body))
    }

    /// Reads the outermost object of what a provider says.
    pub(crate) fn parse_said(body: &[u8]) -> Result<Self, Fault> {
        Self::outermost(Value::parse_said(body)).map_err(|_| Fault::unreadable())
    }

    /// The same, unless it says an error instead.
    pub(crate) fn parse_unless_error(body: &[u8]) -> Result<Self, Fault> {
        let mut fields = Self::parse_said(body)?;
        match fields.take("error") {
            Some(error) => Err(fault::of_error(error)),
            None => Ok(fields),
        }
    }

    fn outermost(value: Result<Value, serde_json::Error>) -> Result<Self, Invalid> {
        let unreadable = |problem: &dyn std::fmt::Display| {
            Invalid::new("body", format!("is not a JSON object that can be read: {problem}"))
        };
        match value.map_err(|error| unreadable(&error))? {
            Value::Object(members) => Ok(Self { members, at: "" }),
            _ => Err(unreadable(&"it is no object")),
        }
    }

    /// The object that stands at a path.
    pub(crate) fn of(value: Value, at: &'static str) -> Result<Self, Invalid> {
        match value {
            Value::Object(members) => Ok(Self { members, at }),
            _ => Err(Invalid::new(at, "is not an object")),
        }
    }

    /// The object of an answer; what is none has no members.
    pub(crate) fn lenient(value: Value) -> Self {
        let members = match value {
            Value::Object(members) => members,
            _ => Vec::new(),
        };
        Self { members, at: "" }
    }

    /// Whether there are no members.
    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Takes a member. Of several with one name the last counts.
    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        let mut last = None;
        self.members.retain_mut(|(known, value)| {
            let is_it = known == name;
            if is_it {
                last = Some(std::mem::take(value));
            }
            !is_it
        });
        last.filter(|value| !value.is_null())
    }

    /// Whether there is a member that says anything.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.members.iter().rfind(|(known, _)| known == name).is_some_and(|(_, value)| !value.is_null())
    }

    /// The text of a member, which stays where it is.
    pub(crate) fn peek(&self, name: &str) -> Option<&str> {
        match self.members.iter().rfind(|(known, _)| known == name) {
            Some((_, Value::String(text))) => Some(text),
            _ => None,
        }
    }

    /// Any value, to be carried.
    pub(crate) fn json(&mut self, name: &str) -> Option<Json> {
        Some(match self.take(name)? {
            Value::Carried(json) => json,
            value => Json::of(&value),
        })
    }

    /// The arguments of a call as a model has written them, see [`arguments`]: an object, or a text that is
    /// to be one, which some servers pass on as it is.
    pub(crate) fn arguments(&mut self, name: &str) -> Json {
        self.written(name).unwrap_or_else(|text| arguments(&text))
    }

    /// The same of a call that a client gives back, with what is no object named as lost.
    pub(crate) fn given_arguments(&mut self, name: &str, at: &'static str, losses: &mut Losses) -> Json {
        self.written(name).unwrap_or_else(|text| given_arguments(&text, at, losses))
    }

    /// # Errors
    /// The text of arguments that are no object as they stand there.
    fn written(&mut self, name: &str) -> Result<Json, String> {
        match self.take(name) {
            None => Ok(Json::empty_object()),
            Some(Value::Carried(json)) => Ok(json),
            Some(Value::String(text)) => Err(text),
            Some(other) => Err(other.to_string()),
        }
    }

    pub(crate) fn text(&mut self, name: &str) -> Result<Option<String>, Invalid> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.invalid(name, "is not a string")),
        }
    }

    pub(crate) fn required_text(&mut self, name: &str) -> Result<String, Invalid> {
        self.text(name)?.ok_or_else(|| self.invalid(name, "is missing"))
    }

    pub(crate) fn flag(&mut self, name: &str) -> Result<Option<bool>, Invalid> {
        self.read(name, Value::as_bool, "is neither true nor false")
    }

    pub(crate) fn count(&mut self, name: &str) -> Result<Option<u64>, Invalid> {
        self.read(name, whole, "is not a whole number from 0")
    }

    /// A count, of which a negative number is none, as servers of open models have it.
    pub(crate) fn limit(&mut self, name: &str) -> Result<Option<u64>, Invalid> {
        let value = self.take(name).filter(|value| !is_negative(value));
        value
            .map(|value| whole(&value).ok_or_else(|| self.invalid(name, "is not a whole number")))
            .transpose()
    }

    pub(crate) fn integer(&mut self, name: &str) -> Result<Option<i64>, Invalid> {
        self.read(name, |value| value.as_number()?.as_i64(), "is not a whole number")
    }

    pub(crate) fn number(&mut self, name: &str) -> Result<Option<f64>, Invalid> {
        self.read(name, |value| value.as_number()?.as_f64(), "is not a number")
    }

    pub(crate) fn list(&mut self, name: &str) -> Result<Option<Vec<Value>>, Invalid> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(_) => Err(self.invalid(name, "is not a list")),
        }
    }

    pub(crate) fn required_list(&mut self, name: &str) -> Result<Vec<Value>, Invalid> {
        self.list(name)?.ok_or_else(|| self.invalid(name, "is missing"))
    }

    /// A member that is an object, whose own path is `at`.
    pub(crate) fn object(&mut self, name: &str, at: &'static str) -> Result<Option<Self>, Invalid> {
        self.take(name).map(|value| Self::of(value, at)).transpose()
    }

    /// Text of an answer; anything else is absent.
    pub(crate) fn any_text(&mut self, name: &str) -> Option<String> {
        match self.take(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// Text of an answer that says something.
    pub(crate) fn some_text(&mut self, name: &str) -> Option<String> {
        self.any_text(name).filter(|text| !text.is_empty())
    }

    /// A count of an answer; anything else is absent.
    pub(crate) fn any_count(&mut self, name: &str) -> Option<u64> {
        self.take(name).as_ref().and_then(whole)
    }

    /// A list of an answer; anything else is empty.
    pub(crate) fn any_list(&mut self, name: &str) -> Vec<Value> {
        match self.take(name) {
            Some(Value::Array(list)) => list,
            _ => Vec::new(),
        }
    }

    /// An object of an answer; anything else has no members.
    pub(crate) fn any_object(&mut self, name: &str) -> Self {
        Self::lenient(self.take(name).unwrap_or_default())
    }

    /// Members that change nothing about the answer.
    pub(crate) fn ignore(&mut self, names: &[&str]) {
        self.members.retain(|(known, _)| !names.contains(&known.as_str()));
    }

    pub(crate) fn invalid(&self, name: &str, problem: &'static str) -> Invalid {
        match self.at {
            "" => Invalid::new(name.to_owned(), problem),
            at => Invalid::new(format!("{at}.{name}"), problem),
        }
    }

    /// Names what nobody has read, as members of what stands at another path.
    pub(crate) fn rest_below(mut self, at: &'static str, losses: &mut Losses) {
        self.at = at;
        self.rest(losses);
    }

    /// Names what nobody has read. Empty lists and objects, and flags that are off, ask for nothing.
    pub(crate) fn rest(self, losses: &mut Losses) {
        for (name, value) in self.members {
            let asks = match value {
                Value::Null | Value::Bool(false) => false,
                Value::Array(list) => !list.is_empty(),
                Value::Object(members) => !members.is_empty(),
                Value::Carried(json) => json != Json::empty_object(),
                Value::Bool(true) | Value::Number(_) | Value::String(_) => true,
            };
            if asks {
                losses.add_below(self.at, &name);
            }
        }
    }

    fn read<T>(
        &mut self,
        name: &str,
        read: impl Fn(&Value) -> Option<T>,
        problem: &'static str,
    ) -> Result<Option<T>, Invalid> {
        match self.take(name) {
            None => Ok(None),
            Some(value) => read(&value).map(Some).ok_or_else(|| self.invalid(name, problem)),
        }
    }
}

/// A whole number, also where it is written as `3.0`.
fn whole(value: &Value) -> Option<u64> {
    let number = value.as_number()?;
    number.as_u64().or_else(|| {
        let whole =
            number.as_f64().filter(|number| number.fract() == 0.0 && (0.0..9.0e15).contains(number))?;
        format!("{whole}").parse().ok()
    })
}

fn is_negative(value: &Value) -> bool {
    value.as_number().and_then(|number| number.as_f64()).is_some_and(|number| number < 0.0)
}
