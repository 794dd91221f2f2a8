use proptest::{collection::vec, prelude::*, sample::select};
use regex::Regex;

use super::*;

fn is_match(expression: &str, text: &str) -> bool {
    Patterns::default().whole_match(expression).unwrap().is_match(text, &Effort::default())
}

#[test]
fn an_expression_matches_whole_values_only() {
    for (text, expected) in [("/v1/users", true), ("/v1/users/7", false), ("/api/v1", false), ("/v1", true)] {
        assert_eq!(is_match("/v1|/v1/users", text), expected, "{text}");
    }
}

#[test]
fn what_is_asked_for_again_is_kept_and_the_rest_forgotten() {
    let patterns = Patterns::default();
    for _ in 0..3 {
        patterns.whole_match("a+").unwrap();
        patterns.whole_match("(").unwrap_err();
        patterns.whole_match("b+").unwrap();
        patterns.finder("b+").unwrap();
        patterns.sweep();
    }
    assert_eq!((lock(&patterns.whole).len(), lock(&patterns.finders).len()), (3, 1));
    patterns.whole_match("b+").unwrap();
    patterns.sweep();
    assert_eq!(lock(&patterns.whole).keys().map(|key| &**key).collect::<Vec<_>>(), ["b+"]);
    assert_eq!(lock(&patterns.finders).len(), 0);
}

#[test]
fn an_unbalanced_or_huge_expression_is_refused() {
    let refused = |expression: &str| Patterns::default().whole_match(expression).unwrap_err().to_string();
    assert!(refused("a)(b").ends_with("error: unopened group"));
    for huge in ["/a*a{15000}b", r"(\w{500}){500}", r"[\w-]{1,64}-[\w-]{1,64}", ".*[01].{40}"] {
        assert!(refused(huge).starts_with("takes more than 1 MiB"), "{huge}");
    }
    let many_kinds: String = ('\u{4e00}'..).take(150).collect();
    assert!(refused(&format!("{many_kinds}|a*a{{700}}b")).starts_with("takes more than 1 MiB or too long"));
    let letters: String = ('\u{4e00}'..'\u{5000}').collect();
    assert_eq!(refused(&letters), "tells too many kinds of characters apart");
    assert!(refused(r"\ba(?-u:\b)").starts_with(r"\b of ASCII"));
}

#[test]
fn choices_of_nothing_are_counted() {
    let with = |choices: usize| {
        Patterns::default().whole_match(&format!(".*[01].{{12}}(?:{})", "|".repeat(choices)))
    };
    assert!(with(500).unwrap().is_match("0000000000000", &Effort::default()));
    assert!(matches!(with(6000), Err(InvalidPattern::TooLarge)));
    // As many moves, but two or three on a symbol.
    Patterns::default().whole_match("session=[^;]{1,3000}").unwrap();
}

#[test]
fn ordinary_expressions_take_little() {
    for (expression, text) in [
        (r"^/[\w-]{1,64}/v\d+$", "/shop-é/v12"),
        (
            r"/api/v[0-9]+/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/.*",
            "/api/v1/01234567-0123-0123-0123-0123456789ab/x",
        ),
        (r"[A-Za-z0-9_-]{2,200}\.[A-Za-z0-9_-]{2,200}\.[A-Za-z0-9_-]{2,200}", "ey.ey.sig"),
        (r"(?i).*\b(android|iphone|ipad)\b.*\bmobile\b.*", "Mozilla/5.0 (iPhone) Mobile/1"),
        (r"(.*;\s*)?session=[^;]{1,128}(;.*)?", "a=b; session=c; d"),
        (r"[a-z0-9-]{1,63}-[a-z0-9]{5}", "echo-6d5f-x7k2p"),
        (r"\p{L}{1,20}", "Überführung"),
        (r"[\w-]{1,255}", "shop-é"),
        (r"(?i)[a-z0-9]{1,63}(\.[a-z0-9]{1,63}){1,10}", "Shop.example"),
        (r"[^;]{1,3900}", "session=c"),
    ] {
        let compiled = Patterns::default().whole_match(expression).unwrap();
        assert!(compiled.memory() < 64 << 10, "{expression}: {}", compiled.memory());
        assert!(compiled.is_match(text, &Effort::default()), "{expression}");
    }
}

