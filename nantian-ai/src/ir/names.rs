//! Names and ids that every provider takes.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::call_ids::CallIds;
use super::{Block, Reply, Request, ToolChoice};

/// The longest name of a tool that every provider takes.
const LONGEST: usize = 64;

/// The longest id of a call that OpenAI's models take in a chat.
const BRIEF: usize = 40;

/// What the id of a call begins with that is another one, coded in letters that every provider takes.
const CODED: &str = "ntn_";

/// The names of tools that had to be changed for a provider, and what they were before; and the ids of the
/// calls of a conversation, so that no other call gets one of them.
///
/// OpenAI and Anthropic take 64 letters, digits, `_` and `-`, Gemini no digit and no `-` at the beginning.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ToolNames {
    /// As the client has it, by what the provider has.
    told: HashMap<String, String>,
    /// The memory that these take, in bytes.
    weight: usize,
    ids: CallIds,
}

/// Makes ids for tool calls of providers that give none.
#[derive(Clone, Debug)]
pub(crate) struct ToolIds {
    seed: u64,
    next: u64,
}

// === impl ToolNames ===

impl ToolNames {
    /// Gives every tool of a request a name that every provider takes, and every call the id that its
    /// provider has given it, or another one where an earlier call has that.
    pub fn adapt(request: &mut Request) -> Self {
        let mut names = Self::default();
        let taken: HashSet<String> = request.tools.iter().map(|tool| tool.name.clone()).collect();
        let mut sent = HashMap::new();
        for tool in &mut request.tools {
            names.replace(&mut tool.name, &taken, &mut sent);
        }
        if let Some(ToolChoice::Tool(name)) = &mut request.tool_choice {
            names.replace(name, &taken, &mut sent);
        }
        for block in request.blocks_mut() {
            match block {
                Block::ToolCall(call) => {
                    names.replace(&mut call.name, &taken, &mut sent);
                    restore_id(&mut call.id);
                }
                Block::ToolResult(result) => restore_id(&mut result.id),
                _ => {}
            }
        }
        names.ids = CallIds::of(request);
        names
    }

    /// Gives a tool that the provider names its name back.
    pub fn restore(&self, name: &mut String) {
        if let Some(before) = self.told.get(name) {
            name.clone_from(before);
        }
    }

    /// Gives a call of an answer another id where an earlier one of the conversation has its own.
    pub(crate) fn tell_apart(&mut self, id: &mut String) {
        self.ids.claim(id);
    }

    /// The memory that names and ids take, in bytes.
    pub(crate) fn kept(&self) -> usize {
        self.weight + self.ids.kept()
    }

    /// Gives all tools that a reply calls their names back, and its calls ids that no earlier ones have.
    pub fn restore_in(&self, reply: &mut Reply) {
        let mut ids = self.ids.clone();
        for block in &mut reply.content {
            if let Block::ToolCall(call) = block {
                self.restore(&mut call.name);
                ids.claim(&mut call.id);
            }
        }
    }

    /// Changes a name that not every provider takes, to what has been `sent` for it if it has come before.
    fn replace(&mut self, name: &mut String, taken: &HashSet<String>, sent: &mut HashMap<String, String>) {
        if is_safe_name(name) {
            return;
        }
        if let Some(after) = sent.get(name) {
            name.clone_from(after);
            return;
        }
        let mut after = safe_name(name);
        // With a number of its own none meets the names again that others with the same digest have met.
        let number = sent.len();
        while taken.contains(&after) || self.told.contains_key(&after) {
            after = safe_name(&format!("{after}+{number}"));
        }
        let before = std::mem::replace(name, after.clone());
        self.weight += size_of::<[String; 2]>() + after.len() + before.len();
        sent.insert(before.clone(), after.clone());
        self.told.insert(after, before);
    }
}

/// An id of a tool call that every provider takes: the same for the same id. Where there is room it tells
/// what it was before: models of some providers make ids in a form that they want to see again.
pub(crate) fn safe_id(id: &str) -> Cow<'_, str> {
    if is_safe(id) {
        return Cow::Borrowed(id);
    }
    let coded = coded(id);
    Cow::Owned(if is_safe(&coded) && !id.is_empty() { coded } else { safe(id) })
}

/// An id of an item of an answer, which says by its beginning what that is.
pub(crate) fn safe_item_id(id: &str) -> Cow<'_, str> {
    if is_safe(id) { Cow::Borrowed(id) } else { Cow::Owned(safe(id)) }
}

/// An id of a tool call as the provider has given it. What is longer than those that can be told again is not
/// one.
pub(crate) fn own_id(id: &str) -> Cow<'_, str> {
    let is_own = safe_id(id).starts_with(CODED);
    if is_own { Cow::Borrowed(id) } else { safe_id(id) }
}

