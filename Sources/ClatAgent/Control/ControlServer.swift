import CLinux
import ClatBase
import Glibc

/// Serves the control socket on the reactor. A client costs a few kilobytes at most and never makes the agent wait.
final class ControlServer {
    /// What a client may do, by the credentials that its process had when it connected.
    enum Privilege: Comparable {
        /// Ask.
        case reader
        /// Change things too: a member of the group that owns the runtime directory, unless that is root's.
        case member
        /// All: root, or the user the agent runs as.
        case owner
    }

    private final class Client {
        let socket: OwnedDescriptor
        let serial: Int
        let user: uid_t
        let privilege: Privilege
        var input: [UInt8] = []
        var output: ArraySlice<UInt8> = []
        /// Has called a method whose replies do not end.
        var isSubscribed = false

        init(_ socket: consuming OwnedDescriptor, serial: Int, group: gid_t) {
            var credentials = ucred()
            var size = socklen_t(MemoryLayout<ucred>.size)
            let told = getsockopt(socket.rawValue, SOL_SOCKET, SO_PEERCRED, &credentials, &size) == 0
            user = told ? credentials.uid : .max
            privilege =
                if told && (credentials.uid == 0 || credentials.uid == geteuid()) {
                    .owner
                } else if told && group != 0 && (credentials.gid == group || Self.groups(socket).contains(group)) {
                    .member
                } else {
                    .reader
                }
            self.socket = socket
            self.serial = serial
        }

        /// The peer's supplementary groups; none where there are more than anybody has.
        private static func groups(_ socket: borrowing OwnedDescriptor) -> [gid_t] {
            var groups = [gid_t](repeating: 0, count: 1024)
            var size = socklen_t(groups.count * MemoryLayout<gid_t>.size)
            guard getsockopt(socket.rawValue, SOL_SOCKET, SO_PEERGROUPS, &groups, &size) == 0 else { return [] }
            return Array(groups.prefix(Int(size) / MemoryLayout<gid_t>.size))
        }
    }

    /// One call of one client.
    struct Request {
        /// Interface and method.
        var method: String
        /// The whole call, for its parameters.
        var message: ArraySlice<UInt8>
        /// What the caller may do.
        var privilege: Privilege
        /// Whether the caller takes more than one reply.
        var wantsMore: Bool
    }

    /// What becomes of it.
    enum Answer {
        /// One whole reply.
        case reply([UInt8])
        /// These replies, and from now on whatever is published.
        case subscribe(first: [UInt8])
        /// One whole reply, and with it a copy of a descriptor.
        case descriptor(CInt, with: [UInt8])
    }

    private let reactor: Reactor
    private let listener: OwnedDescriptor
    private let path: String
    /// The file at `path` that is this socket.
    private var file = stat()
    /// Whose members may change things.
    private let group: gid_t
    private var clients: [CInt: Client] = [:]
    private var accepted = 0
    private var connections = RateLimit()
    private var limits: [uid_t: RateLimit] = [:]
    /// Clients that were cut off, as they were too many, asked too much, or spoke no varlink.
    private(set) var dropped = 0
    private let answer: (Request) -> Answer

    /// Clients at once; for one more, the oldest of those users gives way that may change nothing and have most.
    static let maximumClients = 32
    /// Connections in a second, and as many at once; further ones wait.
    static let connectionsPerSecond: UInt32 = 1000
    /// How long nobody is let in where there are too many, or where a descriptor is not to be had.
    private static let pause: Duration = .milliseconds(100)
    /// Calls in a second of all clients of a user that may change nothing, and as many at once.
    static let callsPerSecond: UInt32 = 100
    /// Octets of one call.
    static let maximumCall = 16384
    /// Octets that may wait for a client that does not read.
    static let maximumWaiting = 1 << 20

    /// Listens at `path`; `answer` makes the reply to a call. EADDRINUSE where somebody else does.
    init(reactor: Reactor, path: String, answer: @escaping (Request) -> Answer) throws(SystemError) {
        self.reactor = reactor
        self.path = path
        self.answer = answer
        group = RuntimeDirectory.group(ofSocket: path)
        listener = try OwnedDescriptor(socket: AF_UNIX, .stream, named: "the control socket")
        let address = try UnixAddress(path: path)
        // A killed agent's socket stays, and nobody listens there. An agent of another network namespace does.
        guard try !address.isServed() else { throw SystemError(call: "listen at \(path)", code: EADDRINUSE) }
        guard unlink(path) == 0 || errno == ENOENT else { throw SystemError(call: "remove \(path)", code: errno) }
        try address.bind(listener.rawValue)
        lstat(path, &file)
        try retrying("listen at \(path)") { listen(listener.rawValue, 16) }
        chmod(path, 0o666)
        try reactor.watch(listener.rawValue, .read) { [unowned self] in accept() }
    }

