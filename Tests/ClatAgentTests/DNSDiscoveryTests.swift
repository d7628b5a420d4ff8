import ClatBase
import ClatTranslator
import Testing

@testable import ClatAgent

private let resolverA = IPv6Address(high: 0x2001_0db8_0001_0000, low: 0x53)
private let resolverB = IPv6Address(high: 0x2001_0db8_0001_0000, low: 0x54)
/// RDNSS with ``resolverA``, lifetime for ever.
private let rdnssA = "19 03 0000 ffffffff 20010db8000100000000000000000053"
private let rdnssAB = "19 05 0000 ffffffff 20010db8000100000000000000000053 20010db8000100000000000000000054"
private let hostAddress = HostAddress(index: 2, value: .v6(IPv6Address(high: 0x2001_0db8_0001_0000, low: 9)))
/// 2001:db8:64::/96, what the routers of these tests announce as well.
private let same = PREF64("2001:db8:64::/96").map { [$0] } ?? []
private let other = PREF64("2001:db8:99::/96").map { [$0] } ?? []
/// A header whose router stays for nine hours, longer than anything here.
private let longHeader = "86 00 00 00  40 00 7e 90  00000000 00000000"
private let longPrefix = "03 04 40c0 ffffffff ffffffff 00000000 20010db8000100000000000000000000"

@Suite("Discovery by DNS")
struct DNSDiscoveryTests {
    /// A link whose router has told prefix and resolvers, but no PREF64.
    private func attached(
        _ options: String = rdnssA, _ configuration: Configuration = Configuration(),
        resolve: @escaping (DNSQuestion) -> DNSOutcome?
    ) throws -> World {
        var world = World(configuration)
        world.resolve = resolve
        try world.happen(.link(ethernet(2)))
        try world.happen(.address(hostAddress))
        try world.happen(.advertisement(try parse(longHeader + longPrefix + options), uplink: 2))
        return world
    }

    private func seconds(_ world: World, from start: BootInstant) -> [Int] {
        world.questions.map { Int((($0.asked - start) / .seconds(1)).rounded()) }
    }

    @Test("IPv4 comes by DNS alone, and the log and the table say from whom")
    func alone() throws {
        let world = try attached { _ in .prefixes(same, lifetime: 600) }
        #expect(world.uplink(2)?.reason.state == .on)
        #expect(world.questions == [DNSQuestion(server: resolverA, asked: world.now)])
        #expect(world.choices == ["PREF64 2001:db8:64::/96 from resolver 2001:db8:1::53"])
        #expect(world.uplink(2)?.entry?.source == .resolver(resolverA))
    }

    @Test("a prefix is asked for again 10 s before it runs out, and lives on")
    func refresh() throws {
        var world = try attached { _ in .prefixes(same, lifetime: 600) }
        let start = world.now
        try world.pass(.seconds(1800))
        #expect(seconds(world, from: start) == [0, 590, 1180, 1770])
        #expect(world.uplink(2)?.reason.state == .on)
        #expect(!world.steps.contains { $0.isUndoing })
    }

    @Test("a tiny TTL does not make a flood", arguments: [0, 1, 30, 69])
    func tinyLifetime(lifetime: Int) throws {
        var world = try attached { _ in .prefixes(same, lifetime: lifetime) }
        try world.pass(.seconds(600))
        #expect(world.questions.count == 11)
        #expect(world.uplink(2)?.reason.state == .on)
    }

    @Test("a resolver that ceases to answer keeps its prefix for a minute, one that says no takes it away")
    func lostRefresh() throws {
        var world = try attached { _ in .prefixes(same, lifetime: 600) }
        world.resolve = { _ in .failed(.noAnswer) }
        try world.pass(.seconds(600))
        // Wanting it often does not make it last.
        for _ in 0..<5 {
            try world.happen(.renew(uplink: 2))
            try world.pass(.seconds(10))
        }
        try world.pass(.seconds(9))
        #expect(world.uplink(2)?.reason.state == .on)
        try world.pass(.seconds(2))
        #expect(world.uplink(2)?.reason == .resolversSilent)
        #expect(world.kernel.isClean)

        world = try attached { _ in .prefixes(same, lifetime: 600) }
        world.resolve = { _ in .none(.noSuchName, lifetime: 900) }
        try world.pass(.seconds(591))
        #expect(world.uplink(2)?.reason == .noPREF64InDNS)
    }

