import CLibMnl
public import ClatBase
import Glibc

/// An address of an interface as RTM_NEWADDR tells of it, or as it shall be added (rtnetlink(7), linux/if_addr.h).
public struct InterfaceAddress: Hashable, Sendable {
    /// The interface.
    public var index: UInt32
    /// The interface's own address.
    public var address: IPAddress
    /// How many leading bits the link's other addresses share.
    public var prefixLength: Int
    /// The other end's address, on a point-to-point link that was given one.
    public var peer: IPAddress?
    /// IFA_F_ flags. The kernel itself sets `permanent`, `tentative`, `dadFailed` and `deprecated`.
    public var flags: AddressFlags
    /// How far the address is valid; the kernel sets it by itself for IPv6.
    public var scope: Scope
    /// For how long yet, to the second, new connections may use it; nil is for ever.
    public var preferredLifetime: Duration?
    /// For how long yet, to the second, it exists; nil is for ever, and only then a duplicate stays to be seen: the kernel
    /// deletes an address with an end when DAD finds it in use.
    public var validLifetime: Duration?
    /// IFAPROT_: who made it. 0 not told (also before Linux 5.18), 2 the kernel from an RA, 3 the kernel, link-local.
    public var origin: UInt8

    /// An address to be added.
    public init(
        _ address: IPAddress, prefixLength: Int, on index: UInt32, flags: AddressFlags = [],
        scope: Scope = .universe, preferredLifetime: Duration? = nil, validLifetime: Duration? = nil
    ) {
        self.index = index
        self.address = address
        self.prefixLength = prefixLength
        self.flags = flags
        self.scope = scope
        self.preferredLifetime = preferredLifetime
        self.validLifetime = validLifetime
        origin = UInt8(IFAPROT_UNSPEC)
    }
}

/// The IFA_F_ flags of an address.
public struct AddressFlags: OptionSet, Hashable, Sendable {
    /// The kernel's bits.
    public var rawValue: UInt32
    /// The kernel's bits.
    public init(rawValue: UInt32) { self.rawValue = rawValue }
    private init(_ flag: CInt) { rawValue = UInt32(bitPattern: flag) }

    /// IFA_F_TEMPORARY: a privacy address (RFC 8981); for IPv4 the same bit is IFA_F_SECONDARY.
    public static let temporary = AddressFlags(IFA_F_TEMPORARY)
    /// IFA_F_NODAD: use it at once.
    public static let noDAD = AddressFlags(IFA_F_NODAD)
    /// IFA_F_OPTIMISTIC: in use while DAD runs (RFC 4429).
    public static let optimistic = AddressFlags(IFA_F_OPTIMISTIC)
    /// IFA_F_DADFAILED: another node has it.
    public static let dadFailed = AddressFlags(IFA_F_DADFAILED)
    /// IFA_F_HOMEADDRESS
    public static let homeAddress = AddressFlags(IFA_F_HOMEADDRESS)
    /// IFA_F_DEPRECATED: not for new connections.
    public static let deprecated = AddressFlags(IFA_F_DEPRECATED)
    /// IFA_F_TENTATIVE: DAD has not ended.
    public static let tentative = AddressFlags(IFA_F_TENTATIVE)
    /// IFA_F_PERMANENT: without an end.
    public static let permanent = AddressFlags(IFA_F_PERMANENT)
    /// IFA_F_MANAGETEMPADDR: the kernel makes privacy addresses beside it.
    public static let manageTemporary = AddressFlags(IFA_F_MANAGETEMPADDR)
    /// IFA_F_NOPREFIXROUTE: no route to the prefix comes with it.
    public static let noPrefixRoute = AddressFlags(IFA_F_NOPREFIXROUTE)
    /// IFA_F_STABLE_PRIVACY: made after RFC 7217.
    public static let stablePrivacy = AddressFlags(IFA_F_STABLE_PRIVACY)
}

/// How far an address or an IPv4 route reaches (RT_SCOPE_): smaller numbers reach farther.
public struct Scope: RawRepresentable, Hashable, Sendable {
    /// The kernel's number.
    public var rawValue: UInt8
    /// The kernel's number.
    public init(rawValue: UInt8) { self.rawValue = rawValue }
    private init(_ scope: rt_scope_t) { rawValue = UInt8(truncatingIfNeeded: scope.rawValue) }

    /// Everywhere.
    public static let universe = Scope(RT_SCOPE_UNIVERSE)
    /// The site.
    public static let site = Scope(RT_SCOPE_SITE)
    /// The link.
    public static let link = Scope(RT_SCOPE_LINK)
    /// This host.
    public static let host = Scope(RT_SCOPE_HOST)
}

// MARK: Verbs

extension NetlinkSocket {
    /// The addresses of both families or one, of all links or one. A link that is not there has none.
    public mutating func addresses(
        _ family: AddressFamily? = nil, on index: UInt32? = nil
    ) throws(NetlinkError) -> [InterfaceAddress] {
        do throws(NetlinkError) {
            return try collect("list the addresses", .addresses(family, on: index)) {
                type, bytes, body throws(MalformedMessage) in
                guard type == RTM_NEWADDR, let address = try InterfaceAddress(bytes, body) else { return nil }
                // Before Linux 4.20 the kernel lists all links.
                return index == nil || address.index == index ? address : nil
            }
        } catch {
            guard error.code == ENODEV else { throw error }
            return []
        }
    }

