/// A seed of the test run that finds each planted bug.
const FOUND: &[(u64, &str)] = &[
    (1, "core.TruncateToHighWatermark"),
    (7, "core.ShrinkBeforeConfirmation"),
    (5, "core.UnversionedWrite"),
    (2, "core.ShrinkBelowMin"),
    (2, "core.WinnerOutsideIsr"),
    (2, "core.AckBeforeFsync"),
    (2, "core.CommitBeforeFsync"),
    (1, "core.ResumeLeadership"),
    (1, "broker.AcknowledgeBeforeFsync"),
    (2, "broker.ReadAboveHighWatermark"),
    (2, "broker.FetchOffByOne"),
    (8, "broker.ProducersLostAtRestart"),
    (12, "broker.ProducersLostAtTruncation"),
    (5, "broker.IgnoreTombstone"),
    (4, "client.NumberRetriesAnew"),
    (1, "client.KeepMetadata"),
];
