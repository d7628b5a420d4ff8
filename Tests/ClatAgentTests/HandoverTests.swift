import ClatBase
import ClatTranslator
import Glibc
import Testing

@testable import ClatAgent

@Suite("The handover to the next process")
struct HandoverTests {
    /// One as layout 3 has it. Where this test must change, the layout's number must.
    static let golden = """
        {"entries":[{"carrierLosses":3,"index":7,"ipv6MTU":1500,"knowledge":{"otherResolvers":["told",{"heard":100000000000,"servers":["2001:db8::53"]}],\
        "pref64s":{"entries":[{"expires":1900000000000,"heard":100000000000,"preference":0,"prefix":"64:ff9b::/96",\
        "source":{"router":{"_0":"fe80::1"}}}],"refused":0,"suspects":["2001:db8:64::/96",700000000000]},\
        "prefixes":[{"autonomous":true,"heard":100000000000,"onLink":true,"preferredUntil":2000000000000,"prefix":"2001:db8:1::/64",\
        "router":"fe80::1"}],"rdnss":[{"heard":100000000000,"router":"fe80::1","server":"2001:db8:1::53"}],"refreshAsked":0,\
        "routers":[{"address":"fe80::1","expires":1900000000000,"hardwareAddress":2199023255553,"heard":100000000000,\
        "mtu":1500,"preference":1}],"routes":[{"heard":100000000000,"preference":0,"prefix":"64:ff9b::/96",\
        "router":"fe80::1"}]},"mappings":[{"ipv4":"192.0.0.1","ipv6":"2001:db8:1::c1a7","pref64":"64:ff9b::/96"}],\
        "name":"eth0","since":90000000000,"standing":{"addresses":["2001:db8:1::c1a7","preferred"],\
        "announced":["2001:db8:1::c1a7"],"hasNamespace":true,"hostLink":12,"hostLinkMTU":1500,"ipv4s":["192.0.0.1"],\
        "isModeStolen":false,"route":{"metric":1025,"mtu":1480,"source":"192.0.0.1"},"routing":{"hardwareAddress":\
        2199023255553,"onLink":["2001:db8:1::/64"],"router":"fe80::1"},"uplinkLink":"ipvlan"},"steering":"tcx"}],"layout":3}
        """

    private func golden() throws -> Handover { try Handover(decoding: Array(Self.golden.utf8)) }

    @Test("is read as it was written, octet for octet")
    func roundTrip() throws {
        let handover = try golden()
        #expect(String(decoding: handover.encoded, as: UTF8.self) == Self.golden)
        let entry = try #require(handover.entries.first)
        #expect(entry.knowledge.pref64s.entries.first?.router == IPv6Address("fe80::1"))
        #expect(entry.knowledge.routers.first?.hardwareAddress?.description == "02:00:00:00:00:01")
        #expect(entry.standing.addresses == [entry.mappings[0].ipv6: .preferred])
        #expect(entry.standing.route == IPv4Route(metric: 1025, mtu: 1480, source: IPv4Address(192, 0, 0, 1)))
        #expect(entry.translator.mappings == entry.mappings)
    }

