import CLinux
import Glibc

/// An ICMP or ICMPv6 message: type, code, checksum, and a second word whose use depends on the type.
enum ICMPHeader {
    static let size = 8
    /// Version 2 Multicast Listener Report (RFC 3810 section 5.2), which netinet/icmp6.h lacks.
    static let mldv2Report: Int32 = 143

    /// The errors that have a translation, each with the start of a packet in it.
    static func isError(ipv4 type: UInt8) -> Bool {
        switch Int32(type) {
        case ICMP_DEST_UNREACH, ICMP_TIME_EXCEEDED, ICMP_PARAMETERPROB: true
        default: false
        }
    }

    /// Types below 128 (RFC 4443 section 2.1).
    static func isError(ipv6 type: UInt8) -> Bool { type < UInt8(ICMP6_INFOMSG_MASK) }

    /// Echo, timestamp, information and address mask, the types that an ICMP error may be about.
    static func isQuery(ipv4 type: UInt8) -> Bool {
        switch Int32(type) {
        case ICMP_ECHO, ICMP_ECHOREPLY, ICMP_TIMESTAMP...ICMP_ADDRESSREPLY: true
        default: false
        }
    }

    /// Writes a header before its content, which is there already; `sum` is what else goes into the checksum.
    static func store(
        _ type: UInt8, _ code: UInt8, _ second: UInt32, into bytes: inout MutableRawSpan, _ message: Range<Int>,
        plus sum: UInt64
    ) {
        bytes.store32(UInt32(type) << 24 | UInt32(code) << 16, message.lowerBound)
        bytes.store32(second, message.lowerBound + 4)
        let sum = UInt64(Checksum.sum(bytes.bytes.extracting(message))) + sum
        bytes.store16(~Checksum.fold(sum), message.lowerBound + 2)
    }
}

/// The head of an ICMP error in the other version.
struct ICMPErrorHeader: Equatable {
    /// What the second word holds.
    enum Rest: Equatable {
        case unused
        /// The MTU, to be computed.
        case mtu
        case pointer(UInt8)
    }
    var type: UInt8
    var code: UInt8
    var rest = Rest.unused

    init(_ type: Int32, _ code: Int32, _ rest: Rest = .unused) {
        (self.type, self.code, self.rest) = (UInt8(type), UInt8(code), rest)
    }

    /// The ICMPv6 error for an ICMP one (RFC 7915 section 4.2). `pointer` is the first octet of the second word.
    init(fromIPv4 type: UInt8, _ code: UInt8, pointer: UInt8) throws(Refusal) {
        switch Int32(type) {
        case ICMP_DEST_UNREACH:
            switch Int32(code) {
            case ICMP_NET_UNREACH, ICMP_HOST_UNREACH, ICMP_SR_FAILED, ICMP_NET_UNKNOWN, ICMP_HOST_UNKNOWN,
                ICMP_HOST_ISOLATED, ICMP_NET_UNR_TOS, ICMP_HOST_UNR_TOS:
                self.init(ICMP6_DST_UNREACH, ICMP6_DST_UNREACH_NOROUTE)
            case ICMP_PROT_UNREACH:
                self.init(ICMP6_PARAM_PROB, ICMP6_PARAMPROB_NEXTHEADER, .pointer(6))
            case ICMP_PORT_UNREACH: self.init(ICMP6_DST_UNREACH, ICMP6_DST_UNREACH_NOPORT)
            case ICMP_FRAG_NEEDED: self.init(ICMP6_PACKET_TOO_BIG, 0, .mtu)
            case ICMP_NET_ANO, ICMP_HOST_ANO, ICMP_PKT_FILTERED, ICMP_PREC_CUTOFF:
                self.init(ICMP6_DST_UNREACH, ICMP6_DST_UNREACH_ADMIN)
            default: throw Refusal(.icmpCode)
            }
        case ICMP_TIME_EXCEEDED:
            self.init(ICMP6_TIME_EXCEEDED, Int32(code))
        case ICMP_PARAMETERPROB:
            guard code == 0 || code == 2 else { throw Refusal(.icmpCode) }
            guard let pointer = Self.pointer(fromIPv4: pointer) else { throw Refusal(.icmpPointer) }
            self.init(ICMP6_PARAM_PROB, ICMP6_PARAMPROB_HEADER, .pointer(pointer))
        default: throw Refusal(.icmpType)
        }
    }

