import ClatBase
import ClatTranslator
import Testing

@testable import ClatAgent

@Suite("Links without neighbours")
struct PointToPointTests {
    private func raw(_ index: Int) -> Uplink {
        var link = ethernet(index, name: "wwan0")
        (link.medium, link.noARP, link.hardwareAddress) = (.pointToPoint, true, nil)
        return link
    }

    private func started(_ link: Uplink, _ configuration: Configuration = Configuration()) throws -> World {
        var world = World(configuration)
        try world.happen(.link(link))
        return world
    }

    /// An advertisement of a router that tells its own Ethernet address.
    private let told = header + "01 01 020000000001" + prefix1 + pref64

    @Test("a relay carries the CLAT there, knows no router's hardware address, and announces nothing")
    func relay() throws {
        var world = try started(raw(2))
        try world.happen(.advertisement(try parse(told), uplink: 2))
        #expect(world.uplink(2)?.reason.state == .on)
        #expect(world.uplink(2)?.standing.uplinkLink == .relay)
        #expect(world.kernel.places[2]?.routing?.hardwareAddress == nil)
        #expect(world.steps.last?.name == .setIPv4Route)
        try world.happen(.stop)
        #expect(world.isFinished && world.kernel.isClean)
    }

    @Test("what carries it follows whether neighbours are asked on the link")
    func follows() throws {
        var link = ethernet(2)
        var world = try started(link)
        try world.happen(.advertisement(try parse(told), uplink: 2))
        #expect(world.uplink(2)?.standing.uplinkLink == .ipvlan)
        #expect(world.kernel.places[2]?.routing?.hardwareAddress != nil)
        let address = world.kernel.places[2]?.addresses.keys.first
        for noARP in [true, false] {
            link.noARP = noARP
            try world.happen(.link(link))
            #expect(world.uplink(2)?.reason.state == .on)
            #expect(world.uplink(2)?.standing.uplinkLink == (noARP ? .relay : .ipvlan))
            #expect(world.kernel.places[2]?.addresses.keys.first == address)
        }
    }

    @Test("without a router it is passed over, unless somebody has named it")
    func silence() throws {
        #expect(try started(raw(2)).uplink(2)?.reason == .silentPointToPoint)
        var configuration = Configuration()
        configuration.interfaces = ["wwan0"]
        #expect(try started(raw(2), configuration).uplink(2)?.reason == .noAdvertisement)
        #expect(Reason.ofNoInterest.contains(Reason.silentPointToPoint.code))
        #expect(!Reason.ofNoInterest.contains(Reason.noAdvertisement.code))
    }

    @Test("prefix and address that are configured are enough where no router is")
    func configured() throws {
        var configuration = Configuration()
        let own = IPv6Address(high: 0x2001_0db8_0009_0000, low: 0xc1a7)
        configuration.defaults.pref64 = .wellKnown
        #expect(try started(raw(2), configuration).uplink(2)?.reason == .silentPointToPoint)
        configuration.defaults.ipv6Address = .fixed(own)
        let world = try started(raw(2), configuration)
        #expect(world.uplink(2)?.reason == .running(.wellKnown))
        #expect(world.kernel.places[2]?.routing == .direct)
        #expect(world.kernel.places[2]?.addresses == [own: .preferred])
        #expect(world.kernel.places[2]?.routes.count == 1)
        // On Ethernet there must be somebody who knows the way.
        #expect(try started(ethernet(2), configuration).uplink(2)?.reason == .noAdvertisement)
    }

    @Test("other links without Ethernet have a sentence of their own", arguments: ["sit", "gre", "ip6tnl", ""])
    func unsuitable(kind: String) throws {
        var link = ethernet(2)
        (link.medium, link.kind) = (.other, kind)
        let world = try started(link)
        #expect(world.uplink(2)?.reason == .unsuitable(kind: kind))
        #expect(world.uplink(2)?.reason.sentence.contains(kind.isEmpty ? "this link is" : "(\(kind))") == true)
        #expect(world.solicitations.isEmpty)
    }
}
