import ClatBase
import ClatTranslator
import Testing

@testable import ClatAgent
@testable import ClatNetlink

private let second = IPv6Address(high: 0xfe80_0000_0000_0000, low: 2)
private let prefix2 = prefix1.replacing("20010db80001", with: "20010db80002")
private let deprecated1 = prefix1.replacing("00000708", with: "00000000")
private let good = header + prefix1 + pref64

private func started(_ configuration: Configuration = Configuration(), _ text: String = good) throws -> World {
    var world = World(configuration)
    try world.happen(.link(ethernet(2)))
    try world.happen(.advertisement(try parse(text), uplink: 2))
    #expect(world.uplink(2)?.reason.state == .on)
    world.steps = []
    return world
}

private func native(_ index: Int, via last: UInt8, metric: Int = 100) -> DefaultRoute {
    DefaultRoute(isIPv6: false, index: index, metric: metric, origin: 16, gateway: .v4(IPv4Address(192, 0, 2, last)))
}

@Suite("What others change of the CLAT's own")
struct StolenTests {
    @Test("an ipvlan whose mode is stolen is set back, but a thief that keeps coming is given way to for a while")
    func modeStolen() throws {
        var world = try started()
        for _ in 0..<3 {
            try world.happen(.clatLink(isModeStolen: true, uplink: 2))
            #expect(world.uplink(2)?.reason.state == .on)
        }
        #expect(world.steps == [.restoreMode, .restoreMode, .restoreMode])
        try world.happen(.clatLink(isModeStolen: true, uplink: 2))
        #expect(world.uplink(2)?.reason.code == "step-failed")
        #expect(world.kernel.isClean)
        try world.pass(.seconds(2))
        #expect(world.uplink(2)?.reason.state == .on)
    }
}

@Suite("The mirror of default routes")
struct DefaultRouteTests {
    @Test("two that differ in their router alone are two: one may go")
    func gateways() throws {
        var world = try started()
        for last in [1, 2] as [UInt8] { try world.happen(.route(native(2, via: last))) }
        try world.happen(.routeGone(native(2, via: 1)))
        #expect(world.uplink(2)?.reason == .nativeIPv4(via: .v4(IPv4Address(192, 0, 2, 2)), metric: 100))
        try world.happen(.routeGone(native(2, via: 2)))
        #expect(world.uplink(2)?.reason.state == .on)
    }

    @Test("one that replaced another, of which no notice tells, is found by listing them")
    func replaced() throws {
        var world = try started()
        try world.happen(.link(ethernet(3)))
        try world.happen(.route(native(2, via: 1)))
        #expect(world.uplink(2)?.reason.code == "native-ipv4")
        try world.happen(.routes([native(3, via: 1)]))
        #expect(world.uplink(2)?.reason.state == .on)
        #expect(world.uplink(3)?.reason.code == "native-ipv4")
        // And what was listed without ours has ours no more.
        world.kernel.places[2]?.routes = []
        world.steps = []
        try world.happen(.routes([]))
        #expect(world.steps.map(\.name) == [.setIPv4Route])
    }

    @Test("each hop is one, and one that leads nowhere keeps its metric from us")
    func hops() throws {
        var route = Route(to: .any(.ipv4), metric: 1025)
        route.nextHops = [7, 8].map { NextHop(gateway: gateway, outputIndex: $0, weight: 1, flags: []) }
        #expect(DefaultRoute.all(in: route).map(\.index) == [7, 8])
        #expect(DefaultRoute.all(in: route).allSatisfy { $0.gateway == gateway })
        let nowhere = DefaultRoute.all(in: Route(to: .any(.ipv4), metric: 1025, kind: .unreachable))
        #expect(nowhere.map(\.index) == [0])
        var world = World()
        for route in nowhere { try world.happen(.route(route)) }
        try world.happen(.link(ethernet(2)))
        try world.happen(.advertisement(try parse(good), uplink: 2))
        #expect(world.kernel.places[2]?.routes.map(\.metric) == [1026])
    }

    @Test("the notice of our own route that another one of ours has replaced takes nothing away")
    func ownReplaced() throws {
        var world = try started()
        let device = try #require(world.kernel.places[2]?.hostLink)
        let old = try #require(world.kernel.places[2]?.routes.first)
        try world.happen(.advertisement(try parse(good + "05 01 0000 00000578"), uplink: 2))
        let new = try #require(world.kernel.places[2]?.routes.first)
        #expect((old.metric, old.mtu, new.metric, new.mtu) == (1025, 1480, 1025, 1380))
        world.steps = []
        try world.happen(.route(DefaultRoute(new, on: device)))
        try world.happen(.routeGone(DefaultRoute(old, on: device)))
        #expect(world.steps.isEmpty && world.uplink(2)?.standing.route == new)
    }
}

