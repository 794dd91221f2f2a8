//! Characters as an automaton sees them: one byte, a symbol, for each kind that an expression tells apart.
//!
//! An automaton over UTF-8 has some hundred states for one `\w`, and too many for `\w{1,64}`. Over symbols it
//! has one for each character, and Unicode costs no more than ASCII.

use std::collections::{BTreeSet, HashMap};

use regex_syntax::hir::{
    Class, ClassBytes, ClassBytesRange, ClassUnicode, ClassUnicodeRange, Hir, HirKind, Look, Repetition,
};

use super::{InvalidPattern, parse};

/// Most classes of characters that an expression has, with its letters.
const MAX_CLASSES: usize = 512;

/// Most ranges that these have together.
const MAX_RANGES: usize = 1 << 15;

/// Which symbol each character has.
pub(super) struct Alphabet {
    ascii: [u8; 128],
    /// The symbols of all others, each with the first character of those in a row that have it.
    others: Box<[(char, u8)]>,
}

/// The classes of an expression, each once.
#[derive(Default)]
struct Classes {
    all: Vec<ClassUnicode>,
    /// Those by which `\b` and the starts of lines are found.
    word: Option<usize>,
    line_feed: Option<usize>,
    carriage_return: Option<usize>,
}

/// The symbols of classes.
struct Symbols<'c> {
    classes: &'c Classes,
    /// By the classes that a character is in.
    known: HashMap<BTreeSet<usize>, u8>,
    by_class: Vec<Vec<u8>>,
    /// Those that are left, by which the automaton knows words and what is none.
    words: Box<dyn Iterator<Item = u8>>,
    others: Box<dyn Iterator<Item = u8>>,
}

// === impl Alphabet ===

impl Alphabet {
    /// The characters that an expression tells apart, and the expression over their symbols.
    pub(super) fn of(expression: &Hir) -> Result<(Self, Hir), InvalidPattern> {
        let classes = Classes::of(expression)?;
        let mut symbols = Symbols::new(&classes);
        let rows = symbols.rows()?;
        let symbol_of = |character: u32| {
            let next = rows.partition_point(|(first, _)| *first <= character);
            next.checked_sub(1).and_then(|at| rows.get(at)).map_or(0, |(_, symbol)| *symbol)
        };
        let mut ascii = [0; 128];
        for (character, symbol) in (0..).zip(&mut ascii) {
            *symbol = symbol_of(character);
        }
        let mut others = vec![('\u{80}', symbol_of(0x80))];
        let rest = rows.iter().filter(|(first, _)| *first > 0x80);
        others.extend(rest.filter_map(|(first, symbol)| Some((character(*first)?, *symbol))));
        Ok((Self { ascii, others: others.into() }, symbols.translate(expression)?))
    }

    pub(super) fn symbol(&self, character: char) -> u8 {
        if let Some(symbol) = self.ascii.get(character as usize) {
            return *symbol;
        }
        let next = self.others.partition_point(|(first, _)| *first <= character);
        next.checked_sub(1).and_then(|at| self.others.get(at)).map_or(0, |(_, symbol)| *symbol)
    }

    pub(super) fn memory(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.others)
    }
}

/// The first character from `code` on.
fn character(code: u32) -> Option<char> {
    if (0xd800..0xe000).contains(&code) { Some('\u{e000}') } else { char::from_u32(code) }
}

// === impl Classes ===

impl Classes {
    fn of(expression: &Hir) -> Result<Self, InvalidPattern> {
        let mut classes = Self::default();
        let looks = expression.properties().look_set();
        classes.word = match (looks.contains_word_unicode(), looks.contains_word_ascii()) {
            (true, true) => return Err(InvalidPattern::MixedWords),
            (true, false) => Some(classes.add_parsed(r"\w")?),
            (false, true) => Some(classes.add_parsed(r"(?-u:\w)")?),
            (false, false) => None,
        };
        if looks.contains_anchor_line() {
            classes.line_feed = Some(classes.add(letter('\n'))?);
            classes.carriage_return = Some(classes.add(letter('\r'))?);
        }
        classes.gather(expression)?;
        Ok(classes)
    }

    fn gather(&mut self, expression: &Hir) -> Result<(), InvalidPattern> {
        match expression.kind() {
            HirKind::Empty | HirKind::Look(_) => Ok(()),
            HirKind::Literal(text) => letters(&text.0).try_for_each(|class| self.add(class).map(drop)),
            HirKind::Class(class) => self.add(unicode(class)).map(drop),
            HirKind::Repetition(repetition) => self.gather(&repetition.sub),
            HirKind::Capture(capture) => self.gather(&capture.sub),
            HirKind::Concat(parts) | HirKind::Alternation(parts) => {
                parts.iter().try_for_each(|part| self.gather(part))
            }
        }
    }

    fn add_parsed(&mut self, class: &str) -> Result<usize, InvalidPattern> {
        match parse(class)?.kind() {
            HirKind::Class(class) => self.add(unicode(class)),
            _ => Err(InvalidPattern::MixedWords),
        }
    }

    fn add(&mut self, class: ClassUnicode) -> Result<usize, InvalidPattern> {
        if let Some(known) = self.place(&class) {
            return Ok(known);
        }
        if self.all.len() == MAX_CLASSES {
            return Err(InvalidPattern::TooManyCharacters);
        }
        self.all.push(class);
        Ok(self.all.len() - 1)
    }