    @Test(
        "a no is believed as long as it says, within bounds",
        arguments: [(900, 900), (1, 60), (86400, 10800), (nil, 300)] as [(Int?, Int)])
    func negative(lifetime: Int?, pause: Int) throws {
        for absence in [DNSOutcome.Absence.noSuchName, .noAddress, .unrelated] {
            var world = try attached { _ in .none(absence, lifetime: lifetime) }
            let start = world.now
            #expect(world.uplink(2)?.reason == .noPREF64InDNS)
            try world.pass(.seconds(pause + 1))
            #expect(seconds(world, from: start) == [0, pause])
        }
    }

    @Test("a resolver that fails is asked after longer and longer pauses, without end")
    func backOff() throws {
        var world = try attached { _ in .failed(.noAnswer) }
        let start = world.now
        try world.pass(.seconds(1200))
        #expect(seconds(world, from: start) == [0, 2, 6, 14, 30, 62, 126, 254, 510, 810, 1110])
        #expect(world.uplink(2)?.reason == .resolversSilent)
        world.resolve = { _ in .prefixes(same, lifetime: 600) }
        try world.pass(.seconds(300))
        #expect(world.uplink(2)?.reason.state == .on)
    }

    @Test("an outcome that never comes does not end the asking")
    func lostOutcome() throws {
        var world = try attached { _ in nil }
        #expect(world.uplink(2)?.reason == .noPREF64)
        try world.pass(.seconds(61))
        #expect(world.questions.count == 3)
    }

    @Test("neither a dead resolver nor a liar keeps the other from telling")
    func twoResolvers() throws {
        for bad in [nil, .none(.unrelated, lifetime: 3600), .failed(.error(5))] as [DNSOutcome?] {
            let world = try attached(rdnssAB) { $0.server == resolverA ? bad : .prefixes(same, lifetime: 600) }
            #expect(world.uplink(2)?.reason.state == .on)
            #expect(world.uplink(2)?.entry?.source == .resolver(resolverB))
        }
    }

    @Test("resolvers that disagree do not make the prefix flap")
    func disagreement() throws {
        var world = try attached(rdnssAB) { .prefixes($0.server == resolverA ? same : other, lifetime: 100) }
        try world.pass(.seconds(1000))
        #expect(world.choices.count == 1)
        #expect(world.steps.filter { $0.name == .updateTranslator }.isEmpty)
    }

