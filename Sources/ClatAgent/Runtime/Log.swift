import ClatBase
import Glibc
import Logging

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

/// Writes to the journal, where standard error leads there, else lines to standard error: `clat-agent: LEVEL: message`.
struct StandardErrorLog: LogHandler {
    var metadata: Logger.Metadata = [:]
    var logLevel: Logger.Level
    private let journal: Journal?

    init(level: Logger.Level, journal: Journal? = Journal()) {
        logLevel = level
        self.journal = journal
    }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        let fields = (event.metadata ?? [:]).sorted { $0.key < $1.key }
            .map { ("CLAT_\($0.key.uppercased())", "\($0.value)") }
        if journal?.write("\(event.message)", priority: Self.priority(event.level), fields) == true { return }
        let level = event.level >= .warning ? "\(event.level): " : ""
        let line = Array("clat-agent: \(level)\(event.message)\n".utf8)
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

extension Logger {
    /// Logs what is about an interface; that, and what kind of event it is, are fields of their own in the journal
    /// (`CLAT_INTERFACE`, `CLAT_EVENT`, and `CLAT_CODE` for the code of a reason).
    func log(
        _ level: Level, _ interface: String, event kind: AgentEvent.Kind? = nil, code: String? = nil,
        _ text: @autoclosure () -> String
    ) {
        var fields: Metadata = ["interface": "\(interface)"]
        if let kind { fields["event"] = "\(kind.rawValue)" }
        if let code { fields["code"] = "\(code)" }
        log(level: level, "\(interface): \(text())", metadata: fields)
    }
}
