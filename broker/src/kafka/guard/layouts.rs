//! The layouts of the requests that are served, up to the versions that are advertised: facts
//! of Kafka's message definitions. The tests compare every one of them with what the decoder of
//! that request reads.

use super::layout::Kind::{self, Array, Blob, Fixed, MaybeStruct, Struct, Text};
use super::layout::{Layout, NEVER, always, between, since, tagged, until};

pub const PRODUCE: Layout = Layout {
    flexible: 9,
    fields: &[
        always(Text),
        always(Fixed(2)),
        always(Fixed(4)),
        always(Array(&Struct(&[always(Text), always(Array(&Struct(&[always(Fixed(4)), always(Blob)])))]))),
    ],
};

/// What AddPartitionsToTxn and WriteTxnMarkers say of one topic.
const ADDED_TOPIC: Kind = Struct(&[always(Text), always(Array(&Fixed(4)))]);

pub const ADD_PARTITIONS_TO_TXN: Layout = Layout {
    flexible: 3,
    fields: &[
        since(
            4,
            Array(&Struct(&[
                always(Text),
                always(Fixed(8)),
                always(Fixed(2)),
                always(Fixed(1)),
                always(Array(&ADDED_TOPIC)),
            ])),
        ),
        until(3, Text),
        until(3, Fixed(8)),
        until(3, Fixed(2)),
        until(3, Array(&ADDED_TOPIC)),
    ],
};

pub const ADD_OFFSETS_TO_TXN: Layout =
    Layout { flexible: 3, fields: &[always(Text), always(Fixed(8)), always(Fixed(2)), always(Text)] };

pub const END_TXN: Layout =
    Layout { flexible: 3, fields: &[always(Text), always(Fixed(8)), always(Fixed(2)), always(Fixed(1))] };

pub const WRITE_TXN_MARKERS: Layout = Layout {
    flexible: 1,
    fields: &[always(Array(&Struct(&[
        always(Fixed(8)),
        always(Fixed(2)),
        always(Fixed(1)),
        always(Array(&ADDED_TOPIC)),
        always(Fixed(4)),
    ])))],
};

pub const TXN_OFFSET_COMMIT: Layout = Layout {
    flexible: 3,
    fields: &[
        always(Text),
        always(Text),
        always(Fixed(8)),
        always(Fixed(2)),
        since(3, Fixed(4)),
        since(3, Text),
        since(3, Text),
        always(Array(&Struct(&[
            always(Text),
            always(Array(&Struct(&[always(Fixed(4)), always(Fixed(8)), since(2, Fixed(4)), always(Text)]))),
        ]))),
    ],
};

pub const DESCRIBE_PRODUCERS: Layout =
    Layout { flexible: 0, fields: &[always(Array(&Struct(&[always(Text), always(Array(&Fixed(4)))])))] };

pub const DESCRIBE_TRANSACTIONS: Layout = Layout { flexible: 0, fields: &[always(Array(&Text))] };

pub const LIST_TRANSACTIONS: Layout =
    Layout { flexible: 0, fields: &[always(Array(&Text)), always(Array(&Fixed(8))), since(1, Fixed(8))] };

pub const FETCH: Layout = Layout {
    flexible: 12,
    fields: &[
        until(14, Fixed(4)),
        always(Fixed(4)),
        always(Fixed(4)),
        always(Fixed(4)),
        always(Fixed(1)),
        since(7, Fixed(4)),
        since(7, Fixed(4)),
        always(Array(&Struct(&[
            until(12, Text),
            since(13, Fixed(16)),
            always(Array(&Struct(&[
                always(Fixed(4)),
                since(9, Fixed(4)),
                always(Fixed(8)),
                since(12, Fixed(4)),
                since(5, Fixed(8)),
                always(Fixed(4)),
            ]))),
        ]))),
        since(7, Array(&Struct(&[between(7, 12, Text), since(13, Fixed(16)), since(7, Array(&Fixed(4)))]))),
        since(11, Text),
        tagged(0, 0, Text),
        // What a follower says of itself; the decoder reads it of any client.
        tagged(1, 15, Struct(&[always(Fixed(4)), always(Fixed(8))])),
    ],
};

