import CLinux
public import ClatBase
import FoundationEssentials
import Glibc

/// Talks to a running agent over its control socket; waits at most a few seconds.
public struct ControlClient {
    /// Why there is no answer.
    public enum Failure: Error, CustomStringConvertible {
        /// Nobody listens there.
        case notRunning(path: String)
        /// A system call failed.
        case system(SystemError)
        /// The agent says no: a varlink error and its parameters.
        case refused(String, [String: String])
        /// The answer is none.
        case protocolViolation(String)

        /// One sentence with the remedy.
        public var description: String {
            switch self {
            case .notRunning(let path):
                "no clat-agent is running here (nobody listens at \(path)); start one with: clat-agent run"
            case .system(let error): "cannot talk to the clat-agent: \(error)"
            case .refused(ControlInterface.unknownInterface, let parameters):
                "the agent knows no interface \(parameters["interface"] ?? ""); see: clat-agent status"
            case .refused(ControlInterface.permissionDenied, _):
                "only root may ask the agent for that; try again with sudo"
            case .refused(let error, _): "the clat-agent refuses: \(error)"
            case .protocolViolation(let text): "the clat-agent's answer cannot be read: \(text)"
            }
        }
    }

    private let path: String

    /// A client of the agent with that runtime directory.
    public init(runtimeDirectory: String) {
        path = RuntimeDirectory.socketPath(runtimeDirectory)
    }

    /// Asks for the status.
    public func status() throws(Failure) -> AgentStatus {
        try call(ControlInterface.status, Varlink.None())
    }

    /// Asks the agent to solicit the routers of an interface anew.
    public func renew(_ interface: String) throws(Failure) {
        let _: Varlink.None = try call(ControlInterface.renew, Varlink.OneInterface(interface: interface))
    }

    private func call<Answer: Codable & Sendable>(
        _ method: String, _ parameters: some Codable & Sendable
    ) throws(Failure) -> Answer {
        let reply: [UInt8]
        do throws(SystemError) {
            reply = try exchange(Varlink.encode(Varlink.Call(method: method, parameters: parameters)))
        } catch {
            if error.code == ENOENT || error.code == ECONNREFUSED { throw .notRunning(path: path) }
            throw .system(error)
        }
        if let failure = try? Varlink.decode(Varlink.Failure.self, from: reply) {
            throw .refused(failure.error, failure.parameters)
        }
        do {
            return try Varlink.decode(Varlink.Reply<Answer>.self, from: reply).parameters
        } catch {
            throw .protocolViolation("\(error)")
        }
    }

    private func exchange(_ request: [UInt8]) throws(SystemError) -> [UInt8] {
        let kind = CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
        let socket = OwnedDescriptor(adopting: try retrying("open a socket") { Glibc.socket(AF_UNIX, kind, 0) })
        let fd = socket.rawValue
        var limit = timeval(tv_sec: 5, tv_usec: 0)
        for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
            setsockopt(fd, SOL_SOCKET, option, &limit, socklen_t(MemoryLayout<timeval>.size))
        }
        try UnixAddress(path: path).connect(fd)
        var rest = request[...]
        while !rest.isEmpty {
            let part = rest
            rest = rest.dropFirst(
                try retrying("send to \(path)") {
                    part.withUnsafeBytes { send(fd, $0.baseAddress, $0.count, CInt(MSG_NOSIGNAL)) }
                })
        }
        var reply: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65536)
        while true {
            let count = try retrying("receive from \(path)") { recv(fd, &chunk, chunk.count, 0) }
            guard count > 0 else { throw SystemError(call: "receive from \(path)", code: ECONNRESET) }
            if let end = chunk[..<count].firstIndex(of: 0) { return reply + chunk[..<end] }
            reply += chunk[..<count]
        }
    }
}
