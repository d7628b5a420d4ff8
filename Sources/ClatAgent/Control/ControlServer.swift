import CLinux
import ClatBase
import Glibc

/// Serves the control socket on the reactor. A client costs a few kilobytes at most and never makes the agent wait.
final class ControlServer {
    private final class Client {
        let socket: OwnedDescriptor
        /// Root, or the user the agent runs as: may change things.
        let isPrivileged: Bool
        var input: [UInt8] = []
        var output: ArraySlice<UInt8> = []
        init(_ socket: consuming OwnedDescriptor) {
            var credentials = ucred()
            var size = socklen_t(MemoryLayout<ucred>.size)
            let told = getsockopt(socket.rawValue, SOL_SOCKET, SO_PEERCRED, &credentials, &size) == 0
            isPrivileged = told && (credentials.uid == 0 || credentials.uid == geteuid())
            self.socket = socket
        }
    }

    /// One call of one client.
    struct Request {
        /// Interface and method.
        var method: String
        /// The whole call, for its parameters.
        var message: ArraySlice<UInt8>
        /// Whether the caller may change things.
        var isPrivileged: Bool
    }

    private let reactor: Reactor
    private let listener: OwnedDescriptor
    private let path: String
    private var clients: [CInt: Client] = [:]
    private let answer: (Request) -> [UInt8]

    /// Clients at once.
    static let maximumClients = 32
    /// Octets of one call.
    static let maximumCall = 16384
    /// Octets that may wait for a client that does not read.
    static let maximumWaiting = 1 << 20

    /// Listens at `path`; `answer` makes the whole reply to a call.
    init(reactor: Reactor, path: String, answer: @escaping (Request) -> [UInt8]) throws(SystemError) {
        self.reactor = reactor
        self.path = path
        self.answer = answer
        let kind = CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
        listener = OwnedDescriptor(adopting: try retrying("open the control socket") { socket(AF_UNIX, kind, 0) })
        // Whoever holds the lock of the runtime directory may take the place of a killed agent's socket.
        unlink(path)
        try UnixAddress(path: path).bind(listener.rawValue)
        try retrying("listen at \(path)") { listen(listener.rawValue, 16) }
        chmod(path, 0o666)
        try reactor.watch(listener.rawValue, .read) { [unowned self] in accept() }
    }

    deinit {
        for descriptor in clients.keys { reactor.forget(descriptor) }
        reactor.forget(listener.rawValue)
        unlink(path)
    }

    private func accept() {
        let flags = CInt(SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
        let descriptor = accept4(listener.rawValue, __SOCKADDR_ARG(__sockaddr__: nil), nil, flags)
        guard descriptor >= 0 else { return }
        let client = Client(OwnedDescriptor(adopting: descriptor))
        guard clients.count < Self.maximumClients else { return }
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

    private func drop(_ client: Client) {
        reactor.forget(client.socket.rawValue)
        clients[client.socket.rawValue] = nil
    }

    private func read(_ client: Client) {
        var chunk = [UInt8](repeating: 0, count: 4096)
        let count = recv(client.socket.rawValue, &chunk, chunk.count, 0)
        if count < 0, errno == EAGAIN || errno == EINTR { return }
        guard count > 0 else { return drop(client) }
        client.input += chunk.prefix(count)
        while let end = client.input.firstIndex(of: 0) {
            let message = client.input[..<end]
            client.input.removeFirst(end + 1 - client.input.startIndex)
            guard let call = try? Varlink.decode(Varlink.MethodOnly.self, from: message) else { return drop(client) }
            client.output += answer(
                Request(method: call.method, message: message, isPrivileged: client.isPrivileged))
            guard client.output.count <= Self.maximumWaiting else { return drop(client) }
        }
        guard client.input.count <= Self.maximumCall else { return drop(client) }
        if !client.output.isEmpty { write(client) }
    }

    private func write(_ client: Client) {
        let count = client.output.withUnsafeBytes {
            send(client.socket.rawValue, $0.baseAddress, $0.count, CInt(MSG_NOSIGNAL))
        }
        if count < 0, errno != EAGAIN, errno != EINTR { return drop(client) }
        client.output = client.output.dropFirst(max(count, 0))
        watch(client)
    }
}
