import ClatBase
import ClatTranslator
import Testing

@testable import ClatAgent

private let second = IPv6Address(high: 0xfe80_0000_0000_0000, low: 2)
private let otherPREF64 = pref64.replacing("0064", with: "0065")
/// A router that is no default router.
private let noRouter = header.replacing("07 08", with: "00 00")

@Suite("Of several routers and their words")
struct SelectionTests {
    private func started(_ options: String = prefix1 + pref64) throws -> World {
        var world = World()
        try world.happen(.link(ethernet(2)))
        try world.happen(.advertisement(try parse(header + options), uplink: 2))
        return world
    }

    private func used(_ world: World) -> [String?] {
        [
            world.uplink(2)?.standing.translator?.mappings.first?.pref64.description,
            world.uplink(2)?.standing.routing?.router.description,
        ]
    }

    @Test("a router that ceases to be a default router gives way to one that is, with that one's PREF64, and for good")
    func defaultRouter() throws {
        var world = try started()
        try world.happen(.advertisement(try parse(header + prefix1 + otherPREF64, from: second), uplink: 2))
        #expect(used(world) == ["2001:db8:64::/96", "fe80::1"])
        try world.happen(.advertisement(try parse(noRouter), uplink: 2))
        #expect(used(world) == ["2001:db8:65::/96", "fe80::2"])
        #expect(
            world.choices.last == "PREF64 2001:db8:65::/96 from router fe80::2, as router fe80::1 is no default router")
        let machine = try #require(world.uplink(2))
        #expect(try machine.knowledge.pref64s.why(#require(machine.entry)) == "which leads there")
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        #expect(used(world) == ["2001:db8:65::/96", "fe80::2"])
        // The same where its lifetime runs out untold, while its PREF64 goes on.
        let lasting = "07 08", long = "fff8"
        world = try started(prefix1 + pref64.replacing(lasting, with: long))
        let prefix = prefix1.replacing("00000e10 00000708", with: "ffffffff ffffffff")
        let options = prefix + otherPREF64.replacing(lasting, with: long)
        try world.happen(
            .advertisement(try parse(header.replacing(lasting, with: "7e 90") + options, from: second), uplink: 2))
        try world.pass(.seconds(1799))
        #expect(used(world) == ["2001:db8:64::/96", "fe80::1"])
        try world.pass(.seconds(2))
        #expect(used(world) == ["2001:db8:65::/96", "fe80::2"])
    }

    @Test("packets are handed to the router of the moment, but for a PREF64 that may be on the link itself")
    func nextHop() throws {
        var world = try started()
        let first = try #require(world.uplink(2)?.standing)
        #expect(first.translator?.nextHop == router)
        let prefix2 = prefix1.replacing("20010db80001", with: "20010db80002")
        try world.happen(.advertisement(try parse(header + prefix2 + pref64, from: second), uplink: 2))
        // The other's prefix is another, and an address of it not at hand: what stands must go by that router meanwhile.
        world.dad = { _ in nil }
        world.steps = []
        try world.happen(.advertisement(try parse(noRouter), uplink: 2))
        #expect(world.steps.map(\.name) == [.setRouting, .updateTranslator, .addAddress])
        #expect(world.uplink(2)?.standing.translator?.mappings == first.translator?.mappings)
        #expect(world.uplink(2)?.standing.translator?.nextHop == second)

        let within = pref64.replacing("00640000 00000000", with: "00010000 00000064")
        world = try started(prefix1 + within)
        #expect(used(world) == ["2001:db8:1::64:0:0/96", "fe80::1"])
        #expect(world.uplink(2)?.standing.translator?.nextHop == nil)
    }

    @Test("a PREF64 of a router that is no default router serves where there is no other")
    func onlyOne() throws {
        var world = try started(prefix1)
        try world.happen(.advertisement(try parse(noRouter + otherPREF64, from: second), uplink: 2))
        #expect(used(world) == ["2001:db8:65::/96", "fe80::1"])
        // RFC 4191 section 2.2: the preference of one that is none says nothing.
        try world.happen(.advertisement(try parse(noRouter.replacing("40 00 00", with: "40 08 00")), uplink: 2))
        #expect(world.uplink(2)?.knowledge.routers.first?.preference == .medium)
    }

    @Test("what an advertisement leaves out stays: MTU and Ethernet address, but not of what may be another router")
    func leftOut() throws {
        let options = "05 01 0000 00000578" + "01 01 020000000001"
        var world = try started(prefix1 + pref64 + options)
        func told() -> [Int?] {
            let router = world.uplink(2)?.knowledge.routers.first
            return [router?.mtu, router?.hardwareAddress == nil ? nil : 6, world.uplink(2)?.target?.route?.mtu]
        }
        #expect(told() == [1400, 6, 1380])
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        #expect(told() == [1400, 6, 1380])
        try world.pass(.seconds(60))
        try world.happen(.associated(uplink: 2))
        try world.happen(
            .advertisement(
                try parse(header + prefix1.replacing("20010db80001", with: "20010db80002") + pref64), uplink: 2))
        #expect(told() == [nil, nil, 1480])
    }

    private func pref64s(_ range: Range<Int>) -> [PREF64] {
        range.compactMap { PREF64("2001:db8:\(String($0, radix: 16)):0::/96") }
    }

    @Test("neither a resolver nor a router fills the table, and better sources find room in a full one")
    func full() throws {
        let now = BootInstant(nanoseconds: 1)
        let end = now + .seconds(600)
        var table = PREF64Table()
        for resolver in 0..<UInt64(12) {
            table.hear(pref64s(0..<40), fromResolver: IPv6Address(high: 1, low: resolver), until: end, now: now)
        }
        #expect(table.entries.count == PREF64Table.capacity)
        #expect(table.entries.filter { $0.resolver == IPv6Address(high: 1, low: 0) }.map(\.prefix) == pref64s(0..<4))
        var told = try parse(header)
        told.pref64s = pref64s(100..<200).map { .init(prefix: $0, lifetime: 1800) }
        table.hear(told, now: now)
        #expect(table.entries.filter { $0.router == router }.map(\.prefix) == pref64s(100..<108))
        #expect(table.choose(current: nil)?.source == .router(router))
        table.configure(.wellKnown)
        #expect(table.choose(current: nil)?.source == .configuration)
        #expect(table.entries.count == PREF64Table.capacity)
        // Of equals the first stay.
        for low in 2..<UInt64(9) {
            told.router = IPv6Address(high: 0xfe80_0000_0000_0000, low: low)
            table.hear(told, now: now)
        }
        #expect(table.entries.count == PREF64Table.capacity && table.entries.allSatisfy { $0.resolver == nil })
        #expect(table.entries.filter { $0.router == router }.count == 8)
    }

    @Test("an answer of thousands of prefixes is read in an instant, and four of them are kept")
    func longAnswer() throws {
        let addresses = pref64s(0..<2300).map { $0.embed(IPv4Address(192, 0, 0, 170)) }
        let clock = ContinuousClock()
        var outcome: DNSOutcome?
        let answer = DNSAnswer(code: 0, addresses: addresses, lifetime: 600)
        let taken = clock.measure { outcome = DNSOutcome(answer) }
        #expect(outcome == .prefixes(pref64s(0..<4), lifetime: 600))
        #expect(taken < .seconds(1))
    }

    @Test("an old address drains through the present PREF64, where its own is told no longer")
    func drains() throws {
        var world = try started()
        let second = prefix1.replacing("20010db80001", with: "20010db80002")
        let deprecated = prefix1.replacing("00000708 00000000", with: "00000000 00000000")
        try world.happen(.advertisement(try parse(header + deprecated + second + pref64 + otherPREF64), uplink: 2))
        func mappings() -> [String] {
            (world.uplink(2)?.standing.translator?.mappings ?? []).map { "\($0.ipv4) \($0.pref64)" }
        }
        #expect(mappings() == ["192.0.0.2 2001:db8:64::/96", "192.0.0.1 2001:db8:64::/96"])
        try world.happen(.advertisement(try parse(header + pref64.replacing("07 08", with: "0000")), uplink: 2))
        #expect(mappings() == ["192.0.0.2 2001:db8:65::/96", "192.0.0.1 2001:db8:65::/96"])
        try world.pass(.seconds(60))
        #expect(mappings().count == 2 && world.uplink(2)?.reason.state == .on)
    }

    @Test("a router that says that it leads there goes before default routers, by the longest prefix, while it says so")
    func routes() throws {
        let wide = "18 02 20 08 00000708 20010db800000000",
            narrow = "18 03 60 00 00000258 20010db8006400000000000000000000"
        // Nobody's default router, but it knows the way.
        var world = World()
        try world.happen(.link(ethernet(2)))
        try world.happen(.advertisement(try parse(noRouter + prefix1 + pref64, from: second), uplink: 2))
        #expect(world.uplink(2)?.reason == .noRouter)
        try world.happen(.advertisement(try parse(noRouter + narrow, from: second), uplink: 2))
        #expect(used(world) == ["2001:db8:64::/96", "fe80::2"])
        #expect(world.uplink(2)?.reason.state == .on)
        // The first one is a default router, and has a wider route of higher preference.
        try world.happen(.advertisement(try parse(header + prefix1 + pref64 + wide), uplink: 2))
        #expect(used(world) == ["2001:db8:64::/96", "fe80::2"])
        try world.pass(.seconds(601))
        #expect(used(world) == ["2001:db8:64::/96", "fe80::1"])
        try world.happen(.advertisement(try parse(noRouter + narrow, from: second), uplink: 2))
        #expect(used(world) == ["2001:db8:64::/96", "fe80::2"])
        try world.happen(
            .advertisement(
                try parse(noRouter + narrow.replacing("00000258", with: "00000000"), from: second), uplink: 2))
        #expect(used(world) == ["2001:db8:64::/96", "fe80::1"])
        for number in 0..<40 {
            let other = narrow.replacing("db80064", with: "db81\(number + 100)")
            try world.happen(.advertisement(try parse(noRouter + other, from: second), uplink: 2))
        }
        #expect(world.uplink(2)?.knowledge.routes.count == LinkKnowledge.routeCapacity)
        #expect(world.uplink(2)?.refused[.noRoom] == 9)
    }

    @Test(
        "who says that it leads to ::/0 is a default router like others, of the preference and for the time it says there"
    )
    func defaultRoute() throws {
        let low = "18 01 00 18 00000708", high = "18 01 00 08 00000708"
        var world = try started()
        try world.happen(.advertisement(try parse(header + low, from: second), uplink: 2))
        #expect(used(world) == ["2001:db8:64::/96", "fe80::1"], "who told the PREF64 is used")
        let withdrawn = "18 01 00 00 00000000", short = "18 01 00 00 0000003c"
        try world.happen(.advertisement(try parse(header + withdrawn), uplink: 2))
        #expect(used(world) == ["2001:db8:64::/96", "fe80::2"], "it is no default router any more")
        try world.happen(.advertisement(try parse(noRouter + short), uplink: 2))
        #expect(used(world) == ["2001:db8:64::/96", "fe80::1"])
        try world.pass(.seconds(61))
        #expect(used(world) == ["2001:db8:64::/96", "fe80::2"])
        // By DNS nobody in particular has told it.
        let told = try #require(PREF64("2001:db8:64::/96"))
        for (route, next) in [(low, "fe80::1"), (high, "fe80::2"), ("18 01 00 00 ffffffff", "fe80::2")] {
            world = World()
            world.resolve = { _ in .prefixes([told], lifetime: 600) }
            try world.happen(.link(ethernet(2)))
            try world.happen(
                .address(HostAddress(index: 2, value: .v6(IPv6Address(high: 0x2001_0db8_0001_0000, low: 9)))))
            try world.happen(.advertisement(try parse(header + route, from: second), uplink: 2))
            let resolver = "19 03 0000 ffffffff 20010db8000100000000000000000053"
            try world.happen(.advertisement(try parse(header + prefix1 + resolver), uplink: 2))
            #expect(used(world) == ["2001:db8:64::/96", next])
        }
    }

    @Test("that every address is on the link is not believed")
    func allOnLink() throws {
        let everything = "03 04 00 80 00000001 00000001 00000000" + " 00000000000000000000000000000000"
        var world = try started()
        let before = world.uplink(2)?.standing.routing
        try world.happen(.advertisement(try parse(header + everything, from: second), uplink: 2))
        #expect(world.uplink(2)?.standing.routing == before && before?.onLink.count == 1)
    }

    @Test("what is told besides is taken from, as long as it is told")
    func inbound() throws {
        var world = try started(prefix1 + pref64 + otherPREF64)
        func inbound() -> [String]? { world.uplink(2)?.standing.translator?.inboundPREF64s.map(\.description) }
        #expect(inbound() == ["2001:db8:65::/96"])
        try world.happen(.advertisement(try parse(header + prefix1 + pref64 + otherPREF64, from: second), uplink: 2))
        #expect(inbound() == ["2001:db8:65::/96"])
        try world.happen(.advertisement(try parse(noRouter), uplink: 2))
        try world.happen(
            .advertisement(try parse(header + pref64.replacing("07 08", with: "0000"), from: second), uplink: 2))
        #expect(used(world) == ["2001:db8:65::/96", "fe80::2"])
        #expect(inbound() == ["2001:db8:64::/96"])
        try world.happen(.advertisement(try parse(noRouter + pref64.replacing("07 08", with: "0000")), uplink: 2))
        #expect(inbound() == [])
    }

    @Test("a /96 whose bits 64 to 71 are not zero is taken, and the log says that they should be")
    func reservedOctet() throws {
        let world = try started(prefix1 + "26 02 07 08 20010db8 00640000 01000000")
        #expect(
            world.choices == [
                "PREF64 2001:db8:64:0:100::/96 (whose bits 64 to 71 should be zero) from router fe80::1"
            ])
        #expect(world.uplink(2)?.reason.state == .on)
    }
}
