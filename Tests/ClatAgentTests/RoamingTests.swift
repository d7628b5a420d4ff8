import ClatBase
import ClatTranslator
import Testing

@testable import ClatAgent

private let second = IPv6Address(high: 0xfe80_0000_0000_0000, low: 2)
private let resolver = IPv6Address(high: 0x2001_0db8_0001_0000, low: 0x53)
private let rdnss = "19 03 0000 ffffffff 20010db8000100000000000000000053"
private let otherPrefix1 = prefix1.replacing("20010db80001", with: "20010db80002")
private let otherPREF64 = pref64.replacing("0064", with: "0065")
private let hostAddress = HostAddress(index: 2, value: .v6(IPv6Address(high: 0x2001_0db8_0001_0000, low: 9)))

/// What makes the agent think that it may be elsewhere.
private enum Hint: CaseIterable {
    case associated, keysAgreed, resumed

    func happen(in world: inout World) throws {
        var link = ethernet(2)
        switch self {
        case .associated: try world.happen(.associated(uplink: 2))
        case .keysAgreed:
            link.isOperational = false
            try world.happen(.link(link))
            link.isOperational = true
            try world.happen(.link(link))
        case .resumed: try world.happen(.resumed)
        }
    }
}

@Suite("A network that changes unseen")
struct RoamingTests {
    /// IPv4 is on by the first router.
    private func started(_ options: String = prefix1 + pref64) throws -> World {
        var world = World()
        try world.happen(.link(ethernet(2)))
        try world.happen(.advertisement(try parse(header + options), uplink: 2))
        try world.pass(.seconds(60))
        #expect(world.uplink(2)?.reason.state == .on)
        world.solicitations = []
        world.steps = []
        return world
    }

    private func used(_ world: World) -> [String] {
        guard let mapping = world.uplink(2)?.standing.translator?.mappings.first else { return [] }
        let prefix = IPv6Prefix(mapping.ipv6, length: 64)
        return [
            prefix?.description ?? "", mapping.pref64.description,
            world.uplink(2)?.standing.routing?.router.description ?? "",
        ]
    }

    @Test(
        "another router is the only one to answer: the old one's word is forgotten after 8 s", arguments: Hint.allCases)
    private func elsewhere(hint: Hint) throws {
        var world = try started()
        let start = world.now
        try hint.happen(in: &world)
        #expect(world.solicitations.last == start)
        try world.happen(.advertisement(try parse(header + otherPrefix1 + otherPREF64, from: second), uplink: 2))
        #expect(used(world) == ["2001:db8:1::/64", "2001:db8:64::/96", "fe80::1"])
        try world.pass(.milliseconds(7900))
        #expect(used(world) == ["2001:db8:1::/64", "2001:db8:64::/96", "fe80::1"])
        #expect(world.solicitations.last.map { $0 - start >= .seconds(4) } == true)
        try world.pass(.milliseconds(200))
        #expect(world.uplink(2)?.reason.state == .on)
        #expect(used(world) == ["2001:db8:2::/64", "2001:db8:65::/96", "fe80::2"])
        #expect(world.uplink(2)?.knowledge.routers.map(\.address) == [second])
        #expect(world.kernel.places[2]?.addresses.count == 1)
    }

    @Test("the same network is left as it is, with one question", arguments: Hint.allCases)
    private func same(hint: Hint) throws {
        var world = try started()
        try hint.happen(in: &world)
        let asked = world.solicitations.count
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        try world.pass(.seconds(60))
        #expect(world.uplink(2)?.knowledge.doubt == nil)
        #expect(world.solicitations.count == asked)
        // A switch or access point is told of the address again.
        #expect(world.steps.map(\.name) == [.announce])
    }

    @Test("a router of the same address and other prefixes is another router")
    func sameAddress() throws {
        var world = try started()
        try world.happen(.associated(uplink: 2))
        try world.happen(.advertisement(try parse(header + otherPrefix1 + otherPREF64), uplink: 2))
        try world.pass(.seconds(5))
        // The answer to the second question.
        try world.happen(.advertisement(try parse(header + otherPrefix1 + otherPREF64), uplink: 2))
        try world.pass(.seconds(4))
        #expect(used(world) == ["2001:db8:2::/64", "2001:db8:65::/96", "fe80::1"])
    }

