import CLinux
public import ClatBase
import Glibc

/// What is before an IPv6 packet on a link that carries no ipvlan.
public enum LinkFraming: Hashable, Sendable {
    /// Nothing (ARPHRD_NONE, ARPHRD_RAWIP).
    case none
    /// Nothing, but the kernel keeps room for PPP's own header, and looks for the network's header behind it in what a packet
    /// socket sends with a `virtio_net_hdr`. So packets go out one by one, with their checksums.
    case ppp
    /// An Ethernet header. Nobody tells addresses there (IFF_NOARP): all frames go to the link's own, as the kernel has it.
    case ethernet(HardwareAddress)

    /// In octets.
    var headerSize: Int { if case .ethernet = self { Int(ETH_HLEN) } else { 0 } }
    /// Of a TAP whose frames go out there.
    public var offloads: TUNDevice.Offloads { self == .ppp ? [] : .all }
}

/// Two packet sockets (packet(7)) on a link: one hears what is for a few IPv6 addresses, before the host's stack does and
/// besides it, the other sends. What they hear and send passes no rule of the host's packet filter.
public final class UplinkSockets: Sendable {
    /// How packets look.
    public let framing: LinkFraming
    let receiver: OwnedDescriptor
    let sender: OwnedDescriptor

    /// Octets that may wait to be read: as the kernel counts, 1000 packets of 1500 octets, which is what a TUN's queue holds.
    private static let room = 1000 * 2304

    /// Opens them on that link of the calling thread's network namespace; they hear nothing yet. Needs CAP_NET_RAW.
    public init(on uplink: UInt32, _ framing: LinkFraming) throws(SystemError) {
        self.framing = framing
        let receiver = try Self.open(.raw, framing, on: uplink)
        // Where that is refused the room is smaller: 160 packets of 1500 octets.
        try? receiver.set(SOL_SOCKET, SO_RCVBUFFORCE, CInt(Self.room / 2), "SO_RCVBUFFORCE")
        self.receiver = receiver
        sender = try Self.open(framing == .ppp ? .datagram : .raw, framing, on: uplink)
    }

    /// Takes over those that another process has opened on that link, in their order.
    public init(
        adopting receiver: consuming OwnedDescriptor, _ sender: consuming OwnedDescriptor, on uplink: UInt32,
        _ framing: LinkFraming
    ) throws(SystemError) {
        for descriptor in [receiver.rawValue, sender.rawValue] {
            var address = sockaddr_ll()
            var size = socklen_t(MemoryLayout<sockaddr_ll>.size)
            try withUnsafeMutablePointer(to: &address) { pointer throws(SystemError) in
                _ = try retrying("look at a packet socket") {
                    pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                        getsockname(descriptor, __SOCKADDR_ARG(__sockaddr__: $0), &size)
                    }
                }
            }
            guard CInt(address.sll_family) == AF_PACKET, address.sll_ifindex == CInt(bitPattern: uplink) else {
                throw SystemError(call: "take over a packet socket of another link", code: EXDEV)
            }
        }
        self.framing = framing
        self.receiver = receiver
        self.sender = sender
    }

    private static func open(
        _ kind: SocketKind, _ framing: LinkFraming, on uplink: UInt32
    ) throws(SystemError) -> OwnedDescriptor {
        // Protocol 0: nothing comes before it is bound.
        let socket = try OwnedDescriptor(socket: AF_PACKET, kind, named: "a packet socket")
        if kind == .raw { try socket.set(SOL_PACKET, PACKET_VNET_HDR, CInt(1), "PACKET_VNET_HDR") }
        try socket.set(SOL_PACKET, PACKET_IGNORE_OUTGOING, CInt(1), "PACKET_IGNORE_OUTGOING")
        try hear([], by: socket, framing)
        var address = sockaddr_ll()
        address.sll_family = UInt16(AF_PACKET)
        address.sll_protocol = UInt16(ETH_P_IPV6).bigEndian
        address.sll_ifindex = CInt(bitPattern: uplink)
        let descriptor = socket.rawValue
        try retrying("bind a packet socket to link \(uplink)") {
            withUnsafePointer(to: &address) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    bind(
                        descriptor, __CONST_SOCKADDR_ARG(__sockaddr__: $0), socklen_t(MemoryLayout<sockaddr_ll>.size))
                }
            }
        }
        return socket
    }

    /// From now on hears what is for these addresses.
    func hear(_ addresses: [IPv6Address]) throws(SystemError) {
        try Self.hear(addresses, by: receiver, framing)
    }

    private static func hear(
        _ addresses: [IPv6Address], by socket: borrowing OwnedDescriptor, _ framing: LinkFraming
    ) throws(SystemError) {
        let filter = AddressFilter(addresses, at: .destination, linkHeader: framing.headerSize, received: true)
        let descriptor = socket.rawValue
        try filter.withProgram { program throws(SystemError) in
            _ = try retrying("setsockopt SO_ATTACH_FILTER") {
                setsockopt(
                    descriptor, SOL_SOCKET, SO_ATTACH_FILTER, program, socklen_t(MemoryLayout<sock_fprog>.size))
            }
        }
    }

    /// Packets lost since the last call, because nobody read them in time.
    func lost() -> UInt64 {
        var statistics = tpacket_stats()
        var size = socklen_t(MemoryLayout<tpacket_stats>.size)
        getsockopt(receiver.rawValue, SOL_PACKET, PACKET_STATISTICS, &statistics, &size)
        return UInt64(statistics.tp_drops)
    }
}
