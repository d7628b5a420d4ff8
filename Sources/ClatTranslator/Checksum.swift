/// The Internet checksum (RFC 1071): sums of 16-bit words in ones' complement, kept here *not* inverted.
///
/// Ones' complement arithmetic is arithmetic modulo 0xffff in which zero has two forms, 0 and 0xffff. A change from words
/// `old` to words `new` therefore moves a sum by `sum(new) - sum(old)`, whatever the rest of the message is (RFC 1624).
enum Checksum {
    /// Brings a sum of many words down to 16 bits. Zero only if every word was zero.
    @inline(__always)
    static func fold(_ sum: UInt64) -> UInt16 {
        var sum = (sum & 0xffff_ffff) &+ (sum >> 32)
        sum = (sum & 0xffff) &+ (sum >> 16)
        sum = (sum & 0xffff) &+ (sum >> 16)
        return UInt16(truncatingIfNeeded: (sum & 0xffff) &+ (sum >> 16))
    }

    /// The words of a 64-bit number, not yet folded; at most 2^33.
    @inline(__always)
    static func words(_ value: UInt64) -> UInt64 { (value >> 32) &+ (value & 0xffff_ffff) }

    /// The words of a 128-bit address, not yet folded; at most 2^34.
    @inline(__always)
    static func words(_ high: UInt64, _ low: UInt64) -> UInt64 { words(high) &+ words(low) }

    /// `left - right` modulo 0xffff, in the form 0 rather than 0xffff, so that "no change" is 0.
    @inline(__always)
    static func difference(_ left: UInt64, _ right: UInt64) -> UInt16 {
        let result = fold(UInt64(fold(left)) &+ UInt64(~fold(right)))
        return result == 0xffff ? 0 : result
    }

    /// The sum over octets; a last odd one counts as if a zero octet followed.
    static func sum(_ bytes: RawSpan) -> UInt16 {
        bytes.withUnsafeBytes { bytes in
            // Ones' complement sums do not care for byte order (RFC 1071 section 2 (B)): add as the machine likes, swap once.
            var sum: UInt64 = 0
            var offset = 0
            while offset &+ 8 <= bytes.count {
                sum &+= words(bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
                offset &+= 8
            }
            while offset &+ 2 <= bytes.count {
                sum &+= UInt64(bytes.loadUnaligned(fromByteOffset: offset, as: UInt16.self))
                offset &+= 2
            }
            if offset < bytes.count { sum &+= UInt64(UInt16(bytes[offset]).littleEndian) }
            return UInt16(bigEndian: fold(sum))
        }
    }

    /// The sum of the IPv6 pseudo-header (RFC 8200 section 8.1) without its addresses.
    @inline(__always)
    static func pseudoHeader(length: Int, nextHeader: UInt8) -> UInt64 {
        UInt64(truncatingIfNeeded: length) &+ UInt64(nextHeader)
    }
}
