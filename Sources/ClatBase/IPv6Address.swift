public import Glibc

/// An IPv6 address (RFC 4291): 128 bits as two numbers in host byte order, octets 0 to 7 and octets 8 to 15.
public struct IPv6Address: Hashable, Sendable, Comparable, TextCodable {
    /// Octets 0 to 7, octet 0 in the top bits.
    public var high: UInt64
    /// Octets 8 to 15, octet 8 in the top bits.
    public var low: UInt64

    /// The address of those two halves.
    public init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// Sixteen octets in network order; nil for any other count.
    public init?(bytes: some Collection<UInt8>) {
        guard bytes.count == 16 else { return nil }
        high = bytes.prefix(8).reduce(0) { $0 << 8 | UInt64($1) }
        low = bytes.suffix(8).reduce(0) { $0 << 8 | UInt64($1) }
    }

    /// The text forms of RFC 4291 section 2.2, without a zone; nil for anything else.
    public init?(_ description: String) {
        var address = in6_addr()
        guard inet_pton(AF_INET6, description, &address) == 1 else { return nil }
        self.init(address)
    }

    /// The kernel's form.
    public init(_ address: in6_addr) {
        let (high, low) = unsafeBitCast(address, to: (UInt64, UInt64).self)
        self.init(high: UInt64(bigEndian: high), low: UInt64(bigEndian: low))
    }

    /// The kernel's form.
    public var in6: in6_addr {
        unsafeBitCast((high.bigEndian, low.bigEndian), to: in6_addr.self)
    }

    /// The text of RFC 5952.
    public var description: String {
        var address = in6
        var text = [CChar](repeating: 0, count: Int(INET6_ADDRSTRLEN))
        inet_ntop(AF_INET6, &address, &text, socklen_t(text.count))
        return String(decoding: text.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
    }

    /// The sixteen octets in network order.
    public var bytes: [UInt8] {
        (0..<8).map { UInt8(truncatingIfNeeded: high >> (56 - 8 * $0)) }
            + (0..<8).map { UInt8(truncatingIfNeeded: low >> (56 - 8 * $0)) }
    }

    /// `::`
    public static let unspecified = IPv6Address(high: 0, low: 0)
    /// `ff02::1`, all nodes on the link (RFC 4291 section 2.7.1).
    public static let allNodes = IPv6Address(high: 0xff02_0000_0000_0000, low: 1)
    /// `ff02::2`, all routers on the link (RFC 4291 section 2.7.1).
    public static let allRouters = IPv6Address(high: 0xff02_0000_0000_0000, low: 2)

    /// In fe80::/10 (RFC 4291 section 2.5.6).
    public var isLinkLocal: Bool { high >> 54 == 0xfe80 >> 6 }
    /// In ff00::/8 (RFC 4291 section 2.7).
    public var isMulticast: Bool { high >> 56 == 0xff }
    /// `::1`
    public var isLoopback: Bool { high == 0 && low == 1 }
    /// In fc00::/7 (RFC 4193).
    public var isUniqueLocal: Bool { high >> 57 == 0xfc00 >> 9 }

    /// Orders by number.
    public static func < (left: IPv6Address, right: IPv6Address) -> Bool {
        (left.high, left.low) < (right.high, right.low)
    }
}

/// An IPv6 prefix (RFC 4291 section 2.3): an address whose bits past `length` are zero.
public struct IPv6Prefix: Hashable, Sendable, TextCodable {
    /// The prefix bits, the rest zero.
    public let address: IPv6Address
    /// 0 to 128.
    public let length: Int

    /// The first `length` bits of `address`; nil where the length is not within 0 to 128.
    public init?(_ address: IPv6Address, length: Int) {
        guard (0...128).contains(length) else { return nil }
        self.length = length
        self.address = IPv6Address(
            high: address.high & Self.mask(length), low: address.low & Self.mask(length - 64))
    }

    /// `ADDRESS/LENGTH`; nil for anything else, bits past the length included.
    public init?(_ description: String) {
        let parts = description.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2, let address = IPv6Address(String(parts[0])), let length = Int(parts[1]) else {
            return nil
        }
        self.init(address, length: length)
        guard self.address == address else { return nil }
    }

    /// `ADDRESS/LENGTH`
    public var description: String { "\(address)/\(length)" }

    /// Whether the address begins with these bits.
    public func contains(_ other: IPv6Address) -> Bool {
        IPv6Prefix(other, length: length)?.address == address
    }

    /// Whether there is an address that begins with both.
    public func overlaps(_ other: IPv6Prefix) -> Bool {
        contains(other.address) || other.contains(address)
    }

    /// The first `length` of 64 bits set; all for 64 and more, none for 0 and less.
    private static func mask(_ length: Int) -> UInt64 {
        length <= 0 ? 0 : length >= 64 ? .max : ~(.max >> length)
    }
}
