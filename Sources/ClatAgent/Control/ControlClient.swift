public import ClatBase
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
        /// The agent knows other interfaces.
        case unknownInterface(String, known: [String])
        /// The answer is none.
        case protocolViolation(String)

        /// One sentence with the remedy.
        public var description: String {
            switch self {
            case .notRunning(let path):
                "no clat-agent is running here (nobody listens at \(path)); start one with: clat-agent run"
            case .system(let error): Self.sentence(error)
            case .refused(ControlInterface.unknownInterface, let parameters):
                "the agent knows no interface \(parameters["interface"] ?? ""); see: clat-agent status"
            case .unknownInterface(let name, let known):
                "the agent knows no interface \(name); "
                    + (known.isEmpty ? "it knows none" : "it knows: \(known.joined(separator: ", "))")
            case .refused(ServiceInterface.permissionDenied, _):
                "only root may do that (members of the group clat-agent may renew, and enable or disable until the next boot); "
                    + "try again with sudo"
            case .refused(ControlInterface.noNamespace, let parameters):
                "\(parameters["interface"] ?? "") has no CLAT now; to see why: clat-agent status"
            case .refused(ControlInterface.notLasting, let parameters):
                "it holds until the agent ends, and cannot be kept: \(parameters["cause"] ?? "")"
            case .refused(ControlInterface.notReexecuted, let parameters):
                "the agent could not begin anew, and goes on as it was: \(parameters["cause"] ?? "")"
            case .refused(let error, _): "the clat-agent refuses: \(error)"
            case .protocolViolation(let text):
                "the clat-agent's answer cannot be read: \(text); is it of another version? start it anew"
            }
        }

        private static func sentence(_ error: SystemError) -> String {
            switch error.code {
            case ECONNRESET, EPIPE: "the clat-agent has ended, or begun anew; see: clat-agent status"
            case EAGAIN:
                "a clat-agent is there, and does not answer in time; see what it does (journalctl -u clat-agent), or start it anew"
            case EACCES, EPERM: "cannot talk to the clat-agent: \(error); try again with sudo"
            case ENAMETOOLONG: "cannot talk to the clat-agent: \(error); name a shorter --runtime-dir"
            default: "cannot talk to the clat-agent: \(error); start it anew: systemctl restart clat-agent"
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
        try call(ControlInterface.status)
    }

    /// Asks the agent to solicit the routers of an interface anew, after it was told which resolvers that has, if it is. Waits a
    /// second at most, as a network manager waits for its hooks.
    public func renew(_ interface: String, resolvers: [String]? = nil) throws(Failure) {
        let _: Varlink.None = try call(
            ControlInterface.renew, ControlInterface.Renewal(interface: interface, resolvers: resolvers), limit: 1)
    }

    /// Switches the CLAT of an interface on or off, until the next boot or, if lasting, until told otherwise.
    public func set(_ interface: String, enabled: Bool, lasting: Bool) throws(Failure) {
        let method = enabled ? ControlInterface.enable : ControlInterface.disable
        let _: Varlink.None = try call(method, Varlink.Switch(interface: interface, lasting: lasting))
    }

    /// The network namespace of an interface's CLAT, to be entered by setns(2). It lives for as long as anybody has it or is in it,
    /// with or without the agent.
    public func openNamespace(_ interface: String) throws(Failure) -> OwnedDescriptor {
        let watched = try watchNamespace(interface)
        return watched.namespace
    }

    /// A namespace, and the connection over which it came: one that can be read from means that the agent has ended.
    public struct WatchedNamespace: ~Copyable {
        /// To be entered.
        public let namespace: OwnedDescriptor
        /// To be polled.
        public let agent: OwnedDescriptor
    }

    /// The same for those who are to leave it when the agent ends.
    public func watchNamespace(_ interface: String) throws(Failure) -> WatchedNamespace {
        var connection = try connect(limit: 5)
        try send(
            ControlInterface.openNamespace, Varlink.OneInterface(interface: interface), more: nil, over: connection)
        let _: Varlink.None = try receive(over: &connection)
        guard let descriptor = connection.takeDescriptor() else {
            throw .protocolViolation("it came without a descriptor")
        }
        return WatchedNamespace(namespace: descriptor, agent: connection.idle())
    }

    /// Makes the agent run its program anew, and waits until that answers; its status then.
    public func reexec() throws(Failure) -> AgentStatus {
        do throws(Failure) {
            let _: Varlink.None = try call(ControlInterface.reexec)
        } catch {
            // The end of the connection is that of the old program.
            guard case .system(let problem) = error, problem.code == ECONNRESET else { throw error }
        }
        for _ in 0..<100 {
            do throws(Failure) { return try status() } catch { usleep(50_000) }
        }
        return try status()
    }

    /// Hands over every event until the agent ends, or `body` answers false.
    public func monitor(_ body: (AgentEvent) -> Bool) throws(Failure) {
        var connection = try connect(limit: nil)
        try send(ControlInterface.monitor, Optional<Varlink.None>.none, more: true, over: connection)
        while true {
            let answer: ControlInterface.Monitored = try receive(over: &connection)
            guard body(answer.event) else { return }
        }
    }

    private func call<Answer: Codable & Sendable>(_ method: String) throws(Failure) -> Answer {
        try call(method, Optional<Varlink.None>.none)
    }

    private func call<Answer: Codable & Sendable>(
        _ method: String, _ parameters: (some Codable & Sendable)?, limit: Int = 5
    ) throws(Failure) -> Answer {
        var connection = try connect(limit: limit)
        try send(method, parameters, more: nil, over: connection)
        return try receive(over: &connection)
    }

    private func connect(limit: Int?) throws(Failure) -> ControlConnection {
        do throws(SystemError) {
            return try ControlConnection(path: path, limit: limit)
        } catch {
            if error.code == ENOENT || error.code == ECONNREFUSED { throw .notRunning(path: path) }
            throw .system(error)
        }
    }

    private func send(
        _ method: String, _ parameters: (some Codable & Sendable)?, more: Bool?,
        over connection: borrowing ControlConnection
    ) throws(Failure) {
        do throws(SystemError) {
            try connection.send(Varlink.encode(Varlink.Call(method: method, parameters: parameters, more: more)))
        } catch { throw .system(error) }
    }

    private func receive<Answer: Codable & Sendable>(
        over connection: inout ControlConnection
    ) throws(Failure) -> Answer {
        let reply: [UInt8]
        do throws(SystemError) { reply = try connection.receive() } catch { throw .system(error) }
        if let failure = try? Varlink.decode(Varlink.Failure.self, from: reply) {
            throw .refused(failure.error, failure.parameters ?? [:])
        }
        do {
            return try Varlink.decode(Varlink.Reply<Answer>.self, from: reply).parameters
        } catch {
            throw .protocolViolation("\(error)")
        }
    }
}

extension AgentStatus {
    /// Throws where it tells of no interface of that name.
    public func check(_ interface: String) throws(ControlClient.Failure) {
        let known = interfaces.map(\.interface)
        if !known.contains(interface) { throw .unknownInterface(interface, known: known) }
    }
}
