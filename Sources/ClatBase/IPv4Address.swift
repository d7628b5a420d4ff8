import Glibc

/// An IPv4 address (RFC 791 section 3.2): 32 bits as a number, so 192.0.0.1 is `0xC000_0001`.
public struct IPv4Address: Hashable, Sendable, Comparable, TextCodable {
    /// The address as a number in host byte order.
    public var rawValue: UInt32

    /// The address of that number in host byte order.
    public init(rawValue: UInt32) {
        self.rawValue = rawValue
    }

    /// Four octets, as they are written: `IPv4Address(192, 0, 0, 1)`.
    public init(_ a: UInt8, _ b: UInt8, _ c: UInt8, _ d: UInt8) {
        rawValue = UInt32(a) << 24 | UInt32(b) << 16 | UInt32(c) << 8 | UInt32(d)
    }

    /// Dotted-quad text; nil for anything else.
    public init?(_ description: String) {
        var address = in_addr()
        guard inet_pton(AF_INET, description, &address) == 1 else { return nil }
        rawValue = UInt32(bigEndian: address.s_addr)
    }

    /// Dotted-quad text.
    public var description: String {
        "\(rawValue >> 24).\(rawValue >> 16 & 0xff).\(rawValue >> 8 & 0xff).\(rawValue & 0xff)"
    }

    /// The four octets in network order.
    public var bytes: [UInt8] {
        [UInt8(rawValue >> 24), UInt8(rawValue >> 16 & 0xff), UInt8(rawValue >> 8 & 0xff), UInt8(rawValue & 0xff)]
    }

    /// In 169.254.0.0/16 (RFC 3927).
    public var isLinkLocal: Bool { rawValue >> 16 == 0xa9fe }

    /// In 192.0.0.0/29, for hosts that have IPv4 over IPv6 (RFC 7335).
    public var isServiceContinuity: Bool { rawValue >> 3 == 0xc000_0000 >> 3 }

    /// Orders by number.
    public static func < (left: IPv4Address, right: IPv4Address) -> Bool {
        left.rawValue < right.rawValue
    }
}
