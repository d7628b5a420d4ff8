import CLibMnl
import ClatBase
import Glibc

/// Sole owner of a socket of libmnl; closes it when its life ends.
struct MnlSocket: ~Copyable, @unchecked Sendable {
    // Sendable: libmnl keeps a descriptor and the bound address behind the pointer and shares them with no one.
    private let pointer: OpaquePointer

    private init(adopting pointer: OpaquePointer) {
        self.pointer = pointer
    }

    /// Opens and binds a socket in the given namespace (a descriptor), or in the calling thread's.
    ///
    /// A socket stays with the namespace it was made in, whichever thread uses it later.
    static func bound(
        to groups: CInt = 0, namespace: CInt?, flags: CInt = 0, receiveBuffer: CInt = 1 << 20,
        protocol number: CInt = NETLINK_ROUTE
    ) throws(NetlinkError) -> MnlSocket {
        let operation = "open a netlink socket"
        let descriptor = try open(operation, number, namespace: namespace, flags: flags)
        guard let pointer = mnl_socket_fdopen(descriptor.rawValue) else {
            throw NetlinkError(operation: operation, code: errno)
        }
        _ = descriptor.release()
        let socket = MnlSocket(adopting: pointer)
        guard mnl_socket_bind(pointer, UInt32(bitPattern: groups), pid_t(MNL_SOCKET_AUTOPID)) == 0 else {
            throw NetlinkError(operation: operation, code: errno)
        }
        // SO_RCVBUFFORCE passes net.core.rmem_max and needs CAP_NET_ADMIN; without it we take what we can get.
        var size = receiveBuffer
        let length = socklen_t(MemoryLayout<CInt>.size)
        if setsockopt(socket.descriptor, SOL_SOCKET, SO_RCVBUFFORCE, &size, length) != 0 {
            setsockopt(socket.descriptor, SOL_SOCKET, SO_RCVBUF, &size, length)
        }
        // Since Linux 4.12, 4.3 and 4.20. An older kernel refuses; it then says less, and filters less.
        for option in [NETLINK_EXT_ACK, NETLINK_CAP_ACK, NETLINK_GET_STRICT_CHK] {
            var on: CInt = 1
            _ = mnl_socket_setsockopt(pointer, option, &on, length)
        }
        return socket
    }

    deinit { mnl_socket_close(pointer) }

    /// The descriptor, for polling.
    var descriptor: CInt { mnl_socket_get_fd(pointer) }

    /// The port the kernel gave the socket.
    var port: UInt32 { mnl_socket_get_portid(pointer) }

    /// How long a read may block.
    func setReceiveTimeout(seconds: Int) {
        var time = timeval(tv_sec: seconds, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &time, socklen_t(MemoryLayout<timeval>.size))
    }

    /// Sends a whole message.
    func send(_ bytes: UnsafeRawBufferPointer, _ operation: String) throws(NetlinkError) {
        do throws(SystemError) {
            try retrying("sendto") { mnl_socket_sendto(pointer, bytes.baseAddress, bytes.count) }
        } catch { throw NetlinkError(operation: operation, code: error.code) }
    }

    /// Reads one datagram; ENOSPC where it is larger than the buffer.
    func receive(into buffer: inout [UInt8], _ operation: String) throws(NetlinkError) -> Int {
        do throws(SystemError) {
            return try retrying("recvmsg") {
                buffer.withUnsafeMutableBytes { mnl_socket_recvfrom(pointer, $0.baseAddress, $0.count) }
            }
        } catch { throw NetlinkError(operation: operation, code: error.code) }
    }

    private static func open(
        _ operation: String, _ number: CInt, namespace: CInt?, flags: CInt
    ) throws(NetlinkError) -> OwnedDescriptor {
        @Sendable func open() throws(SystemError) -> CInt {
            try retrying(operation) {
                socket(AF_NETLINK, CInt(SOCK_RAW.rawValue | SOCK_CLOEXEC.rawValue) | flags, number)
            }
        }
        do throws(SystemError) {
            guard let namespace else { return OwnedDescriptor(adopting: try open()) }
            return OwnedDescriptor(
                adopting: try Thread(name: "netns") { () -> Result<CInt, SystemError> in
                    do throws(SystemError) {
                        try retrying("setns") { setns(namespace, CLONE_NEWNET) }
                        return .success(try open())
                    } catch { return .failure(error) }
                }.join().get())
        } catch { throw NetlinkError(operation: operation, code: error.code, message: error.call) }
    }
}

