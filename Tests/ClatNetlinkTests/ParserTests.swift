import ClatBase
import Testing

@testable import ClatNetlink

@Suite("A notice")
struct ParserTests {
    func list(_ text: String) throws -> [Notice] {
        list(try hex(text))
    }

    func list(_ octets: [UInt8]) -> [Notice] {
        Notice.list(octets.span.bytes)
    }

    @Test("is read for all that it says")
    func golden() throws {
        #expect(try list(GoldenNotices.link) == [.link(GoldenNotices.linkValue, removed: false)])
        #expect(try list(GoldenNotices.address) == [.address(try GoldenNotices.addressValue(), removed: false)])
        #expect(try list(GoldenNotices.peerAddress) == [.address(try GoldenNotices.peerAddressValue(), removed: true)])
        #expect(try list(GoldenNotices.route) == [.route(try GoldenNotices.routeValue(), removed: false)])
        #expect(
            try list(GoldenNotices.multipathRoute) == [.route(try GoldenNotices.multipathRouteValue(), removed: true)])
        #expect(try list(GoldenNotices.neighbour) == [.neighbour(try GoldenNotices.neighbourValue(), removed: false)])
    }

    @Test("is read after another in one datagram")
    func several() throws {
        let notices = try list(GoldenNotices.all.joined(separator: "\n"))
        #expect(notices.count == 6)
        #expect(notices.last == .neighbour(try GoldenNotices.neighbourValue(), removed: false))
    }

    @Test(
        "of another family or type is passed over",
        arguments: [
            // RTM_DELLINK of AF_BRIDGE: a port has left its bridge; the link lives.
            "2800 0000 1100 0000 00000000 00000000  07 00 0100 07000000 00000000 00000000  0800 0300 77616e00",
            // RTM_NEWLINK with IFLA_WIRELESS: Wi-Fi has ended a scan; MTU and state are as they were.
            """
            3000 0000 1000 0000 00000000 00000000  00 00 0100 07000000 43100100 00000000  0800 0300 776c6e00
            0800 0b00 0800 198b
            """,
            // RTM_NEWADDR of family 28.
            "1800 0000 1400 0000 00000000 00000000  1c 40 00 00 07000000",
            // RTM_NEWROUTE of family 28, AF_MPLS.
            "1c00 0000 1800 0000 00000000 00000000  1c 14 00 00 fe 04 00 01 00000000",
            // RTM_NEWNEIGH of AF_BRIDGE: a line of a forwarding table.
            "1c00 0000 1c00 0000 00000000 00000000  07 00 0000 07000000 8000 00 00",
            // NLMSG_NOOP.
            "1000 0000 0100 0000 00000000 00000000",
            // RTM_NEWRULE.
            "1000 0000 2000 0000 00000000 00000000",
            "",
        ])
    func passedOver(_ text: String) throws {
        #expect(try list(text) == [])
    }

    @Test("of wireless extensions tells of an access point that a station has associated with")
    func associated() throws {
        let text = """
            4000 0000 1000 0000 00000000 00000000  00 00 0100 07000000 43100100 00000000  0800 0300 776c6e00
            1800 0b00 1400 158b 0100 020000000100 0000000000000000
            """
        #expect(try list(text) == [.associated(index: 7)])
        let short = """
            2e00 0000 1000 0000 00000000 00000000  00 00 0100 07000000 43100100 00000000  0800 0300 776c6e00
            0600 0b00 0800 0000
            """
        #expect(try list(short) == [.malformed(type: 16, .truncated(needed: 4, available: 2))])
    }

    @Test("that says NLMSG_OVERRUN is an overrun")
    func overrun() throws {
        #expect(try list("1000 0000 0400 0000 00000000 00000000") == [.overrun])
    }

    @Test(
        "that is malformed is told and counted, never believed",
        arguments: [
            ("less than a header", "1000 0000 1400", 0, .truncated(needed: 16, available: 6)),
            (
                "a length below the header's", "0f00 0000 1400 0000 00000000 00000000", 0,
                .length(15, available: 16)
            ),
            (
                "a length beyond the datagram", "1100 0000 1400 0000 00000000 00000000", 0,
                .length(17, available: 16)
            ),
            (
                "the largest length", "ffff ffff 1400 0000 00000000 00000000", 0,
                .length(0xffff_ffff, available: 16)
            ),
            (
                "a link of half a header", "1800 0000 1000 0000 00000000 00000000  00 00 0100 07000000", 16,
                .truncated(needed: 16, available: 8)
            ),
            (
                "a link without a name",
                "2000 0000 1000 0000 00000000 00000000  00 00 0100 07000000 00000000 00000000", 16,
                .value("a link without a name")
            ),
            (
                "an attribute length below its header's",
                "2400 0000 1000 0000 00000000 00000000  00 00 0100 07000000 00000000 00000000  0300 0300", 16,
                .length(3, available: 4)
            ),
            (
                "an attribute beyond the message",
                "2400 0000 1000 0000 00000000 00000000  00 00 0100 07000000 00000000 00000000  0800 0300", 16,
                .length(8, available: 4)
            ),
            (
                "an MTU of two octets",
                "2800 0000 1000 0000 00000000 00000000  00 00 0100 07000000 00000000 00000000  0600 0400 dc050000", 16,
                .truncated(needed: 4, available: 2)
            ),
            (
                "a nested attribute beyond its nest",
                "2800 0000 1000 0000 00000000 00000000  00 00 0100 07000000 00000000 00000000  0800 1280 0900 0100", 16,
                .length(9, available: 4)
            ),
            (
                "an address of no octets", "1800 0000 1400 0000 00000000 00000000  0a 40 00 00 07000000", 20,
                .value("no address")
            ),
            (
                "an IPv6 address of four octets",
                "2000 0000 1400 0000 00000000 00000000  0a 40 00 00 07000000  0800 0100 c0000001", 20,
                .truncated(needed: 16, available: 4)
            ),
            (
                "an IPv4 prefix of 33 bits",
                "2000 0000 1400 0000 00000000 00000000  02 21 00 00 07000000  0800 0100 c0000001", 20,
                .value("prefix length 33")
            ),
            (
                "a route to 129 bits", "1c00 0000 1800 0000 00000000 00000000  0a 81 00 00 fe 04 00 01 00000000", 24,
                .value("prefix length 129")
            ),
            (
                "a via of one octet",
                "2400 0000 1800 0000 00000000 00000000  02 00 00 00 fe 04 00 01 00000000  0500 1200 0a 000000", 24,
                .truncated(needed: 2, available: 1)
            ),
            (
                "a via of four octets that says IPv6",
                "2800 0000 1800 0000 00000000 00000000  02 00 00 00 fe 04 00 01 00000000  0a00 1200 0a00 c0000001 0000",
                24, .truncated(needed: 16, available: 4)
            ),
            (
                "a next hop shorter than its header",
                "2800 0000 1800 0000 00000000 00000000  02 00 00 00 fe 04 00 01 00000000  0c00 0900 0700 00 00 07000000",
                24, .length(7, available: 8)
            ),
            (
                "a next hop longer than its list",
                "2800 0000 1800 0000 00000000 00000000  02 00 00 00 fe 04 00 01 00000000  0c00 0900 0900 00 00 07000000",
                24, .length(9, available: 8)
            ),
            (
                "a neighbour without an address",
                "1c00 0000 1c00 0000 00000000 00000000  0a 00 0000 07000000 8000 00 00", 28,
                .value("a neighbour without an address")
            ),
        ] as [(String, String, Int, MalformedMessage)])
    func malformed(_ name: String, _ text: String, _ type: Int, _ reason: MalformedMessage) throws {
        #expect(try list(text) == [.malformed(type: type, reason)])
    }

    @Test("cut short at any octet is malformed, or says less")
    func truncated() throws {
        for golden in GoldenNotices.all {
            let whole = try hex(golden)
            for count in 1..<whole.count {
                #expect(list(Array(whole[..<count])).allSatisfy { $0.isMalformed })
                var cut = Array(whole[..<count])
                guard count >= 16 else { continue }
                (cut[0], cut[1]) = (UInt8(count & 0xff), UInt8(count >> 8))
                #expect(list(cut).count == 1)
            }
        }
    }

    @Test("with random octets changed is read or refused, ten thousand times, and its neighbours stay readable")
    func mutated() throws {
        let messages = try GoldenNotices.all.map(hex)
        let tail = try hex(GoldenNotices.neighbour)
        let intact = Notice.neighbour(try GoldenNotices.neighbourValue(), removed: false)
        var random = SplitMix64(state: 464)
        var refused = 0
        for _ in 0..<10_000 {
            var bytes = messages[Int(random.next() % UInt64(messages.count))]
            for _ in 0...(random.next() % 4) {
                // All but the message's own length, so that what comes after it can be found.
                let offset = 4 + Int(random.next() % UInt64(bytes.count - 4))
                bytes[offset] = random.next() % 2 == 0 ? UInt8(truncatingIfNeeded: random.next()) : 0xff
            }
            let notices = list(bytes + tail)
            #expect(notices.last == intact)
            if notices.first?.isMalformed == true { refused += 1 }
        }
        // Neither all nor none, or the mutations are not worth their name.
        #expect((500...9_500).contains(refused))
    }

    @Test("of nothing but random octets is read or refused")
    func noise() {
        var random = SplitMix64(state: 1)
        for _ in 0..<2_000 {
            let bytes = (0..<random.next() % 200).map { _ in UInt8(truncatingIfNeeded: random.next()) }
            #expect(list(bytes).count <= bytes.count / 16 + 1)
        }
    }
}

extension Notice {
    fileprivate var isMalformed: Bool {
        if case .malformed = self { true } else { false }
    }
}

/// A small generator with a seed (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
struct SplitMix64: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var value = state
        value = (value ^ value >> 30) &* 0xbf58_476d_1ce4_e5b9
        value = (value ^ value >> 27) &* 0x94d0_49bb_1331_11eb
        return value ^ value >> 31
    }
}
