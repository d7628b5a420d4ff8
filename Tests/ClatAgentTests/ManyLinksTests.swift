import ClatBase
import Testing

@testable import ClatAgent

@Suite("A host with hundreds of links")
struct ManyLinksTests {
    @Test("what an event costs grows with the number of links, and not with its square")
    func manyLinks() throws {
        func cost(links: Int) throws -> Duration {
            var host = Host()
            for index in 2..<2 + links {
                host.links[index] = ethernet(index)
                let address = IPv4Address(10, 0, UInt8(index >> 8), UInt8(index & 255))
                host.addresses.insert(HostAddress(index: index, value: .v4(address)))
            }
            var world = World()
            try world.happen(.snapshot(host))
            try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
            #expect(world.uplink(2)?.reason.state == .on && world.machine.uplinks.count == links)
            let clock = ContinuousClock()
            return (0..<9).map { _ in
                clock.measure { for _ in 0..<10 { _ = world.machine.handle(.timer, now: world.now) } }
            }.min() ?? .zero
        }
        let (few, many) = (try cost(links: 50), try cost(links: 500))
        #expect(many < few * 30, "\(few) with 50 links, \(many) with 500")
    }
}