    fn place(&self, class: &ClassUnicode) -> Option<usize> {
        self.all.iter().position(|known| known == class)
    }
}

fn letter(character: char) -> ClassUnicode {
    ClassUnicode::new([ClassUnicodeRange::new(character, character)])
}

/// The characters of a literal, which is UTF-8 as texts are.
fn letters(literal: &[u8]) -> impl Iterator<Item = ClassUnicode> {
    std::str::from_utf8(literal).unwrap_or_default().chars().map(letter)
}

/// A class of bytes is one of ASCII, as texts are UTF-8.
fn unicode(class: &Class) -> ClassUnicode {
    match class {
        Class::Unicode(class) => class.clone(),
        Class::Bytes(class) => class.to_unicode_class().unwrap_or_else(ClassUnicode::empty),
    }
}

// === impl Symbols ===

impl<'c> Symbols<'c> {
    fn new(classes: &'c Classes) -> Self {
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let is_other = move |byte: &u8| !is_word(byte) && !matches!(byte, b'\n' | b'\r');
        Self {
            classes,
            known: HashMap::new(),
            by_class: vec![Vec::new(); classes.all.len()],
            words: Box::new((0..=u8::MAX).filter(is_word)),
            others: Box::new((0..=u8::MAX).filter(is_other)),
        }
    }

    /// Each row of characters of one kind by its first, from the lowest.
    fn rows(&mut self) -> Result<Vec<(u32, u8)>, InvalidPattern> {
        let mut edges = Vec::new();
        for (place, class) in self.classes.all.iter().enumerate() {
            for range in class.ranges() {
                edges.push((u32::from(range.start()), place));
                edges.push((u32::from(range.end()) + 1, place));
            }
            if edges.len() > 2 * MAX_RANGES {
                return Err(InvalidPattern::TooManyCharacters);
            }
        }
        edges.sort_unstable();
        let mut inside = BTreeSet::new();
        let mut rows = vec![(0, self.of(&inside)?)];
        for edges in edges.chunk_by(|(at, _), (other, _)| at == other) {
            for (_, class) in edges {
                if !inside.remove(class) {
                    inside.insert(*class);
                }
            }
            let symbol = self.of(&inside)?;
            let first = edges.first().map(|(first, _)| (*first, symbol));
            rows.extend(first.filter(|_| rows.last().is_none_or(|(_, last)| *last != symbol)));
        }
        Ok(rows)
    }

    /// The symbol of the characters that are `inside` of these classes and of no others.
    fn of(&mut self, inside: &BTreeSet<usize>) -> Result<u8, InvalidPattern> {
        if let Some(known) = self.known.get(inside) {
            return Ok(*known);
        }
        let is_in = |class: Option<usize>| class.is_some_and(|class| inside.contains(&class));
        let symbol = if is_in(self.classes.line_feed) {
            Some(b'\n')
        } else if is_in(self.classes.carriage_return) {
            Some(b'\r')
        } else if is_in(self.classes.word) {
            self.words.next()
        } else {
            self.others.next()
        };
        let symbol = symbol.ok_or(InvalidPattern::TooManyCharacters)?;
        for class in inside {
            if let Some(symbols) = self.by_class.get_mut(*class) {
                symbols.push(symbol);
            }
        }
        self.known.insert(inside.clone(), symbol);
        Ok(symbol)
    }

    /// The expression over symbols.
    fn translate(&self, expression: &Hir) -> Result<Hir, InvalidPattern> {
        let all = |parts: &[Hir]| parts.iter().map(|part| self.translate(part)).collect::<Result<_, _>>();
        Ok(match expression.kind() {
            HirKind::Empty => Hir::empty(),
            HirKind::Literal(text) => Hir::concat(letters(&text.0).map(|class| self.class(&class)).collect()),
            HirKind::Class(class) => self.class(&unicode(class)),
            HirKind::Look(look) => Hir::look(over_symbols(*look)),
            HirKind::Repetition(Repetition { min, max, greedy, sub }) => {
                let sub = Box::new(self.translate(sub)?);
                Hir::repetition(Repetition { min: *min, max: *max, greedy: *greedy, sub })
            }
            HirKind::Capture(capture) => self.translate(&capture.sub)?,
            HirKind::Concat(parts) => Hir::concat(all(parts)?),
            HirKind::Alternation(parts) => Hir::alternation(all(parts)?),
        })
    }

    fn class(&self, class: &ClassUnicode) -> Hir {
        let symbols = self.classes.place(class).and_then(|place| self.by_class.get(place));
        let ranges = symbols.into_iter().flatten().map(|symbol| ClassBytesRange::new(*symbol, *symbol));
        Hir::class(Class::Bytes(ClassBytes::new(ranges)))
    }
}

/// Words of whatever kind have the symbols of those of ASCII.
fn over_symbols(look: Look) -> Look {
    match look {
        Look::WordUnicode => Look::WordAscii,
        Look::WordUnicodeNegate => Look::WordAsciiNegate,
        Look::WordStartUnicode => Look::WordStartAscii,
        Look::WordEndUnicode => Look::WordEndAscii,
        Look::WordStartHalfUnicode => Look::WordStartHalfAscii,
        Look::WordEndHalfUnicode => Look::WordEndHalfAscii,
        look => look,
    }
}
