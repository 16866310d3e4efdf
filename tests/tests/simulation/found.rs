/// The first seed that found each planted bug.
const FOUND: &[(u64, &str)] = &[
    (3, "core.TruncateToHighWatermark"),
    (1, "core.ShrinkBelowMin"),
    (3, "core.AckBeforeFsync"),
    (1, "core.ResumeLeadership"),
    (3, "broker.AcknowledgeBeforeFsync"),
    (1, "broker.ReadAboveHighWatermark"),
    (4, "broker.FetchOffByOne"),
    (1, "broker.ProducersLostAtRestart"),
    (1, "broker.IgnoreTombstone"),
    (10, "broker.IgnoreFsyncError"),
    (13, "broker.EpochSavedEarly"),
    (4, "core.UnversionedWrite"),
    (4, "core.WinnerOutsideIsr"),
    (9, "core.CommitBeforeFsync"),
    (1, "client.NumberRetriesAnew"),
];