/// Undoes what [`safe_id`] has made of an id.
fn restore_id(id: &mut String) {
    if let Some(before) = decoded(id) {
        *id = before;
    }
}

/// An id in letters that every provider takes: for a hyphen two, and for a byte that is not safe one and the
/// byte in two digits.
fn coded(id: &str) -> String {
    let mut coded = CODED.to_owned();
    for byte in id.bytes() {
        match byte {
            b'-' => coded.push_str("--"),
            byte if is_safe_byte(byte) => coded.push(char::from(byte)),
            byte => coded.push_str(&format!("-{byte:02x}")),
        }
    }
    coded
}

/// What it was before; `None` if it was not coded.
fn decoded(id: &str) -> Option<String> {
    let mut rest = id.strip_prefix(CODED)?;
    let mut before = Vec::with_capacity(rest.len());
    while let Some(byte) = rest.bytes().next() {
        let (byte, length) = match byte {
            b'-' if rest.starts_with("--") => (b'-', 2),
            b'-' => (u8::from_str_radix(rest.get(1..3)?, 16).ok()?, 3),
            byte => (byte, 1),
        };
        before.push(byte);
        rest = rest.get(length..)?;
    }
    String::from_utf8(before)
        .ok()
        .filter(|before| !before.is_empty() && !is_safe(before) && coded(before) == id)
}

/// An id of a tool call of nine letters and digits, as Mistral wants them: the same for the same id.
pub(crate) fn short_id(id: &str) -> Cow<'_, str> {
    const LENGTH: usize = 9;
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    if id.len() == LENGTH && id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Cow::Borrowed(id);
    }
    let digits = (0..LENGTH).scan(digest(id), |rest, _| {
        let digit = usize::try_from(*rest % 36).ok().and_then(|at| DIGITS.get(at))?;
        *rest /= 36;
        Some(char::from(*digit))
    });
    Cow::Owned(digits.collect())
}

/// An id of a tool call that is not too long for OpenAI's models in a chat: the same for the same id.
pub(crate) fn brief_id(id: &str) -> Cow<'_, str> {
    if id.len() <= BRIEF { Cow::Borrowed(id) } else { Cow::Owned(cut(id, BRIEF)) }
}

/// The same in letters that every provider takes.
pub(crate) fn brief_safe_id(id: &str) -> Cow<'_, str> {
    match safe_id(id) {
        Cow::Borrowed(id) => brief_id(id),
        Cow::Owned(id) => Cow::Owned(brief_id(&id).into_owned()),
    }
}

/// Who asks, as every provider takes it: the same for the same. OpenAI takes 64 letters, and Anthropic
/// nobody's address or number.
pub(crate) fn safe_user(user: &str) -> Cow<'_, str> {
    let is_opaque = user.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'@')
        && user.bytes().any(|byte| byte.is_ascii_alphabetic());
    if is_opaque && user.len() <= LONGEST {
        return Cow::Borrowed(user);
    }
    Cow::Owned(format!("user_{:016x}", digest(user)))
}