    deinit {
        for descriptor in clients.keys { reactor.forget(descriptor) }
        reactor.forget(listener.rawValue)
        // Another agent may have taken the place meanwhile.
        var present = stat()
        guard lstat(path, &present) == 0, present.st_dev == file.st_dev, present.st_ino == file.st_ino else { return }
        unlink(path)
    }

    /// Whether anybody would get what is published.
    var hasSubscribers: Bool { clients.values.contains(where: \.isSubscribed) }

    /// Sends a whole reply to all who subscribed. One who does not read is cut off.
    func publish(_ reply: [UInt8]) {
        for client in clients.values where client.isSubscribed {
            send(reply, to: client)
        }
    }

    private func accept() {
        guard connections.allows(Self.connectionsPerSecond, now: UInt64(clamping: BootInstant.now.nanoseconds)) else {
            return reactor.pause(listener.rawValue, for: Self.pause)
        }
        let flags = CInt(SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
        let descriptor = accept4(listener.rawValue, __SOCKADDR_ARG(__sockaddr__: nil), nil, flags)
        guard descriptor >= 0 else {
            // The client still waits, and the kernel would tell of it at once again.
            return reactor.pause(listener.rawValue, for: Self.pause)
        }
        accepted += 1
        let client = Client(OwnedDescriptor(adopting: descriptor), serial: accepted, group: group)
        if clients.count >= Self.maximumClients {
            var candidates = clients.values.filter { $0.privilege == .reader }
            if candidates.isEmpty, client.privilege != .reader { candidates = Array(clients.values) }
            let users = Dictionary(grouping: candidates, by: \.user)
            guard let most = users.values.max(by: { $0.count < $1.count }),
                let oldest = most.min(by: { $0.serial < $1.serial })
            else { return dropped += 1 }
            cut(oldest)
        }
        clients[descriptor] = client
        watch(client)
    }

    private func watch(_ client: Client) {
        let descriptor = client.socket.rawValue
        do {
            try reactor.watch(descriptor, client.output.isEmpty ? .read : .write) { [unowned self] in
                guard let client = clients[descriptor] else { return }
                if client.output.isEmpty { read(client) } else { write(client) }
            }
        } catch {
            drop(client)
        }
    }

    /// Drops one that has not ended by itself.
    private func cut(_ client: Client) {
        dropped += 1
        drop(client)
    }

    private func drop(_ client: Client) {
        reactor.forget(client.socket.rawValue)
        clients[client.socket.rawValue] = nil
    }

    private func read(_ client: Client) {
        var chunk = [UInt8](repeating: 0, count: 4096)
        let count = recv(client.socket.rawValue, &chunk, chunk.count, 0)
        if count < 0, errno == EAGAIN || errno == EINTR { return }
        guard count > 0 else { return drop(client) }
        // Replies to a subscriber do not end, so no other call of that client can have one.
        guard !client.isSubscribed else { return cut(client) }
        client.input += chunk.prefix(count)
        while let end = client.input.firstIndex(of: 0) {
            let message = client.input[..<end]
            client.input.removeFirst(end + 1 - client.input.startIndex)
            guard !client.isSubscribed, isWithinLimit(client),
                let call = try? Varlink.decode(Varlink.Head.self, from: message)
            else { return cut(client) }
            let outcome = answer(
                Request(
                    method: call.method, message: message, privilege: client.privilege,
                    wantsMore: call.more == true))
            if call.oneway == true { continue }
            switch outcome {
            case .reply(let reply): client.output += reply
            case .subscribe(let first):
                client.output += first
                client.isSubscribed = true
            case .descriptor(let descriptor, let reply):
                // Descriptors go with their reply, so what waits must be gone. That is so for all who read what they ask for.
                guard client.output.isEmpty, DescriptorPassing.send(reply, with: descriptor, to: client.socket.rawValue)
                else { return cut(client) }
            }
            guard client.output.count <= Self.maximumWaiting else { return cut(client) }
        }
        guard client.input.count <= Self.maximumCall else { return cut(client) }
        if !client.output.isEmpty { write(client) }
    }

    private func isWithinLimit(_ client: Client) -> Bool {
        if client.privilege != .reader { return true }
        // Users come and go; a limit that is forgotten is a full one.
        if limits.count > Self.maximumClients { limits = [:] }
        return limits[client.user, default: RateLimit()].allows(
            Self.callsPerSecond, now: UInt64(clamping: BootInstant.now.nanoseconds))
    }

    private func send(_ reply: [UInt8], to client: Client) {
        guard client.output.count + reply.count <= Self.maximumWaiting else { return cut(client) }
        let isIdle = client.output.isEmpty
        client.output += reply
        if isIdle { write(client) }
    }

    private func write(_ client: Client) {
        let count = client.output.withUnsafeBytes {
            Glibc.send(client.socket.rawValue, $0.baseAddress, $0.count, CInt(MSG_NOSIGNAL))
        }
        if count < 0, errno != EAGAIN, errno != EINTR { return drop(client) }
        client.output = client.output.dropFirst(max(count, 0))
        watch(client)
    }
}
