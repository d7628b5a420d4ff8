public import ClatBase

/// A network interface of the host as the agent sees it.
public struct Uplink: Hashable, Sendable {
    /// What kind of frames it carries, which decides whether a CLAT can live on it.
    public enum Medium: String, Hashable, Sendable {
        /// Ethernet, wired or bridged or virtual.
        case ethernet
        /// IEEE 802.11 station: one hardware address, so macvlan cannot work.
        case wireless
        /// The loopback interface.
        case loopback
        /// IP packets with nothing before them, and one other end: PPP, raw-IP WWAN, TUN, WireGuard.
        case pointToPoint
        /// Something else, such as a tunnel of an IP protocol of its own.
        case other
    }

    /// The kernel's number, which a rename does not change.
    public var index: Int
    /// The present name.
    public var name: String
    /// What it carries.
    public var medium: Medium
    /// The kernel's word for a virtual link (`veth`, `bridge`, ...); empty for hardware.
    public var kind: String
    /// Administratively up.
    public var isUp: Bool
    /// Up and with carrier.
    public var isRunning: Bool
    /// Not only with carrier but ready for packets: not while a Wi-Fi station still agrees on keys (RFC 2863 section 3.1.12).
    public var isOperational = true
    /// Neighbours are not asked for their addresses, as on an Ethernet device that is no Ethernet (IFF_NOARP).
    public var noARP = false
    /// How often it lost its carrier.
    public var carrierLosses: Int
    /// Link MTU, octets.
    public var mtu: Int
    /// Where it has an Ethernet one.
    public var hardwareAddress: HardwareAddress?
    /// The bridge, bond or VRF it belongs to, if any.
    public var master: Int?

    /// These fields as given.
    public init(
        index: Int, name: String, medium: Medium, kind: String, isUp: Bool, isRunning: Bool, carrierLosses: Int = 0,
        mtu: Int, hardwareAddress: HardwareAddress?, master: Int?
    ) {
        self.index = index
        self.name = name
        self.medium = medium
        self.kind = kind
        self.isUp = isUp
        self.isRunning = isRunning
        self.carrierLosses = carrierLosses
        self.mtu = mtu
        self.hardwareAddress = hardwareAddress
        self.master = master
    }

    /// What the CLAT's own link on it is to be.
    var attachment: UplinkAttachment {
        switch medium {
        case .wireless: .ipvlan
        case .pointToPoint: .relay
        default: noARP ? .relay : .ipvlanOrMacvlan
        }
    }

    /// The name of the host's IPv4 device for this uplink: `clat-eth0`, or by number where that passes 15 octets.
    public var hostLinkName: String { Self.hostLinkName(for: name, index: index) }

    static func hostLinkName(for uplink: String, index: Int) -> String {
        let name = hostLinkPrefix + uplink
        return name.utf8.count <= 15 ? name : "\(hostLinkPrefix)if\(index)"
    }

    /// How the names of our own devices begin.
    public static let hostLinkPrefix = "clat-"
}

/// An address on some interface of the host.
public struct HostAddress: Hashable, Sendable {
    /// The interface it is on.
    public var index: Int
    /// The address.
    public var value: IPAddress
    /// How many bits of it the link's prefix has, where the kernel said so.
    public var prefixLength: Int?
    /// The other end's, where there is one alone. An interface may have one address with several of these, or lengths.
    public var peer: IPAddress?

    /// An IPv6 address that is good beyond the link.
    var isGlobal: Bool {
        if case .v6(let address) = value { !address.isLinkLocal } else { false }
    }

    /// That address on that interface.
    public init(index: Int, value: IPAddress, prefixLength: Int? = nil, peer: IPAddress? = nil) {
        self.index = index
        self.value = value
        self.prefixLength = prefixLength
        self.peer = peer
    }
}

/// A default route of the host's main table, or one hop of it. Two that differ in anything are two: the kernel has several of one
/// metric.
public struct DefaultRoute: Hashable, Sendable {
    /// Of IPv6 rather than IPv4.
    public var isIPv6: Bool
    /// The interface it leads out of; 0 where it leads nowhere (`unreachable` and its like).
    public var index: Int
    /// Its metric; lower wins.
    public var metric: Int
    /// The routing protocol that set it (rtm_protocol).
    public var origin: Int
    /// The router it leads to; nil where it merely leads onto the link.
    public var gateway: IPAddress?
    /// The IPv4 address it prefers as source; with that it goes.
    public var source: IPv4Address?
    /// Its own MTU of IPv4 packets, octets. The kernel changes that of an IPv6 route without a word.
    public var mtu: Int?

    /// All fields as given.
    public init(
        isIPv6: Bool, index: Int, metric: Int, origin: Int, gateway: IPAddress?, source: IPv4Address? = nil,
        mtu: Int? = nil
    ) {
        self.isIPv6 = isIPv6
        self.index = index
        self.metric = metric
        self.origin = origin
        self.gateway = gateway
        self.source = source
        self.mtu = mtu
    }
}
