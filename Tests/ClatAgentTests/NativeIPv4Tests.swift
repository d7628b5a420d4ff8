import ClatBase
import ClatTranslator
import Testing

@testable import ClatAgent

/// What the agent takes for native IPv4, or for another's CLAT, and what not.
extension AgentMachineTests {
    @Test("native IPv4 wins, and when it goes the CLAT comes back")
    func nativeIPv4() throws {
        var world = try started()
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        let native = DefaultRoute(isIPv6: false, index: 2, metric: 100, origin: 16, gateway: gateway)
        try world.happen(.route(native))
        #expect(world.uplink(2)?.reason == .nativeIPv4(via: gateway, metric: 100))
        #expect(world.kernel.isClean)
        try world.happen(.routeGone(native))
        #expect(world.uplink(2)?.reason.state == .on)
    }

    @Test("native IPv4 has gone with its address, though the kernel does not tell of the route")
    func nativeAddressGoes() throws {
        func address(_ last: UInt8) -> HostAddress { HostAddress(index: 2, value: .v4(IPv4Address(10, 0, 0, last))) }
        for source in [nil, IPv4Address(10, 0, 0, 7)] {
            var world = try started()
            try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
            for last in [7, 8] as [UInt8] { try world.happen(.address(address(last))) }
            try world.happen(
                .route(DefaultRoute(isIPv6: false, index: 2, metric: 100, origin: 16, gateway: gateway, source: source))
            )
            #expect(world.uplink(2)?.reason == .nativeIPv4(via: gateway, metric: 100))
            try world.happen(.addressGone(address(7)))
            #expect((world.uplink(2)?.reason.state == .on) == (source != nil), "the one it prefers")
            try world.happen(.addressGone(address(8)))
            #expect(world.uplink(2)?.reason.state == .on, "the last")
        }
    }

    @Test("native IPv4 stays where its address gets another mask: both are there for a moment")
    func nativeMaskChanges() throws {
        var world = try started()
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        func address(_ length: Int) -> HostAddress {
            HostAddress(index: 2, value: .v4(IPv4Address(10, 0, 0, 7)), prefixLength: length)
        }
        try world.happen(.address(address(24)))
        try world.happen(
            .route(
                DefaultRoute(
                    isIPv6: false, index: 2, metric: 100, origin: 16, gateway: gateway,
                    source: IPv4Address(10, 0, 0, 7))))
        try world.happen(.address(address(25)))
        try world.happen(.addressGone(address(24)))
        #expect(world.uplink(2)?.reason == .nativeIPv4(via: gateway, metric: 100))
        try world.happen(.addressGone(address(25)))
        #expect(world.uplink(2)?.reason.state == .on)
    }

    @Test("a default route for a link-local IPv4 address alone is not native IPv4")
    func linkLocalIPv4() throws {
        var world = try started()
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        let linkLocal = HostAddress(index: 2, value: .v4(IPv4Address(169, 254, 150, 98)))
        let onLink = DefaultRoute(isIPv6: false, index: 2, metric: 1_001_002, origin: 3, gateway: nil)
        world.steps = []
        for event in [Event.address(linkLocal), .route(onLink), .addressGone(linkLocal), .routeGone(onLink)] {
            try world.happen(event)
            #expect(world.uplink(2)?.reason.state == .on)
        }
        #expect(world.steps.isEmpty)
        // With an address that is not of the link alone it counts, as one through a gateway does with any address or none.
        try world.happen(.route(onLink))
        try world.happen(.address(HostAddress(index: 2, value: .v4(IPv4Address(198, 51, 100, 7)))))
        #expect(world.uplink(2)?.reason == .nativeIPv4(via: nil, metric: 1_001_002))
    }

    @Test("another program's CLAT is given way to, on the interface itself or on a TUN", arguments: [2, 9])
    func otherCLAT(device: Int) throws {
        var world = try started()
        var tun = ethernet(9, name: "clat")
        tun.medium = .pointToPoint
        try world.happen(.link(tun))
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        let address = HostAddress(index: device, value: .v4(IPv4Address(192, 0, 0, 5)))
        let route = DefaultRoute(isIPv6: false, index: device, metric: 2048, origin: 4, gateway: gateway)
        try world.happen(.address(address))
        #expect(world.uplink(2)?.reason.state == .on)
        try world.happen(.route(route))
        #expect(world.uplink(2)?.reason == .otherCLAT(device: device == 9 ? "clat" : "eth2"))
        #expect(world.kernel.isClean)
        try world.happen(.routeGone(route))
        #expect(world.uplink(2)?.reason.state == .on)
    }

    @Test("our own IPv4 default route is not native IPv4")
    func ownRoute() throws {
        var world = try started()
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        try world.happen(
            .route(DefaultRoute(IPv4Route(metric: 1025, mtu: 1480, source: IPv4Address(192, 0, 0, 1)), on: 1001)))
        #expect(world.uplink(2)?.reason.state == .on)
    }
}
