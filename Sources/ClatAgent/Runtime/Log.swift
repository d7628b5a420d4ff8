import ClatBase
import Glibc
import Logging

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

extension Logger.Level {
    init(_ level: LogLevel) {
        self =
            switch level {
            case .debug: .debug
            case .info: .info
            case .notice: .notice
            case .warning: .warning
            case .error: .error
            }
    }
}

/// Writes lines to standard error: `LEVEL: message`, and under systemd with the `<N>` that the journal understands.
struct StandardErrorLog: LogHandler {
    var metadata: Logger.Metadata = [:]
    var logLevel: Logger.Level
    private let toJournal: Bool

    init(level: Logger.Level) {
        logLevel = level
        toJournal = getenv("JOURNAL_STREAM") != nil
    }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        let prefix = toJournal ? "<\(Self.priority(event.level))>" : "clat-agent: "
        let level = event.level >= .warning && !toJournal ? "\(event.level): " : ""
        let line = Array("\(prefix)\(level)\(event.message)\n".utf8)
        _ = write(STDERR_FILENO, line, line.count)
    }

    /// syslog(3)'s numbers.
    private static func priority(_ level: Logger.Level) -> CInt {
        switch level {
        case .trace, .debug: LOG_DEBUG
        case .info: LOG_INFO
        case .notice: LOG_NOTICE
        case .warning: LOG_WARNING
        case .error: LOG_ERR
        case .critical: LOG_CRIT
        }
    }
}