@Suite("What was taken away while notices were lost")
struct LostNoticeTests {
    private func snapshot(_ world: World, _ change: (inout Host) -> Void) -> Event {
        var host = Host()
        host.links[2] = ethernet(2)
        if let place = world.kernel.places[2], let device = place.hostLink {
            host.links[device] = ethernet(device, name: "clat-eth2")
            host.addresses = Set(place.ipv4s.map { HostAddress(index: device, value: .v4($0)) })
            host.defaultRoutes = Set(place.routes.map { DefaultRoute($0, on: device) })
        }
        change(&host)
        return .snapshot(host)
    }

    @Test("is put back: nothing, the route, the address with its route, the device")
    func mended() throws {
        var world = try started()
        try world.happen(snapshot(world) { _ in })
        #expect(world.steps.isEmpty)

        world.kernel.places[2]?.routes = []
        try world.happen(snapshot(world) { _ in })
        #expect(world.steps.map(\.name) == [.setIPv4Route])

        world.steps = []
        world.kernel.places[2]?.routes = []
        world.kernel.places[2]?.ipv4s = []
        try world.happen(snapshot(world) { _ in })
        #expect(world.steps.map(\.name) == [.addIPv4Address, .setIPv4Route])

        world.kernel.places[2]?.routes = []
        world.kernel.places[2]?.ipv4s = []
        world.kernel.places[2]?.hostLink = nil
        try world.happen(snapshot(world) { _ in })
        #expect(world.uplink(2)?.reason == .failed(.createHostLink, "somebody removed it"))
        try world.pass(.seconds(2))
        #expect(world.uplink(2)?.reason.state == .on)
    }

    @Test("a CLAT address that is not listed has vanished, and is claimed again")
    func address() throws {
        var world = try started()
        let address = try #require(world.uplink(2)?.target?.current.ipv6)
        try world.happen(.clatAddresses([address: .preferred], uplink: 2))
        #expect(world.steps.isEmpty)
        world.kernel.places[2]?.addresses = [:]
        try world.happen(.clatAddresses([:], uplink: 2))
        #expect(world.steps.first == .addAddress(address))
        #expect(world.uplink(2)?.reason.state == .on)
    }
}

@Suite("What keeps the uplink clean")
struct GuardTests {
    @Test("outlasts a CLAT that gives way to native IPv4, for five seconds")
    func lingers() throws {
        var world = try started()
        #expect(world.kernel.guards == [2])
        try world.happen(.route(native(2, via: 1)))
        #expect(world.kernel.isClean)
        try world.pass(.milliseconds(4900))
        #expect(world.kernel.guards == [2])
        try world.pass(.milliseconds(200))
        #expect(world.kernel.guards == [])
        try world.happen(.routeGone(native(2, via: 1)))
        #expect(world.uplink(2)?.reason.state == .on && world.kernel.guards == [2])
        try world.pass(.seconds(60))
        #expect(world.kernel.guards == [2])
    }

    @Test("goes with it where another program's CLAT takes over, which has such an address too, or none is wanted")
    func atOnce() throws {
        var world = try started()
        try world.happen(.address(HostAddress(index: 2, value: .v4(IPv4Address(192, 0, 0, 5)))))
        #expect(world.kernel.guards == [2])
        try world.happen(.route(native(2, via: 1)))
        #expect(world.uplink(2)?.reason.code == "other-clat" && world.kernel.guards == [])
        for change in [
            { $0.disabled = ["eth2"] }, { $0.excluded = ["eth*"] }, { $0.interfaces = ["wlan0"] },
        ] as [(inout Configuration) -> Void] {
            var world = try started()
            var configuration = Configuration()
            change(&configuration)
            try world.happen(.configure(configuration))
            #expect(world.kernel.isClean && world.kernel.guards == [])
        }
        world = try started()
        try world.happen(.linkGone(2))
        #expect(world.kernel.guards == [] && world.uplink(2) == nil)
    }
}

@Suite("Prefixes and routers of a CLAT")
struct SourceTests {
    private func prefix(_ world: World) -> String? {
        (world.uplink(2)?.standing.working?.ipv6).flatMap { IPv6Prefix($0, length: 64)?.description }
    }

    @Test("a sole prefix that is deprecated goes on being used until there is a better one")
    func deprecated() throws {
        var world = try started()
        try world.happen(.advertisement(try parse(header + deprecated1 + pref64), uplink: 2))
        #expect(world.uplink(2)?.reason.state == .on && world.steps.isEmpty)
        try world.pass(.seconds(10))
        #expect(world.uplink(2)?.reason.state == .on && world.steps.isEmpty)
        try world.happen(.advertisement(try parse(header + prefix2 + pref64), uplink: 2))
        #expect(prefix(world) == "2001:db8:2::/64")
        #expect(!world.steps.map(\.name).contains(.removeIPv4Route))
        // Nor does it keep IPv4 from coming, as it does not keep the host from having an address.
        let fresh = try started(Configuration(), header + deprecated1 + pref64)
        #expect(prefix(fresh) == "2001:db8:1::/64")
    }