/// FNV-1a.
pub(super) fn digest(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn is_safe_name(name: &str) -> bool {
    is_safe(name) && begins_safely(name)
}

fn begins_safely(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
}

fn safe_name(name: &str) -> String {
    if begins_safely(name) { safe(name) } else { safe(&format!("_{name}")) }
}

fn is_safe(name: &str) -> bool {
    (1..=LONGEST).contains(&name.len()) && name.bytes().all(is_safe_byte)
}

fn is_safe_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

fn safe(name: &str) -> String {
    cut(name, LONGEST)
}

/// What is left of a name, and a digest of it so that two names stay two.
fn cut(name: &str, longest: usize) -> String {
    let kept: String = name
        .chars()
        .map(|letter| if letter.is_ascii() && is_safe_byte(letter as u8) { letter } else { '_' })
        .take(longest - 9)
        .collect();
    let digest =
        name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{kept}_{digest:08x}")
}

// === impl ToolIds ===

impl ToolIds {
    /// Ids that differ from those of every other seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, next: 0 }
    }

    pub(crate) fn next(&mut self) -> String {
        let at = self.next;
        self.next += 1;
        format!("call_{:016x}{at:02x}", self.seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Json, Tool};

    fn tool(name: &str) -> Tool {
        Tool {
            name: name.to_owned(),
            description: None,
            schema: Json::empty_object(),
            strict: None,
            cached: None,
        }
    }

    #[test]
    fn names_that_no_provider_minds_stay() {
        let mut request = Request { tools: vec![tool("get_weather-2")], ..Request::default() };
        assert_eq!(ToolNames::adapt(&mut request), ToolNames::default());
        assert_eq!(request.tools[0].name, "get_weather-2");
    }

    #[test]
    fn a_changed_name_comes_back_and_two_names_stay_two() {
        let long = "x".repeat(90);
        let before = ["fs.read", "fs:read", &long, "21st_builder", "-x", "時"];
        let mut request = Request { tools: before.map(tool).to_vec(), ..Request::default() };
        let names = ToolNames::adapt(&mut request);
        let sent: Vec<_> = request.tools.iter().map(|tool| tool.name.clone()).collect();
        assert!(sent.iter().all(|name| is_safe_name(name)), "{sent:?}");
        assert_ne!(sent[0], sent[1]);
        for (mut name, before) in sent.into_iter().zip(before) {
            names.restore(&mut name);
            assert_eq!(name, before);
        }
    }

    #[test]
    fn many_names_do_not_take_long() {
        // About as many as a body can hold; with a look at all of those before for each it would take longer
        // than all other tests.
        let tools: Vec<_> = (0..60_000).map(|at| tool(&format!("a.{at}"))).collect();
        let mut request = Request { tools, ..Request::default() };
        let names = ToolNames::adapt(&mut request);
        assert_eq!(names.told.len(), 60_000);
        for at in [0, 29_999, 59_999] {
            names.restore(&mut request.tools[at].name);
            assert_eq!(request.tools[at].name, format!("a.{at}"));
        }
    }

    #[test]
    fn ids_are_the_same_for_the_same_and_differ_otherwise() {
        assert_eq!(safe_id("call_1"), "call_1");
        assert_eq!(safe_id("functions.a:0"), safe_id("functions.a:0"));
        assert_ne!(safe_id("functions.a:0"), safe_id("functions.a.0"));
        let long = "functions.".repeat(5);
        assert_ne!(safe_id(&long), safe_id(&format!("{long}a")));
        assert!(safe_id(&long).len() <= LONGEST && safe_id("").len() <= LONGEST);
        for id in ["toolu_01A09q90qw90lq917835lq9", "call_1"] {
            assert_eq!(short_id(id), short_id(id));
            assert_eq!(short_id(id).len(), 9);
            assert_eq!(short_id(&short_id(id)), short_id(id));
        }
        assert_ne!(short_id("call_1"), short_id("call_2"));
        let (one, other) = ("chatcmpl-tool-0123456789abcdef0123456789abcdef", format!("{long}:1"));
        for id in
            [one, &one.replace("ef0", "ee0"), &other, "ntn_functions-2emcp__playwright__browser_click-3a0"]
        {
            let brief = brief_id(id);
            assert_eq!((brief.len(), brief_id(&brief)), (BRIEF, Cow::Borrowed(&*brief)));
            assert!(is_safe(&brief_safe_id(id)) && brief_safe_id(id).len() <= BRIEF);
        }
        assert_ne!(brief_id(one), brief_id(&one.replace("ef0", "ee0")));
        assert_eq!(brief_id("functions.read:0"), "functions.read:0");
        assert_eq!(brief_safe_id("functions.read:0"), safe_id("functions.read:0"));
        let mut ids = ToolIds::new(7);
        assert_ne!(ids.next(), ids.next());
    }

    #[test]
    fn an_id_that_was_made_safe_is_what_it_was_to_who_has_given_it() {
        let restored = |id: &str| {
            let mut id = id.to_owned();
            restore_id(&mut id);
            id
        };
        let of_a_long_name = "functions.mcp__playwright__browser_take_screenshot:0";
        for id in ["functions.list_skills:0", of_a_long_name, "a b", "a--b:-0", "ä:1"] {
            assert!(is_safe(&safe_id(id)), "{id}");
            assert_eq!(restored(&safe_id(id)), id);
            assert_eq!(own_id(id), id);
        }
        for id in ["call_1", "ntn_", "ntn_call", "ntn_a-", "ntn_a-é", "ntn_a-3A", "ntn_a-+f"] {
            assert_eq!(restored(id), id);
        }
        let long = "functions.".repeat(6);
        assert_eq!(own_id(&long), safe_id(&long));
    }

    #[test]
    fn who_asks_is_told_so_that_every_provider_takes_it() {
        let long = "u".repeat(65);
        for kept in ["u-1", "a:b/c.d", &long[..64]] {
            assert_eq!(safe_user(kept), kept);
        }
        for odd in
            [&*long, "jo@example.org", "+49 170 1234567", "Jo Doe", r#"{"device_id":"0", "a":"b"}"#, "é"]
        {
            let user = safe_user(odd);
            assert_eq!(safe_user(&user), user, "{odd}");
            assert_eq!(user, safe_user(odd), "{odd}");
            assert!(user.starts_with("user_") && user != safe_user("other@example.org"), "{user}");
        }
    }
}
