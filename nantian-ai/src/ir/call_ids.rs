//! Ids of calls, each of which is that of one call alone.

use std::collections::{HashMap, HashSet, VecDeque};

use super::names::digest;
use super::{Block, Request, Role};

/// The ids that the calls of a conversation have.
///
/// Some providers count their calls anew in each answer. Clients know a call by its id alone, and Anthropic
/// refuses a conversation in which two have the same.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct CallIds {
    /// Their digests: an id that only seems to be taken is replaced like one that is.
    taken: HashSet<u64>,
    /// The last number that has been tried behind what ids begin with, by its digest.
    last: HashMap<u64, u64>,
}

/// The calls of one id in the last turn that has any.
#[derive(Default)]
struct Latest {
    turn: usize,
    /// Those without a result, or the last of them.
    ids: VecDeque<String>,
}

// === impl CallIds ===

impl CallIds {
    /// Those of a request, in which each call gets one of its own, and its result with it. What an earlier
    /// request has become, which is the beginning of this one, stays as it was.
    pub(super) fn of(request: &mut Request) -> Self {
        let mut ids = Self::default();
        let mut latest: HashMap<String, Latest> = HashMap::new();
        for (turn, message) in request.messages.iter_mut().enumerate().scan(0, in_turns) {
            for block in &mut message.content {
                match block {
                    Block::ToolCall(call) => {
                        let latest = latest.entry(call.id.clone()).or_default();
                        ids.claim(&mut call.id);
                        if std::mem::replace(&mut latest.turn, turn) != turn {
                            latest.ids.clear();
                        }
                        latest.ids.push_back(call.id.clone());
                    }
                    Block::ToolResult(result) => {
                        if let Some(id) = latest.get_mut(&result.id).and_then(Latest::answered) {
                            result.id = id;
                        }
                    }
                    _ => {}
                }
            }
        }
        ids
    }

    /// Gives a call another id where its own is that of an earlier one.
    pub(super) fn claim(&mut self, id: &mut String) {
        if self.taken.insert(digest(id)) {
            return;
        }
        let (stem, number) = counted(id);
        let last = self.last.entry(digest(&stem)).or_insert(number);
        loop {
            *last += 1;
            let other = format!("{stem}{last}");
            if self.taken.insert(digest(&other)) {
                *id = other;
                return;
            }
        }
    }

    /// The memory that they take, in bytes.
    pub(super) fn kept(&self) -> usize {
        (self.taken.capacity() + 2 * self.last.capacity()) * size_of::<u64>()
    }
}

/// Counts the turns of the model, each of which may be several messages.
fn in_turns<'m>(
    turn: &mut usize,
    (at, message): (usize, &'m mut super::Message),
) -> Option<(usize, &'m mut super::Message)> {
    if message.role != Role::Assistant {
        *turn = at + 1;
    }
    Some((*turn, message))
}

/// What an id and those begin with that are made of it.
pub(crate) fn stem_of_call(id: &str) -> String {
    counted(id).0
}

/// What an id begins with, and the number that it ends with: Kimi's models go by it.
fn counted(id: &str) -> (String, u64) {
    let stem = id.trim_end_matches(|last: char| last.is_ascii_digit());
    match id.strip_prefix(stem).and_then(|number| number.parse::<u32>().ok()) {
        Some(number) => (stem.to_owned(), number.into()),
        None => (format!("{id}_"), 0),
    }
}

// === impl Latest ===

impl Latest {
    /// The id of the call that the next result is of.
    fn answered(&mut self) -> Option<String> {
        if self.ids.len() > 1 { self.ids.pop_front() } else { self.ids.front().cloned() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::ir::{Json, Message, ToolCall, ToolResult};

    fn call(id: &str) -> Block {
        Block::ToolCall(ToolCall { id: id.to_owned(), name: "f".to_owned(), arguments: Json::empty_object() })
    }

    fn result(id: &str) -> Block {
        Block::ToolResult(ToolResult { id: id.to_owned(), content: Vec::new(), is_error: false })
    }

    fn told(text: &str) -> Message {
        Message::new(Role::User, vec![Block::Text(text.to_owned())])
    }

    fn model(ids: &[&str]) -> Message {
        Message::new(Role::Assistant, ids.iter().map(|id| call(id)).collect())
    }

    fn tools(ids: &[&str]) -> Message {
        Message::new(Role::User, ids.iter().map(|id| result(id)).collect())
    }

    /// The ids of each message, once none is repeated.
    fn apart(messages: &[Message]) -> Vec<Vec<String>> {
        let mut request = Request { messages: messages.to_vec(), ..Request::default() };
        CallIds::of(&mut request);
        let id = |block: &Block| match block {
            Block::ToolCall(call) => Some(call.id.clone()),
            Block::ToolResult(result) => Some(result.id.clone()),
            _ => None,
        };
        request.messages.iter().map(|message| message.content.iter().filter_map(id).collect()).collect()
    }

    #[test]
    fn a_repeated_call_gets_the_next_id_and_its_result_too() {
        for (said, expected) in [
            ("call_0", "call_1"),
            ("functions.read:0", "functions.read:1"),
            ("tool_0_read", "tool_0_read_1"),
            ("call_99999999999999999999", "call_99999999999999999999_1"),
            ("", "_1"),
        ] {
            let ids = apart(&[model(&[said]), tools(&[said]), model(&[said]), tools(&[said])]);
            assert_eq!(ids, [[said], [said], [expected], [expected]]);
        }
    }

    #[test]
    fn a_result_is_of_the_call_before_it() {
        let cancelled = [model(&["a"]), told("No."), model(&["a"]), tools(&["a"])];
        assert_eq!(apart(&cancelled)[3], ["a_1"]);
        let beside = [model(&["a", "a"]), tools(&["a", "a", "a", "b"])];
        assert_eq!(apart(&beside), [vec!["a", "a_1"], vec!["a", "a_1", "a_1", "b"]]);
        let in_pieces = [model(&["a"]), model(&["a"]), tools(&["a"]), tools(&["a"])];
        assert_eq!(apart(&in_pieces).concat(), ["a", "a_1", "a", "a_1"]);
    }

    fn id() -> impl Strategy<Value = &'static str> {
        prop_oneof![Just("a"), Just("a_1"), Just("call_0"), Just("call_1"), Just("call_")]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn no_two_calls_have_one_id_and_a_beginning_stays_as_it_was(
            turns in vec(vec(id(), 1..4), 1..8),
            cut in any::<prop::sample::Index>(),
        ) {
            let messages: Vec<_> = turns.iter().flat_map(|ids| [model(ids), tools(ids)]).collect();
            let ids = apart(&messages);
            for turn in ids.chunks(2) {
                // Calls with one id are answered in their order.
                prop_assert_eq!(&turn[0], &turn[1]);
            }
            let calls: Vec<_> = ids.iter().step_by(2).flatten().collect();
            prop_assert_eq!(calls.iter().collect::<HashSet<_>>().len(), calls.len());
            let cut = cut.index(messages.len());
            prop_assert_eq!(apart(&messages[..cut]), &ids[..cut]);
        }
    }
}
