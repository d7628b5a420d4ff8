import CLinux
import Glibc

/// The kinds of sockets (socket(2)).
public enum SocketKind: Sendable {
    /// SOCK_STREAM
    case stream
    /// SOCK_DGRAM
    case datagram
    /// SOCK_RAW
    case raw

    fileprivate var type: __socket_type {
        switch self {
        case .stream: SOCK_STREAM
        case .datagram: SOCK_DGRAM
        case .raw: SOCK_RAW
        }
    }
}

/// Sockets: how they are opened, their options, and messages with what the kernel tells beside them.
extension OwnedDescriptor {
    /// A socket of the calling thread's network namespace, close-on-exec. `what` is for the error: `a packet socket`.
    public init(
        socket family: CInt, _ kind: SocketKind, transport: CInt = 0, blocking: Bool = false, named what: String
    ) throws(SystemError) {
        let flags = SOCK_CLOEXEC.rawValue | (blocking ? 0 : SOCK_NONBLOCK.rawValue)
        self.init(
            adopting: try retrying("open \(what)") { socket(family, CInt(kind.type.rawValue | flags), transport) })
    }

    /// setsockopt(2); `name` is for the error.
    public borrowing func set<Value: BitwiseCopyable>(
        _ level: CInt, _ option: CInt, _ value: Value, _ name: String
    ) throws(SystemError) {
        let fd = rawValue
        try withUnsafePointer(to: value) { value throws(SystemError) in
            _ = try retrying("setsockopt \(name)") {
                setsockopt(fd, level, option, value, socklen_t(MemoryLayout<Value>.size))
            }
        }
    }

    /// Of a raw ICMPv6 socket: hears messages of these types only (RFC 3542 section 3.2), from now on. What came since the
    /// socket was opened is thrown away.
    public borrowing func hearOnly(icmpv6 types: ClosedRange<UInt8>) throws(SystemError) {
        // A set bit blocks.
        var filter = icmp6_filter()
        withUnsafeMutableBytes(of: &filter) { bits in
            let words = bits.bindMemory(to: UInt32.self)
            for index in words.indices { words[index] = .max }
            for type in types { words[Int(type) >> 5] &= ~(1 << (UInt32(type) & 31)) }
        }
        try set(CInt(IPPROTO_ICMPV6), ICMP6_FILTER, filter, "ICMP6_FILTER")
        for _ in 0..<1024 where recv(rawValue, nil, 0, CInt(MSG_DONTWAIT)) < 0 { return }
    }

    /// Sends a message to an IPv6 address; `scope` is the interface. `what` is for the error: `send a question`.
    public borrowing func send(
        _ octets: [UInt8], to address: IPv6Address, scope: UInt32, _ what: String
    ) throws(SystemError) {
        let fd = rawValue
        var target = sockaddr_in6(address, scope: scope)
        _ = try withUnsafePointer(to: &target) { target throws(SystemError) in
            try retrying(what) {
                sendto(
                    fd, octets, octets.count, 0, __CONST_SOCKADDR_ARG(__sockaddr_in6__: target),
                    socklen_t(MemoryLayout<sockaddr_in6>.size))
            }
        }
    }

    /// Sends from that IPv6 address of the interface `scope` from now on.
    public borrowing func bind(to address: IPv6Address, scope: UInt32) throws(SystemError) {
        let fd = rawValue
        var own = sockaddr_in6(address, scope: scope)
        _ = try withUnsafePointer(to: &own) { own throws(SystemError) in
            try retrying("bind to \(address)") {
                Glibc.bind(
                    fd, __CONST_SOCKADDR_ARG(__sockaddr_in6__: own), socklen_t(MemoryLayout<sockaddr_in6>.size))
            }
        }
    }

    /// Takes the next message in; `told` is called for each thing that the kernel tells beside it.
    ///
    /// - Returns: the message's octets; -1 and errno as recvmsg(2), so EAGAIN where none waits.
    public borrowing func receive<Source>(
        into buffer: UnsafeMutableRawBufferPointer, from source: inout Source, flags: CInt = 0,
        _ told: (AncillaryData) -> Void
    ) -> Int {
        // Aligned, and room for more than anybody here asks for.
        var control = [16 of UInt64](repeating: 0)
        let fd = rawValue
        return withUnsafeMutablePointer(to: &source) { source in
            withUnsafeMutableBytes(of: &control) { control in
                var vector = iovec(iov_base: buffer.baseAddress, iov_len: buffer.count)
                return withUnsafeMutablePointer(to: &vector) { vector in
                    var message = msghdr()
                    message.msg_name = UnsafeMutableRawPointer(source)
                    message.msg_namelen = socklen_t(MemoryLayout<Source>.size)
                    message.msg_iov = vector
                    message.msg_iovlen = 1
                    message.msg_control = control.baseAddress
                    message.msg_controllen = control.count
                    let count = recvmsg(fd, &message, flags)
                    guard count >= 0 else { return count }
                    var entry = clat_cmsg_first(&message)
                    while let current = entry {
                        told(AncillaryData(current))
                        entry = clat_cmsg_next(&message, current)
                    }
                    return count
                }
            }
        }
    }
}

/// One thing that the kernel tells beside a message (cmsg(3)); good only within the call it is handed to.
public struct AncillaryData {
    /// Such as SOL_SOCKET.
    public let level: CInt
    /// Which, of that level.
    public let type: CInt
    private let octets: UnsafeRawBufferPointer

    init(_ entry: UnsafeMutablePointer<cmsghdr>) {
        level = entry.pointee.cmsg_level
        type = entry.pointee.cmsg_type
        octets = UnsafeRawBufferPointer(
            start: clat_cmsg_data(entry), count: max(0, entry.pointee.cmsg_len - clat_cmsg_length(0)))
    }

    /// Its value; nil where it is too short for that.
    public func load<Value>(as type: Value.Type) -> Value? {
        octets.count >= MemoryLayout<Value>.size ? octets.loadUnaligned(as: type) : nil
    }
}

extension sockaddr_in6 {
    fileprivate init(_ address: IPv6Address, scope: UInt32) {
        self.init()
        sin6_family = sa_family_t(AF_INET6)
        sin6_addr = address.in6
        sin6_scope_id = scope
    }
}