    @Test("routers are asked before the prefix in use is deprecated")
    func refreshed() throws {
        // Router and PREF64 hold for half an hour, the prefix is preferred for ten minutes.
        var world = try started(Configuration(), header + prefix1.replacing("00000708", with: "00000258") + pref64)
        world.solicitations = []
        try world.pass(.seconds(530))
        #expect(world.solicitations.isEmpty)
        try world.pass(.seconds(12))
        #expect(world.solicitations.count == 1)
    }

    @Test("the address is of the prefix of the router that packets go to")
    func nextHop() throws {
        var world = World()
        try world.happen(.link(ethernet(2)))
        // The first router tells the PREF64 and is no default router; the second is one.
        try world.happen(
            .advertisement(try parse(header.replacing("07 08", with: "00 00") + prefix1 + pref64), uplink: 2))
        try world.happen(.advertisement(try parse(header + prefix2, from: second), uplink: 2))
        #expect(world.uplink(2)?.standing.routing?.router == second)
        #expect(prefix(world) == "2001:db8:2::/64")
        // Once the first is one it is used, with its own prefix.
        try world.happen(.advertisement(try parse(good), uplink: 2))
        #expect(world.uplink(2)?.standing.routing?.router == router)
        #expect(prefix(world) == "2001:db8:1::/64")
    }

    @Test("a prefix is preferred of the PREF64's kind: unique local for unique local, global for global")
    func kind() throws {
        let local = prefix1.replacing("20010db80001", with: "fd0000000001")
        let localPREF64 = pref64.replacing("20010db8 0064", with: "fd000000 0064")
        for (told, expected) in [(pref64, "2001:db8:1::/64"), (localPREF64, "fd00:0:1::/64")] {
            for prefixes in [prefix1 + local, local + prefix1] {
                let world = try started(Configuration(), header + prefixes + told)
                #expect(prefix(world) == expected)
            }
        }
    }

    @Test(
        "a router that does not answer neighbour discovery is left for another; it is doubted once in a minute at most")
    func unreachable() throws {
        var world = try started()
        try world.happen(.advertisement(try parse(good, from: second), uplink: 2))
        try world.pass(.seconds(1))
        world.solicitations = []
        try world.happen(.unreachable(second, uplink: 2))
        #expect(world.solicitations.isEmpty)
        try world.happen(.unreachable(router, uplink: 2))
        #expect(world.solicitations.count == 1)
        try world.happen(.advertisement(try parse(good, from: second), uplink: 2))
        try world.happen(.unreachable(router, uplink: 2))
        try world.pass(.seconds(9))
        #expect(world.uplink(2)?.standing.routing?.router == second)
        #expect(world.uplink(2)?.reason.state == .on)
        try world.happen(.advertisement(try parse(good, from: second), uplink: 2))
        let asked = world.solicitations.count
        try world.happen(.unreachable(second, uplink: 2))
        #expect(world.solicitations.count == asked)
        try world.pass(.seconds(60))
        try world.happen(.unreachable(second, uplink: 2))
        #expect(world.solicitations.count == asked + 1)
    }
}

@Suite("What is said while IPv4 works")
struct WorkingTests {
    @Test("it is on while another address is being checked, and since as long as before")
    func renumbering() throws {
        var world = try started()
        let since = world.uplink(2)?.since
        world.dad = { _ in nil }
        try world.pass(.seconds(60))
        try world.happen(.advertisement(try parse(header + deprecated1 + prefix2 + pref64), uplink: 2))
        #expect(world.uplink(2)?.reason.code == "running" && world.uplink(2)?.since == since)
        let new = try #require(world.uplink(2)?.target?.current)
        world.kernel.places[2]?.addresses[new.ipv6] = .preferred
        try world.happen(.clatAddress(new.ipv6, .preferred, uplink: 2))
        #expect(world.uplink(2)?.standing.working == new)
        #expect(world.uplink(2)?.reason.code == "running" && world.uplink(2)?.since == since)
    }

    @Test("after sleep, and with another access point, the address that drains is announced too")
    func announced() throws {
        for event in [Event.resumed, .associated(uplink: 2)] {
            var world = try started()
            try world.happen(.advertisement(try parse(header + deprecated1 + prefix2 + pref64), uplink: 2))
            #expect(world.kernel.places[2]?.addresses.count == 2)
            world.steps = []
            try world.happen(event)
            #expect(world.steps.count == 2 && world.steps.allSatisfy { $0.name == .announce })
        }
    }

