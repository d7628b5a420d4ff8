import CLibMnl
public import ClatBase
import Glibc

/// A network interface as RTM_NEWLINK tells of it (rtnetlink(7), linux/if_link.h).
public struct Link: Hashable, Sendable {
    /// The interface index, unique in its namespace.
    public var index: UInt32
    /// Up to 15 octets.
    public var name: String
    /// What the kernel's driver calls itself: `veth`, `ipvlan`, `macvlan`, `tun`, `bridge`, `wireguard`; nil for hardware.
    public var kind: String?
    /// ARPHRD_ number: 1 Ethernet, 65534 none, 772 loopback.
    public var hardwareType: UInt16
    /// The link-layer address, where it is one of six octets.
    public var hardwareAddress: HardwareAddress?
    /// In octets.
    public var mtu: Int
    /// IFF_ flags.
    public var flags: LinkFlags
    /// The operational state of RFC 2863.
    public var operationalState: OperationalState
    /// Whether there is a signal.
    public var carrier: Bool
    /// How often the signal was lost since the link was made (IFLA_CARRIER_DOWN_COUNT). The kernel may gather a loss and what
    /// follows into one notice, in which all is well again; this tells.
    public var carrierLosses: UInt32 = 0
    /// The bridge, bond or VRF this is a port of.
    public var master: UInt32?
    /// The link this is stacked on, or a veth's peer; an index in the namespace that `linkNamespace` tells.
    public var parent: UInt32?
    /// The id, in this namespace, of the parent's namespace, where that is another one; -1 where it has no id here.
    public var linkNamespace: Int32?
    /// How many packets its queue holds.
    public var transmitQueueLength: Int
    /// An ipvlan's mode.
    public var ipvlanMode: IPvlanMode?
    /// An ipvlan's IPVLAN_F_ flags: 0 bridge, 1 private, 2 VEPA.
    public var ipvlanFlags: UInt16?
    /// The link's IPv6 side; nil where IPv6 is not attached to it.
    public var ipv6: IPv6LinkState?

    /// Ethernet or something with its framing, on which one can stack an ipvlan or macvlan.
    public var isEthernet: Bool { hardwareType == ARPHRD_ETHER }

    /// Bears IP packets and nothing before them: PPP, raw IP of a WWAN modem, TUN, WireGuard. Nobody has a link-layer address
    /// there.
    public var isRawIP: Bool {
        [CInt(ARPHRD_PPP), CInt(ARPHRD_RAWIP), CInt(ARPHRD_NONE)].contains(CInt(hardwareType))
    }

    /// Whether it is PPP.
    public var isPPP: Bool { CInt(hardwareType) == ARPHRD_PPP }

    /// Whether it is Wi-Fi. Rtnetlink does not tell, sysfs does, and only of the namespace in which it was mounted.
    public var isWireless: Bool { access("/sys/class/net/\(name)/phy80211", F_OK) == 0 }
}

/// The IFF_ flags of an interface (netdevice(7)).
public struct LinkFlags: OptionSet, Hashable, Sendable {
    /// The kernel's bits.
    public var rawValue: UInt32
    /// The kernel's bits.
    public init(rawValue: UInt32) { self.rawValue = rawValue }
    private init(_ flag: Int) { rawValue = UInt32(flag) }

    /// IFF_UP: the administrator wants it up.
    public static let up = LinkFlags(IFF_UP)
    /// IFF_RUNNING: operationally up.
    public static let running = LinkFlags(IFF_RUNNING)
    /// IFF_LOWER_UP: the driver has a signal.
    public static let lowerUp = LinkFlags(rawValue: IFF_LOWER_UP.rawValue)
    /// IFF_LOOPBACK
    public static let loopback = LinkFlags(IFF_LOOPBACK)
    /// IFF_POINTOPOINT
    public static let pointToPoint = LinkFlags(IFF_POINTOPOINT)
    /// IFF_NOARP: no neighbour discovery, so no DAD either.
    public static let noARP = LinkFlags(IFF_NOARP)
    /// IFF_BROADCAST
    public static let broadcast = LinkFlags(IFF_BROADCAST)
    /// IFF_MULTICAST
    public static let multicast = LinkFlags(IFF_MULTICAST)
}