    @Test(
        "what no agent of this layout wrote is refused in words",
        arguments: [
            ("\"layout\":3}", "\"layout\":1}", "has layout 1, and this agent reads 3"),
            ("\"layout\":3}", "\"layout\":3", "cannot be read"),
            ("\"entries\":[", "\"entries\":7,\"x\":[", "cannot be read"),
            ("\"index\":7", "\"index\":0", "says of eth0 what cannot be: an interface index"),
            ("\"index\":7", "\"index\":4294967303", "says of eth0 what cannot be: an interface index"),
            ("\"hostLink\":12", "\"hostLink\":-1", "says of eth0 what cannot be: an interface index"),
            ("\"hostLink\":12,", "", "says of eth0 what cannot be: an interface index"),
            ("\"ipv6MTU\":1500", "\"ipv6MTU\":1279", "says of eth0 what cannot be: an MTU"),
            ("\"ipv6MTU\":1500", "\"ipv6MTU\":9223372036854775807", "says of eth0 what cannot be: an MTU"),
            ("\"uplinkLink\":\"ipvlan\"", "\"x\":0", "says of eth0 what cannot be: a CLAT without a link"),
            ("\"pref64\":\"64:ff9b::/96\"}]", "\"pref64\":\"64:ff9b::/97\"}]", "cannot be read"),
            ("\"refreshAsked\":0", "\"refreshAsked\":9223372036854775807", "cannot be read"),
            ("\"refreshAsked\":0", "\"refreshAsked\":-1", "cannot be read"),
            ("\"steering\":\"tcx\"", "\"steering\":\"magic\"", "cannot be read"),
        ])
    func refusals(part: String, instead: String, problem: String) {
        let text = Self.golden.replacing(part, with: instead, maxReplacements: 1)
        #expect(text != Self.golden)
        #expect(throws: Handover.Problem(description: problem)) { try Handover(decoding: Array(text.utf8)) }
    }

    @Test("an empty one, a huge one, a deep one and noise are refused")
    func noise() {
        let brackets = [UInt8](repeating: UInt8(ascii: "["), count: 100_000)
        let blanks = [UInt8](repeating: UInt8(ascii: " "), count: 2 << 20)
        for octets in [[], brackets, blanks, [0xff, 0, 0x7b]] as [[UInt8]] {
            #expect(throws: Handover.Problem.self) { try Handover(decoding: octets) }
        }
    }

