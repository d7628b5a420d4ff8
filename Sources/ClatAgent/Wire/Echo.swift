import CLinux
import ClatBase
import Glibc

/// Asks for echoes (RFC 792, RFC 4443 section 4) by a raw socket. Needs CAP_NET_RAW.
struct Echo: ~Copyable {
    /// What came of it.
    enum Outcome: Hashable, Sendable {
        /// The reply, and how long it took.
        case reply(milliseconds: Int)
        /// An ICMP error about it: type, code, the MTU it names, and who says so.
        case refused(type: UInt8, code: UInt8, mtu: Int, by: String)
        /// Nothing came.
        case silence
        /// It could not even be sent.
        case unsent(SystemError)
    }

    private let socket: OwnedDescriptor
    private let isIPv6: Bool
    private let identifier = UInt16.random(in: .min ... .max)
    private var sequence: UInt16 = 0

    /// Echoes that leave by an interface, with DF set and whatever path MTU the kernel remembers passed over.
    static func ipv4(by interface: String) throws(SystemError) -> Echo {
        let echo = try Echo(AF_INET, CInt(IPPROTO_ICMP))
        let descriptor = echo.socket.rawValue
        let octets = Array(interface.utf8)
        try retrying("bind a socket to \(interface)") {
            setsockopt(descriptor, SOL_SOCKET, SO_BINDTODEVICE, octets, socklen_t(octets.count))
        }
        try echo.socket.set(CInt(IPPROTO_IP), IP_MTU_DISCOVER, IP_PMTUDISC_PROBE, "IP_MTU_DISCOVER")
        return echo
    }

    /// Echoes over IPv6, from that address of an interface, or from whatever the kernel chooses.
    static func ipv6(from source: IPv6Address? = nil, on index: UInt32 = 0) throws(SystemError) -> Echo {
        let echo = try Echo(AF_INET6, CInt(IPPROTO_ICMPV6))
        if let source { try echo.socket.bind(to: source, scope: index) }
        return echo
    }

    private init(_ family: CInt, _ number: CInt) throws(SystemError) {
        let socket = try OwnedDescriptor(
            socket: family, .raw, transport: number, blocking: true, named: "a raw socket")
        try socket.set(SOL_SOCKET, SO_RCVBUF, CInt(1 << 20), "SO_RCVBUF")
        self.socket = socket
        isIPv6 = family == AF_INET6
    }

    /// Sends one IP packet of `size` octets to an IPv4 address, and waits.
    mutating func ask(_ address: IPv4Address, size: Int, timeout: Duration = .seconds(1)) -> Outcome {
        var target = sockaddr_in()
        target.sin_family = sa_family_t(AF_INET)
        target.sin_addr.s_addr = address.rawValue.bigEndian
        let request = message(type: UInt8(ICMP_ECHO), size: size - 20)
        let fd = socket.rawValue
        let sent = withUnsafePointer(to: &target) {
            sendto(
                fd, request, request.count, 0, __CONST_SOCKADDR_ARG(__sockaddr_in__: $0),
                socklen_t(MemoryLayout<sockaddr_in>.size))
        }
        return sent < 0 ? .unsent(.last("send to \(address)")) : wait(timeout)
    }

    /// Sends one to an IPv6 address of a link, and waits.
    mutating func ask(_ address: IPv6Address, on index: UInt32, timeout: Duration = .seconds(1)) -> Outcome {
        let request = message(type: UInt8(ICMP6_ECHO_REQUEST), size: 64)
        do throws(SystemError) {
            try socket.send(request, to: address, scope: index, "send to \(address)")
        } catch { return .unsent(error) }
        return wait(timeout)
    }

    /// Type, code, checksum, identifier, sequence number, then as many octets as there is room for.
    private mutating func message(type: UInt8, size: Int) -> [UInt8] {
        sequence &+= 1
        var octets = [UInt8](repeating: 0x64, count: max(8, size))
        octets.replaceSubrange(0..<8, with: [type, 0, 0, 0] + bytes(identifier) + bytes(sequence))
        // The kernel fills in the one of ICMPv6.
        if !isIPv6 { octets.replaceSubrange(2..<4, with: bytes(Self.checksum(octets))) }
        return octets
    }

    private func bytes(_ number: UInt16) -> [UInt8] { [UInt8(number >> 8), UInt8(number & 0xff)] }

    /// RFC 1071.
    private static func checksum(_ octets: [UInt8]) -> UInt16 {
        var sum = 0
        for (index, octet) in octets.enumerated() { sum += Int(octet) << (index % 2 == 0 ? 8 : 0) }
        while sum > 0xffff { sum = sum & 0xffff + sum >> 16 }
        return ~UInt16(sum)
    }

    private borrowing func wait(_ timeout: Duration) -> Outcome {
        let start = BootInstant.now
        let end = start + timeout
        var buffer = [UInt8](repeating: 0, count: 65536)
        while true {
            let left = Int((end - .now) / .milliseconds(1))
            guard left >= 0 else { return .silence }
            var poll = pollfd(fd: socket.rawValue, events: Int16(POLLIN), revents: 0)
            guard Glibc.poll(&poll, 1, CInt(left)) > 0 else { continue }
            let count = recv(socket.rawValue, &buffer, buffer.count, 0)
            guard count > 0 else { continue }
            if let outcome = Self.outcome(
                of: buffer[..<count], isIPv6: isIPv6, about: bytes(identifier) + bytes(sequence))
            {
                guard case .reply = outcome else { return outcome }
                return .reply(milliseconds: Int((.now - start) / .milliseconds(1)))
            }
        }
    }

    /// What a packet says of a request, whose identifier and sequence number are `mine`; nil where it is about something
    /// else. IPv4 comes with its header.
    static func outcome(of packet: ArraySlice<UInt8>, isIPv6: Bool, about mine: [UInt8]) -> Outcome? {
        func isMine(_ message: ArraySlice<UInt8>) -> Bool { message.dropFirst(4).starts(with: mine) }
        guard !isIPv6 else {
            return packet.first == UInt8(ICMP6_ECHO_REPLY) && isMine(packet) ? .reply(milliseconds: 0) : nil
        }
        guard let first = packet.first, packet.count >= 28 else { return nil }
        let message = packet.dropFirst(Int(first & 15) * 4)
        guard let type = message.first, message.count >= 8 else { return nil }
        let head = Array(message.prefix(8))
        switch type {
        case UInt8(ICMP_ECHOREPLY): return isMine(message) ? .reply(milliseconds: 0) : nil
        case UInt8(ICMP_DEST_UNREACH), UInt8(ICMP_TIME_EXCEEDED):
            let inner = message.dropFirst(8)
            guard let first = inner.first, isMine(inner.dropFirst(Int(first & 15) * 4)) else { return nil }
            let source = packet.dropFirst(12).prefix(4).map(String.init).joined(separator: ".")
            return .refused(type: type, code: head[1], mtu: Int(head[6]) << 8 | Int(head[7]), by: source)
        default: return nil
        }
    }
}