    @Test("a router that tells its prefix again is the same one, and all that it has told stands")
    func confirmed() throws {
        var world = try started(prefix1 + otherPrefix1 + pref64 + rdnss)
        try world.happen(.associated(uplink: 2))
        try world.happen(.advertisement(try parse(header + prefix1), uplink: 2))
        try world.pass(.seconds(60))
        #expect(world.steps.map(\.name) == [.announce])
        #expect(world.uplink(2)?.knowledge.prefixes.count == 2)
        #expect(world.uplink(2)?.knowledge.dns.resolvers.map(\.address) == [resolver])
    }

    @Test("where nobody answers nothing is forgotten, and the asking goes on")
    func nobody() throws {
        var world = try started()
        let start = world.now
        try world.happen(.associated(uplink: 2))
        try world.pass(.seconds(61))
        #expect(world.solicitations.map { ($0 - start) / .seconds(1) }.map { $0.rounded() } == [0, 4, 12, 28, 60])
        #expect(world.uplink(2)?.reason.state == .on && world.steps.map(\.name) == [.announce])
    }

    @Test("of two routers of a link the one whose answer is late stays")
    func late() throws {
        var world = try started()
        try world.happen(.advertisement(try parse(header + prefix1 + pref64, from: second), uplink: 2))
        try world.happen(.associated(uplink: 2))
        try world.happen(.advertisement(try parse(header + prefix1 + pref64, from: second), uplink: 2))
        try world.pass(.seconds(4))
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        try world.pass(.seconds(10))
        #expect(world.uplink(2)?.knowledge.routers.count == 2 && world.steps.map(\.name) == [.announce])
    }

    @Test("a resolver's prefix goes with the router that told of the resolver")
    func resolvers() throws {
        var world = World()
        world.resolve = { _ in PREF64("2001:db8:64::/96").map { .prefixes([$0], lifetime: 3600) } }
        try world.happen(.link(ethernet(2)))
        try world.happen(.address(hostAddress))
        try world.happen(.advertisement(try parse(header + prefix1 + rdnss), uplink: 2))
        #expect(world.uplink(2)?.reason.state == .on)
        try world.pass(.seconds(60))
        world.resolve = { _ in .failed(.noAnswer) }
        try world.happen(.associated(uplink: 2))
        try world.happen(.advertisement(try parse(header + otherPrefix1 + otherPREF64, from: second), uplink: 2))
        try world.pass(.seconds(9))
        #expect(used(world) == ["2001:db8:2::/64", "2001:db8:65::/96", "fe80::2"])
        #expect(world.uplink(2)?.knowledge.pref64s.entries.count == 1)
    }

    @Test("answers that cease to come make the agent ask the routers, and give way to those who answer")
    func silence() throws {
        var world = try started()
        world.traffic = (20, 20)
        try world.pass(.seconds(600))
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        world.solicitations = []
        world.traffic = (40, 20)
        try world.pass(.seconds(400))
        #expect(world.solicitations.count >= 1)
        try world.happen(.advertisement(try parse(header + otherPrefix1 + otherPREF64, from: second), uplink: 2))
        try world.pass(.seconds(9))
        #expect(used(world) == ["2001:db8:2::/64", "2001:db8:65::/96", "fe80::2"])
    }

    @Test("a new router that brings all, while the old one is silent, takes its place; where that one lives it stays")
    func successor() throws {
        for lives in [false, true] {
            var world = try started()
            let start = world.now
            try world.happen(.advertisement(try parse(header + otherPrefix1 + otherPREF64, from: second), uplink: 2))
            #expect(world.solicitations == [start])
            if lives { try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2)) }
            try world.pass(.seconds(9))
            #expect(used(world).last == (lives ? "fe80::1" : "fe80::2"))
            #expect(world.uplink(2)?.knowledge.doubt == nil && world.uplink(2)?.reason.state == .on)
        }
        // One that brings nothing puts nothing in doubt, nor does one that was heard together with the other.
        var world = try started()
        try world.happen(.advertisement(try parse(header, from: second), uplink: 2))
        #expect(world.solicitations == [] && world.uplink(2)?.knowledge.doubt == nil)
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        let third = IPv6Address(high: 0xfe80_0000_0000_0000, low: 3)
        try world.happen(.advertisement(try parse(header + otherPrefix1 + otherPREF64, from: third), uplink: 2))
        #expect(world.solicitations == [] && world.uplink(2)?.knowledge.doubt == nil)
    }

    @Test("ends of scans and other words about a link are no hint")
    func noHint() throws {
        var world = try started()
        var link = ethernet(2)
        link.mtu = 1400
        try world.happen(.link(link))
        link.isOperational = false
        try world.happen(.link(link))
        #expect(world.solicitations.isEmpty && world.uplink(2)?.knowledge.doubt == nil)
    }
}

