import ClatBase
import ClatTranslator
import Testing

@testable import ClatAgent

@Suite("After sleep")
struct SleepTests {
    private let prefix2 = prefix1.replacing("20010db80001", with: "20010db80002")
    private let other64 = pref64.replacing("0064", with: "0065")
    private let other = IPv6Address(high: 0xfe80_0000_0000_0000, low: 9)

    /// On, then asleep for a minute, then awake.
    private func awake() throws -> World {
        var world = World()
        try world.happen(.link(ethernet(2)))
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        #expect(world.uplink(2)?.reason.state == .on)
        (world.steps, world.solicitations) = ([], [])
        world.now = world.now + .seconds(60)
        try world.happen(.resumed)
        #expect(world.solicitations == [world.now])
        return world
    }

    @Test("on the network of before all goes on, and a switch is told of the address again")
    func same() throws {
        var world = try awake()
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        try world.pass(.seconds(100))
        #expect(world.steps.map(\.name) == [.announce])
        #expect(world.uplink(2)?.reason.state == .on)
        #expect(world.solicitations.count == 1)
    }

    @Test("what another network's router tells is used once the old one's has not answered for eight seconds")
    func elsewhere() throws {
        var world = try awake()
        try world.happen(.advertisement(try parse(header + prefix2 + other64, from: other), uplink: 2))
        try world.pass(.seconds(7))
        #expect(world.uplink(2)?.target?.current.pref64.description == "2001:db8:64::/96")
        try world.pass(.seconds(2))
        let machine = try #require(world.uplink(2))
        #expect(machine.reason.state == .on)
        #expect(machine.knowledge.routers.map(\.address) == [other])
        let mappings = machine.standing.translator?.mappings ?? []
        #expect(mappings.map(\.pref64.description) == ["2001:db8:65::/96"], "nothing of the old network drains")
        let held = world.kernel.places[2]?.addresses.keys.map { IPv6Prefix($0, length: 64)?.description }
        #expect(held == ["2001:db8:2::/64"])
    }

    @Test("a router of the same address is no proof for what it does not tell again")
    func sameRouterAddress() throws {
        var world = try awake()
        try world.happen(.advertisement(try parse(header + prefix2 + other64), uplink: 2))
        try world.pass(.seconds(9))
        let machine = try #require(world.uplink(2))
        #expect(machine.knowledge.prefixes.map(\.prefix.description) == ["2001:db8:2::/64"])
        #expect(machine.target?.current.pref64.description == "2001:db8:65::/96")
    }

    @Test("where nobody answers three solicitations, nothing is believed any more")
    func silence() throws {
        var world = try awake()
        let start = world.now
        try world.pass(.seconds(15))
        #expect(world.uplink(2)?.reason.state == .on)
        try world.pass(.seconds(15))
        #expect(world.uplink(2)?.reason == .noAdvertisement)
        #expect(world.kernel.isClean)
        #expect(world.solicitations.map { Int((($0 - start) / .seconds(1)).rounded()) } == [0, 4, 12, 28])
    }

    @Test("while one of two routers is silent, both are asked again")
    func oneOfTwo() throws {
        var world = World()
        try world.happen(.link(ethernet(2)))
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        try world.happen(.advertisement(try parse(header, from: other), uplink: 2))
        world.solicitations = []
        world.now = world.now + .seconds(60)
        try world.happen(.resumed)
        try world.happen(.advertisement(try parse(header, from: other), uplink: 2))
        try world.pass(.seconds(5))
        #expect(world.solicitations.count == 2)
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        try world.pass(.seconds(100))
        #expect(world.solicitations.count == 2)
        #expect(world.uplink(2)?.reason.state == .on)
    }
}

@Suite("Sleep")
struct ResumeWatchTests {
    @Test("a wake-up without sleep, as when the clock is set, is none")
    func clockSet() throws {
        var watch = try ResumeWatch()
        for _ in 0..<3 {
            let hasResumed = watch.hasResumed()
            #expect(!hasResumed)
        }
    }
}