pub const LIST_OFFSETS: Layout = Layout {
    flexible: 6,
    fields: &[
        always(Fixed(4)),
        since(2, Fixed(1)),
        always(Array(&Struct(&[
            always(Text),
            always(Array(&Struct(&[always(Fixed(4)), since(4, Fixed(4)), always(Fixed(8))]))),
        ]))),
    ],
};

pub const METADATA: Layout = Layout {
    flexible: 9,
    fields: &[
        always(Array(&Struct(&[since(10, Fixed(16)), always(Text)]))),
        since(4, Fixed(1)),
        between(8, 10, Fixed(1)),
        since(8, Fixed(1)),
    ],
};

pub const OFFSET_COMMIT: Layout = Layout {
    flexible: 8,
    fields: &[
        always(Text),
        always(Fixed(4)),
        always(Text),
        since(7, Text),
        until(4, Fixed(8)),
        always(Array(&Struct(&[
            always(Text),
            always(Array(&Struct(&[always(Fixed(4)), always(Fixed(8)), since(6, Fixed(4)), always(Text)]))),
        ]))),
    ],
};

pub const OFFSET_FETCH: Layout = Layout {
    flexible: 6,
    fields: &[
        until(7, Text),
        until(7, Array(&Struct(&[until(7, Text), until(7, Array(&Fixed(4)))]))),
        since(
            8,
            Array(&Struct(&[
                since(8, Text),
                since(9, Text),
                since(9, Fixed(4)),
                since(8, Array(&Struct(&[since(8, Text), since(8, Array(&Fixed(4)))]))),
            ])),
        ),
        since(7, Fixed(1)),
    ],
};

pub const FIND_COORDINATOR: Layout =
    Layout { flexible: 3, fields: &[until(3, Text), since(1, Fixed(1)), since(4, Array(&Text))] };

pub const JOIN_GROUP: Layout = Layout {
    flexible: 6,
    fields: &[
        always(Text),
        always(Fixed(4)),
        since(1, Fixed(4)),
        always(Text),
        since(5, Text),
        always(Text),
        always(Array(&Struct(&[always(Text), always(Blob)]))),
        since(8, Text),
    ],
};

pub const HEARTBEAT: Layout =
    Layout { flexible: 4, fields: &[always(Text), always(Fixed(4)), always(Text), since(3, Text)] };

pub const LEAVE_GROUP: Layout = Layout {
    flexible: 4,
    fields: &[
        always(Text),
        until(2, Text),
        since(3, Array(&Struct(&[since(3, Text), since(3, Text), since(5, Text)]))),
    ],
};

pub const SYNC_GROUP: Layout = Layout {
    flexible: 4,
    fields: &[
        always(Text),
        always(Fixed(4)),
        always(Text),
        since(3, Text),
        since(5, Text),
        since(5, Text),
        always(Array(&Struct(&[always(Text), always(Blob)]))),
    ],
};

pub const DESCRIBE_GROUPS: Layout = Layout { flexible: 5, fields: &[always(Array(&Text)), since(3, Fixed(1))] };

pub const LIST_GROUPS: Layout = Layout { flexible: 3, fields: &[since(4, Array(&Text)), since(5, Array(&Text))] };

pub const API_VERSIONS: Layout = Layout { flexible: 3, fields: &[since(3, Text), since(3, Text)] };

pub const CREATE_TOPICS: Layout = Layout {
    flexible: 5,
    fields: &[
        always(Array(&Struct(&[
            always(Text),
            always(Fixed(4)),
            always(Fixed(2)),
            always(Array(&Struct(&[always(Fixed(4)), always(Array(&Fixed(4)))]))),
            always(Array(&Struct(&[always(Text), always(Text)]))),
        ]))),
        always(Fixed(4)),
        always(Fixed(1)),
    ],
};

pub const DELETE_TOPICS: Layout = Layout {
    flexible: 4,
    fields: &[
        since(6, Array(&Struct(&[since(6, Text), since(6, Fixed(16))]))),
        until(5, Array(&Text)),
        always(Fixed(4)),
    ],
};