/// The operational state of an interface (RFC 2863 section 3.1.14, IF_OPER_ of linux/if.h).
public struct OperationalState: RawRepresentable, Hashable, Sendable {
    /// The kernel's number.
    public var rawValue: UInt8
    /// The kernel's number.
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// The driver does not say; loopback and TUN are always so.
    public static let unknown = OperationalState(rawValue: UInt8(IF_OPER_UNKNOWN))
    /// Not able to carry packets.
    public static let down = OperationalState(rawValue: UInt8(IF_OPER_DOWN))
    /// Down because of the link below.
    public static let lowerLayerDown = OperationalState(rawValue: UInt8(IF_OPER_LOWERLAYERDOWN))
    /// Waiting for something outside, such as 802.1X.
    public static let dormant = OperationalState(rawValue: UInt8(IF_OPER_DORMANT))
    /// Carries packets.
    public static let up = OperationalState(rawValue: UInt8(IF_OPER_UP))
}

/// How an ipvlan takes packets apart (IPVLAN_MODE_). All ipvlans of one parent have the same mode.
public struct IPvlanMode: RawRepresentable, Hashable, Sendable {
    /// The kernel's number.
    public var rawValue: UInt16
    /// The kernel's number.
    public init(rawValue: UInt16) { self.rawValue = rawValue }

    /// By link-layer and IP address; neighbour discovery works.
    public static let l2 = IPvlanMode(rawValue: UInt16(IPVLAN_MODE_L2.rawValue))
    /// By IP address, routed by the parent's stack; no multicast, so no neighbour discovery.
    public static let l3 = IPvlanMode(rawValue: UInt16(IPVLAN_MODE_L3.rawValue))
    /// L3 with netfilter of the parent's namespace.
    public static let l3s = IPvlanMode(rawValue: UInt16(IPVLAN_MODE_L3S.rawValue))
}

/// How the kernel makes a link-local address for a link that comes up (IN6_ADDR_GEN_MODE_).
public struct AddressGenerationMode: RawRepresentable, Hashable, Sendable {
    /// The kernel's number.
    public var rawValue: UInt8
    /// The kernel's number.
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// From the link-layer address (RFC 4291 appendix A).
    public static let eui64 = AddressGenerationMode(rawValue: UInt8(IN6_ADDR_GEN_MODE_EUI64.rawValue))
    /// Not at all.
    public static let none = AddressGenerationMode(rawValue: UInt8(IN6_ADDR_GEN_MODE_NONE.rawValue))
    /// From the secret in the sysctl `stable_secret` (RFC 7217).
    public static let stableSecret = AddressGenerationMode(
        rawValue: UInt8(IN6_ADDR_GEN_MODE_STABLE_PRIVACY.rawValue))
    /// From a random secret (RFC 7217).
    public static let random = AddressGenerationMode(rawValue: UInt8(IN6_ADDR_GEN_MODE_RANDOM.rawValue))
}

/// Some of the sysctls in `net/ipv6/conf/LINK`, as RTM_NEWLINK carries them (IFLA_AF_SPEC).
public struct IPv6LinkState: Hashable, Sendable {
    /// How link-local addresses come to be.
    public var addressGenerationMode: AddressGenerationMode?
    /// `accept_ra`: 0 no, 1 unless forwarding, 2 yes.
    public var acceptRA: Int32?
    /// `forwarding`
    public var forwarding: Int32?
    /// `disable_ipv6`
    public var disabled: Int32?
    /// `mtu`: the IPv6 MTU in octets, which an RA can set below the link's.
    public var mtu: Int32?
}

// MARK: Reading

extension Link {
    /// Reads the body of an RTM_NEWLINK or RTM_DELLINK: `struct ifinfomsg`, then attributes.
    ///
    /// Nil for what comes in the same group but is no description of a link: that of a family, by which a bridge tells of
    /// its ports (an RTM_DELLINK of AF_BRIDGE is no removal), and events of wireless extensions (IFLA_WIRELESS), which
    /// have a name and nothing else.
    init?(_ bytes: RawSpan, _ body: Range<Int>) throws(MalformedMessage) {
        let header = try bytes.load(ifinfomsg.self, at: body)
        guard CInt(header.ifi_family) == AF_UNSPEC else { return nil }
        self.init(
            index: UInt32(bitPattern: header.ifi_index), name: "", hardwareType: header.ifi_type, mtu: 0,
            flags: LinkFlags(rawValue: header.ifi_flags), operationalState: .unknown, carrier: false,
            transmitQueueLength: 0)
        var attributes = AttributeCursor(body, after: ifinfomsg.self)
        while let attribute = try attributes.next(in: bytes) {
            let value = attribute.value
            switch attribute.type {
            case IFLA_IFNAME: name = bytes.text(at: value)
            case IFLA_ADDRESS: hardwareAddress = HardwareAddress(bytes: bytes.octets(at: value))
            case IFLA_MTU: mtu = Int(clamping: try bytes.load(UInt32.self, at: value))
            case IFLA_OPERSTATE: operationalState = OperationalState(rawValue: try bytes.load(UInt8.self, at: value))
            case IFLA_CARRIER: carrier = try bytes.load(UInt8.self, at: value) != 0
            case IFLA_CARRIER_DOWN_COUNT: carrierLosses = try bytes.load(UInt32.self, at: value)
            case IFLA_MASTER: master = try bytes.load(UInt32.self, at: value)
            case IFLA_LINK: parent = try bytes.load(UInt32.self, at: value)
            case IFLA_LINK_NETNSID: linkNamespace = try bytes.load(Int32.self, at: value)
            case IFLA_TXQLEN: transmitQueueLength = Int(clamping: try bytes.load(UInt32.self, at: value))
            case IFLA_LINKINFO: try readKind(bytes, value)
            case IFLA_AF_SPEC: try readFamilies(bytes, value)
            case IFLA_WIRELESS: return nil
            default: break
            }
        }
        if parent == 0 { parent = nil }
        guard !name.isEmpty else { throw .value("a link without a name") }
    }

