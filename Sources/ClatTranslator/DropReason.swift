/// Why a packet was not translated. Each has a counter in `TranslatorCounters`.
public enum DropReason: Int, CaseIterable, Sendable {
    /// The buffer has too little room before the packet.
    case noHeadroom
    /// The frame is shorter than its headers.
    case frameTruncated
    /// The packet is neither IPv4 nor IPv6.
    case versionUnknown
    /// The offload request of the kernel does not fit the packet.
    case offloadInvalid
    /// The IPv4 header contradicts itself or the packet's length.
    case ipv4HeaderInvalid
    /// The IPv4 header checksum is wrong.
    case ipv4ChecksumWrong
    /// The IPv4 source is not the address of this CLAT.
    case sourceNotOurs
    /// The IPv4 destination is this CLAT's own address.
    case destinationOwn
    /// The IPv4 destination is multicast.
    case destinationMulticast
    /// The IPv4 destination is in a block that is never forwarded.
    case destinationReserved
    /// The IPv4 destination is in 192.0.0.0/29 or is 192.0.0.8, which are local to hosts.
    case destinationContinuity
    /// A private IPv4 address would stand under 64:ff9b::/96, which is switched off.
    case privateUnderWellKnown
    /// The IPv4 packet asks for a source route.
    case sourceRoute
    /// The IPv4 packet's time to live ran out.
    case ttlExpired
    /// The IPv4 packet is too big for the uplink and must not be fragmented.
    case ipv4TooBig
    /// The protocol number means something else in the other IP version.
    case protocolUntranslatable
    /// IGMP has no translation.
    case igmp
    /// The IPv6 header contradicts the packet's length.
    case ipv6HeaderInvalid
    /// The IPv6 destination is not an address of this CLAT.
    case destinationNotOurs
    /// The IPv6 source is unspecified, loopback, multicast or link-local.
    case sourceIllegal
    /// The IPv4 address in the IPv6 source cannot be a source.
    case sourceIPv4Illegal
    /// The IPv4 address in the IPv6 source is this CLAT's own: a forgery.
    case sourceOwn
    /// The IPv6 source is not in the PREF64.
    case sourceOutside
    /// An ICMPv6 message that is no error came from outside the PREF64.
    case nativeICMPv6
    /// An IPv6 extension header runs past the packet's end.
    case extensionHeaderInvalid
    /// The IPv6 packet has a Routing header with segments left.
    case routingHeader
    /// The IPv6 packet's hop limit ran out.
    case hopLimitExpired
    /// The IPv6 packet is too big for the host's side.
    case ipv6TooBig
    /// The translated packet would be longer than its length field can say.
    case resultTooLong
    /// An extension header follows the Fragment header.
    case fragmentExtension
    /// The fragment's place and length are impossible.
    case fragmentInvalid
    /// The fragment has come before.
    case fragmentDuplicate
    /// Fragments of one packet overlap.
    case reassemblyOverlap
    /// Fragments waited for the rest of their packet in vain.
    case reassemblyTimeout
    /// Fragments gave way to newer ones: the room for reassembly is full.
    case reassemblyNoRoom
    /// The packet ends within its transport header.
    case transportTruncated
    /// The UDP length contradicts the packet's length.
    case udpLengthInvalid
    /// The UDP packet from IPv6 has no checksum.
    case udpChecksumZero
    /// Neighbor Discovery is the kernel's.
    case neighborDiscovery
    /// Multicast Listener Discovery is the kernel's.
    case multicastListener
    /// The ICMP type has no translation.
    case icmpType
    /// The ICMP code has no translation.
    case icmpCode
    /// The ICMP parameter pointer has no translation.
    case icmpPointer
    /// The checksum of the ICMP error is wrong.
    case icmpChecksumWrong
    /// A Packet Too Big names an MTU below 1280.
    case pathMTUTooSmall
    /// The packet in an ICMP error is broken.
    case embeddedInvalid
    /// The packet in an ICMP error was not sent by this CLAT.
    case embeddedNotOurs
    /// The packet in an ICMP error has no translation.
    case embeddedUntranslatable

    /// A word for programs; it does not change.
    public var code: String { text.code }

    /// A sentence for people.
    public var sentence: String { text.sentence }

