import CLinux
public import ClatBase
public import ClatTranslator

/// What one Router Advertisement says (RFC 4861 section 4.2), as far as a CLAT needs it.
public struct RouterAdvertisement: Hashable, Sendable {
    /// Router preference (RFC 4191 section 2.1).
    public enum Preference: Int, Sendable, Codable, Comparable {
        /// 11 in binary: after all others.
        case low = -1
        /// 00: what a router is that says nothing of it.
        case medium = 0
        /// 01: before all others.
        case high = 1
        /// Orders by preference.
        public static func < (left: Preference, right: Preference) -> Bool { left.rawValue < right.rawValue }

        /// Bits 3 and 4 of the octet it is in; nil of the reserved value.
        init?(flags: UInt8) {
            switch flags >> 3 & 3 {
            case 0: self = .medium
            case 1: self = .high
            case 3: self = .low
            default: return nil
            }
        }
    }

    /// A Prefix Information option (RFC 4861 section 4.6.2).
    public struct PrefixInformation: Hashable, Sendable {
        /// The prefix, bits past its length cleared.
        public var prefix: IPv6Prefix
        /// L: the prefix is on this link.
        public var onLink: Bool
        /// A: hosts may make addresses of it (RFC 4862).
        public var autonomous: Bool
        /// Seconds; `.max` is for ever.
        public var validLifetime: UInt32
        /// Seconds; `.max` is for ever.
        public var preferredLifetime: UInt32
    }

    /// A PREF64 option (RFC 8781 section 4).
    public struct PREF64Information: Hashable, Sendable {
        /// The NAT64 prefix.
        public var prefix: PREF64
        /// Seconds, 0 to 65528; 0 withdraws.
        public var lifetime: Int
    }

    /// A Recursive DNS Server option (RFC 8106 section 5.1).
    public struct RDNSS: Hashable, Sendable {
        /// The servers, in the option's order.
        public var servers: [IPv6Address]
        /// Seconds; `.max` is for ever, 0 withdraws.
        public var lifetime: UInt32
    }

    /// A Route Information option (RFC 4191 section 2.3).
    public struct RouteInformation: Hashable, Sendable {
        /// Where the router leads, bits past its length cleared.
        public var prefix: IPv6Prefix
        /// Among the routers that lead there.
        public var preference: Preference
        /// Seconds; `.max` is for ever, 0 withdraws.
        public var lifetime: UInt32
    }

    /// The link-local address it came from.
    public var router: IPv6Address
    /// Seconds for which this is a default router; 0: it is none.
    public var routerLifetime: Int
    /// Among default routers; medium where it is none, and of the reserved value (RFC 4191 section 2.2).
    public var preference: Preference
    /// Its Ethernet address, from the Source Link-Layer Address option (RFC 4861 section 4.6.1).
    public var hardwareAddress: HardwareAddress?
    /// The link's MTU option, octets, where it is 1280 or more.
    public var mtu: Int?
    /// In the order of the message.
    public var prefixes: [PrefixInformation] = []
    /// In the order of the message.
    public var pref64s: [PREF64Information] = []
    /// In the order of the message.
    public var rdnss: [RDNSS] = []
    /// In the order of the message.
    public var routes: [RouteInformation] = []
    /// Options that were left out, by reason; the rest of the message stands (RFC 4861 section 6.1.2, RFC 8781
    /// section 5).
    public var ignoredOptions: [RouterAdvertisementProblem] = []
}

extension RouterAdvertisement {
    /// ICMPv6 type (RFC 4861 section 4.2).
    static let type = UInt8(ND_ROUTER_ADVERT)
    /// More than any frame of a usual link, less than what would cost memory.
    static let maximumSize = 9216
    /// Messages of one router that is known, or of all others of a link, which are looked at in a second, and as many at once.
    static let perSecond: UInt32 = 100
    /// Options of one message that are looked at.
    static let maximumOptions = 256

    /// Reads an ICMPv6 message as a raw socket gives it: from the type octet on, checksum verified by the kernel.
    ///
    ///      0                   1                   2                   3
    ///      0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    ///     +---------------+---------------+-------------------------------+
    ///     |   Type 134    |    Code 0     |           Checksum            |
    ///     +---------------+---------------+-------------------------------+
    ///     | Cur Hop Limit |M|O|H|Prf| Rsv |        Router Lifetime        |
    ///     +---------------+---------------+-------------------------------+
    ///     |           Reachable Time, then Retrans Timer, then options    |
    ///
    /// Throws where RFC 4861 section 6.1.2 wants the whole message dropped.
    public init(
        message: [UInt8], from source: IPv6Address, hopLimit: Int
    ) throws(RouterAdvertisementProblem) {
        try Self.check(source: source, hopLimit: hopLimit)
        guard message.count >= 16 else { throw .truncated }
        guard message.count <= Self.maximumSize else { throw .tooLarge }
        guard message[0] == Self.type, message[1] == 0 else { throw .notAnAdvertisement }
        router = source
        routerLifetime = Int(message.big16(6))
        preference = routerLifetime > 0 ? Preference(flags: message[5]) ?? .medium : .medium

        var position = 16
        var count = 0
        while position < message.count {
            guard position + 2 <= message.count else { throw .truncated }
            let length = Int(message[position + 1]) * 8
            guard length > 0 else { throw .emptyOption }
            guard position + length <= message.count else { throw .truncated }
            count += 1
            guard count <= Self.maximumOptions else { throw .tooLarge }
            do throws(RouterAdvertisementProblem) {
                try read(option: message[position..<position + length])
            } catch {
                ignoredOptions.append(error)
            }
            position += length
        }
    }

