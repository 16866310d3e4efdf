//! Names and things as numbers of 32 bits: a history of ten million operations has to fit into
//! less than a gigabyte.

use std::collections::HashMap;
use std::sync::Arc;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u32);

        impl $name {
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}

/// The number of an event, from 0 on, over all files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(pub u32);

number! {
    /// A partition, in the order in which they were first named.
    PartitionId
}
number! {
    /// A record that was sent.
    SendId
}
number! {
    /// One producer's records of one partition.
    LaneId
}
number! {
    /// A place in a log: a partition and an offset.
    SlotId
}

/// Names, each once.
#[derive(Debug, Default)]
pub struct Names {
    ids: HashMap<Arc<str>, u32>,
    texts: Vec<Arc<str>>,
}

impl Names {
    /// The number of a name; a new one if it is new.
    pub fn intern(&mut self, text: &str) -> u32 {
        if let Some(id) = self.ids.get(text) {
            return *id;
        }
        // There are fewer names than events, and those are counted.
        let id = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
        let text: Arc<str> = text.into();
        self.texts.push(text.clone());
        self.ids.insert(text, id);
        id
    }

    pub fn text(&self, id: u32) -> &str {
        self.texts.get(id as usize).map_or("?", |text| text)
    }

    pub fn len(&self) -> u64 {
        self.texts.len() as u64
    }
}