    @Test("two entries about one interface, or an address in two mappings, are refused")
    func doubles() throws {
        var handover = try golden()
        handover.entries += handover.entries
        #expect(throws: Handover.Problem(description: "names an interface twice")) {
            try Handover(decoding: handover.encoded)
        }
        handover = try golden()
        handover.entries[0].mappings += handover.entries[0].mappings
        #expect(throws: Handover.Problem.self) { try Handover(decoding: handover.encoded) }
    }

    @Test("of 20,000 damaged ones none does harm: it is refused, or the agent goes on from it")
    func fuzz() {
        var random = SeededRandom(seed: 7)
        let original = Array(Self.golden.utf8)
        let pieces = [
            "0", "-1", "null", "[]", "{}", "\"\"", "9223372036854775807", "1e99", "::/0", "\"fe80::1\"", ",", "true",
        ]
        var accepted = 0
        for _ in 0..<20_000 {
            var octets = original
            for _ in 0..<Int.random(in: 1...3, using: &random) {
                let place = Int.random(in: 0..<octets.count, using: &random)
                let end = min(place + Int.random(in: 0...12, using: &random), octets.count)
                let piece = pieces[Int.random(in: 0..<pieces.count, using: &random)]
                switch Int.random(in: 0...3, using: &random) {
                case 0: octets[place] = UInt8.random(in: 0x20...0x7e, using: &random)
                case 1: octets.replaceSubrange(place..<end, with: Array(piece.utf8))
                case 2: octets.removeSubrange(place..<end)
                // A number or word exchanged for another is what passes most checks.
                default:
                    guard let colon = octets[place...].firstIndex(of: UInt8(ascii: ":")),
                        let stop = octets[(colon + 1)...].firstIndex(where: { ",}]".utf8.contains($0) })
                    else { continue }
                    octets.replaceSubrange(colon + 1..<stop, with: Array(piece.utf8))
                }
            }
            guard let handover = try? Handover(decoding: octets) else { continue }
            accepted += 1
            goOn(from: handover)
        }
        #expect(accepted > 100)
    }

    /// Adopts all of it, with and without what it tells of, and lets time pass.
    private func goOn(from handover: Handover) {
        for isWhole in [true, false] {
            var machine = AgentMachine(configuration: Configuration(), secret: Array(1...32))
            var host = Host()
            var adoptions: [Int: Adoption] = [:]
            for entry in handover.entries {
                var link = ethernet(7)
                link.index = entry.index
                host.links[entry.index] = link
                var found = isWhole ? entry.standing : Standing()
                found.hasNamespace = true
                adoptions[entry.index] = try? Adoption(entry, found: found)
            }
            var now = BootInstant(nanoseconds: 150_000_000_000)
            _ = machine.handle(.adopted(adoptions, host), now: now)
            for _ in 0..<8 {
                now = machine.nextDeadline(after: now) ?? now + .seconds(3600)
                _ = machine.handle(.timer, now: now)
            }
        }
    }

    @Test("what the kernel has otherwise is named, and mended by the reconciler")
    func differences() throws {
        let entry = try golden().entries[0]
        let adoption = try Adoption(entry, found: entry.standing)
        #expect(adoption.differences == [] && adoption.standing.announced == entry.standing.announced)
        #expect(adoption.standing.translator?.ipv4MTU == 1500)
        var found = entry.standing
        found.addresses = [:]
        found.ipv4s = []
        found.route = nil
        found.routing = nil
        found.hostLinkMTU = 1400
        found.isModeStolen = true
        #expect(
            try Adoption(entry, found: found).differences == [
                "2001:db8:1::c1a7 has gone", "192.0.0.1 has gone", "its IPv6 routes are others",
                "the IPv4 route has gone",
                "the MTU is another", "the ipvlan is in another mode",
            ])
        found = entry.standing
        found.addresses = [entry.mappings[0].ipv6: .duplicate]
        #expect(throws: Handover.Problem.self) { try Adoption(entry, found: found) }
    }

    @Test(
        "the next process goes on with the same address and route, asks the routers, and lets go when the lifetime is over"
    )
    func lifetimes() throws {
        var world = World()
        let entry = try golden().entries[0]
        var link = ethernet(7)
        link.carrierLosses = 3
        var host = Host()
        host.links = [7: link]
        world.kernel.places[7] = KernelModel.Place(
            namespace: true, uplinkLink: .ipvlan, hostLink: 12, mtu: 1500, addresses: entry.standing.addresses,
            routing: entry.standing.routing, translator: entry.translator, ipv4s: entry.standing.ipv4s,
            routes: [try #require(entry.standing.route)])
        world.now = BootInstant(nanoseconds: 150_000_000_000)
        try world.happen(.adopted([7: try Adoption(entry, found: entry.standing)], host))
        #expect(world.steps == [] && world.solicitations.count == 1)
        #expect(world.uplink(7)?.reason.state == .on && world.uplink(7)?.since == entry.since)
        #expect(world.choices == [])
        // The router's lifetime and the PREF64's end at 1900 s.
        try world.pass(.seconds(1749))
        #expect(world.kernel.places[7]?.routes.isEmpty == false)
        try world.pass(.seconds(2))
        #expect(world.kernel.places[7]?.routes.isEmpty == true)
        // All else waits a moment for a resolver to know better.
        try world.pass(.seconds(6))
        #expect(world.uplink(7)?.reason.state == .off && world.kernel.isClean)
    }

    @Test("memory is sealed and read whole; what is no file reads as nothing")
    func memory() throws {
        let octets = (0..<100_000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        let memory = try SealedMemory.make(octets)
        #expect(write(memory.rawValue, [1], 1) == -1)
        #expect(SealedMemory.read(memory, limit: 1 << 20) == octets)
        #expect(SealedMemory.read(memory, limit: 10) == Array(octets.prefix(10)))
        var ends: [CInt] = [-1, -1]
        try retrying("pipe") { pipe(&ends) }
        defer { close(ends[1]) }
        #expect(SealedMemory.read(OwnedDescriptor(adopting: ends[0]), limit: 10) == [])
    }

    @Test("the program is found where it was started from, whatever is there by now")
    func path() throws {
        #expect(ProgramPath.find("/bin/sh", search: nil) == "/bin/sh")
        #expect(ProgramPath.find("sh", search: "/nonexistent:/bin") == "/bin/sh")
        let running = try #require(ProgramPath.find("/nonexistent/clat-agent", search: nil))
        #expect(running.hasPrefix("/") && access(running, X_OK) == 0)
        #expect(ProgramPath.find("", search: nil) == running)
    }
}