    @Test("a router that tells a PREF64 takes over, DNS stops, and it starts again when the router's runs out")
    func takeover() throws {
        var world = try attached { _ in .prefixes(same, lifetime: 100) }
        try world.happen(
            .advertisement(
                try parse(longHeader + pref64.replacing("0064", with: "0065").replacing("07 08", with: "0258")),
                uplink: 2))
        #expect(world.uplink(2)?.standing.translator?.mappings.first?.pref64.description == "2001:db8:65::/96")
        world.questions = []
        try world.pass(.seconds(500))
        #expect(world.questions.isEmpty)
        world.steps = []
        try world.pass(.seconds(150))
        #expect(world.uplink(2)?.reason.state == .on)
        // It is let in as soon as it is told, and goes out there when the router's has gone.
        #expect(world.steps.map(\.name) == [.updateTranslator, .updateTranslator])
        #expect(
            world.choices == [
                "PREF64 2001:db8:64::/96 from resolver 2001:db8:1::53",
                "PREF64 2001:db8:65::/96 from router fe80::1, which goes before resolver 2001:db8:1::53",
                "PREF64 2001:db8:64::/96 from resolver 2001:db8:1::53, as router fe80::1 tells 2001:db8:65::/96 no longer",
            ])
    }

    @Test("a router's PREF64 of the same value takes over without a single step")
    func sameTakeover() throws {
        var world = try attached { _ in .prefixes(same, lifetime: 100) }
        world.steps = []
        try world.happen(.advertisement(try parse(longHeader + pref64), uplink: 2))
        #expect(world.steps.isEmpty)
        #expect(world.uplink(2)?.entry?.source == .router(router))
    }

    @Test("where a router withdraws its PREF64 DNS is asked at once")
    func withdrawal() throws {
        var world = try attached(rdnssA + pref64) { _ in .prefixes(same, lifetime: 100) }
        #expect(world.questions.isEmpty)
        try world.happen(
            .advertisement(try parse(longHeader + pref64.replacing("07 08", with: "0000")), uplink: 2))
        #expect(world.questions.count == 1)
        #expect(world.uplink(2)?.reason.state == .on)
        #expect(world.uplink(2)?.entry?.source == .resolver(resolverA))
    }

    @Test("a configured prefix goes before routers and DNS, and nobody is asked")
    func configured() throws {
        var configuration = Configuration()
        configuration.defaults.pref64 = .wellKnown
        var world = try attached(rdnssA, configuration) { _ in .prefixes(same, lifetime: 100) }
        try world.happen(.advertisement(try parse(longHeader + pref64), uplink: 2))
        #expect(world.questions.isEmpty)
        #expect(world.uplink(2)?.standing.translator?.mappings.first?.pref64 == .wellKnown)
        #expect(world.choices == ["PREF64 64:ff9b::/96 from the configuration"])
    }

    @Test("discovery by DNS can be switched off")
    func switchedOff() throws {
        var configuration = Configuration()
        configuration.defaults.usesDNS = false
        var world = try attached(rdnssA, configuration) { _ in .prefixes(same, lifetime: 100) }
        try world.pass(.seconds(3600))
        #expect(world.questions.isEmpty && world.searches == 0)
        #expect(world.uplink(2)?.reason == .noPREF64)
    }

    @Test("nobody is asked before the host has an address to ask from, nor where native IPv4 or an obstacle is")
    func needed() throws {
        var world = World()
        world.resolve = { _ in .prefixes(same, lifetime: 600) }
        try world.happen(.link(ethernet(2)))
        try world.happen(.address(hostAddress, isTentative: true))
        try world.happen(.advertisement(try parse(longHeader + longPrefix + rdnssA), uplink: 2))
        #expect(world.questions.isEmpty)
        try world.pass(.seconds(1))
        try world.happen(.address(hostAddress))
        #expect(world.questions == [DNSQuestion(server: resolverA, asked: world.now)])

        let native = DefaultRoute(isIPv6: false, index: 2, metric: 100, origin: 16, gateway: gateway)
        try world.happen(.route(native))
        try world.pass(.seconds(3600))
        #expect(world.questions.count == 1)
        try world.happen(.routeGone(native))
        #expect(world.questions.count == 2)
        try world.happen(.link(ethernet(2, running: false)))
        try world.pass(.seconds(3600))
        #expect(world.questions.count == 2)
    }

    @Test("a new address is a new attachment: all is asked again, but not for each notice of an old one")
    func newAddress() throws {
        var world = try attached { _ in .none(.noSuchName, lifetime: 3600) }
        try world.happen(.address(hostAddress))
        #expect(world.questions.count == 1)
        let new = HostAddress(index: 2, value: .v6(IPv6Address(high: 0x2001_0db8_0002_0000, low: 9)))
        try world.happen(.address(new, isTentative: true))
        #expect(world.questions.count == 1)
        try world.happen(.address(new))
        #expect(world.questions.count == 2)
        var host = Host()
        host.links = world.machine.host.links
        host.addresses = world.machine.host.addresses
        try world.happen(.snapshot(host))
        #expect(world.questions.count == 2)
    }

    @Test("a hook's resolvers are asked at once, beside those of the routers")
    func hook() throws {
        var world = try attached {
            $0.server == resolverB ? .prefixes(same, lifetime: 600) : .none(.noAddress, lifetime: 600)
        }
        #expect(world.uplink(2)?.reason == .noPREF64InDNS)
        try world.happen(.resolvers([resolverB], .told, uplink: 2))
        #expect(world.questions.map(\.server) == [resolverA, resolverB])
        #expect(world.uplink(2)?.reason.state == .on)
    }

    @Test(
        "the system's files are looked through, again and again where nobody tells resolvers, but no file is needed"
    )
    func files() throws {
        var world = try attached("") { _ in .none(.noAddress, lifetime: 600) }
        let start = world.now
        try world.pass(.seconds(128))
        #expect(world.searches == 8)
        #expect(world.questions.isEmpty)
        #expect(world.uplink(2)?.reason == .noPREF64)
        world.systemResolvers = ([resolverA], .resolvConf)
        try world.pass(.seconds(64))
        #expect(world.questions.map(\.server) == [resolverA] && world.now > start)
        #expect(world.uplink(2)?.knowledge.dns.resolvers.map(\.source) == [.resolvConf])
        // Better ones make them forgotten.
        try world.happen(.advertisement(try parse(longHeader + rdnssAB), uplink: 2))
        #expect(world.uplink(2)?.knowledge.dns.resolvers.map(\.source) == [.routerAdvertisement, .routerAdvertisement])
        // Then an hour may pass until the next look.
        let searches = world.searches
        try world.pass(.seconds(1800))
        #expect(world.searches <= searches + 4)
    }

    @Test("a resolver that the router withdraws, or whose lifetime runs out, is asked no more")
    func resolverGone() throws {
        for (lifetime, wait) in [("0000001e", 31), ("ffffffff", 0)] {
            var world = try attached(rdnssA.replacing("ffffffff", with: lifetime)) { _ in .failed(.noAnswer) }
            if wait == 0 {
                try world.happen(
                    .advertisement(
                        try parse(longHeader + rdnssA.replacing("ffffffff", with: "00000000")), uplink: 2))
            } else {
                try world.pass(.seconds(wait))
            }
            #expect(world.uplink(2)?.knowledge.dns.resolvers == [])
            let count = world.questions.count
            try world.pass(.seconds(600))
            #expect(world.questions.count == count)
        }
    }

    @Test("after eight hours of sleep, in which all ran out, routers and resolvers are asked at once and IPv4 is back")
    func sleep() throws {
        var world = try attached { _ in .prefixes(same, lifetime: 600) }
        world.solicitations = []
        world.questions = []
        world.now = world.now + .seconds(8 * 3600)
        // The deadlines that passed in sleep are due on resume, and so is the word that there was sleep.
        try world.happen(.timer)
        try world.happen(.resumed)
        #expect(world.solicitations == [world.now])
        #expect(world.questions.allSatisfy { $0.asked == world.now } && !world.questions.isEmpty)
        #expect(world.uplink(2)?.reason.state == .on)

        // The same with a router's PREF64.
        var routed = World()
        try routed.happen(.link(ethernet(2)))
        try routed.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        routed.solicitations = []
        routed.now = routed.now + .seconds(8 * 3600)
        try routed.happen(.resumed)
        #expect(routed.uplink(2)?.reason.state == .off)
        #expect(routed.kernel.isClean)
        #expect(routed.solicitations == [routed.now])
        try routed.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        #expect(routed.uplink(2)?.reason.state == .on)
    }

    @Test("an answer to an older question, or of another link, changes nothing")
    func stale() throws {
        var world = try attached { _ in nil }
        let question = try #require(world.questions.first)
        try world.pass(.seconds(5))
        try world.happen(.renew(uplink: 2))
        let answer = DNSOutcome.prefixes(same, lifetime: 600)
        try world.happen(.answered(answer, question, uplink: 2, jitter: 0))
        try world.happen(.answered(answer, question, uplink: 3, jitter: 0))
        #expect(world.uplink(2)?.entry == nil)
        try world.happen(.answered(answer, try #require(world.questions.last), uplink: 2, jitter: 0))
        #expect(world.uplink(2)?.entry?.source == .resolver(resolverA))
        // After the link was lost the open question of before does not count.
        world.resolve = { _ in nil }
        try world.happen(.link(ethernet(2, running: false)))
        try world.happen(.answered(answer, try #require(world.questions.last), uplink: 2, jitter: 0))
        #expect(world.uplink(2)?.entry == nil)
    }

    @Test("why a prefix is the one to use is said")
    func reasons() throws {
        var table = PREF64Table()
        let second = IPv6Address(high: 0xfe80_0000_0000_0000, low: 2)
        func why() throws -> String { table.why(try #require(table.choose(current: nil))) }
        table.hear(same, fromResolver: resolverA, until: BootInstant(nanoseconds: 9), now: BootInstant(nanoseconds: 1))
        #expect(try why() == "as nothing else is told")
        let low = "86 00 00 00  40 18 07 08  00000000 00000000"
        table.hear(try parse(low + pref64), now: BootInstant(nanoseconds: 1))
        #expect(try why() == "which goes before resolver 2001:db8:1::53")
        let other = pref64.replacing("0064", with: "0065")
        table.hear(try parse(low + other, from: second), now: BootInstant(nanoseconds: 1))
        #expect(try why() == "which was heard first")
        table.hear(try parse(header + other, from: second), now: BootInstant(nanoseconds: 1))
        #expect(try why() == "which has the highest preference")
        table.configure(.wellKnown)
        #expect(try why().hasPrefix("which goes before resolver 2001:db8:1::53 and router fe80::1 and"))
    }

    @Test("answers that cannot be read are counted by reason")
    func counted() throws {
        let world = try attached { _ in .failed(.malformed(.truncated)) }
        #expect(world.uplink(2)?.refusedAnswers == [.truncated: 1])
    }
}

@Suite("Routers are asked before what they told runs out")
struct RefreshTests {
    private func solicited(_ world: World, from start: BootInstant) -> [Int] {
        world.solicitations.map { Int((($0 - start) / .seconds(1)).rounded()) }
    }

    @Test("a router that falls silent is asked at nine tenths of a lifetime, and then without end")
    func unrefreshed() throws {
        var world = World()
        try world.happen(.link(ethernet(2)))
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        world.solicitations = []
        let start = world.now
        try world.pass(.seconds(1700))
        #expect(solicited(world, from: start) == [1620, 1624, 1632, 1648, 1680])
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        world.solicitations = []
        try world.pass(.seconds(1600))
        #expect(world.solicitations.isEmpty)
    }

    @Test("an answer of another router ends the asking, which begins once more before the end")
    func otherRouter() throws {
        var world = World()
        try world.happen(.link(ethernet(2)))
        let second = IPv6Address(high: 0xfe80_0000_0000_0000, low: 2)
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        world.solicitations = []
        let start = world.now
        try world.pass(.seconds(1621))
        try world.happen(.advertisement(try parse(header, from: second), uplink: 2))
        try world.pass(.seconds(130))
        #expect(solicited(world, from: start).prefix(2) == [1620, 1746])
    }

    @Test("lifetimes of seconds do not make a flood")
    func shortLifetimes() throws {
        var world = World()
        try world.happen(.link(ethernet(2)))
        let start = world.now
        world.solicitations = []
        while world.now - start < .seconds(80) {
            try world.happen(
                .advertisement(try parse(header + prefix1 + pref64.replacing("07 08", with: "0008")), uplink: 2))
            try world.pass(.seconds(4))
        }
        #expect(world.solicitations.isEmpty)
    }

    @Test("a solicitation that had no address to go out from is sent once there is one")
    func linkLocal() throws {
        var world = World()
        try world.happen(.link(ethernet(2)))
        world.solicitations = []
        let address = HostAddress(index: 2, value: .v6(IPv6Address(high: 0xfe80_0000_0000_0000, low: 9)))
        try world.happen(.address(address, isTentative: true))
        try world.pass(.seconds(1))
        #expect(world.solicitations.isEmpty)
        try world.happen(.address(address))
        #expect(world.solicitations == [world.now])
        try world.happen(.advertisement(try parse(header), uplink: 2))
        try world.happen(.addressGone(address))
        try world.happen(.address(address))
        #expect(world.solicitations.count == 1)
    }

    @Test("another hardware address is another attachment: routers and resolvers are asked at once")
    func hardwareAddress() throws {
        var world = World()
        world.resolve = { _ in .none(.noAddress, lifetime: 3600) }
        try world.happen(.link(ethernet(2)))
        try world.happen(.address(hostAddress))
        try world.happen(.advertisement(try parse(header + prefix1 + rdnssA), uplink: 2))
        world.solicitations = []
        world.questions = []
        var link = ethernet(2)
        try world.happen(.link(link))
        #expect(world.solicitations.isEmpty && world.questions.isEmpty)
        link.hardwareAddress = HardwareAddress(bytes: [2, 0, 0, 0, 9, 9])
        try world.happen(.link(link))
        #expect(world.solicitations == [world.now])
        #expect(world.questions.count == 1)
    }

    @Test("of two routers one may withdraw the common prefix, and nothing changes until the other does")
    func twoRouters() throws {
        var world = World()
        try world.happen(.link(ethernet(2)))
        let second = IPv6Address(high: 0xfe80_0000_0000_0000, low: 2)
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        try world.happen(.advertisement(try parse(header + prefix1 + pref64, from: second), uplink: 2))
        let withdrawn = pref64.replacing("07 08", with: "0000")
        try world.happen(.advertisement(try parse(header + withdrawn), uplink: 2))
        #expect(world.uplink(2)?.reason.state == .on)
        #expect(world.uplink(2)?.entry?.source == .router(second))
        try world.happen(.advertisement(try parse(header + withdrawn, from: second), uplink: 2))
        #expect(world.uplink(2)?.reason == .noPREF64)
    }
}