    /// Adds an address. One that is there already is EEXIST.
    public mutating func addAddress(_ address: InterfaceAddress) throws(NetlinkError) {
        try perform("add address \(address)", .newAddress(address, NLM_F_CREATE | NLM_F_EXCL))
    }

    /// Adds an address or, where the link has it, changes lifetimes, flags and scope. DAD does not run again for one that
    /// is there.
    public mutating func replaceAddress(_ address: InterfaceAddress) throws(NetlinkError) {
        try perform("replace address \(address)", .newAddress(address, NLM_F_CREATE | NLM_F_REPLACE))
    }

    /// Removes an address. One that is not there is EADDRNOTAVAIL.
    public mutating func removeAddress(_ address: InterfaceAddress) throws(NetlinkError) {
        try perform("remove address \(address)", .deleteAddress(address))
    }
}

extension InterfaceAddress: CustomStringConvertible {
    /// `192.0.0.1/32 on link 7`
    public var description: String { "\(address)/\(prefixLength) on link \(index)" }
}

// MARK: Reading

extension InterfaceAddress {
    /// Reads the body of an RTM_NEWADDR or RTM_DELADDR: `struct ifaddrmsg`, then attributes. Nil for other families.
    init?(_ bytes: RawSpan, _ body: Range<Int>) throws(MalformedMessage) {
        let header = try bytes.load(ifaddrmsg.self, at: body)
        guard let family = AddressFamily(number: header.ifa_family) else { return nil }
        var local: IPAddress?
        var other: IPAddress?
        var flags = AddressFlags(rawValue: UInt32(header.ifa_flags))
        var origin = UInt8(IFAPROT_UNSPEC)
        var lifetimes = ifa_cacheinfo()
        (lifetimes.ifa_prefered, lifetimes.ifa_valid) = (.max, .max)
        var attributes = AttributeCursor(body, after: ifaddrmsg.self)
        while let attribute = try attributes.next(in: bytes) {
            switch attribute.type {
            case IFA_LOCAL: local = try bytes.address(family, at: attribute.value)
            case IFA_ADDRESS: other = try bytes.address(family, at: attribute.value)
            case IFA_FLAGS: flags.rawValue = try bytes.load(UInt32.self, at: attribute.value)
            case IFA_PROTO: origin = try bytes.load(UInt8.self, at: attribute.value)
            case IFA_CACHEINFO: lifetimes = try bytes.load(ifa_cacheinfo.self, at: attribute.value)
            default: break
            }
        }
        // IFA_ADDRESS is the peer where there is one, and else the address itself; IPv6 then has no IFA_LOCAL.
        guard let address = local ?? other else { throw .value("no address") }
        guard Int(header.ifa_prefixlen) <= family.bits else { throw .value("prefix length \(header.ifa_prefixlen)") }
        self.init(
            address, prefixLength: Int(header.ifa_prefixlen), on: header.ifa_index, flags: flags,
            scope: Scope(rawValue: header.ifa_scope),
            preferredLifetime: Self.duration(lifetimes.ifa_prefered),
            validLifetime: Self.duration(lifetimes.ifa_valid))
        peer = other == address ? nil : other
        self.origin = origin
    }

    /// All ones is infinity (RFC 4861 section 4.6.2, INFINITY_LIFE_TIME in the kernel).
    private static func duration(_ seconds: UInt32) -> Duration? {
        seconds == .max ? nil : .seconds(seconds)
    }

    static func seconds(_ duration: Duration?) -> UInt32 {
        duration.map { min(UInt32(clamping: $0.components.seconds), .max - 1) } ?? .max
    }
}

// MARK: Requests

extension Request {
    static func addresses(_ family: AddressFamily?, on index: UInt32?) -> Request {
        var body = ifaddrmsg()
        body.ifa_family = family?.number ?? UInt8(AF_UNSPEC)
        body.ifa_index = index ?? 0
        return Request(RTM_GETADDR, NLM_F_DUMP, body)
    }

    static func newAddress(_ address: InterfaceAddress, _ flags: CInt) -> Request {
        var request = Request(address: address, RTM_NEWADDR, flags)
        request.put(IFA_FLAGS, address.flags.rawValue)
        var lifetimes = ifa_cacheinfo()
        lifetimes.ifa_prefered = InterfaceAddress.seconds(address.preferredLifetime)
        lifetimes.ifa_valid = InterfaceAddress.seconds(address.validLifetime)
        request.put(IFA_CACHEINFO, lifetimes)
        return request
    }

    static func deleteAddress(_ address: InterfaceAddress) -> Request {
        Request(address: address, RTM_DELADDR, 0)
    }

    private init(address: InterfaceAddress, _ type: Int, _ flags: CInt) {
        var body = ifaddrmsg()
        body.ifa_family = address.address.family.number
        body.ifa_prefixlen = UInt8(clamping: address.prefixLength)
        body.ifa_scope = address.scope.rawValue
        body.ifa_index = address.index
        self.init(type, flags, body)
        put(IFA_LOCAL, octets: address.address.bytes)
        put(IFA_ADDRESS, octets: (address.peer ?? address.address).bytes)
    }
}
