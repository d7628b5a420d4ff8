import CLinux
import Glibc

/// Protocol and next header numbers (netinet/in.h).
enum IPProtocol {
    static var hopByHop: UInt8 { UInt8(IPPROTO_HOPOPTS) }
    static var icmp: UInt8 { UInt8(IPPROTO_ICMP) }
    static var igmp: UInt8 { UInt8(IPPROTO_IGMP) }
    static var tcp: UInt8 { UInt8(IPPROTO_TCP) }
    static var udp: UInt8 { UInt8(IPPROTO_UDP) }
    static var dccp: UInt8 { UInt8(IPPROTO_DCCP) }
    static var routing: UInt8 { UInt8(IPPROTO_ROUTING) }
    static var fragment: UInt8 { UInt8(IPPROTO_FRAGMENT) }
    static var ah: UInt8 { UInt8(IPPROTO_AH) }
    static var icmpv6: UInt8 { UInt8(IPPROTO_ICMPV6) }
    static var destinationOptions: UInt8 { UInt8(IPPROTO_DSTOPTS) }
    static var udpLite: UInt8 { UInt8(IPPROTO_UDPLITE) }

    /// Whether IPv6 reads what follows as one of its own headers, which an IPv4 payload of that number is not.
    static func isIPv6Extension(_ number: UInt8) -> Bool {
        number == hopByHop || number == routing || number == fragment || number == destinationOptions
    }

    /// Where the checksum over pseudo-header and payload is, and how long the header is at least; nil for protocols
    /// without one. DCCP's header is longer, but a first fragment may end before it does.
    @inline(__always)
    static func checksumField(_ number: UInt8) -> (offset: Int, minimumHeader: Int)? {
        if number == tcp { return (16, 20) }
        if number == udp || number == udpLite { return (6, 8) }
        if number == dccp { return (6, 8) }
        return nil
    }
}

/// Where a fragment lies in its packet.
struct Fragment: Equatable {
    /// In octets, a multiple of 8.
    var offset: Int
    /// More fragments follow.
    var more: Bool
    /// 16 bits in IPv4, 32 in IPv6.
    var identification: UInt32

    /// Offset 0 and no more: a whole packet under a Fragment header (RFC 6946).
    var isAtomic: Bool { offset == 0 && !more }

    /// MF and the offset as IPv4 writes them.
    var ipv4Field: UInt16 { UInt16(truncatingIfNeeded: offset / 8) | (more ? IPv4Header.moreFragments : 0) }
}

/// The fixed part of an IPv4 header (RFC 791 section 3.1).
///
///     0 version, IHL   1 TOS   2 total length   4 identification   6 flags, fragment offset
///     8 TTL   9 protocol   10 header checksum   12 source   16 destination
struct IPv4Header {
    static let size = 20
    static let dontFragment: UInt16 = 0x4000
    static let moreFragments: UInt16 = 0x2000

    /// Octets with options: 20 to 60.
    var headerLength = size
    var trafficClass: UInt8
    /// Octets, header included.
    var totalLength: Int
    var identification: UInt16
    /// DF, MF and the offset in units of 8 octets, as on the wire.
    var fragmentField: UInt16
    var ttl: UInt8
    var protocolNumber: UInt8
    var source: UInt32
    var destination: UInt32

    var isFragment: Bool { fragmentField & 0x3fff != 0 }
    var mayFragment: Bool { fragmentField & Self.dontFragment == 0 }
    var fragment: Fragment {
        Fragment(
            offset: Int(fragmentField & 0x1fff) * 8, more: fragmentField & Self.moreFragments != 0,
            identification: UInt32(identification))
    }
    /// Octets after the header.
    var payloadLength: Int { totalLength &- headerLength }
}

extension IPv4Header {
    /// Reads the header at the start of `bytes`; nil where it is cut off, not version 4, or its lengths contradict each
    /// other. Whether `totalLength` octets are there is for the caller: in ICMP errors they often are not.
    @inline(__always)
    init?(_ bytes: RawSpan) {
        guard bytes.byteCount >= Self.size else { return nil }
        let words = bytes.unsafeLoadUnaligned(fromByteOffset: 0, as: Words.self)
        let lengthWord = UInt32(bigEndian: words.0)
        headerLength = Int(lengthWord >> 24 & 15) &* 4
        totalLength = Int(lengthWord & 0xffff)
        guard lengthWord >> 28 == 4, headerLength >= Self.size, totalLength >= headerLength,
            bytes.byteCount >= headerLength
        else { return nil }
        trafficClass = UInt8(truncatingIfNeeded: lengthWord >> 16)
        let fragmentWord = UInt32(bigEndian: words.1)
        identification = UInt16(truncatingIfNeeded: fragmentWord >> 16)
        fragmentField = UInt16(truncatingIfNeeded: fragmentWord)
        let protocolWord = UInt32(bigEndian: words.2)
        ttl = UInt8(truncatingIfNeeded: protocolWord >> 24)
        protocolNumber = UInt8(truncatingIfNeeded: protocolWord >> 16)
        source = UInt32(bigEndian: words.3)
        destination = UInt32(bigEndian: words.4)
    }

