public import ClatBase
import Glibc

/// The families this module knows.
public enum AddressFamily: Hashable, Sendable, CaseIterable {
    /// AF_INET
    case ipv4
    /// AF_INET6
    case ipv6

    /// 32 or 128.
    public var bits: Int { self == .ipv4 ? 32 : 128 }

    /// The AF_ number as netlink's headers hold it.
    var number: UInt8 { UInt8(self == .ipv4 ? AF_INET : AF_INET6) }

    /// The family of that AF_ number.
    init?(number: UInt8) {
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

/// A destination of either family: an address and how many of its bits count.
public struct IPPrefix: Hashable, Sendable, CustomStringConvertible {
    /// The bits.
    public let address: IPAddress
    /// 0 to 32 or to 128.
    public let length: Int

    /// Nil where the length is more than the family's.
    public init?(_ address: IPAddress, length: Int) {
        guard (0...address.family.bits).contains(length) else { return nil }
        self.address = address
        self.length = length
    }

    /// One address: /32 or /128.
    public init(_ address: IPAddress) {
        self.address = address
        length = address.family.bits
    }

    /// `0.0.0.0/0` or `::/0`
    public static func any(_ family: AddressFamily) -> IPPrefix {
        IPPrefix(unchecked: family == .ipv4 ? .v4(IPv4Address(rawValue: 0)) : .v6(.unspecified), length: 0)
    }

    private init(unchecked address: IPAddress, length: Int) {
        self.address = address
        self.length = length
    }

    /// `ADDRESS/LENGTH`
    public var description: String { "\(address)/\(length)" }
}

extension RawSpan {
    /// An address that fills the range.
    func address(_ family: AddressFamily, at range: Range<Int>) throws(MalformedMessage) -> IPAddress {
        guard let address = IPAddress(family, bytes: octets(at: range)) else {
            throw .truncated(needed: family.bits / 8, available: range.count)
        }
        return address
    }
}