/// A socket for requests: each call sends one, and waits for its answer and no longer than ten seconds.
///
/// Calls are mutating, so that the compiler keeps them one at a time. Notices come by `NetlinkMonitor`.
public struct NetlinkSocket: ~Copyable, Sendable {
    /// An answer comes from the kernel at once, but behind whatever holds the lock of the network configuration.
    private static let patience = 10
    /// How often a table is listed anew that changed while it was listed.
    private static let attempts = 8
    /// The kernel makes no part of a dump larger than 32 KiB.
    private static let bufferSize = 65536

    private let socket: MnlSocket
    private var buffer = [UInt8](repeating: 0, count: bufferSize)
    private var sequence: UInt32 = 0

    /// Messages that could not be read, and were left out of an answer.
    public private(set) var malformed = 0

    /// A socket in the calling thread's namespace.
    public init() throws(NetlinkError) {
        try self.init(namespace: nil)
    }

    /// A socket in that namespace. Which thread uses it later does not matter.
    public init(in namespace: borrowing NetworkNamespace) throws(NetlinkError) {
        try self.init(namespace: namespace.descriptor)
    }

    /// A socket of another protocol than rtnetlink's, in the calling thread's namespace.
    init(protocol number: CInt) throws(NetlinkError) {
        try self.init(namespace: nil, protocol: number)
    }

    private init(namespace: CInt?, protocol number: CInt = NETLINK_ROUTE) throws(NetlinkError) {
        socket = try MnlSocket.bound(namespace: namespace, protocol: number)
        socket.setReceiveTimeout(seconds: Self.patience)
    }

    /// Sends a request and waits for its ACK.
    mutating func perform(_ operation: String, _ request: borrowing Request) throws(NetlinkError) {
        _ = try collect(operation, request) { _, _, _ in Never?.none }
    }

    /// Sends a request and gathers what `read` makes of the messages of its answer. What `read` finds malformed is
    /// counted and left out; what it has no interest in, it says nil to.
    mutating func collect<Value>(
        _ operation: String, _ request: borrowing Request, _ read: Answer<Value>.Reader
    ) throws(NetlinkError) -> [Value] {
        guard !request.isOverfull else { throw NetlinkError(operation: operation, code: EMSGSIZE) }
        for _ in 0..<Self.attempts {
            sequence &+= 1
            request.stamp(sequence: sequence)
            try socket.send(request.bytes, operation)
            var answer = Answer<Value>(sequence: sequence, port: socket.port)
            let verdict: Verdict
            do throws(NetlinkError) { verdict = try receive(&answer, operation, read) } catch {
                // The kernel had no room for a part of it. A listing changes nothing, and can be had again.
                if error.code == ENOBUFS, request.isListing { continue }
                throw error
            }
            malformed += answer.malformed
            if verdict.code != 0 {
                throw NetlinkError(operation: operation, code: verdict.code, message: verdict.message)
            }
            if answer.isConsistent { return answer.values }
        }
        throw NetlinkError(
            operation: operation, code: EINTR, message: "the table changed during each of \(Self.attempts) listings")
    }

    private mutating func receive<Value>(
        _ answer: inout Answer<Value>, _ operation: String, _ read: Answer<Value>.Reader
    ) throws(NetlinkError) -> Verdict {
        let deadline = BootInstant.now + .seconds(Self.patience)
        while BootInstant.now < deadline {
            let count = try receive(operation)
            if let verdict = answer.take(buffer.span.bytes.extracting(0..<count), read) { return verdict }
        }
        throw NetlinkError(operation: operation, code: ETIMEDOUT)
    }

    private mutating func receive(_ operation: String) throws(NetlinkError) -> Int {
        do throws(NetlinkError) { return try socket.receive(into: &buffer, operation) } catch {
            throw error.code == EAGAIN ? NetlinkError(operation: operation, code: ETIMEDOUT) : error
        }
    }
}
