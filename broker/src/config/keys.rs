//! The table of keys, generated from the struct that holds their values.

use std::path::PathBuf;

/// What a key's value may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Boolean,
    /// From 0 up to `max`.
    Integer {
        max: i64,
    },
    OneOf(&'static [&'static str]),
    /// A list of sections; the keys of its elements follow, as `path[].key`.
    List,
}

impl Kind {
    /// As the reference names it.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Text => "text".to_owned(),
            Self::Boolean => "true or false".to_owned(),
            Self::Integer { max: i64::MAX } => "a whole number, 0 or more".to_owned(),
            Self::Integer { max } => format!("a whole number, 0 to {max}"),
            Self::OneOf(names) => format!("one of {}", names.join(", ")),
            Self::List => "a list of tables".to_owned(),
        }
    }

    /// Whether `value` is of this kind (the elements of a list are looked at one by one).
    #[must_use]
    pub fn accepts(&self, value: &toml::Value) -> bool {
        match (self, value) {
            (Self::Text, toml::Value::String(_))
            | (Self::Boolean, toml::Value::Boolean(_))
            | (Self::List, toml::Value::Array(_)) => true,
            (Self::Integer { max }, toml::Value::Integer(number)) => (0..=*max).contains(number),
            (Self::OneOf(names), toml::Value::String(name)) => names.contains(&name.as_str()),
            _ => false,
        }
    }
}

/// One key of a configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// `log.dir`; the keys of a list's elements are `listeners[].bind`.
    pub path: String,
    pub kind: Kind,
    pub default: toml::Value,
    /// One or more sentences.
    pub doc: String,
    /// There is no default: the configuration is refused without it.
    pub required: bool,
    /// Never printed.
    pub secret: bool,
}

impl Key {
    /// The variable that sets it; `N` stands for the number of a list's element.
    #[must_use]
    pub fn variable(&self) -> String {
        let path = self.path.replace("[]", ".n");
        format!("{PREFIX}{}", path.replace('.', "__").to_uppercase())
    }
}

/// What every variable of a configuration starts with.
pub const PREFIX: &str = "BATON_";

/// What is known of a key before its type adds the kind.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    pub path: String,
    pub doc: String,
    pub required: bool,
    pub secret: bool,
}

impl Draft {
    /// The draft of the key `name` in this section.
    #[must_use]
    pub fn child(&self, name: &str, doc: &[&str], flags: &[&str]) -> Self {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        let lines: Vec<&str> = doc.iter().map(|line| line.trim()).collect();
        Self { path, doc: lines.join(" "), required: flags.contains(&"required"), secret: flags.contains(&"secret") }
    }

    fn key(self, kind: Kind, default: toml::Value) -> Key {
        let Self { path, doc, required, secret } = self;
        Key { path, kind, default, doc, required, secret }
    }
}

/// A type that a key's value, or a section, can have. `self` is the default.
pub trait Setting {
    fn describe(&self, draft: Draft, keys: &mut Vec<Key>);
}

/// A struct made by [`settings!`](crate::settings).
pub trait Section: Setting + Default {
    /// Every key of it, in the order of its fields.
    #[must_use]
    fn keys() -> Vec<Key> {
        let mut keys = Vec::new();
        Self::default().describe(Draft::default(), &mut keys);
        keys
    }
}

macro_rules! integer {
    ($($type:ty)*) => {$(
        impl Setting for $type {
            fn describe(&self, draft: Draft, keys: &mut Vec<Key>) {
                let number = |n: $type| i64::try_from(n).unwrap_or(i64::MAX);
                let kind = Kind::Integer { max: number(<$type>::MAX) };
                keys.push(draft.key(kind, toml::Value::Integer(number(*self))));
            }
        }
    )*};
}

integer! { u16 u32 u64 usize }

impl Setting for bool {
    fn describe(&self, draft: Draft, keys: &mut Vec<Key>) {
        keys.push(draft.key(Kind::Boolean, toml::Value::Boolean(*self)));
    }
}

impl Setting for String {
    fn describe(&self, draft: Draft, keys: &mut Vec<Key>) {
        keys.push(draft.key(Kind::Text, toml::Value::String(self.clone())));
    }
}

impl Setting for PathBuf {
    fn describe(&self, draft: Draft, keys: &mut Vec<Key>) {
        let text = self.to_string_lossy().into_owned();
        keys.push(draft.key(Kind::Text, toml::Value::String(text)));
    }
}

impl<S: Section + serde::Serialize> Setting for Vec<S> {
    fn describe(&self, draft: Draft, keys: &mut Vec<Key>) {
        let path = format!("{}[]", draft.path);
        let default = toml::Value::try_from(self).unwrap_or(toml::Value::Array(Vec::new()));
        keys.push(draft.key(Kind::List, default));
        S::default().describe(Draft { path, ..Draft::default() }, keys);
    }
}

/// A choice between names: [`crate::named!`] makes such types.
pub fn describe_choice(names: &'static [&'static str], chosen: &str, draft: Draft, keys: &mut Vec<Key>) {
    keys.push(draft.key(Kind::OneOf(names), toml::Value::String(chosen.to_owned())));
}

/// Defines a section of a configuration: each key with its documentation, type and default.
/// Behind the default may stand `required` (there is none) and `secret` (never printed).
#[macro_export]
macro_rules! settings {
    (
        $(#[doc = $about:literal])*
        pub struct $name:ident {
            $( $(#[doc = $doc:literal])+ $field:ident: $type:ty = $default:expr $(, $flag:ident)*; )*
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $( $(#[doc = $doc])+ pub $field: $type, )*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: $default, )* }
            }
        }

        impl $crate::config::keys::Setting for $name {
            fn describe(
                &self,
                draft: $crate::config::keys::Draft,
                keys: &mut Vec<$crate::config::keys::Key>,
            ) {
                $( $crate::config::keys::Setting::describe(
                    &self.$field,
                    draft.child(stringify!($field), &[$($doc),+], &[$(stringify!($flag)),*]),
                    keys,
                ); )*
            }
        }

        impl $crate::config::keys::Section for $name {}
    };
}

/// Defines a key's type that is a choice between names.
#[macro_export]
macro_rules! named {
    (
        $(#[doc = $about:literal])*
        pub enum $name:ident { $( $(#[doc = $doc:literal])* $variant:ident = $text:literal, )+ }
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub enum $name { $( $(#[doc = $doc])* #[serde(rename = $text)] $variant, )+ }

        impl $name {
            /// The name in configuration and in registrations.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $( Self::$variant => $text, )+ }
            }
        }

        impl $crate::config::keys::Setting for $name {
            fn describe(
                &self,
                draft: $crate::config::keys::Draft,
                keys: &mut Vec<$crate::config::keys::Key>,
            ) {
                $crate::config::keys::describe_choice(&[$($text),+], self.name(), draft, keys);
            }
        }
    };
}
