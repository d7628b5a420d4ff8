import CLinux
import Glibc

/// The address of a Unix socket: a path, or a name in the abstract space of the network namespace.
public struct UnixAddress {
    private var address = sockaddr_un()
    private var length: socklen_t
    private let text: String

    /// A path of at most 107 octets.
    public init(path: String) throws(SystemError) {
        try self.init(octets: Array(path.utf8) + [0], text: path)
    }

    /// A name that is there for as long as a socket has it, in this network namespace only (unix(7)).
    public init(abstract name: String) throws(SystemError) {
        try self.init(octets: [0] + Array(name.utf8), text: "@\(name)")
    }

    private init(octets: [UInt8], text: String) throws(SystemError) {
        address.sun_family = sa_family_t(AF_UNIX)
        self.text = text
        length = socklen_t(MemoryLayout<sa_family_t>.size + octets.count)
        let room = MemoryLayout.size(ofValue: address.sun_path)
        guard octets.count <= room else { throw SystemError(call: "use the socket path \(text)", code: ENAMETOOLONG) }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: octets) }
    }

    /// bind(2)
    public func bind(_ socket: CInt) throws(SystemError) {
        try call("bind") { Glibc.bind(socket, $0, length) }
    }

    /// connect(2)
    public func connect(_ socket: CInt) throws(SystemError) {
        try call("connect to") { Glibc.connect(socket, $0, length) }
    }

    /// Whether somebody listens there.
    public func isServed() throws(SystemError) -> Bool {
        let client = try OwnedDescriptor(socket: AF_UNIX, .stream, named: "a Unix socket")
        do throws(SystemError) { try connect(client.rawValue) } catch {
            switch error.code {
            case ENOENT, ECONNREFUSED: return false
            // One whose queue is full does listen.
            case EAGAIN: return true
            default: throw error
            }
        }
        return true
    }

    private func call(
        _ name: String, _ function: (__CONST_SOCKADDR_ARG) -> CInt
    ) throws(SystemError) {
        _ = try withUnsafePointer(to: address) { address throws(SystemError) in
            try retrying("\(name) \(text)") { function(__CONST_SOCKADDR_ARG(__sockaddr_un__: address)) }
        }
    }
}
