import ClatBase
import ClatTranslator
import Testing

@testable import ClatAgent

let prefix1 = "03 04 40c0 00000e10 00000708 00000000 20010db8000100000000000000000000"
let pref64 = "26 02 07 08 20010db8 00640000 00000000"
let gateway = IPAddress.v4(IPv4Address(192, 0, 2, 1))

func ethernet(_ index: Int, name: String? = nil, running: Bool = true) -> Uplink {
    Uplink(
        index: index, name: name ?? "eth\(index)", medium: .ethernet, kind: "", isUp: true, isRunning: running,
        mtu: 1500,
        hardwareAddress: HardwareAddress(bytes: [2, 0, 0, 0, 0, UInt8(truncatingIfNeeded: index)]), master: nil)
}

@Suite("The agent's decisions")
struct AgentMachineTests {
    func started(_ configuration: Configuration = Configuration()) throws -> World {
        var world = World(configuration)
        try world.happen(.link(ethernet(2)))
        return world
    }

    @Test("an advertisement with PREF64 and prefix brings IPv4, the route last; the end takes all away in reverse")
    func wholeLife() throws {
        var world = try started()
        #expect(world.solicitations == [world.now])
        #expect(world.uplink(2)?.reason == .noAdvertisement)
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        #expect(world.uplink(2)?.reason.state == .on)
        #expect(world.steps.suffix(2).map(\.name) == [.setIPv4Route, .announce])
        let place = try #require(world.kernel.places[2])
        #expect(place.ipv4s == [IPv4Address(192, 0, 0, 1)])
        #expect(place.routes == [IPv4Route(metric: 1025, mtu: 1480, source: IPv4Address(192, 0, 0, 1))])
        let address = try #require(place.addresses.keys.first)
        #expect(IPv6Prefix(address, length: 64)?.description == "2001:db8:1::/64")
        #expect(place.translator?.mappings.first?.isChecksumNeutral == true)

        world.steps = []
        try world.happen(.stop)
        #expect(world.isFinished)
        #expect(world.kernel.isClean)
        #expect(
            world.steps.map(\.name) == [
                .removeIPv4Route, .removeIPv4Address, .removeUplinkLink, .stopTranslator, .removeHostLink,
                .closeNamespace,
            ])
    }

    @Test("the address is the same on every start and another one on another network")
    func stableAddress() throws {
        func address(_ options: String) throws -> IPv6Address? {
            var world = try started()
            try world.happen(.advertisement(try parse(header + options + pref64), uplink: 2))
            return world.kernel.places[2]?.addresses.keys.first
        }
        let first = try #require(try address(prefix1))
        #expect(try address(prefix1) == first)
        let other = try #require(try address(prefix1.replacing("20010db80001", with: "20010db80002")))
        #expect(other.low != first.low)
    }

    @Test(
        "what is missing is said",
        arguments: [
            ("", Reason.noPREF64), (pref64, .noUsablePrefix()),
            (prefix1.replacing("40c0", with: "4080") + pref64, .noUsablePrefix()),
            (prefix1 + pref64.replacing("07 08", with: "0000"), .noPREF64),
        ])
    func missing(options: String, reason: Reason) throws {
        var world = try started()
        try world.happen(.advertisement(try parse(header + options), uplink: 2))
        #expect(world.uplink(2)?.reason == reason)
        #expect(world.kernel.isClean)
    }

    @Test("a router that is no default router is no way to the NAT64")
    func noRouter() throws {
        var world = try started()
        try world.happen(
            .advertisement(try parse(header.replacing("07 08", with: "00 00") + prefix1 + pref64), uplink: 2))
        #expect(world.uplink(2)?.reason == .noRouter)
    }

    @Test("a PREF64 that runs out takes IPv4 away, on time, also in sleep")
    func expiry() throws {
        var world = try started()
        try world.happen(
            .advertisement(try parse(header + prefix1 + pref64.replacing("07 08", with: "0258")), uplink: 2))
        try world.pass(.seconds(599))
        #expect(world.uplink(2)?.reason.state == .on)
        try world.pass(.seconds(2))
        #expect(world.uplink(2)?.reason == .noPREF64)
        #expect(world.kernel.isClean)
    }

    @Test("the first free address of 192.0.0.0/29 is taken; where none is free it is said, and cured by itself")
    func ipv4Addresses() throws {
        var world = try started()
        for last in 1...7 {
            try world.happen(.address(HostAddress(index: 1, value: .v4(IPv4Address(192, 0, 0, UInt8(last))))))
        }
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        #expect(world.uplink(2)?.reason == .addressesTaken())
        #expect(world.kernel.isClean)
        try world.happen(.addressGone(HostAddress(index: 1, value: .v4(IPv4Address(192, 0, 0, 5)))))
        #expect(world.kernel.places[2]?.ipv4s == [IPv4Address(192, 0, 0, 5)])
    }

    @Test("two uplinks with the same PREF64 get instances, addresses and metrics of their own")
    func twoUplinks() throws {
        var world = try started()
        try world.happen(.link(ethernet(3)))
        for index in [2, 3] {
            try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: index))
        }
        #expect(world.kernel.places.values.flatMap(\.ipv4s).sorted().map(\.description) == ["192.0.0.1", "192.0.0.2"])
        #expect(world.kernel.places.values.flatMap(\.routes).map(\.metric).sorted() == [1025, 1026])
    }

    @Test("a duplicate address is given up for another; after three it is said, and tried again later")
    func duplicates() throws {
        var world = try started()
        world.dad = { _ in .duplicate }
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        let tried = world.steps.compactMap { if case .addAddress(let address) = $0 { address } else { nil } }
        #expect(Set(tried).count == 3)
        #expect(world.uplink(2)?.reason == .duplicateAddress(tries: 3))
        #expect(world.kernel.isClean)
        world.dad = { _ in .preferred }
        try world.pass(.seconds(301))
        #expect(world.uplink(2)?.reason.state == .on)
    }

    @Test("IPv4 waits for DAD, and a DAD that does not end is an error that is tried again")
    func dadWaits() throws {
        var world = try started()
        world.dad = { _ in nil }
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        #expect(world.uplink(2)?.reason == .starting(.addAddress))
        #expect(world.kernel.places[2]?.ipv4s == [])
        try world.pass(.seconds(10))
        #expect(world.uplink(2)?.reason.code == "step-failed")
        #expect(world.kernel.isClean)
        world.dad = { _ in .optimistic }
        try world.pass(.seconds(2))
        #expect(world.uplink(2)?.reason.state == .on)
    }

    @Test(
        "a step that fails takes all down, is named, and is tried again after longer and longer pauses",
        arguments: [
            Step.Name.createNamespace, .createUplinkLink, .createHostLink, .addAddress, .setRouting, .startTranslator,
            .addIPv4Address, .setIPv4Route,
        ])
    func failures(name: Step.Name) throws {
        var world = try started()
        world.kernel.failing = [name]
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        #expect(world.uplink(2)?.reason == .failed(name, "made to fail"))
        #expect(world.kernel.isClean)
        func tries() -> Int { world.steps.filter { $0.name == name }.count }
        #expect(tries() == 1)
        try world.pass(.milliseconds(1100))
        #expect(tries() == 2)
        try world.pass(.seconds(1))
        #expect(tries() == 2)
        try world.pass(.seconds(60))
        #expect(tries() == 6)
        world.kernel.failing = []
        try world.pass(.seconds(64))
        #expect(world.uplink(2)?.reason.state == .on)
    }

    @Test("an undoing step that fails does not stop the undoing")
    func undoFailures() throws {
        var world = try started()
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        world.kernel.failing = [
            .removeIPv4Route, .removeIPv4Address, .stopTranslator, .removeHostLink, .removeUplinkLink,
        ]
        try world.happen(.stop)
        #expect(world.isFinished)
        #expect(world.kernel.isClean)
    }

    @Test("what somebody else removes is put back")
    func repairs() throws {
        var world = try started()
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        let device = try #require(world.kernel.places[2]?.hostLink)
        let route = try #require(world.kernel.places[2]?.routes.first)
        world.kernel.places[2]?.routes = []
        try world.happen(.routeGone(DefaultRoute(route, on: device)))
        #expect(world.kernel.places[2]?.routes.count == 1)
        world.kernel.places[2]?.routes = []
        world.kernel.places[2]?.ipv4s = []
        world.kernel.places[2]?.hostLink = nil
        try world.happen(.linkGone(device))
        #expect(world.uplink(2)?.reason.code == "step-failed")
        try world.pass(.seconds(2))
        #expect(world.uplink(2)?.reason.state == .on)
    }

    @Test("no carrier, no instance; after it comes back nothing old is believed and the routers are asked at once")
    func carrier() throws {
        var world = try started()
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        try world.happen(.link(ethernet(2, running: false)))
        #expect(world.uplink(2)?.reason == .noCarrier)
        #expect(world.kernel.isClean)
        world.solicitations = []
        try world.happen(.link(ethernet(2)))
        #expect(world.uplink(2)?.reason == .noAdvertisement)
        #expect(world.solicitations == [world.now])
    }

    @Test("a carrier that was lost and is back in one notice was lost all the same")
    func flap() throws {
        var world = try started()
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        (world.solicitations, world.steps) = ([], [])
        var link = ethernet(2)
        link.carrierLosses = 1
        try world.happen(.link(link))
        #expect(world.uplink(2)?.reason == .noAdvertisement)
        #expect(world.kernel.isClean)
        #expect(world.solicitations == [world.now])
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        #expect(world.uplink(2)?.reason.state == .on)
        world.steps = []
        link.mtu = 1400
        try world.happen(.link(link))
        #expect(!world.steps.map(\.name).contains(.removeUplinkLink))
    }

    @Test("solicitations back off as RFC 7559 wants, and an answer ends them")
    func solicitations() throws {
        var world = try started()
        let start = world.now
        try world.pass(.seconds(130))
        #expect(
            world.solicitations.map { Int((($0 - start) / .seconds(1)).rounded()) } == [0, 4, 12, 28, 60, 124])
        try world.happen(.advertisement(try parse(header), uplink: 2))
        try world.pass(.seconds(1600))
        #expect(world.solicitations.count == 6)
    }

    @Test("a renewal asks the routers at once and does not wait for a retry")
    func renewal() throws {
        var world = try started()
        world.kernel.failing = [.startTranslator]
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        world.kernel.failing = []
        world.solicitations = []
        try world.happen(.renew(uplink: 2))
        #expect(world.solicitations == [world.now])
        #expect(world.uplink(2)?.reason.state == .on)
        try world.happen(.renew(uplink: 99))
    }

    @Test("only the interfaces that were named are served")
    func selection() throws {
        var configuration = Configuration()
        configuration.interfaces = ["eth3"]
        var world = try started(configuration)
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        #expect(world.uplink(2)?.reason == .notSelected)
        #expect(world.solicitations.isEmpty)
        try world.happen(.link(ethernet(3)))
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 3))
        #expect(world.uplink(3)?.reason.state == .on)
    }

    @Test("the host's own advertisements are not believed")
    func ownAdvertisement() throws {
        var world = try started()
        try world.happen(.address(HostAddress(index: 2, value: .v6(router))))
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        #expect(world.uplink(2)?.reason == .noAdvertisement)
        #expect(world.uplink(2)?.refused == [.own: 1])
    }

    @Test("a smaller MTU of the router's is kept to, on the route too")
    func routerMTU() throws {
        var world = try started()
        try world.happen(.advertisement(try parse(header + prefix1 + pref64 + "05 01 0000 00000578"), uplink: 2))
        #expect(world.kernel.places[2]?.routes.map(\.mtu) == [1380])
        #expect(world.kernel.places[2]?.translator?.ipv6MTU == 1400)
        #expect(world.kernel.places[2]?.translator?.ipv4MTU == 1500)
        try world.happen(.advertisement(try parse(header + prefix1 + pref64 + "05 01 0000 00000514"), uplink: 2))
        #expect(world.kernel.places[2]?.routes.map(\.mtu) == [1280])
    }

    @Test("the veth is made for the largest packet the uplink brings, also when that grows")
    func deviceMTU() throws {
        var world = try started()
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        world.steps = []
        var link = ethernet(2)
        link.mtu = 9000
        try world.happen(.link(link))
        #expect(world.steps.contains(.setHostLinkMTU(9000)))
        #expect(world.kernel.places[2]?.routes.map(\.mtu) == [8980])
        #expect(world.kernel.places[2]?.translator?.ipv6MTU == 9000)
        #expect(world.kernel.places[2]?.translator?.ipv4MTU == 9000)
    }

    @Test("renumbering makes before it breaks: new flows on the new address, old ones on theirs while it is valid")
    func renumbering() throws {
        var world = try started()
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        let old = try #require(world.uplink(2)?.standing.translator?.mappings.first)
        let deprecated = prefix1.replacing("00000708", with: "00000000")
        let prefix2 = prefix1.replacing("20010db80001", with: "20010db80002")
        world.dad = { _ in nil }
        world.steps = []
        try world.happen(.advertisement(try parse(header + deprecated + prefix2 + pref64), uplink: 2))
        #expect(world.steps.map(\.name) == [.setRouting, .addAddress])
        #expect(world.kernel.places[2]?.routes.map(\.source) == [old.ipv4])

        let new = try #require(world.uplink(2)?.target?.current)
        #expect(new.ipv4 != old.ipv4 && new.ipv6.high != old.ipv6.high)
        world.kernel.places[2]?.addresses[new.ipv6] = .preferred
        try world.happen(.clatAddress(new.ipv6, .preferred, uplink: 2))
        let place = try #require(world.kernel.places[2])
        #expect(place.translator?.mappings == [new, old])
        #expect(place.ipv4s == [new.ipv4, old.ipv4])
        #expect(place.routes.map(\.source) == [new.ipv4])
        #expect(Set(place.addresses.keys) == [new.ipv6, old.ipv6])
        #expect(!world.steps.contains { $0.name == .removeIPv4Route })

        // The old prefix stays valid for an hour; then all of it goes, and nothing else.
        try world.pass(.seconds(1700))
        try world.happen(.advertisement(try parse(header + prefix2 + pref64), uplink: 2))
        #expect(world.kernel.places[2]?.ipv4s.count == 2)
        try world.pass(.seconds(1750))
        try world.happen(.advertisement(try parse(header + prefix2 + pref64), uplink: 2))
        try world.pass(.seconds(170))
        #expect(world.uplink(2)?.reason.code == "running")
        #expect(world.kernel.places[2]?.ipv4s == [new.ipv4])
        #expect(world.kernel.places[2].map { Set($0.addresses.keys) } == [new.ipv6])
        #expect(world.kernel.places[2]?.translator?.mappings == [new])
        #expect(world.uplink(2)?.reason.state == .on)
    }

    @Test("a prefix that comes back finds its old mapping")
    func backAgain() throws {
        var world = try started()
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        let old = try #require(world.uplink(2)?.target?.current)
        let prefix2 = prefix1.replacing("20010db80001", with: "20010db80002")
        let gone = "00000000"
        try world.happen(
            .advertisement(try parse(header + prefix1.replacing("00000708", with: gone) + prefix2 + pref64), uplink: 2))
        #expect(world.uplink(2)?.target?.current != old)
        try world.happen(
            .advertisement(try parse(header + prefix1 + prefix2.replacing("00000708", with: gone) + pref64), uplink: 2))
        #expect(world.uplink(2)?.target?.current == old)
        #expect(world.kernel.places[2]?.routes.map(\.source) == [old.ipv4])
    }

    @Test("another PREF64 changes neither links nor addresses")
    func pref64InPlace() throws {
        var world = try started()
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        world.steps = []
        let other = pref64.replacing("0064", with: "0065") + pref64.replacing("07 08", with: "00 00")
        try world.happen(.advertisement(try parse(header + other), uplink: 2))
        #expect(world.steps.map(\.name) == [.updateTranslator])
        #expect(world.kernel.places[2]?.translator?.mappings.first?.pref64.description == "2001:db8:65::/96")
    }

    @Test("while no default router is there IPv4 waits, and goes on without anything being built anew")
    func suspension() throws {
        var world = try started()
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        world.steps = []
        try world.happen(.advertisement(try parse(header.replacing("07 08", with: "00 00")), uplink: 2))
        #expect(world.uplink(2)?.reason == .suspended)
        #expect(world.steps.map(\.name) == [.removeIPv4Route])
        try world.happen(.advertisement(try parse(header), uplink: 2))
        #expect(world.uplink(2)?.reason.state == .on)
        #expect(world.steps.map(\.name) == [.removeIPv4Route, .setIPv4Route])
    }

    @Test("an IPv4 address that somebody else takes is given up for a free one")
    func addressConflict() throws {
        var world = try started()
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        try world.happen(.address(HostAddress(index: 9, value: .v4(IPv4Address(192, 0, 0, 1)))))
        #expect(world.kernel.places[2]?.ipv4s == [IPv4Address(192, 0, 0, 2)])
        #expect(world.uplink(2)?.reason.state == .on)
    }

    @Test("a new PREF64 is used once the old one is withdrawn, not before")
    func prefixChange() throws {
        var world = try started()
        let other = pref64.replacing("0064", with: "0065")
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        try world.happen(.advertisement(try parse(header + other + pref64), uplink: 2))
        #expect(world.uplink(2)?.standing.translator?.mappings.first?.pref64.description == "2001:db8:64::/96")
        try world.happen(.advertisement(try parse(header + pref64.replacing("07 08", with: "0000")), uplink: 2))
        #expect(world.uplink(2)?.standing.translator?.mappings.first?.pref64.description == "2001:db8:65::/96")
        #expect(world.uplink(2)?.reason.state == .on)
    }
}
