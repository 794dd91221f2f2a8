//! Automata of bounded size, and how they are run.

use std::{collections::BTreeSet, fmt, ops::Range, slice, sync::Arc};

use regex_automata::{
    Anchored, Input, MatchKind,
    dfa::{Automaton, StartKind, dense},
    nfa::thompson::{self, NFA, State, Transition, WhichCaptures},
    util::{look, primitives::StateID, start},
};
use regex_syntax::hir::{Hir, Look};

use super::{Effort, InvalidPattern, alphabet::Alphabet, parse};

/// Most memory that an automaton may take, in bytes.
const MAX_SIZE: usize = 1 << 20;

/// Most memory that the NFA may take which it is made from, in bytes: one step of making it looks at no more.
const MAX_NFA_SIZE: usize = 384 << 10;

/// Most states of the NFA that making it may look at, each time for one kind of symbol: some 0.1 s. States
/// that only lead to others are not counted.
const MAX_WORK: usize = 8 << 20;

/// Most moves between states of the NFA that making it may try which read no symbol, as choices have them: as
/// long again.
const MAX_MOVES: usize = 64 << 20;

/// How many of these may follow on each state that [`MAX_WORK`] counts, so that it bounds them, too.
const FEW_MOVES: usize = MAX_MOVES / MAX_WORK;

/// How much longer a character takes that is not ASCII: it is looked up.
const FOREIGN: usize = 8;

/// How often a text may be read, on the average, in the search for all that an expression matches.
const READS: usize = 4;

/// The length below which a text is read as often as if it had this.
const SHORT: usize = 256;

type Dfa = dense::DFA<Vec<u32>>;

/// A regular expression that matches whole texts.
#[derive(Clone)]
pub struct WholeMatch(Arc<Whole>);

struct Whole {
    expression: Box<str>,
    alphabet: Alphabet,
    dfa: Dfa,
    start: StateID,
}

/// A regular expression that is looked for within texts.
#[derive(Clone)]
pub(crate) struct Finder(Arc<Directions>);

/// Finds where a match ends, and from there where it starts.
struct Directions {
    expression: Box<str>,
    alphabet: Alphabet,
    forward: Dfa,
    reverse: Dfa,
}

// === impl WholeMatch ===

impl WholeMatch {
    pub(super) fn new(expression: &str) -> Result<Self, InvalidPattern> {
        let (alphabet, found) = Alphabet::of(&parse(expression)?)?;
        let whole = Hir::concat(vec![Hir::look(Look::Start), found, Hir::look(Look::End)]);
        let dfa = compile(&whole, false, dense::Config::new().start_kind(StartKind::Anchored))?;
        let start = dfa.start_state(&start::Config::new().anchored(Anchored::Yes));
        let start = start.map_err(|_| InvalidPattern::TooLarge)?;
        Ok(Self(Arc::new(Whole { expression: expression.into(), alphabet, dfa, start })))
    }

    /// The expression as it was written.
    pub fn as_str(&self) -> &str {
        &self.0.expression
    }

    /// Whether all of `text` is matched; where `effort` is exhausted nothing is.
    pub fn is_match(&self, text: &str, effort: &Effort) -> bool {
        if effort.is_exhausted() {
            return false;
        }
        let Whole { alphabet, dfa, start, .. } = &*self.0;
        let (mut state, mut read) = (*start, 0);
        for character in text.chars() {
            state = dfa.next_state(state, alphabet.symbol(character));
            read += if character.is_ascii() { 1 } else { FOREIGN };
            if dfa.is_dead_state(state) {
                break;
            }
        }
        effort.spend(read);
        dfa.is_match_state(dfa.next_eoi_state(state))
    }

    pub(super) fn memory(&self) -> usize {
        self.0.dfa.memory_usage() + self.0.alphabet.memory()
    }
}

impl fmt::Debug for WholeMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WholeMatch").field(&self.0.expression).finish()
    }
}

// === impl Finder ===

impl Finder {
    pub(super) fn new(expression: &str) -> Result<Self, InvalidPattern> {
        let (alphabet, found) = Alphabet::of(&parse(expression)?)?;
        let forward = dense::Config::new().start_kind(StartKind::Unanchored);
        let reverse = dense::Config::new().start_kind(StartKind::Anchored).match_kind(MatchKind::All);
        Ok(Self(Arc::new(Directions {
            expression: expression.into(),
            alphabet,
            forward: compile(&found, false, forward)?,
            reverse: compile(&found, true, reverse)?,
        })))
    }

    /// What is matched of `text`, as places of characters. Where it takes long to tell, because the text is
    /// read again and again, all the rest is.
    pub(crate) fn spans(&self, text: &str) -> Vec<Range<usize>> {
        let symbols: Vec<_> = text.chars().map(|character| self.0.alphabet.symbol(character)).collect();
        let mut left = symbols.len().max(SHORT) * READS;
        let (mut spans, mut at) = (Vec::new(), 0);
        while let (Some(end), read) = self.0.end(&symbols, at) {
            if read > left {
                spans.push(at..symbols.len());
                break;
            }
            left -= read;
            let start = self.0.start(&symbols, at..end);
            if start < end {
                spans.push(start..end);
            }
            at = end.max(at + 1);
        }
        spans
    }