#[test]
fn lists_of_words_have_room() {
    let ids = (1..=40).map(|number: u128| {
        let hex = format!("{:032x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    });
    let ids: Vec<_> = ids.collect();
    let team = |number: u64| format!("/{:010x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24);
    let teams = (1..=300).map(|number| team(number) + "/[^/]+").collect::<Vec<_>>().join("|");
    let (path, below) = (team(7) + "/cart", format!("/api{}/cart", team(7)));
    let bots = "ahrefsbot|applebot|archive\\.org_bot|baiduspider|barkrowler|bingbot|blexbot|bytespider|ccbot|\
        censys|claudebot|coccocbot|crawler4j|curl|dataforseo|dotbot|duckduckbot|exabot|facebookexternalhit|\
        feedfetcher|go-http-client|googlebot|gptbot|headlesschrome|httrack|ia_archiver|java/|jersey|libwww|\
        linkedinbot|magpie-crawler|masscan|mediapartners|megaindex|mj12bot|msnbot|nikto|nimbostratus|nmap|\
        nutch|okhttp|pcore-http|perplexitybot|petalbot|phantomjs|pingdom|python-requests|rogerbot|scrapy|\
        screaming frog|semrushbot|seznambot|sitebulb|slurp|sogou|sqlmap|turnitin|twitterbot|uptimerobot|\
        wget|winhttp|yandexbot|zgrab|zoominfobot";
    for (expression, text) in [
        (ids.join("|"), ids[7].as_str()),
        (format!("(?i).*({bots}).*"), "Mozilla/5.0 (compatible; SemrushBot/7)"),
        (format!("/api(?:{teams})"), below.as_str()),
        (teams, path.as_str()),
    ] {
        let compiled = Patterns::default().whole_match(&expression).unwrap();
        assert!(compiled.memory() < 512 << 10, "{expression}: {}", compiled.memory());
        assert!(compiled.is_match(text, &Effort::default()), "{expression}");
    }
    let card = Patterns::default().finder(r"(?:\d[ -]*?){13,16}").unwrap();
    assert_eq!(card.spans("card 4111 1111 1111 1111").first(), Some(&(5..24)));
}

#[test]
fn an_expression_reads_each_character_once() {
    let compiled = Patterns::default().whole_match(".*[ab].{8}c").unwrap();
    let effort = Effort::default();
    let text = "ab".repeat(32 << 10);
    assert!(!compiled.is_match(&text, &effort));
    assert_eq!(effort.left.get(), EFFORT - text.len());
    effort.spend(EFFORT);
    assert!(effort.is_exhausted());
    assert!(!compiled.is_match("a12345678c", &effort));
}

#[test]
fn no_namespace_takes_the_memory_of_another() {
    let patterns = Patterns::default();
    let shares = Shares::new(&patterns);
    shares.of("greedy").whole_match("/early").unwrap();
    // A MiB or almost: 64 symbols for each of 3900 letters.
    let kinds: String = ('\u{4e00}'..).take(30).collect();
    let large = |number| format!("{kinds}|a{{{}}}", 3900 - number);
    let taken = (0..1000).take_while(|number| shares.of("greedy").whole_match(&large(*number)).is_ok());
    let taken = taken.count();
    assert!((16..20).contains(&taken), "{taken} have room");
    let refused = shares.of("greedy").finder("late").unwrap_err();
    assert_eq!(refused.to_string(), "the regular expressions of namespace greedy take more than 16 MiB");
    shares.of("greedy").whole_match("/early").unwrap();
    shares.of("modest").whole_match("/late").unwrap();
}

#[test]
fn expressions_that_are_refused_take_no_memory_and_are_not_tried_for_ever() {
    let patterns = Patterns::default();
    let shares = Shares::new(&patterns);
    for number in 0..16 {
        shares.of("hasty").whole_match(&format!("/small/{number}")).unwrap();
        let refused = shares.of("hasty").whole_match(&format!("(a{{1000}}){{{}}}", 1000 - number));
        assert!(matches!(refused, Err(InvalidPattern::TooLarge)), "{number}: {refused:?}");
    }
    let refused = shares.of("hasty").finder("late").unwrap_err();
    assert_eq!(refused.to_string(), "too many other regular expressions of namespace hasty are not served");
    shares.of("hasty").whole_match("/small/0").unwrap();
}

const PARTS: [&str; 22] = [
    "a",
    "ü",
    "[a-z]",
    r"\w",
    r"\W",
    r"\d",
    ".",
    "(?s:.)",
    "[^a]",
    r"\b",
    r"\B",
    "^",
    "$",
    "(?i:Ä)",
    r"\s",
    "(?m:^)",
    "(?m:$)",
    "(?Rm:$)",
    "(a|üb)",
    "-",
    r"\b{start}",
    "|",
];

fn expressions() -> impl Strategy<Value = String> {
    let part = (select(&PARTS[..]), select(&["", "*", "+", "+?", "{1,2}", "?", "*?"][..]));
    vec(part, 0..6).prop_map(|parts| {
        let parts = parts.into_iter().map(|(part, count)| match part {
            "|" => "|".to_owned(),
            part => format!("(?:{part}){count}"),
        });
        parts.collect()
    })
}

fn texts() -> impl Strategy<Value = String> {
    vec(select(&['a', 'b', 'ü', 'Ä', 'ä', '-', ' ', '1', '\n', '\r', '_', '中', '🙂'][..]), 0..10)
        .prop_map(|characters| characters.into_iter().collect())
}

proptest! {
    #[test]
    fn expressions_mean_what_they_mean_to_regex(expression in expressions(), text in texts()) {
        let whole = Regex::new(&format!("^(?:{expression})$")).unwrap();
        prop_assert_eq!(is_match(&expression, &text), whole.is_match(&text));
        let place = |at: usize| text[..at].chars().count();
        let regex = Regex::new(&expression).unwrap();
        let found = regex.find_iter(&text).filter(|found| !found.is_empty());
        let found: Vec<_> = found.map(|found| place(found.start())..place(found.end())).collect();
        prop_assert_eq!(Patterns::default().finder(&expression).unwrap().spans(&text), found);
    }
}
