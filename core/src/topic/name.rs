//! The names of topics.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorCode};

/// The longest name, in characters; all of them are ASCII.
pub const NAME_LEN_MAX: usize = 249;

/// A topic's identity is its namespace and its name; there is one namespace so far.
pub const NAMESPACE_DEFAULT: &str = "default";

/// Names that start so belong to Baton itself.
const INTERNAL_PREFIX: &str = "__";

/// Why a text is not the name of a topic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    #[error("a topic's name may not be empty")]
    Empty,
    #[error("a topic may not be called {0:?}")]
    Dots(String),
    #[error("a topic's name has at most {NAME_LEN_MAX} characters, and this has {0}")]
    TooLong(usize),
    #[error("a topic's name consists of [a-zA-Z0-9._-], and {character:?} stands at {at}")]
    Character { character: char, at: usize },
    #[error("names under `__` are reserved, as is {0:?}")]
    Reserved(String),
    #[error("an internal topic's name starts with `__`, and {0:?} does not")]
    NotInternal(String),
}

impl From<BadName> for Error {
    fn from(error: BadName) -> Self {
        Self::new(ErrorCode::InvalidTopicName, error.to_string())
    }
}

/// The name of a topic, known to follow the rules. Parsing takes users' names only;
/// [`TopicName::internal`] takes those of Baton's own topics.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(String);

impl TopicName {
    /// The name of one of Baton's own topics, which starts with `__`.
    ///
    /// # Errors
    /// The name breaks a rule, or does not start with `__`.
    pub fn internal(name: &str) -> Result<Self, BadName> {
        check(name)?;
        if !name.starts_with(INTERNAL_PREFIX) {
            return Err(BadName::NotInternal(name.to_owned()));
        }
        Ok(Self(name.to_owned()))
    }

    /// The name of any topic, for reading and describing.
    ///
    /// # Errors
    /// The name breaks a rule.
    pub fn any(name: &str) -> Result<Self, BadName> {
        check(name)?;
        Ok(Self(name.to_owned()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the topic is one of Baton's own.
    #[must_use]
    pub fn is_internal(&self) -> bool {
        self.0.starts_with(INTERNAL_PREFIX)
    }
}

impl FromStr for TopicName {
    type Err = BadName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        check(name)?;
        if name.starts_with(INTERNAL_PREFIX) {
            return Err(BadName::Reserved(name.to_owned()));
        }
        Ok(Self(name.to_owned()))
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for TopicName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for TopicName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The rules for users' and internal names alike. The length comes before what is quoted, so
/// that an error never carries an endless name.
fn check(name: &str) -> Result<(), BadName> {
    if name.is_empty() {
        return Err(BadName::Empty);
    }
    if name.len() > NAME_LEN_MAX {
        return Err(BadName::TooLong(name.chars().count()));
    }
    if name == "." || name == ".." {
        return Err(BadName::Dots(name.to_owned()));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match name.chars().enumerate().find(|(_, c)| !allowed(*c)) {
        Some((at, character)) => Err(BadName::Character { character, at }),
        None => Ok(()),
    }
}

/// Whether two names would become one where `.` and `_` cannot be told apart, as in the names
/// of metrics. Kafka refuses the second of such topics.
#[must_use]
pub fn names_collide(one: &str, other: &str) -> bool {
    let plain = |byte: u8| if byte == b'.' { b'_' } else { byte };
    one != other && one.bytes().map(plain).eq(other.bytes().map(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_break_a_rule_are_refused() {
        let long = "x".repeat(250);
        let wide = "é".repeat(125);
        let cases = [
            ("", BadName::Empty),
            (".", BadName::Dots(".".into())),
            ("..", BadName::Dots("..".into())),
            ("__mine", BadName::Reserved("__mine".into())),
            ("__", BadName::Reserved("__".into())),
            (&long, BadName::TooLong(250)),
            (&wide, BadName::TooLong(125)),
        ];
        for (name, expected) in cases {
            assert_eq!(name.parse::<TopicName>(), Err(expected.clone()));
            assert_eq!(Error::from(expected).code, ErrorCode::InvalidTopicName);
        }
        for bad in ["a b", "a/b", "ä", "a\0", "a\n", "a:b", "a,b", "日本", "a%", "a\\"] {
            let error = bad.parse::<TopicName>().unwrap_err();
            assert!(matches!(error, BadName::Character { .. }), "{bad:?}: {error}");
        }
    }

    #[test]
    fn names_that_follow_the_rules_are_taken() {
        let longest = "x".repeat(249);
        for good in ["a", "...", "_a", "-", "A.b_c-9", &longest, "a__b"] {
            let name: TopicName = good.parse().unwrap();
            assert_eq!((name.as_str(), name.is_internal()), (good, false));
        }
    }

    #[test]
    fn internal_names_are_only_taken_as_such() {
        assert!(TopicName::internal("__events").unwrap().is_internal());
        assert!(TopicName::any("__events").is_ok());
        let error = TopicName::internal("events");
        assert_eq!(error, Err(BadName::NotInternal("events".into())));
        assert!(TopicName::internal("__a/b").is_err());
        assert!(TopicName::any("").is_err());
    }

    #[test]
    fn dots_and_underscores_collide() {
        assert!(names_collide("a.b_c", "a_b.c"));
        assert!(!names_collide("a.b", "a.b"));
        assert!(!names_collide("a.b", "a-b"));
        assert!(!names_collide("a.b", "a_bc"));
    }
}