@Suite("A PREF64 that routers take back")
struct WithdrawalTests {
    private func started(resolve: @escaping (DNSQuestion) -> DNSOutcome?, options: String = rdnss) throws -> World {
        var world = World()
        world.resolve = resolve
        try world.happen(.link(ethernet(2)))
        try world.happen(.address(hostAddress))
        try world.happen(.advertisement(try parse(header + prefix1 + pref64 + options), uplink: 2))
        #expect(world.uplink(2)?.reason.state == .on && world.questions.isEmpty)
        world.steps = []
        try world.happen(.advertisement(try parse(header + pref64.replacing("07 08", with: "0000")), uplink: 2))
        return world
    }

    @Test("while resolvers are asked only the route goes, and with their answer it is back")
    func bridged() throws {
        var world = try started { _ in nil }
        #expect(world.uplink(2)?.reason == .pref64Lost)
        #expect(world.steps.map(\.name) == [.removeIPv4Route])
        try world.pass(.milliseconds(30))
        let question = try #require(world.questions.first)
        let told = try #require(PREF64("2001:db8:65::/96"))
        try world.happen(.answered(.prefixes([told], lifetime: 600), question, uplink: 2, jitter: 0))
        #expect(world.steps.map(\.name) == [.removeIPv4Route, .updateTranslator, .setIPv4Route])
        #expect(world.uplink(2)?.reason == .running(told))
    }

    @Test("where resolvers say no, or nothing for 5 s, or there are none, all goes")
    func unbridged() throws {
        var world = try started { _ in .none(.noAddress, lifetime: 600) }
        #expect(world.uplink(2)?.reason == .noPREF64InDNS && world.kernel.isClean)
        world = try started { _ in .failed(.noAnswer) }
        #expect(world.uplink(2)?.reason == .resolversSilent && world.kernel.isClean)
        world = try started(resolve: { _ in nil })
        try world.pass(.milliseconds(4900))
        #expect(world.uplink(2)?.reason == .pref64Lost)
        try world.pass(.milliseconds(200))
        #expect(world.uplink(2)?.reason == .noPREF64 && world.kernel.isClean)
        world = try started(resolve: { _ in nil }, options: "")
        #expect(world.uplink(2)?.reason == .noPREF64 && world.kernel.isClean)
    }

    @Test("after eight hours of sleep in which the words of router and resolver ran out, both are asked at once")
    func sleep() throws {
        var world = World()
        let prefix = try #require(PREF64("2001:db8:64::/96"))
        world.resolve = { _ in .prefixes([prefix], lifetime: 600) }
        try world.happen(.link(ethernet(2)))
        try world.happen(.address(hostAddress))
        try world.happen(.advertisement(try parse(header + prefix1 + rdnss), uplink: 2))
        #expect(world.uplink(2)?.entry?.source == .resolver(resolver))
        try world.happen(.advertisement(try parse(header + prefix1 + pref64 + rdnss), uplink: 2))
        #expect(world.uplink(2)?.knowledge.pref64s.entries.count == 2)
        #expect(world.uplink(2)?.entry?.source == .router(router))
        world.solicitations = []
        world.questions = []
        world.now = world.now + .seconds(8 * 3600)
        try world.happen(.timer)
        #expect(world.uplink(2)?.knowledge.pref64s.entries == [] && world.kernel.isClean)
        try world.happen(.resumed)
        #expect(world.solicitations == [world.now])
        #expect(world.uplink(2)?.reason == .noAdvertisement)
        // The router answers, without PREF64 at first: the resolver it names is asked in the same instant.
        try world.happen(.advertisement(try parse(header + prefix1 + rdnss), uplink: 2))
        #expect(world.questions == [DNSQuestion(server: resolver, asked: world.now)])
        #expect(world.uplink(2)?.reason.state == .on)
        try world.happen(.advertisement(try parse(header + prefix1 + pref64 + rdnss), uplink: 2))
        #expect(world.uplink(2)?.entry?.source == .router(router))
    }
}