    /// Whether a message comes from a station of the link (RFC 4861 section 6.1.2).
    static func check(source: IPv6Address, hopLimit: Int) throws(RouterAdvertisementProblem) {
        guard source.isLinkLocal else { throw .sourceNotLinkLocal }
        guard hopLimit == 255 else { throw .hopLimit }
    }

    private mutating func read(option bytes: ArraySlice<UInt8>) throws(RouterAdvertisementProblem) {
        let option = Array(bytes)
        switch option[0] {
        case UInt8(ND_OPT_SOURCE_LINKADDR):
            hardwareAddress = option.count == 8 ? HardwareAddress(bytes: option[2..<8]) : nil
        case UInt8(ND_OPT_PREFIX_INFORMATION): prefixes.append(try PrefixInformation(option: option))
        case UInt8(ND_OPT_MTU):
            guard option.count == 8, option.big32(4) >= 1280 else { throw .mtu }
            mtu = Int(option.big32(4))
        case RouteInformation.type: routes.append(try RouteInformation(option: option))
        case RDNSS.type: rdnss.append(try RDNSS(option: option))
        case PREF64Information.type: pref64s.append(try PREF64Information(option: option))
        default: break
        }
    }
}

extension RouterAdvertisement.PrefixInformation {
    /// Type 3, length 4: prefix length, flags L A R P, valid and preferred lifetime, 4 reserved octets, prefix.
    init(option: [UInt8]) throws(RouterAdvertisementProblem) {
        guard option.count == 32, let address = IPv6Address(bytes: option[16..<32]),
            let prefix = IPv6Prefix(address, length: Int(option[2])), !address.isLinkLocal, !address.isMulticast
        else { throw .prefixInformation }
        self.prefix = prefix
        onLink = option[3] & 0x80 != 0
        // With the P flag the network would rather delegate a prefix; A then reads as unset (RFC 9762 section 5), but a
        // host that asks for none may still use SLAAC where A is set, and so may we.
        autonomous = option[3] & 0x40 != 0
        validLifetime = option.big32(4)
        preferredLifetime = option.big32(8)
        guard preferredLifetime <= validLifetime else { throw .prefixInformation }
    }
}

extension RouterAdvertisement.RDNSS {
    /// Which option it is (RFC 8106 section 5.1).
    fileprivate static let type: UInt8 = 25

    /// Type 25, length 1 + 2n: 2 reserved octets, lifetime, n addresses.
    init(option: [UInt8]) throws(RouterAdvertisementProblem) {
        guard option.count >= 24, option.count % 16 == 8 else { throw .rdnss }
        lifetime = option.big32(4)
        servers = stride(from: 8, to: option.count, by: 16).compactMap {
            IPv6Address(bytes: option[$0..<$0 + 16])
        }
    }
}

extension RouterAdvertisement.RouteInformation {
    /// Which option it is (RFC 4191 section 2.3).
    fileprivate static let type: UInt8 = 24

    /// Type 24, length 1 to 3: prefix length, 3 reserved bits, 2 of preference, 3 reserved, lifetime, and 0, 8 or 16 octets of
    /// the prefix, but no fewer than its length needs.
    init(option: [UInt8]) throws(RouterAdvertisementProblem) {
        let octets = Array(option.dropFirst(8))
        guard octets.count <= 16, Int(option[2]) <= octets.count * 8,
            let preference = RouterAdvertisement.Preference(flags: option[3]),
            let address = IPv6Address(bytes: octets + Array(repeating: 0, count: 16 - octets.count)),
            let prefix = IPv6Prefix(address, length: Int(option[2]))
        else { throw .routeInformation }
        self.prefix = prefix
        self.preference = preference
        lifetime = option.big32(4)
    }
}

extension RouterAdvertisement.PREF64Information {
    /// Which option it is (RFC 8781 section 4).
    fileprivate static let type: UInt8 = 38
    /// Prefix lengths by prefix length code (RFC 8781 section 4).
    private static let lengths = [96, 64, 56, 48, 40, 32]

    /// Type 38, length 2: 13 bits of lifetime in units of 8 s, 3 bits of prefix length code, the top 96 bits of the
    /// prefix.
    init(option: [UInt8]) throws(RouterAdvertisementProblem) {
        guard option.count == 16 else { throw .pref64Length }
        let field = option.big16(2)
        lifetime = Int(field & 0xfff8)
        let code = Int(field & 7)
        guard code < Self.lengths.count else { throw .pref64PrefixLengthCode }
        guard let address = IPv6Address(bytes: option[4..<16] + [0, 0, 0, 0]),
            let masked = IPv6Prefix(address, length: Self.lengths[code]), let prefix = PREF64(masked),
            // ::/n takes in loopback, IPv4-mapped and IPv4-compatible addresses.
            masked.address.high != 0, !address.isLinkLocal, !address.isMulticast
        else { throw .pref64Prefix }
        self.prefix = prefix
    }
}

extension [UInt8] {
    /// The 16-bit number at an offset, network order. The caller has checked the size.
    func big16(_ offset: Int) -> UInt16 { UInt16(self[offset]) << 8 | UInt16(self[offset + 1]) }
    /// The 32-bit number at an offset, network order. The caller has checked the size.
    func big32(_ offset: Int) -> UInt32 { UInt32(big16(offset)) << 16 | UInt32(big16(offset + 2)) }
}