    /// The ICMP error for an ICMPv6 one (RFC 7915 section 5.2). `pointer` is the whole second word.
    init(fromIPv6 type: UInt8, _ code: UInt8, pointer: UInt32) throws(Refusal) {
        switch Int32(type) {
        case ICMP6_DST_UNREACH:
            switch Int32(code) {
            case ICMP6_DST_UNREACH_NOROUTE, ICMP6_DST_UNREACH_BEYONDSCOPE, ICMP6_DST_UNREACH_ADDR:
                self.init(ICMP_DEST_UNREACH, ICMP_HOST_UNREACH)
            case ICMP6_DST_UNREACH_ADMIN: self.init(ICMP_DEST_UNREACH, ICMP_HOST_ANO)
            case ICMP6_DST_UNREACH_NOPORT: self.init(ICMP_DEST_UNREACH, ICMP_PORT_UNREACH)
            default: throw Refusal(.icmpCode)
            }
        case ICMP6_PACKET_TOO_BIG: self.init(ICMP_DEST_UNREACH, ICMP_FRAG_NEEDED, .mtu)
        case ICMP6_TIME_EXCEEDED:
            self.init(ICMP_TIME_EXCEEDED, Int32(code))
        case ICMP6_PARAM_PROB:
            switch Int32(code) {
            case ICMP6_PARAMPROB_HEADER:
                guard let pointer = Self.pointer(fromIPv6: pointer) else { throw Refusal(.icmpPointer) }
                self.init(ICMP_PARAMETERPROB, 0, .pointer(pointer))
            case ICMP6_PARAMPROB_NEXTHEADER: self.init(ICMP_DEST_UNREACH, ICMP_PROT_UNREACH)
            default: throw Refusal(.icmpCode)
            }
        default: throw Refusal(.icmpType)
        }
    }

    /// RFC 7915 figure 3: version, TOS, length, TTL, protocol and addresses have counterparts.
    private static func pointer(fromIPv4 pointer: UInt8) -> UInt8? {
        switch pointer {
        case 0, 1: pointer
        case 2, 3: 4
        case 8: 7
        case 9: 6
        case 12...15: 8
        case 16...19: 24
        default: nil
        }
    }

    /// RFC 7915 figure 6.
    private static func pointer(fromIPv6 pointer: UInt32) -> UInt8? {
        switch pointer {
        case 0, 1: UInt8(pointer)
        case 4, 5: 2
        case 6: 9
        case 7: 8
        case 8...23: 12
        case 24...39: 16
        default: nil
        }
    }
}

/// Path MTUs across the translator (RFC 7915 sections 4.2 and 5.2).
enum PathMTU {
    /// RFC 1191 section 7.1; smaller ones are of no use to IPv6.
    private static func plateau(below length: Int) -> Int? {
        [65535, 32000, 17914, 8166, 4352, 2002, 1492].first { $0 < length }
    }

    /// For a Packet Too Big, from that of a Fragmentation Needed; 0 there means a router older than RFC 1191, and the
    /// embedded packet's length has to do.
    static func toIPv6(_ ipv4: UInt16, embeddedLength: Int, _ configuration: TranslatorConfiguration) -> UInt32 {
        let path = ipv4 == 0 ? plateau(below: embeddedLength) ?? 0 : Int(ipv4)
        return UInt32(max(1280, min(path + 20, configuration.ipv6MTU, configuration.ipv4MTU + 20)))
    }

    /// For a Fragmentation Needed, from that of a Packet Too Big. A packet that has a Fragment header on the IPv6 side is 28
    /// octets longer there. Below 1280 the message must not be believed (RFC 8201 section 4).
    static func toIPv4(
        _ ipv6: UInt32, embeddedIsFragment: Bool, _ configuration: TranslatorConfiguration
    ) throws(Refusal) -> UInt32 {
        guard ipv6 >= 1280 else { throw Refusal(.pathMTUTooSmall) }
        let gain = embeddedIsFragment ? 28 : 20
        return UInt32(
            min(Int(min(ipv6, 0x1_0000)) - gain, configuration.ipv4MTU, configuration.ipv6MTU - gain, 0xffff))
    }
}
