import CLibMnl
public import ClatBase
import Glibc

/// An entry of the neighbour cache (ARP or RFC 4861 section 5.1) as RTM_NEWNEIGH tells of it.
public struct Neighbour: Hashable, Sendable {
    /// The interface.
    public var index: UInt32
    /// The neighbour's address.
    public var address: IPAddress
    /// Its link-layer address, where it is known and one of six octets.
    public var hardwareAddress: HardwareAddress?
    /// What the kernel believes of it.
    public var state: NeighbourState
    /// NTF_ROUTER: it said that it is a router.
    public var isRouter: Bool
    /// NTF_PROXY: no neighbour, but an address that this host answers for on the link.
    public var isProxy: Bool

    /// An entry to be added; permanent ones are never asked for and never forgotten.
    public init(
        _ address: IPAddress, at hardwareAddress: HardwareAddress?, on index: UInt32,
        state: NeighbourState = .permanent, isProxy: Bool = false
    ) {
        self.index = index
        self.address = address
        self.hardwareAddress = hardwareAddress
        self.state = state
        isRouter = false
        self.isProxy = isProxy
    }
}

/// The NUD_ states of a neighbour, one bit each (RFC 4861 section 7.3.2).
public struct NeighbourState: OptionSet, Hashable, Sendable {
    /// The kernel's bits.
    public var rawValue: UInt16
    /// The kernel's bits.
    public init(rawValue: UInt16) { self.rawValue = rawValue }
    private init(_ state: CInt) { rawValue = UInt16(truncatingIfNeeded: state) }

    /// Asked for, not yet answered.
    public static let incomplete = NeighbourState(NUD_INCOMPLETE)
    /// Confirmed of late.
    public static let reachable = NeighbourState(NUD_REACHABLE)
    /// Confirmed, but long ago.
    public static let stale = NeighbourState(NUD_STALE)
    /// In use unconfirmed; to be asked soon.
    public static let delay = NeighbourState(NUD_DELAY)
    /// Being asked.
    public static let probe = NeighbourState(NUD_PROBE)
    /// Did not answer.
    public static let failed = NeighbourState(NUD_FAILED)
    /// On a link where none are asked.
    public static let noARP = NeighbourState(NUD_NOARP)
    /// Set by hand.
    public static let permanent = NeighbourState(NUD_PERMANENT)
}

// MARK: Verbs

extension NetlinkSocket {
    /// The neighbours of a family, on all links or one, or the addresses that are answered for. A link that is not there has
    /// none.
    public mutating func neighbours(
        _ family: AddressFamily, on index: UInt32? = nil, proxies: Bool = false
    ) throws(NetlinkError) -> [Neighbour] {
        do throws(NetlinkError) {
            return try collect("list the neighbours", .neighbours(family, on: index, proxies: proxies)) {
                type, bytes, body throws(MalformedMessage) in
                guard type == RTM_NEWNEIGH, let neighbour = try Neighbour(bytes, body) else { return nil }
                return index == nil || neighbour.index == index ? neighbour : nil
            }
        } catch {
            guard error.code == ENODEV else { throw error }
            return []
        }
    }

    /// Adds an entry, in place of the one for the same address if there is one.
    public mutating func replaceNeighbour(_ neighbour: Neighbour) throws(NetlinkError) {
        try perform("set neighbour \(neighbour.address) on link \(neighbour.index)", .newNeighbour(neighbour))
    }

    /// Removes an entry. One that is not there is ENOENT.
    public mutating func removeNeighbour(_ neighbour: Neighbour) throws(NetlinkError) {
        try perform("remove neighbour \(neighbour.address) on link \(neighbour.index)", .deleteNeighbour(neighbour))
    }
}

// MARK: Reading

extension Neighbour {
    /// Reads the body of an RTM_NEWNEIGH or RTM_DELNEIGH: `struct ndmsg`, then attributes. Nil for other families (the
    /// forwarding tables of bridges come as AF_BRIDGE).
    init?(_ bytes: RawSpan, _ body: Range<Int>) throws(MalformedMessage) {
        let header = try bytes.load(ndmsg.self, at: body)
        guard let family = AddressFamily(number: header.ndm_family) else { return nil }
        var address: IPAddress?
        var hardwareAddress: HardwareAddress?
        var attributes = AttributeCursor(body, after: ndmsg.self)
        while let attribute = try attributes.next(in: bytes) {
            switch attribute.type {
            case NDA_DST: address = try bytes.address(family, at: attribute.value)
            case NDA_LLADDR: hardwareAddress = HardwareAddress(bytes: bytes.octets(at: attribute.value))
            default: break
            }
        }
        guard let address else { throw .value("a neighbour without an address") }
        self.init(
            address, at: hardwareAddress, on: UInt32(bitPattern: header.ndm_ifindex),
            state: NeighbourState(rawValue: header.ndm_state))
        isRouter = CInt(header.ndm_flags) & NTF_ROUTER != 0
        isProxy = CInt(header.ndm_flags) & NTF_PROXY != 0
    }
}

// MARK: Requests

extension Request {
    static func neighbours(_ family: AddressFamily, on index: UInt32?, proxies: Bool = false) -> Request {
        var body = ndmsg()
        body.ndm_family = family.number
        if proxies { body.ndm_flags = UInt8(NTF_PROXY) }
        var request = Request(RTM_GETNEIGH, NLM_F_DUMP, body)
        if let index { request.put(NDA_IFINDEX, index) }
        return request
    }

    static func newNeighbour(_ neighbour: Neighbour) -> Request {
        var request = Request(neighbour: neighbour, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE)
        if let address = neighbour.hardwareAddress { request.put(NDA_LLADDR, octets: address.bytes) }
        return request
    }

    static func deleteNeighbour(_ neighbour: Neighbour) -> Request {
        Request(neighbour: neighbour, RTM_DELNEIGH, 0)
    }

    private init(neighbour: Neighbour, _ type: Int, _ flags: CInt) {
        var body = ndmsg()
        body.ndm_family = neighbour.address.family.number
        body.ndm_ifindex = Int32(bitPattern: neighbour.index)
        body.ndm_state = neighbour.state.rawValue
        if neighbour.isProxy { body.ndm_flags = UInt8(NTF_PROXY) }
        self.init(type, flags, body)
        put(NDA_DST, octets: neighbour.address.bytes)
    }
}