@Suite("Whether a DHCPv4 client may do without IPv4")
struct IPv6OnlyTests {
    @Test("it may from the start, while a CLAT works, and beside native IPv4; not where the CLAT cannot be")
    func capable() throws {
        var world = World()
        func isCapable() -> Bool? { world.uplink(2)?.isIPv6OnlyCapable }
        try world.happen(.link(ethernet(2)))
        #expect(isCapable() == true)
        world.kernel.failing = [.startTranslator]
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        #expect(isCapable() == false)
        // The next try is no proof; its end is.
        world.kernel.failing = []
        world.dad = { _ in nil }
        try world.pass(.seconds(2))
        #expect(world.uplink(2)?.reason.state == .starting && isCapable() == false)
        world.dad = { _ in .preferred }
        try world.pass(.seconds(60))
        #expect(world.uplink(2)?.reason.state == .on && isCapable() == true)
        try world.happen(.route(DefaultRoute(isIPv6: false, index: 2, metric: 100, origin: 16, gateway: gateway)))
        #expect(world.uplink(2)?.reason.code == "native-ipv4" && isCapable() == true)

        world = World()
        try world.happen(.link(ethernet(2)))
        try world.happen(.advertisement(try parse(header + pref64), uplink: 2))
        #expect(world.uplink(2)?.reason == .noUsablePrefix() && isCapable() == false)
        var configuration = Configuration()
        configuration.disabled = ["eth2"]
        try world.happen(.configure(configuration))
        #expect(isCapable() == false)
    }

    private let native = DefaultRoute(isIPv6: false, index: 2, metric: 100, origin: 16, gateway: gateway)

    @Test("no native IPv4 and no lost carrier makes it possible where the CLAT's link is not")
    func noLink() throws {
        var world = World()
        func isCapable() -> Bool? { world.uplink(2)?.isIPv6OnlyCapable }
        world.kernel.failing = [.createUplinkLink]
        try world.happen(.link(ethernet(2)))
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        #expect(world.uplink(2)?.reason.code == "step-failed" && isCapable() == false)
        // The client has not asked, and has its lease: also once the next try would be due.
        try world.happen(.route(native))
        #expect(world.uplink(2)?.reason == .nativeIPv4(via: gateway, metric: 100) && isCapable() == false)
        try world.pass(.seconds(120))
        #expect(world.uplink(2)?.reason == .nativeIPv4(via: gateway, metric: 100) && isCapable() == false)
        // Then it joins another network.
        try world.happen(.link(ethernet(2, running: false)))
        #expect(world.uplink(2)?.reason == .noCarrier && isCapable() == false)
        try world.happen(.routeGone(native))
        try world.happen(.link(ethernet(2)))
        #expect(world.uplink(2)?.reason == .noAdvertisement && isCapable() == false)
        // And it is possible as soon as it has been seen to be.
        world.kernel.failing = []
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        #expect(world.uplink(2)?.reason.state == .on && isCapable() == true)
        try world.happen(.link(ethernet(2, running: false)))
        #expect(isCapable() == true)
    }

    @Test("beside native IPv4 it is told by what the network and the operator allow")
    func besideNative() throws {
        var world = World()
        func isCapable() -> Bool? { world.uplink(2)?.isIPv6OnlyCapable }
        try world.happen(.link(ethernet(2)))
        try world.happen(.route(native))
        #expect(world.uplink(2)?.reason == .nativeIPv4(via: gateway, metric: 100) && isCapable() == true)
        try world.happen(.advertisement(try parse(header + pref64), uplink: 2))
        #expect(world.uplink(2)?.reason == .nativeIPv4(via: gateway, metric: 100) && isCapable() == false)
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        #expect(world.uplink(2)?.reason == .nativeIPv4(via: gateway, metric: 100) && isCapable() == true)
        // Who has the DHCP client told hears of it though the reason stays.
        #expect(world.spares == [false, true])
        #expect(world.kernel.isClean)
    }
}
