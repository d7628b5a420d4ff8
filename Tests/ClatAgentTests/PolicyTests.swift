import ClatBase
import ClatTranslator
import Testing

@testable import ClatAgent

@Suite("What the operator wants of an interface")
struct PolicyTests {
    private func configuration(_ text: String) throws -> Configuration {
        try ConfigurationFile.parse(text, path: "f.toml")
    }

    private func world(_ text: String, advertising options: String = prefix1 + pref64) throws -> World {
        var world = World(try configuration(text))
        try world.happen(.link(ethernet(2)))
        try world.happen(.advertisement(try parse(header + options), uplink: 2))
        return world
    }

    @Test(
        "it is so from the start, and a running CLAT becomes so when it is told",
        arguments: [
            ("mtu = 1300", "metric 1025, MTU 1280, from 192.0.0.1"),
            ("metric = 7", "metric 7, MTU 1480, from 192.0.0.1"),
            ("mtu = 9000", "metric 1025, MTU 1480, from 192.0.0.1"),
            ("ipv4-address = \"192.0.0.5\"", "metric 1025, MTU 1480, from 192.0.0.5"),
            ("ipv4-address = \"10.9.8.7\"", "metric 1025, MTU 1480, from 10.9.8.7"),
        ])
    func routes(text: String, route: String) throws {
        func described(_ world: World) throws -> String {
            #expect(world.uplink(2)?.reason.state == .on)
            let place = try #require(world.kernel.places[2])
            #expect(place.routes.count == 1)
            let route = try #require(place.routes.first)
            #expect(place.ipv4s.contains(route.source))
            return "metric \(route.metric), MTU \(route.mtu), from \(route.source)"
        }
        #expect(try described(world(text)) == route)
        var running = try world("")
        try running.happen(.configure(configuration(text)))
        #expect(try described(running) == route)
        try running.happen(.configure(Configuration()))
        #expect(try described(running).hasPrefix("metric 1025, MTU 1480"))
    }

    @Test(
        "the translator is told, from the start and later",
        arguments: switches)
    func translator(text: String, change: @Sendable (inout TranslatorConfiguration) -> Void) throws {
        var running = try world("")
        let plain = try #require(running.kernel.places[2]?.translator)
        #expect(plain.errorsPerSecond == 100 && plain.lowestIPv6MTU == 1500)
        try running.happen(.configure(configuration(text)))
        var expected = plain
        change(&expected)
        #expect(expected != plain)
        #expect(running.kernel.places[2]?.translator == expected)
        #expect(try world(text).kernel.places[2]?.translator == expected)
        try running.happen(.configure(Configuration()))
        #expect(running.kernel.places[2]?.translator == plain)
    }

    static let switches: [(String, @Sendable (inout TranslatorConfiguration) -> Void)] = [
        ("ttl = \"keep\"", { $0.hopLimitDecrement = 0 }), ("strict-hop-limit = true", { $0.strictHopLimit = true }),
        ("traffic-class = \"zero\"", { $0.copyTrafficClass = false }),
        ("lowest-ipv6-mtu = 1280", { $0.lowestIPv6MTU = 1280 }),
        ("strict-well-known-prefix = true", { $0.strictWellKnownPrefix = true }),
        ("node-identification = false", { $0.nodeIdentification = false }),
        ("answer-untranslatable = false", { $0.answerUntranslatable = false }),
        ("errors-per-second = 7", { $0.errorsPerSecond = 7 }),
    ]

