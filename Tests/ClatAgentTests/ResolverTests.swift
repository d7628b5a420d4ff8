import ClatBase
import ClatTranslator
import Testing

@testable import ClatAgent

private let announced = IPv6Address(high: 0x2001_0db8_0001_0000, low: 0x53)
private let rdnss = "19 03 0000 ffffffff 20010db8000100000000000000000053"
private let hostAddress = HostAddress(index: 2, value: .v6(IPv6Address(high: 0x2001_0db8_0001_0000, low: 9)))
private let known = PREF64("2001:db8:64::/96").map { [$0] } ?? []

@Suite("The resolvers of a link")
struct ResolverTests {
    /// A link without PREF64 from a router.
    private func attached(
        _ options: String = rdnss,
        _ resolve: @escaping (DNSQuestion) -> DNSOutcome? = { _ in .none(.noAddress, lifetime: 600) }
    ) throws -> World {
        var world = World()
        world.resolve = resolve
        try world.happen(.link(ethernet(2)))
        try world.happen(.address(hostAddress))
        try world.happen(.advertisement(try parse(header + prefix1 + options), uplink: 2))
        return world
    }

    @Test("an operator who wants no DNS any more is obeyed at once, and so is one who wants it again")
    func switchedOff() throws {
        var world = try attached { _ in .prefixes(known, lifetime: 86400) }
        #expect(world.uplink(2)?.reason.state == .on)
        var off = Configuration()
        off.defaults.usesDNS = false
        try world.happen(.configure(off))
        #expect(world.uplink(2)?.reason == .noPREF64 && world.kernel.isClean)
        try world.pass(.seconds(60))
        try world.happen(.configure(Configuration()))
        #expect(world.uplink(2)?.reason.state == .on)
    }
}
