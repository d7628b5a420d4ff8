/// How much to log.
public enum LogLevel: String, Sendable, CaseIterable {
    /// Every event and step.
    case debug
    /// What changes.
    case info
    /// What a user would want to know.
    case notice
    /// What went wrong and is tried again.
    case warning
    /// What cannot be mended.
    case error
}
