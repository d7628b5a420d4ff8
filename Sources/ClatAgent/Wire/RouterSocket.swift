import CLinux
public import ClatBase
import Glibc

/// A raw ICMPv6 socket that hears Router Advertisements on every interface of the namespace and sends Router
/// Solicitations.
public struct RouterSocket: ~Copyable {
    private let socket: OwnedDescriptor
    private var buffer = [UInt8](repeating: 0, count: RouterAdvertisement.maximumSize + 1)
    /// What may be looked at yet.
    private var limits: [Sender: RateLimit] = [:]

    /// Messages that found no room in the socket's queue, or had a wrong checksum, as told with the last one received.
    public private(set) var lost: UInt32 = 0

    /// One received message: an advertisement, or why it is not used.
    public struct Message: Sendable {
        /// The interface it came in by.
        public var uplink: Int
        /// What it says.
        public var content: Result<RouterAdvertisement, RouterAdvertisementProblem>
    }

    /// Whose advertisements have a limit of their own: a router that is known already, or all others of an interface, which so
    /// leave the known ones theirs.
    private struct Sender: Hashable {
        var uplink: Int
        var router: IPv6Address?
    }

    /// Senders of which ``limits`` are kept.
    private static let senderLimit = 1024
    /// ICMPv6 type of a Router Solicitation (RFC 4861 section 4.1).
    private static let solicitation = UInt8(ND_ROUTER_SOLICIT)

    /// To be polled for reading.
    public var descriptor: CInt { socket.rawValue }

    /// Opens it in the calling thread's network namespace.
    public init() throws(SystemError) {
        let socket = try OwnedDescriptor(
            socket: AF_INET6, .raw, transport: CInt(IPPROTO_ICMPV6), named: "a raw ICMPv6 socket")
        try socket.hearOnly(icmpv6: RouterAdvertisement.type...RouterAdvertisement.type)
        try socket.set(CInt(IPPROTO_IPV6), IPV6_RECVPKTINFO, CInt(1), "IPV6_RECVPKTINFO")
        try socket.set(CInt(IPPROTO_IPV6), IPV6_RECVHOPLIMIT, CInt(1), "IPV6_RECVHOPLIMIT")
        try socket.set(SOL_SOCKET, SO_RXQ_OVFL, CInt(1), "SO_RXQ_OVFL")
        // A solicitation with any other hop limit is ignored (RFC 4861 section 6.1.1).
        try socket.set(CInt(IPPROTO_IPV6), IPV6_MULTICAST_HOPS, CInt(255), "IPV6_MULTICAST_HOPS")
        try socket.set(CInt(IPPROTO_IPV6), IPV6_MULTICAST_LOOP, CInt(0), "IPV6_MULTICAST_LOOP")
        self.socket = socket
    }

    /// The next message; nil where none waits. `isKnown` is asked whether a router of an interface is known.
    public mutating func receive(isKnown: (IPv6Address, Int) -> Bool) throws(SystemError) -> Message? {
        var source = sockaddr_in6()
        var hopLimit: CInt = -1
        var index: UInt32 = 0
        var lost = lost
        let count = buffer.withUnsafeMutableBytes { bytes in
            socket.receive(into: bytes, from: &source) { data in
                switch (data.level, data.type) {
                case (CInt(IPPROTO_IPV6), IPV6_HOPLIMIT): hopLimit = data.load(as: CInt.self) ?? -1
                case (CInt(IPPROTO_IPV6), IPV6_PKTINFO): index = data.load(as: in6_pktinfo.self)?.ipi6_ifindex ?? 0
                case (SOL_SOCKET, SO_RXQ_OVFL): lost = data.load(as: UInt32.self) ?? lost
                default: break
                }
            }
        }
        self.lost = lost
        guard count >= 0 else {
            let code = errno
            if code == EAGAIN || code == EINTR { return nil }
            throw SystemError(call: "receive from the raw ICMPv6 socket", code: code)
        }
        let uplink = Int(index)
        do throws(RouterAdvertisementProblem) {
            let router = IPv6Address(source.sin6_addr)
            // What comes from beyond the link takes nothing from those on it.
            try RouterAdvertisement.check(source: router, hopLimit: Int(hopLimit))
            guard isWithinLimit(Sender(uplink: uplink, router: isKnown(router, uplink) ? router : nil)) else {
                throw .tooMany
            }
            let advertisement = try RouterAdvertisement(
                message: Array(buffer.prefix(count)), from: router, hopLimit: Int(hopLimit))
            return Message(uplink: uplink, content: .success(advertisement))
        } catch {
            return Message(uplink: uplink, content: .failure(error))
        }
    }

    private mutating func isWithinLimit(_ sender: Sender) -> Bool {
        // Links and routers come and go; a limit that is forgotten is a full one.
        if limits.count >= Self.senderLimit, limits[sender] == nil { limits = [:] }
        return limits[sender, default: RateLimit()].allows(
            RouterAdvertisement.perSecond, now: UInt64(clamping: BootInstant.now.nanoseconds))
    }

    /// Sends a Router Solicitation (RFC 4861 section 4.1) to ff02::2, without a source link-layer address option: the
    /// answer may then as well be multicast. It goes out from the link-local address or, as long as DAD of that runs, from
    /// `::`, as section 4.1 allows.
    public func solicit(uplink: Int) throws(SystemError) {
        do throws(SystemError) { try solicitFromAddress(uplink: uplink) } catch {
            guard error.code == EADDRNOTAVAIL else { throw error }
            try Self.solicitFromNowhere(uplink: uplink)
        }
    }

    /// The whole packet, IPv6 header and all: nothing in it depends on the host.
    ///
    ///     version 6, payload of 8 octets, next header 58, hop limit 255
    ///     source ::
    ///     destination ff02::2
    ///     type 133, code 0, checksum, 4 reserved octets
    static let unspecifiedSolicitation: [UInt8] =
        [0x60, 0, 0, 0, 0, 8, 58, 255] + [UInt8](repeating: 0, count: 16)
        + [0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2] + [solicitation, 0, 0x7b, 0xb8, 0, 0, 0, 0]

    private static func solicitFromNowhere(uplink: Int) throws(SystemError) {
        // What is sent by a socket of that protocol brings its IPv6 header along.
        let raw = try OwnedDescriptor(socket: AF_INET6, .raw, transport: CInt(IPPROTO_RAW), named: "a raw IPv6 socket")
        // The routing table is to be asked for some source address all the same, so the socket is given one; it stands
        // nowhere in the packet.
        try raw.set(CInt(IPPROTO_IPV6), IPV6_FREEBIND, CInt(1), "IPV6_FREEBIND")
        let scope = UInt32(truncatingIfNeeded: uplink)
        try raw.bind(to: IPv6Address(high: 0xfe80_0000_0000_0000, low: 0x464), scope: scope)
        try raw.send(unspecifiedSolicitation, to: .allRouters, scope: scope, "send a Router Solicitation from ::")
    }

    private func solicitFromAddress(uplink: Int) throws(SystemError) {
        // Type 133, code 0, checksum (the kernel's), 4 reserved octets.
        try socket.send(
            [Self.solicitation, 0, 0, 0, 0, 0, 0, 0], to: .allRouters, scope: UInt32(truncatingIfNeeded: uplink),
            "send a Router Solicitation")
    }
}