    /// The index of a station that has associated with an access point, where that is what an RTM_NEWLINK is about: an
    /// event of wireless extensions, `struct iw_event`, of SIOCGIWAP. A kernel with CONFIG_CFG80211_WEXT sends one also for
    /// an access point that the hardware went over to by itself, with the carrier never lost.
    static func association(_ bytes: RawSpan, _ body: Range<Int>) throws(MalformedMessage) -> UInt32? {
        let header = try bytes.load(ifinfomsg.self, at: body)
        var attributes = AttributeCursor(body, after: ifinfomsg.self)
        while let attribute = try attributes.next(in: bytes) {
            guard attribute.type == IFLA_WIRELESS else { continue }
            // Length, then command, each of 16 bits in the machine's order.
            let event = try bytes.load(UInt32.self, at: attribute.value).littleEndian
            return event >> 16 == UInt32(SIOCGIWAP) ? UInt32(bitPattern: header.ifi_index) : nil
        }
        return nil
    }

    private mutating func readKind(_ bytes: RawSpan, _ nest: Range<Int>) throws(MalformedMessage) {
        var attributes = AttributeCursor(nest)
        var data: Range<Int>?
        while let attribute = try attributes.next(in: bytes) {
            switch attribute.type {
            case IFLA_INFO_KIND: kind = bytes.text(at: attribute.value)
            case IFLA_INFO_DATA: data = attribute.value
            default: break
            }
        }
        guard kind == "ipvlan", let data else { return }
        attributes = AttributeCursor(data)
        while let attribute = try attributes.next(in: bytes) {
            switch attribute.type {
            case IFLA_IPVLAN_MODE: ipvlanMode = IPvlanMode(rawValue: try bytes.load(UInt16.self, at: attribute.value))
            case IFLA_IPVLAN_FLAGS: ipvlanFlags = try bytes.load(UInt16.self, at: attribute.value)
            default: break
            }
        }
    }

    private mutating func readFamilies(_ bytes: RawSpan, _ nest: Range<Int>) throws(MalformedMessage) {
        var families = AttributeCursor(nest)
        while let family = try families.next(in: bytes) {
            if family.type == AF_INET6 { ipv6 = try IPv6LinkState(bytes, family.value) }
        }
    }
}

extension IPv6LinkState {
    init(_ bytes: RawSpan, _ nest: Range<Int>) throws(MalformedMessage) {
        var attributes = AttributeCursor(nest)
        while let attribute = try attributes.next(in: bytes) {
            switch attribute.type {
            case IFLA_INET6_ADDR_GEN_MODE:
                addressGenerationMode = AddressGenerationMode(rawValue: try bytes.load(UInt8.self, at: attribute.value))
            case IFLA_INET6_CONF: readSettings(bytes, attribute.value)
            default: break
            }
        }
    }

    /// An array of Int32 by DEVCONF_ number, shorter in older kernels.
    private mutating func readSettings(_ bytes: RawSpan, _ array: Range<Int>) {
        func setting(_ number: Int) -> Int32? {
            let start = array.lowerBound + 4 * number
            return start < array.upperBound ? try? bytes.load(Int32.self, at: start..<array.upperBound) : nil
        }
        acceptRA = setting(Int(DEVCONF_ACCEPT_RA))
        forwarding = setting(Int(DEVCONF_FORWARDING))
        disabled = setting(Int(DEVCONF_DISABLE_IPV6))
        mtu = setting(Int(DEVCONF_MTU6))
    }
}
