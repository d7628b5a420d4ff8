import Glibc

/// The two families of addresses.
public enum AddressFamily: Hashable, Sendable, CaseIterable {
    /// AF_INET
    case ipv4
    /// AF_INET6
    case ipv6

    /// 32 or 128.
    public var bits: Int { self == .ipv4 ? 32 : 128 }

    /// The AF_ number as the kernel's headers hold it.
    public var number: UInt8 { UInt8(self == .ipv4 ? AF_INET : AF_INET6) }

    /// The family of that AF_ number.
    public init?(number: UInt8) {
        switch CInt(number) {
        case AF_INET: self = .ipv4
        case AF_INET6: self = .ipv6
        default: return nil
        }
    }
}

/// An address of either family.
public enum IPAddress: Hashable, Sendable, CustomStringConvertible {
    /// Four octets.
    case v4(IPv4Address)
    /// Sixteen octets.
    case v6(IPv6Address)

    /// Which of the two.
    public var family: AddressFamily {
        switch self {
        case .v4: .ipv4
        case .v6: .ipv6
        }
    }

    /// The octets in network order.
    public var bytes: [UInt8] {
        switch self {
        case .v4(let address): address.bytes
        case .v6(let address): address.bytes
        }
    }

    /// Dotted-quad or RFC 5952 text.
    public var description: String {
        switch self {
        case .v4(let address): address.description
        case .v6(let address): address.description
        }
    }

    /// The octets of that family in network order; nil for any other count.
    public init?(_ family: AddressFamily, bytes: [UInt8]) {
        switch family {
        case .ipv4:
            guard bytes.count == 4 else { return nil }
            self = .v4(IPv4Address(bytes[0], bytes[1], bytes[2], bytes[3]))
        case .ipv6:
            guard let address = IPv6Address(bytes: bytes) else { return nil }
            self = .v6(address)
        }
    }
}