    @Test("a prefix of the operator's wins over the network's, and does without one")
    func staticPREF64() throws {
        for options in [prefix1 + pref64, prefix1] {
            let world = try world("pref64 = \"2001:db8:99::/96\"", advertising: options)
            #expect(world.uplink(2)?.reason == .running(try #require(PREF64("2001:db8:99::/96"))))
        }
        var running = try world("")
        try running.happen(.configure(configuration("pref64 = \"2001:db8:99::/96\"")))
        #expect(
            running.kernel.places[2]?.translator?.mappings.first?.pref64.description == "2001:db8:99::/96")
        try running.happen(.configure(Configuration()))
        #expect(running.uplink(2)?.reason == .running(try #require(PREF64("2001:db8:64::/96"))))
    }

    @Test("native IPv4 beside a CLAT, where the operator wants both")
    func coexist() throws {
        var world = try world("native-ipv4 = \"coexist\"")
        let native = DefaultRoute(isIPv6: false, index: 2, metric: 1025, origin: 16, gateway: gateway)
        try world.happen(.route(native))
        #expect(world.uplink(2)?.reason.state == .on)
        #expect(world.kernel.places[2]?.routes.first?.metric == 1026)
        // However far native IPv4 stands back, the CLAT stands behind it.
        try world.happen(.routeGone(native))
        let far = DefaultRoute(isIPv6: false, index: 2, metric: 3003, origin: 16, gateway: gateway)
        try world.happen(.route(far))
        #expect(world.kernel.places[2]?.routes.first?.metric == 3004)
        try world.happen(.routeGone(far))
        #expect(world.kernel.places[2]?.routes.first?.metric == 1025)
        try world.happen(.route(native))
        try world.happen(.configure(Configuration()))
        #expect(world.uplink(2)?.reason == .nativeIPv4(via: gateway, metric: 1025))
        #expect(world.kernel.isClean)
        try world.happen(.configure(configuration("[[interface]]\nname = \"eth*\"\nnative-ipv4 = \"coexist\"")))
        #expect(world.uplink(2)?.reason.state == .on)
    }

    @Test("where the operator wants both, resolvers are asked beside native IPv4 too")
    func coexistByDNS() throws {
        var world = World(try configuration("native-ipv4 = \"coexist\""))
        let told = try #require(PREF64("2001:db8:64::/96"))
        world.resolve = { _ in .prefixes([told], lifetime: 600) }
        try world.happen(.link(ethernet(2)))
        try world.happen(.address(HostAddress(index: 2, value: .v6(IPv6Address(high: 0x2001_0db8_0001_0000, low: 9)))))
        try world.happen(.route(DefaultRoute(isIPv6: false, index: 2, metric: 100, origin: 16, gateway: gateway)))
        let resolver = "19 03 0000 ffffffff 20010db8000100000000000000000053"
        try world.happen(.advertisement(try parse(header + prefix1 + resolver), uplink: 2))
        #expect(world.uplink(2)?.reason == .running(told))
    }

    @Test(
        "where there is no higher metric, two CLATs have the two highest",
        arguments: [("metric = 4294967295", nil), ("", 4_294_967_295 as Int?)])
    func highestMetric(text: String, ipv6Metric: Int?) throws {
        var world = World(try configuration(text))
        for index in [2, 3] {
            try world.happen(.link(ethernet(index)))
            if let metric = ipv6Metric {
                try world.happen(
                    .route(DefaultRoute(isIPv6: true, index: index, metric: metric, origin: 9, gateway: .v6(router))))
            }
            try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: index))
        }
        try world.happen(.timer)
        #expect(world.kernel.places[2]?.routes.map(\.metric) == [4_294_967_295])
        #expect(world.kernel.places[3]?.routes.map(\.metric) == [4_294_967_294])
    }

    @Test(
        "a chosen IPv6 address is used on its own network only, and is not changed for another when it is a duplicate")
    func fixedAddress() throws {
        let text = "ipv6-address = \"2001:db8:1::64\""
        let address = try #require(IPv6Address("2001:db8:1::64"))
        #expect(try world(text).kernel.places[2]?.addresses.keys.map { $0 } == [address])
        #expect(try world("ipv6-address = \"2001:db8:2::64\"").uplink(2)?.reason.code == "no-usable-prefix")

        var running = try world("")
        try running.happen(.configure(configuration(text)))
        #expect(running.kernel.places[2]?.translator?.mappings.first?.ipv6 == address)

        var taken = World(try configuration(text))
        taken.dad = { _ in .duplicate }
        try taken.happen(.link(ethernet(2)))
        try taken.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        #expect(taken.uplink(2)?.reason == .duplicateAddress(tries: 1))
        #expect(taken.kernel.isClean)
        taken.dad = { _ in .preferred }
        try taken.pass(.seconds(301))
        #expect(taken.uplink(2)?.reason.state == .on)

        var own = World(try configuration(text))
        try own.happen(.link(ethernet(2)))
        try own.happen(.address(HostAddress(index: 2, value: .v6(address))))
        try own.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        #expect(own.uplink(2)?.reason == .duplicateAddress(tries: 1))
    }

    @Test("a random address is another one with each key")
    func randomAddress() throws {
        func address(_ text: String, key: UInt8) throws -> IPv6Address? {
            var machine = AgentMachine(
                configuration: try configuration(text), secret: Array(1...32), ephemeralSecret: [key])
            _ = machine.handle(.link(ethernet(2)), now: .now)
            _ = machine.handle(.advertisement(try parse(header + prefix1 + pref64), uplink: 2), now: .now)
            return machine.uplinks[2]?.target?.current.ipv6
        }
        let random = "ipv6-address = \"random\""
        #expect(try address(random, key: 1) != address(random, key: 2))
        #expect(try address("", key: 1) == address("", key: 2))
        #expect(try address(random, key: 1) != address("", key: 1))
    }

    @Test("a disabled interface has no CLAT until it is enabled")
    func disabled() throws {
        var world = try world("")
        var off = Configuration()
        off.disabled = ["eth2"]
        try world.happen(.configure(off))
        #expect(world.uplink(2)?.reason == .disabled)
        #expect(world.kernel.isClean)
        try world.happen(.configure(Configuration()))
        #expect(world.uplink(2)?.reason.state == .on)
    }

    @Test("the routers are asked when an interface is to be served that was not before")
    func asked() throws {
        var off = Configuration()
        off.interfaces = ["wlan*"]
        var world = World(off)
        try world.happen(.link(ethernet(2)))
        try world.pass(.seconds(60))
        #expect(world.solicitations.isEmpty)
        try world.happen(.configure(Configuration()))
        #expect(world.solicitations == [world.now])
    }

    @Test("the host's device is told by the name it has, whatever the uplink is called by now")
    func renamed() throws {
        var world = try world("")
        let device = try #require(world.uplink(2)?.standing.hostLink)
        var link = ethernet(3, name: "clat-eth2")
        link.index = device
        try world.happen(.link(link))
        try world.happen(.link(ethernet(2, name: "lan0")))
        #expect(world.machine.hostDevice(of: 2) == "clat-eth2")
    }
}
