public import ClatBase
import Glibc

/// Why the eBPF programs could not be put in place.
public enum SteeringError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The kernel lets this process load or attach none: a capability is missing, or lockdown forbids it.
    case refused(SystemError)
    /// The kernel lacks something the programs need; the log ends with the verifier's or libbpf's last lines.
    case unsupported(SystemError, log: [String])
    /// Anything else, such as a device that has gone.
    case failed(SystemError)

    /// Tells the three apart by the errno, and keeps the end of the log.
    init(_ error: SystemError, log: [String] = []) {
        switch error.code {
        case EPERM: self = .refused(error)
        case EACCES where log.isEmpty: self = .refused(error)
        case EINVAL, EACCES, ENOSYS, EOPNOTSUPP, E2BIG, ENOENT: self = .unsupported(error, log: log.suffix(12))
        default: self = .failed(error)
        }
    }

    /// Whether the machine is only full or busy at the moment, so that the same may go well a little later.
    public var isPassing: Bool {
        if case .failed(let error) = self { error.isPassing } else { false }
    }

    /// One sentence for people.
    public var description: String {
        switch self {
        case .refused(let error): "the kernel refuses eBPF to this process (\(error))"
        case .unsupported(let error, log: let log):
            "this kernel lacks what the eBPF programs need (\(error))" + (Self.verdict(log).map { "; \($0)" } ?? "")
        case .failed(let error): "\(error)"
        }
    }

    /// The line that says why: the verifier's stands before its statistics, libbpf's is the last.
    private static func verdict(_ log: [String]) -> String? {
        guard let statistics = log.lastIndex(where: { $0.hasPrefix("processed ") }), statistics > 0 else {
            return log.last
        }
        return log[statistics - 1]
    }
}

/// An answer of libbpf as a descriptor; a negative one as the errno it is.
func adopt(_ answer: CInt, _ call: String) throws(SteeringError) -> OwnedDescriptor {
    OwnedDescriptor(adopting: try check(answer, call))
}

/// An answer of libbpf: since its version 1.0 every call returns a negative errno and sets errno too.
@discardableResult
func check(_ answer: CInt, _ call: String) throws(SteeringError) -> CInt {
    guard answer >= 0 else { throw SteeringError(.last(call)) }
    return answer
}
