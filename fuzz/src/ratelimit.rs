//! The limiter.

use std::collections::HashMap;

use nantian_ratelimit::{
    Cost, Limit, Limiter, Policy, Reservation, Scope, Settlement,
    clock::{ManualClock, Timestamp},
    redis::RedisUrl,
};

const WINDOW: i128 = 60_000_000_000;
const REQUESTS: u16 = 20;
const TOKENS: u16 = 300;

/// What is left of both limits for one key, times the window; below zero is debt.
#[derive(Clone)]
struct Left([i128; 2]);

/// What operators write: a scope or the address of a store is read back as it was written, and no message
/// shows a password.
pub fn rate_limit_words(words: &[u8]) {
    let Ok(text) = std::str::from_utf8(words) else { return };
    match text.parse::<Scope>() {
        Ok(scope) => assert_eq!(scope.to_string().parse::<Scope>().expect("it was one"), scope),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    match text.parse::<RedisUrl>() {
        Ok(url) => {
            let shown = url.to_string();
            let again: RedisUrl = shown.parse().unwrap_or_else(|error| panic!("{error}: {shown}"));
            assert_eq!(again.to_string(), shown);
            let secret = text
                .split_once('@')
                .and_then(|(user, _)| Some(user.strip_prefix("redis://")?.split_once(':')?.1));
            // One that is short may be part of the host by chance.
            if let Some(secret) = secret.filter(|secret| secret.len() > 8) {
                assert!(!shown.contains(secret), "{shown}");
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Whatever happens in whatever order, a few keys are decided as by numbers in a map; each four bytes are a
/// step.
pub fn rate_limit_history(steps: &[u8]) {
    let policy = Policy::builder()
        .limit(Limit::requests_per_minute(REQUESTS.into()))
        .limit(Limit::tokens_per_minute(TOKENS.into()))
        .build()
        .expect("it is valid");
    let limiter = Limiter::builder(policy).max_keys(256).clock(ManualClock::new()).build();
    let mut now = 0u64;
    let mut known = HashMap::<u8, Left>::new();
    let mut open: Vec<(Reservation, u8, u16)> = Vec::new();
    let (steps, _) = steps.as_chunks::<4>();
    for [what, key, high, low] in steps {
        let amount = u16::from_be_bytes([*high, *low]);
        let at = Timestamp::from_nanos(now);
        match what % 4 {
            0 => {
                let pause = u64::from(amount) * 1_000_000;
                now += pause;
                known.values_mut().for_each(|left| left.refill(pause));
            }
            1 => {
                // Few keys, so that they meet again.
                let (key, tokens) = (key % 16, amount % 512);
                let left = known.entry(key).or_insert_with(Left::full);
                let fits = left.charge(tokens);
                match limiter.admit_at(at, limiter.key(&[key]), Cost::tokens(tokens.into())) {
                    Ok(admitted) => {
                        assert!(fits, "{tokens} tokens are too many");
                        open.push((admitted.reserve(), key, tokens));
                    }
                    Err(denied) => {
                        assert!(!fits, "{denied}");
                        let wait = denied.retry_after().expect("it passes some time");
                        assert!(!wait.is_zero());
                    }
                }
            }
            _ if open.is_empty() => {}
            2 => {
                let (reservation, key, reserved) = open.swap_remove(usize::from(*key) % open.len());
                let used = amount % 1024;
                reservation.settle_at(at, Settlement::Used(used.into()));
                let left = known.get_mut(&key).expect("it was charged");
                left.give(1, i128::from(reserved.min(TOKENS)) - i128::from(used));
            }
            _ => {
                let (reservation, key, reserved) = open.swap_remove(usize::from(*key) % open.len());
                reservation.cancel_at(at);
                let left = known.get_mut(&key).expect("it was charged");
                left.give(0, 1);
                left.give(1, reserved.min(TOKENS).into());
            }
        }
        for (key, left) in &known {
            let levels = limiter.levels_at(Timestamp::from_nanos(now), limiter.key(&[*key]));
            let seen: Vec<u64> = levels.iter().map(|level| level.remaining).collect();
            assert_eq!(seen, left.items(), "of {key}");
        }
    }
}

// === impl Left ===

impl Left {
    const MOST: [i128; 2] = [REQUESTS as i128 * WINDOW, TOKENS as i128 * WINDOW];

    fn full() -> Self {
        Self(Self::MOST)
    }

    fn refill(&mut self, nanos: u64) {
        for (left, most) in self.0.iter_mut().zip(Self::MOST) {
            *left = most.min(*left + i128::from(nanos) * (most / WINDOW));
        }
    }

    /// Takes a request and its tokens, all of a full bucket if there are more; false if they do not fit.
    fn charge(&mut self, tokens: u16) -> bool {
        let needs = [WINDOW, i128::from(tokens.min(TOKENS)) * WINDOW];
        let fits = self.0.iter().zip(needs).all(|(left, need)| need == 0 || *left >= need);
        if fits {
            self.0.iter_mut().zip(needs).for_each(|(left, need)| *left -= need);
        }
        fits
    }

    /// Gives items back, or takes them: no more than what fills the bucket, and a window's debt.
    fn give(&mut self, limit: usize, items: i128) {
        let (left, most) = (&mut self.0[limit], Self::MOST[limit]);
        let given = *left + items * WINDOW;
        *left = if items < 0 { given.max((-most).min(*left)) } else { given.min(most) };
    }

    fn items(&self) -> Vec<u64> {
        self.0.iter().map(|left| u64::try_from(left.div_euclid(WINDOW)).unwrap_or(0)).collect()
    }
}
