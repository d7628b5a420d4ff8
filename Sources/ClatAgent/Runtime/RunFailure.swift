public import ClatBase

/// Why `clat-agent run` cannot begin. Each has an exit status of its own (after sysexits.h) and one sentence with the
/// remedy.
public enum RunFailure: Error, Hashable, Sendable, CustomStringConvertible {
    /// The configuration file cannot be used: a line for each problem.
    case configuration([String])
    /// No interface of that name.
    case noSuchInterface(String, present: [String])
    /// The kernel lacks something.
    case kernelLacks(String, remedy: String)
    /// The kernel has it, and the process may not use it.
    case forbidden(String, remedy: String)
    /// The control socket cannot be made there.
    case runtimeDirectory(SystemError)
    /// The system refused something that should work.
    case system(SystemError)
    /// Another agent serves this network namespace.
    case alreadyRunning(pid: Int)
    /// A process that need not be an agent holds the name by which agents of a network namespace know of each other.
    case nameTaken(pid: Int, user: UInt32)
    /// An agent of another network namespace uses the runtime directory.
    case directoryTaken(String)
    /// Capabilities that are missing.
    case missingCapabilities([String])

    private static let room =
        "the machine, or a limit of the process, is full at the moment: make room, or try again later"

    /// The exit status of `run`.
    public var exitStatus: Int32 {
        switch self {
        case .noSuchInterface: 66
        case .kernelLacks: 69
        case .system: 71
        case .runtimeDirectory: 73
        case .alreadyRunning, .nameTaken, .directoryTaken: 75
        case .missingCapabilities, .forbidden: 77
        case .configuration: 78
        }
    }

    /// One sentence: the cause, then what to do.
    public var description: String {
        switch self {
        case .configuration(let lines): lines.joined(separator: "\n")
        case .noSuchInterface(let name, let present):
            "there is no interface \(name) here; "
                + (present.isEmpty ? "there is none at all" : "there are: \(present.joined(separator: ", "))")
        case .kernelLacks(let what, let remedy): "this kernel has no \(what); \(remedy)"
        case .forbidden(let what, let remedy): "the process may not use \(what); \(remedy)"
        case .runtimeDirectory(let error):
            "the control socket cannot be made: \(error); "
                + (error.isPassing ? Self.room : "name a directory that can be written to with --runtime-dir")
        case .system(let error):
            "\(error); \(error.isPassing ? Self.room : "this is unexpected, please report it")"
        case .alreadyRunning(let pid):
            "a clat-agent (process \(pid)) already serves this network namespace; stop it first, or ask it: clat-agent status"
        case .nameTaken(let pid, let user):
            "process \(pid) of user \(user) holds this network namespace's name @clat-agent; if it is a clat-agent, stop it first or ask it: clat-agent status; if not, end it: kill \(pid)"
        case .directoryTaken(let directory):
            "another agent, of another network namespace, uses \(directory); give this one a directory of its own: --runtime-dir DIRECTORY"
        case .missingCapabilities(let names):
            "the process lacks \(names.joined(separator: ", ")); run it as root or let systemd grant them (AmbientCapabilities=)"
        }
    }
}