    @Test("what drains gives way where another interface lacks an address")
    func drainsGiveWay() throws {
        var world = try started()
        for last in 3...7 {
            try world.happen(.address(HostAddress(index: 1, value: .v4(IPv4Address(192, 0, 0, UInt8(last))))))
        }
        try world.happen(.advertisement(try parse(header + deprecated1 + prefix2 + pref64), uplink: 2))
        #expect(world.kernel.places[2]?.ipv4s.count == 2)
        try world.happen(.link(ethernet(3)))
        try world.happen(.advertisement(try parse(good), uplink: 3))
        #expect(world.kernel.places[2]?.ipv4s == [IPv4Address(192, 0, 0, 2)])
        #expect(world.kernel.places[3]?.ipv4s == [IPv4Address(192, 0, 0, 1)])
        #expect(world.uplink(2)?.reason.state == .on && world.uplink(3)?.reason.state == .on)
    }

    @Test("failures are forgotten after a minute without one, whatever the state was meanwhile")
    func backOff() throws {
        var world = try started()
        for _ in 0..<4 {
            try world.happen(.translatorEnded("made to end", uplink: 2))
            try world.pass(.seconds(10))
        }
        let noRouter = header.replacing("07 08", with: "00 00")
        try world.happen(.advertisement(try parse(noRouter), uplink: 2))
        #expect(world.uplink(2)?.reason == .suspended)
        try world.pass(.seconds(90))
        try world.happen(.translatorEnded("made to end", uplink: 2))
        try world.happen(.advertisement(try parse(header), uplink: 2))
        try world.pass(.milliseconds(1100))
        #expect(world.uplink(2)?.reason.state == .on)
    }
}

@Suite("Why IPv4 is off")
struct WhyOffTests {
    private func world(_ text: String) throws -> World {
        var world = World(try ConfigurationFile.parse(text, path: "f.toml"))
        try world.happen(.link(ethernet(2)))
        try world.happen(.advertisement(try parse(good), uplink: 2))
        return world
    }

    @Test("an address that the operator chose is named where it is taken, or of no prefix of the link")
    func chosen() throws {
        let ipv4 = IPv4Address(192, 0, 0, 5)
        var taken = try world("ipv4-address = \"192.0.0.5\"")
        try taken.happen(.address(HostAddress(index: 1, value: .v4(ipv4))))
        #expect(taken.uplink(2)?.reason == .addressesTaken(ipv4))
        #expect(taken.uplink(2)?.reason.sentence.contains("192.0.0.5 is in use") == true)
        let outside = try world("ipv6-address = \"2001:db8:7::1\"")
        #expect(outside.uplink(2)?.reason == .noUsablePrefix(for: IPv6Address("2001:db8:7::1")))
        #expect(outside.uplink(2)?.reason.sentence.contains("a prefix for 2001:db8:7::1") == true)
    }

    @Test("an interface that is excluded is no other interface")
    func excluded() throws {
        #expect(try world("exclude = [\"eth*\"]").uplink(2)?.reason == .excluded)
    }

    @Test("a port of a bridge is told from an interface in a VRF, and when it is free the routers are asked")
    func masters() throws {
        for (kind, word) in [("bridge", "port of a bridge"), ("bond", "port of a bond"), ("vrf", "in a VRF")] {
            var world = try started()
            var master = ethernet(9)
            master.kind = kind
            try world.happen(.link(master))
            var port = ethernet(2)
            port.master = 9
            try world.happen(.link(port))
            #expect(world.uplink(2)?.reason.code == "enslaved" && world.kernel.isClean)
            #expect(world.uplink(2)?.reason.sentence.contains(word) == true)
            world.solicitations = []
            try world.happen(.link(ethernet(2)))
            #expect(world.solicitations == [world.now])
        }
    }

    @Test("a bridge of guests alone is not served unless it is named; with a port that leads out it is")
    func inner() throws {
        var bridge = ethernet(2, name: "br0")
        bridge.kind = "bridge"
        var guest = ethernet(3, name: "veth3")
        (guest.kind, guest.master) = ("veth", 2)
        var world = World()
        for link in [bridge, guest] { try world.happen(.link(link)) }
        try world.happen(.advertisement(try parse(good), uplink: 2))
        #expect(world.uplink(2)?.reason == .inner && world.kernel.isClean && world.solicitations.isEmpty)
        var port = ethernet(4)
        port.master = 2
        try world.happen(.link(port))
        #expect(world.uplink(2)?.reason.state == .on)

        var configuration = Configuration()
        configuration.interfaces = ["br*"]
        world = World(configuration)
        for link in [bridge, guest] { try world.happen(.link(link)) }
        try world.happen(.advertisement(try parse(good), uplink: 2))
        #expect(world.uplink(2)?.reason.state == .on)
    }
}