    pub(super) fn memory(&self) -> usize {
        self.0.forward.memory_usage() + self.0.reverse.memory_usage() + self.0.alphabet.memory()
    }
}

impl fmt::Debug for Finder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Finder").field(&self.0.expression).finish()
    }
}

// === impl Directions ===

impl Directions {
    /// Where the first match from `at` on ends, and how many symbols had to be read to tell. A state of the
    /// automaton says whether something ended before the symbol that led to it.
    fn end(&self, symbols: &[u8], at: usize) -> (Option<usize>, usize) {
        let before = at.checked_sub(1).and_then(|before| symbols.get(before)).copied();
        let start = start::Config::new().anchored(Anchored::No).look_behind(before);
        let Some((mut state, rest)) = self.forward.start_state(&start).ok().zip(symbols.get(at..)) else {
            return (None, 0);
        };
        let mut end = None;
        for (read, symbol) in rest.iter().enumerate() {
            state = self.forward.next_state(state, *symbol);
            if self.forward.is_match_state(state) {
                end = Some(at + read);
            } else if self.forward.is_dead_state(state) {
                return (end, read + 1);
            }
        }
        if self.forward.is_match_state(self.forward.next_eoi_state(state)) {
            end = Some(symbols.len());
        }
        (end, rest.len())
    }

    /// Where the match starts that ends with `range`, and no earlier than that.
    fn start(&self, symbols: &[u8], range: Range<usize>) -> usize {
        let earliest = range.start;
        let input = Input::new(symbols).range(range).anchored(Anchored::Yes);
        self.reverse.try_search_rev(&input).ok().flatten().map_or(earliest, |found| found.offset())
    }
}

fn compile(expression: &Hir, reverse: bool, config: dense::Config) -> Result<Dfa, InvalidPattern> {
    // A symbol is any byte.
    let limits = thompson::Config::new().utf8(false).nfa_size_limit(Some(MAX_NFA_SIZE)).reverse(reverse);
    let limits = limits.which_captures(WhichCaptures::None);
    let nfa = thompson::Compiler::new().configure(limits).build_from_hir(expression);
    let nfa = nfa.map_err(|_| InvalidPattern::TooLarge)?;
    // A state of the automaton is the set of those of the NFA that a text may have led to, of at least a byte
    // each; all of the set are looked at for each kind of symbol.
    let max_sets = MAX_WORK / nfa.byte_classes().alphabet_len();
    let config = config.accelerate(false);
    let config = config.dfa_size_limit(Some(max_size(&nfa))).determinize_size_limit(Some(max_sets));
    dense::Builder::new().configure(config).build_from_nfa(&nfa).map_err(|_| InvalidPattern::TooLarge)
}

/// How large the automaton of an NFA may become: in each of its states, all moves that there are may be tried
/// for each kind of symbol on which many may follow.
fn max_size(nfa: &NFA) -> usize {
    let moves: usize = nfa.states().iter().map(|state| empty_moves(state).count()).sum();
    let states = MAX_MOVES / (moves * far_symbols(nfa)).max(1);
    states.saturating_mul(nfa.byte_classes().alphabet_len() * size_of::<u32>()).min(MAX_SIZE)
}

/// The number of kinds of symbols on which more than a few moves may follow that read none.
fn far_symbols(nfa: &NFA) -> usize {
    let kinds = nfa.byte_classes();
    let mut far = BTreeSet::new();
    for state in nfa.states() {
        let transitions: &[Transition] = match state {
            State::ByteRange { trans } => slice::from_ref(trans),
            State::Sparse(sparse) => &sparse.transitions,
            State::Dense(_) => return kinds.alphabet_len(),
            // What a look lets pass may follow on any symbol, but nothing leads back to the start of a text.
            State::Look { look: passed, .. } if *passed != look::Look::Start && leads_far(nfa, state) => {
                return kinds.alphabet_len();
            }
            _ => &[],
        };
        let leading = transitions.iter().filter(|it| leads_far(nfa, nfa.state(it.next)));
        far.extend(leading.flat_map(|it| kinds.get(it.start)..=kinds.get(it.end)));
    }
    far.len()
}

/// Whether more than a few moves that read no symbol follow on a state.
fn leads_far(nfa: &NFA, state: &State) -> bool {
    let (mut open, mut moves) = (vec![state], 0);
    while let Some(state) = open.pop() {
        for next in empty_moves(state) {
            moves += 1;
            if moves > FEW_MOVES {
                return true;
            }
            open.push(nfa.state(next));
        }
    }
    false
}

/// Where a state leads without a symbol.
fn empty_moves(state: &State) -> impl Iterator<Item = StateID> {
    let (some, other): (&[StateID], _) = match state {
        State::Union { alternates } => (alternates, None),
        State::BinaryUnion { alt1, alt2 } => (slice::from_ref(alt1), Some(*alt2)),
        State::Look { next, .. } | State::Capture { next, .. } => (slice::from_ref(next), None),
        _ => (&[], None),
    };
    some.iter().copied().chain(other)
}
