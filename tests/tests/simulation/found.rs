/// The first seed that found each planted bug.
const FOUND: &[(u64, &str)] = &[
    (2, "core.TruncateToHighWatermark"),
    (1, "core.ShrinkBelowMin"),
    (3, "core.AckBeforeFsync"),
    (1, "core.ResumeLeadership"),
    (3, "broker.AcknowledgeBeforeFsync"),
    (1, "broker.ReadAboveHighWatermark"),
    (1, "broker.FetchOffByOne"),
    (1, "broker.ProducersLostAtRestart"),
    (1, "broker.IgnoreTombstone"),
    (10, "broker.IgnoreFsyncError"),
    (1, "client.NumberRetriesAnew"),
];
