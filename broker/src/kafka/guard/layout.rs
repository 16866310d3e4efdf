//! How the layout of a request is written down.

/// The version from which on no request is flexible.
pub const NEVER: i16 = i16::MAX;

/// What stands in a request, in order.
#[derive(Debug)]
pub struct Layout {
    /// The first version with compact lengths and tagged fields (KIP-482).
    pub flexible: i16,
    pub fields: &'static [Field],
}

impl Layout {
    #[must_use]
    pub fn is_flexible(&self, version: i16) -> bool {
        version >= self.flexible
    }
}

/// One field, and the versions that have it.
#[derive(Debug)]
pub struct Field {
    since: i16,
    until: i16,
    /// A tagged field stands among others at the end of its structure.
    pub tag: Option<u32>,
    pub kind: Kind,
}

impl Field {
    #[must_use]
    pub fn is_in(&self, version: i16) -> bool {
        (self.since..=self.until).contains(&version)
    }
}

/// What a field takes.
#[derive(Debug)]
pub enum Kind {
    /// So many bytes.
    Fixed(usize),
    /// A text, which may be null.
    Text,
    /// Bytes, which may be null.
    Blob,
    /// A number of the same, which may be null.
    Array(&'static Kind),
    Struct(&'static [Field]),
    /// One byte says whether it is there.
    MaybeStruct(&'static [Field]),
}

/// A field of all versions.
#[must_use]
pub const fn always(kind: Kind) -> Field {
    between(0, i16::MAX, kind)
}

/// A field from this version on.
#[must_use]
pub const fn since(version: i16, kind: Kind) -> Field {
    between(version, i16::MAX, kind)
}

/// A field up to this version.
#[must_use]
pub const fn until(version: i16, kind: Kind) -> Field {
    between(0, version, kind)
}

/// A field of the versions `first` to `last`.
#[must_use]
pub const fn between(first: i16, last: i16, kind: Kind) -> Field {
    Field { since: first, until: last, tag: None, kind }
}

/// A tagged field from this version on.
#[must_use]
pub const fn tagged(tag: u32, version: i16, kind: Kind) -> Field {
    Field { since: version, until: i16::MAX, tag: Some(tag), kind }
}
