import ClatBase
import Testing

@testable import ClatTranslator

@Suite("Whole packets, octet by octet")
struct GoldenTests {
    static let udp4 = "45b800211234400040113daac0000001c63364019c400035000d355668656c6c6f"
    static let echo4 = "4500002400004000400150a3c0000001c63364010800eb77007700010001020304050607"

    @Test("UDP leaves with its checksum untouched from a checksum-neutral address")
    func neutralUDP() {
        var bench = Bench()
        #expect(
            bench.hex(octets(Self.udp4))
                == "6b800000000d113f20010db800010002a1b2c3d425a607180064ff9b0000000000000000c63364019c400035000d355668656c6c6f"
        )
    }

    @Test("UDP leaves with an adapted checksum from any other address")
    func plainUDP() {
        var mapping = Mapping.standard
        mapping.ipv6 = .text("2001:db8:1:2:a1b2:c3d4:e5f6:718")
        var bench = Bench(.init(mappings: [mapping], ipv6MTU: 1500))
        #expect(
            bench.hex(octets(Self.udp4))
                == "6b800000000d113f20010db800010002a1b2c3d4e5f607180064ff9b0000000000000000c63364019c400035000d750568656c6c6f"
        )
    }

    @Test("An echo request leaves with type 128 and a checksum over the pseudo-header")
    func echoRequest() {
        var bench = Bench()
        #expect(
            bench.hex(octets(Self.echo4))
                == "6000000000103a3f20010db800010002a1b2c3d425a607180064ff9b0000000000000000c6336401800088f6007700010001020304050607"
        )
    }

    @Test("An echo reply arrives with type 0, and DF clear because it is small")
    func echoReply() {
        var bench = Bench()
        #expect(
            bench.hex(
                octets(
                    "6000000000103a320064ff9b0000000000000000c633640120010db800010002a1b2c3d425a60718810087f6007700010001020304050607"
                )) == "450000240000000031019fa3c6336401c00000010000f377007700010001020304050607")
    }
}