    /// Writes 20 octets, the checksum among them.
    @inline(__always)
    func store(into bytes: inout MutableRawSpan, at offset: Int) {
        let lengthWord = 0x4500_0000 | UInt32(trafficClass) << 16 | UInt32(truncatingIfNeeded: totalLength & 0xffff)
        let fragmentWord = UInt32(identification) << 16 | UInt32(fragmentField)
        let protocolWord = UInt32(ttl) << 24 | UInt32(protocolNumber) << 16
        let sum =
            UInt64(lengthWord) &+ UInt64(fragmentWord) &+ UInt64(protocolWord) &+ UInt64(source) &+ UInt64(destination)
        let checksum = UInt32(~Checksum.fold(sum))
        let words: Words = (
            lengthWord.bigEndian, fragmentWord.bigEndian, (protocolWord | checksum).bigEndian, source.bigEndian,
            destination.bigEndian
        )
        bytes.storeBytes(of: words, toByteOffset: offset, as: Words.self)
    }

    private typealias Words = (UInt32, UInt32, UInt32, UInt32, UInt32)

    /// Whether the options hold a loose or strict source route with hops left (RFC 791 section 3.1): type, length, pointer
    /// to the next hop (from 1). `options` are the octets after the fixed part. Broken options end the search.
    static func asksForSourceRoute(_ options: RawSpan) -> Bool {
        var offset = 0
        while offset < options.byteCount {
            let type = Int32(options.load8(offset))
            if type == IPOPT_EOL { return false }
            if type == IPOPT_NOP {
                offset += 1
                continue
            }
            guard offset + 1 < options.byteCount else { return false }
            let length = Int(options.load8(offset + 1))
            guard length >= 2, offset + length <= options.byteCount else { return false }
            if type == IPOPT_LSRR || type == IPOPT_SSRR {
                if length >= 3, options.load8(offset + 2) <= length { return true }
            }
            offset += length
        }
        return false
    }
}

/// An IPv6 header (RFC 8200 section 3).
///
///     0 version, traffic class, flow label   4 payload length   6 next header   7 hop limit   8 source   24 destination
struct IPv6Header {
    static let size = 40
    static let fragmentHeaderSize = 8

    var trafficClass: UInt8
    /// Octets after this header.
    var payloadLength: Int
    var nextHeader: UInt8
    var hopLimit: UInt8
    var sourceHigh: UInt64
    var sourceLow: UInt64
    var destinationHigh: UInt64
    var destinationLow: UInt64

    /// Unspecified, loopback or multicast (RFC 4291 sections 2.5.2, 2.5.3 and 2.7).
    var isSourceIllegal: Bool { sourceHigh == 0 && sourceLow <= 1 || sourceHigh >> 56 == 0xff }

    /// In fe80::/10.
    var isSourceLinkLocal: Bool { sourceHigh >> 54 == 0xfe80 >> 6 }

    /// The words of both addresses, not yet folded.
    var addressWords: UInt64 {
        Checksum.words(sourceHigh, sourceLow) &+ Checksum.words(destinationHigh, destinationLow)
    }
}

extension IPv6Header {
    /// Reads the header at the start of `bytes`; nil where it is cut off or not version 6.
    @inline(__always)
    init?(_ bytes: RawSpan) {
        guard bytes.byteCount >= Self.size else { return nil }
        let words = bytes.unsafeLoadUnaligned(fromByteOffset: 0, as: Words.self)
        let first = UInt64(bigEndian: words.0)
        guard first >> 60 == 6 else { return nil }
        trafficClass = UInt8(truncatingIfNeeded: first >> 52)
        payloadLength = Int(first >> 16 & 0xffff)
        nextHeader = UInt8(truncatingIfNeeded: first >> 8)
        hopLimit = UInt8(truncatingIfNeeded: first)
        sourceHigh = UInt64(bigEndian: words.1)
        sourceLow = UInt64(bigEndian: words.2)
        destinationHigh = UInt64(bigEndian: words.3)
        destinationLow = UInt64(bigEndian: words.4)
    }

    /// Writes 40 octets, the flow label zero.
    @inline(__always)
    func store(into bytes: inout MutableRawSpan, at offset: Int) {
        let length = UInt64(truncatingIfNeeded: payloadLength & 0xffff)
        let first = 6 << 60 | UInt64(trafficClass) << 52 | length << 16 | UInt64(nextHeader) << 8 | UInt64(hopLimit)
        let words: Words = (
            first.bigEndian, sourceHigh.bigEndian, sourceLow.bigEndian, destinationHigh.bigEndian,
            destinationLow.bigEndian
        )
        bytes.storeBytes(of: words, toByteOffset: offset, as: Words.self)
    }

    private typealias Words = (UInt64, UInt64, UInt64, UInt64, UInt64)
}

extension Fragment {
    /// Reads a Fragment header (RFC 8200 section 4.5) at the start of `bytes`, which holds its 8 octets.
    init(_ bytes: RawSpan) {
        let field = bytes.load16(2)
        offset = Int(field & 0xfff8)
        more = field & 1 != 0
        identification = bytes.load32(4)
    }

    /// Writes 8 octets.
    func store(nextHeader: UInt8, into bytes: inout MutableRawSpan, at position: Int) {
        bytes.store16(UInt16(nextHeader) << 8, position)
        bytes.store16(UInt16(truncatingIfNeeded: offset & 0xfff8) | (more ? 1 : 0), position + 2)
        bytes.store32(identification, position + 4)
    }
}