    private var text: (code: String, sentence: String) {
        switch self {
        case .noHeadroom: ("no-headroom", "The buffer has too little room before the packet.")
        case .frameTruncated: ("frame-truncated", "The frame is shorter than its headers.")
        case .versionUnknown: ("version-unknown", "The packet is neither IPv4 nor IPv6.")
        case .offloadInvalid: ("offload-invalid", "The offload request of the kernel does not fit the packet.")
        case .ipv4HeaderInvalid: ("ipv4-header-invalid", "The IPv4 header contradicts itself or the packet's length.")
        case .ipv4ChecksumWrong: ("ipv4-checksum-wrong", "The IPv4 header checksum is wrong.")
        case .sourceNotOurs: ("source-not-ours", "The IPv4 source is not the address of this CLAT.")
        case .destinationOwn: ("destination-own", "The IPv4 destination is this CLAT's own address.")
        case .destinationMulticast: ("destination-multicast", "The IPv4 destination is multicast.")
        case .destinationReserved:
            ("destination-reserved", "The IPv4 destination is in a block that is never forwarded.")
        case .destinationContinuity:
            (
                "destination-continuity",
                "The IPv4 destination is in 192.0.0.0/29 or is 192.0.0.8, which are local to hosts."
            )
        case .privateUnderWellKnown:
            (
                "private-under-well-known",
                "A private IPv4 address would stand under 64:ff9b::/96, which is switched off."
            )
        case .sourceRoute: ("source-route", "The IPv4 packet asks for a source route.")
        case .ttlExpired: ("ttl-expired", "The IPv4 packet's time to live ran out.")
        case .ipv4TooBig: ("ipv4-too-big", "The IPv4 packet is too big for the uplink and must not be fragmented.")
        case .protocolUntranslatable:
            ("protocol-untranslatable", "The protocol number means something else in the other IP version.")
        case .igmp: ("igmp", "IGMP has no translation.")
        case .ipv6HeaderInvalid: ("ipv6-header-invalid", "The IPv6 header contradicts the packet's length.")
        case .destinationNotOurs: ("destination-not-ours", "The IPv6 destination is not an address of this CLAT.")
        case .sourceIllegal: ("source-illegal", "The IPv6 source is unspecified, loopback, multicast or link-local.")
        case .sourceIPv4Illegal: ("source-ipv4-illegal", "The IPv4 address in the IPv6 source cannot be a source.")
        case .sourceOwn: ("source-own", "The IPv4 address in the IPv6 source is this CLAT's own: a forgery.")
        case .sourceOutside: ("source-outside", "The IPv6 source is not in the PREF64.")
        case .nativeICMPv6: ("native-icmpv6", "An ICMPv6 message that is no error came from outside the PREF64.")
        case .extensionHeaderInvalid:
            ("extension-header-invalid", "An IPv6 extension header runs past the packet's end.")
        case .routingHeader: ("routing-header", "The IPv6 packet has a Routing header with segments left.")
        case .hopLimitExpired: ("hop-limit-expired", "The IPv6 packet's hop limit ran out.")
        case .ipv6TooBig: ("ipv6-too-big", "The IPv6 packet is too big for the host's side.")
        case .resultTooLong: ("result-too-long", "The translated packet would be longer than its length field can say.")
        case .fragmentExtension: ("fragment-extension", "An extension header follows the Fragment header.")
        case .fragmentInvalid: ("fragment-invalid", "The fragment's place and length are impossible.")
        case .fragmentDuplicate: ("fragment-duplicate", "The fragment has come before.")
        case .reassemblyOverlap: ("reassembly-overlap", "Fragments of one packet overlap.")
        case .reassemblyTimeout: ("reassembly-timeout", "Fragments waited for the rest of their packet in vain.")
        case .reassemblyNoRoom:
            ("reassembly-no-room", "Fragments gave way to newer ones: the room for reassembly is full.")
        case .transportTruncated: ("transport-truncated", "The packet ends within its transport header.")
        case .udpLengthInvalid: ("udp-length-invalid", "The UDP length contradicts the packet's length.")
        case .udpChecksumZero: ("udp-checksum-zero", "The UDP packet from IPv6 has no checksum.")
        case .neighborDiscovery: ("neighbor-discovery", "Neighbor Discovery is the kernel's.")
        case .multicastListener: ("multicast-listener", "Multicast Listener Discovery is the kernel's.")
        case .icmpType: ("icmp-type", "The ICMP type has no translation.")
        case .icmpCode: ("icmp-code", "The ICMP code has no translation.")
        case .icmpPointer: ("icmp-pointer", "The ICMP parameter pointer has no translation.")
        case .icmpChecksumWrong: ("icmp-checksum-wrong", "The checksum of the ICMP error is wrong.")
        case .pathMTUTooSmall: ("path-mtu-too-small", "A Packet Too Big names an MTU below 1280.")
        case .embeddedInvalid: ("embedded-invalid", "The packet in an ICMP error is broken.")
        case .embeddedNotOurs: ("embedded-not-ours", "The packet in an ICMP error was not sent by this CLAT.")
        case .embeddedUntranslatable: ("embedded-untranslatable", "The packet in an ICMP error has no translation.")
        }
    }
}