pub const DELETE_RECORDS: Layout = Layout {
    flexible: 2,
    fields: &[
        always(Array(&Struct(&[always(Text), always(Array(&Struct(&[always(Fixed(4)), always(Fixed(8))])))]))),
        always(Fixed(4)),
    ],
};

pub const INIT_PRODUCER_ID: Layout =
    Layout { flexible: 2, fields: &[always(Text), always(Fixed(4)), since(3, Fixed(8)), since(3, Fixed(2))] };

pub const OFFSET_FOR_LEADER_EPOCH: Layout = Layout {
    flexible: 4,
    fields: &[
        since(3, Fixed(4)),
        always(Array(&Struct(&[
            always(Text),
            always(Array(&Struct(&[always(Fixed(4)), always(Fixed(4)), always(Fixed(4))]))),
        ]))),
    ],
};

pub const DESCRIBE_CONFIGS: Layout = Layout {
    flexible: 4,
    fields: &[
        always(Array(&Struct(&[always(Fixed(1)), always(Text), always(Array(&Text))]))),
        always(Fixed(1)),
        since(3, Fixed(1)),
    ],
};

pub const ALTER_CONFIGS: Layout = Layout {
    flexible: 2,
    fields: &[
        always(Array(&Struct(&[
            always(Fixed(1)),
            always(Text),
            always(Array(&Struct(&[always(Text), always(Text)]))),
        ]))),
        always(Fixed(1)),
    ],
};

pub const DESCRIBE_LOG_DIRS: Layout =
    Layout { flexible: 2, fields: &[always(Array(&Struct(&[always(Text), always(Array(&Fixed(4)))])))] };

pub const CREATE_PARTITIONS: Layout = Layout {
    flexible: 2,
    fields: &[
        always(Array(&Struct(&[always(Text), always(Fixed(4)), always(Array(&Struct(&[always(Array(&Fixed(4)))])))]))),
        always(Fixed(4)),
        always(Fixed(1)),
    ],
};

pub const DELETE_GROUPS: Layout = Layout { flexible: 2, fields: &[always(Array(&Text))] };

pub const ELECT_LEADERS: Layout = Layout {
    flexible: 2,
    fields: &[since(1, Fixed(1)), always(Array(&Struct(&[always(Text), always(Array(&Fixed(4)))]))), always(Fixed(4))],
};

pub const INCREMENTAL_ALTER_CONFIGS: Layout = Layout {
    flexible: 1,
    fields: &[
        always(Array(&Struct(&[
            always(Fixed(1)),
            always(Text),
            always(Array(&Struct(&[always(Text), always(Fixed(1)), always(Text)]))),
        ]))),
        always(Fixed(1)),
    ],
};

pub const ALTER_PARTITION_REASSIGNMENTS: Layout = Layout {
    flexible: 0,
    fields: &[
        always(Fixed(4)),
        always(Array(&Struct(&[always(Text), always(Array(&Struct(&[always(Fixed(4)), always(Array(&Fixed(4)))])))]))),
    ],
};

pub const LIST_PARTITION_REASSIGNMENTS: Layout = Layout {
    flexible: 0,
    fields: &[always(Fixed(4)), always(Array(&Struct(&[always(Text), always(Array(&Fixed(4)))])))],
};

pub const OFFSET_DELETE: Layout = Layout {
    flexible: NEVER,
    fields: &[always(Text), always(Array(&Struct(&[always(Text), always(Array(&Struct(&[always(Fixed(4))])))])))],
};

pub const DESCRIBE_CLUSTER: Layout = Layout { flexible: 0, fields: &[always(Fixed(1)), since(1, Fixed(1))] };

pub const DESCRIBE_TOPIC_PARTITIONS: Layout = Layout {
    flexible: 0,
    fields: &[
        always(Array(&Struct(&[always(Text)]))),
        always(Fixed(4)),
        always(MaybeStruct(&[always(Text), always(Fixed(4))])),
    ],
};
