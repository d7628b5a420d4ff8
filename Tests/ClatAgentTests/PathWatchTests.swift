import ClatBase
import ClatTranslator
import Testing

@testable import ClatAgent

private let checked = IPv4Address(198, 51, 100, 10)
private let pref64B = pref64.replacing("0064", with: "0065")

@Suite("Whether the path through the NAT64 works")
struct PathWatchTests {
    private func started(check: Bool = true, _ options: String = pref64) throws -> World {
        var configuration = Configuration()
        if check { configuration.defaults.checkAddress = checked }
        var world = World(configuration)
        try world.happen(.link(ethernet(2)))
        try world.happen(.advertisement(try parse(header + prefix1 + options), uplink: 2))
        #expect(world.uplink(2)?.reason.state == .on)
        return world
    }

    @Test("nobody is asked where no address is named")
    func unasked() throws {
        var world = try started(check: false)
        try world.pass(.seconds(1000))
        try world.happen(.renew(uplink: 2))
        #expect(world.echoes.isEmpty)
        #expect(world.uplink(2)?.path.sentence == nil)
    }

    @Test("an address that answers is asked once, and again when somebody wants it")
    func answered() throws {
        var world = try started()
        world.echo = { _ in .reply(milliseconds: 12) }
        try world.pass(.milliseconds(1100))
        #expect(world.echoes == [checked, checked])
        try world.pass(.seconds(1000))
        #expect(world.echoes.count == 2)
        #expect(world.uplink(2)?.path.sentence == "the check address answers after 12 ms")
        try world.happen(.renew(uplink: 2))
        #expect(world.echoes.count == 3)
    }

    @Test("one that does not is asked after 0, 1 and 3 s, then less and less often; the only prefix stays in use")
    func silent() throws {
        var world = try started()
        #expect(world.echoes.count == 1)
        for (seconds, count) in [
            (0.9, 1), (0.2, 2), (1.7, 2), (0.4, 3), (59, 3), (2, 4), (120, 5), (600, 6), (600, 7), (600, 8),
        ] {
            try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
            try world.pass(.seconds(seconds))
            #expect(world.echoes.count == count)
        }
        #expect(world.uplink(2)?.path.sentence == "the check address does not answer")
        #expect(world.uplink(2)?.reason.state == .on)
        #expect(!world.steps.contains { $0.isUndoing })
        let set = "IPv4 is set up through the NAT64 at 2001:db8:64::/96, but does not work"
        #expect(world.uplink(2)?.sentence.hasPrefix(set) == true)
        world.echo = { _ in .reply(milliseconds: 12) }
        try world.pass(.seconds(601))
        #expect(world.uplink(2)?.sentence == "IPv4 works through the NAT64 at 2001:db8:64::/96")
        let asked = world.echoes.count
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        try world.pass(.seconds(1700))
        #expect(world.echoes.count == asked)
    }

    @Test("what came of an echo request through another prefix than the present one says nothing")
    func echoOfBefore() throws {
        var world = try started(pref64 + pref64B)
        world.echo = { _ in .reply(milliseconds: 3) }
        try world.pass(.seconds(2))
        let other = try #require(PREF64("2001:db8:65::/96"))
        for _ in 0..<4 { try world.happen(.echoed(.silence, through: other, uplink: 2)) }
        #expect(world.uplink(2)?.path.sentence == "the check address answers after 3 ms")
        #expect(world.uplink(2)?.knowledge.pref64s.isSuspect(other) == false)
    }

    @Test("after an hour of traffic answers that cease to come are noticed within forty seconds")
    func noticedSoon() throws {
        var world = try started(check: false)
        func flow(_ seconds: Int, isAnswered: Bool) throws {
            for second in 0..<seconds {
                if second.isMultiple(of: 600) {
                    try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
                }
                world.traffic.outbound += 2
                world.traffic.inbound += isAnswered ? 2 : 0
                try world.pass(.seconds(1))
            }
        }
        try flow(3600, isAnswered: true)
        #expect(world.uplink(2)?.path.traffic == .answered)
        #expect(world.uplink(2)?.sentence == "IPv4 works through the NAT64 at 2001:db8:64::/96")
        world.solicitations = []
        try flow(41, isAnswered: false)
        #expect(world.uplink(2)?.path.isDead == true)
        #expect(world.uplink(2)?.sentence.contains("but does not work") == true)
        #expect(!world.solicitations.isEmpty)
    }

    @Test("of two prefixes the one through which something comes back is taken, without flapping")
    func arbitration() throws {
        var world = try started(pref64 + pref64B)
        world.echo = { $0.description == "2001:db8:65::/96" ? .reply(milliseconds: 3) : .silence }
        try world.pass(.seconds(4))
        func used() -> String? { world.uplink(2)?.standing.translator?.mappings.first?.pref64.description }
        #expect(used() == "2001:db8:65::/96")
        let choices = world.choices.count
        #expect(
            world.choices.last
                == "PREF64 2001:db8:65::/96 from router fe80::1, as nothing comes back through 2001:db8:64::/96")
        for _ in 0..<8 {
            try world.pass(.seconds(300))
            try world.happen(.advertisement(try parse(header + prefix1 + pref64 + pref64B), uplink: 2))
        }
        #expect(used() == "2001:db8:65::/96")
        #expect(world.choices.count == choices)
    }

    @Test("two prefixes through which nothing comes back do not take turns for ever")
    func bothDead() throws {
        var world = try started(pref64 + pref64B)
        for _ in 0..<10 {
            try world.pass(.seconds(300))
            try world.happen(.advertisement(try parse(header + prefix1 + pref64 + pref64B), uplink: 2))
        }
        #expect(world.choices.count <= 3)
        #expect(world.uplink(2)?.reason.state == .on)
    }

    @Test("traffic that stays unanswered is told, and that it is answered again")
    func traffic() throws {
        var world = try started(check: false)
        func path() -> PathWatch.Traffic? { world.uplink(2)?.path.traffic }
        world.traffic = (4, 0)
        try world.pass(.seconds(60))
        #expect(path() == .unknown)
        world.traffic = (20, 3)
        try world.pass(.seconds(60))
        #expect(path() == .answered)
        world.traffic = (29, 3)
        try world.pass(.seconds(120))
        #expect(path() == .unanswered(packets: 9))
        #expect(
            world.uplink(2)?.path.sentence == "nothing has come back for the last 9 packets of TCP and UDP")
        world.traffic = (30, 4)
        try world.pass(.seconds(400))
        #expect(path() == .answered)
        // An engine that was started anew counts from 0.
        world.traffic = (2, 0)
        try world.pass(.seconds(400))
        #expect(path() == .answered)
        #expect(
            world.judgements == [
                "answers come back", "nothing has come back for the last 9 packets of TCP and UDP", "answers come back",
            ])
    }

    @Test("a few packets that nobody answers do not keep an idle host awake")
    func quiet() throws {
        var world = try started(check: false)
        for step in [(10, 10), (20, 20), (22, 20)] as [(UInt64, UInt64)] {
            world.traffic = (outbound: step.0, inbound: step.1)
            try world.pass(.seconds(60))
        }
        try world.pass(.seconds(900))
        #expect(world.uplink(2)?.path.traffic == .answered)
        try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        let samples = world.samples
        try world.pass(.seconds(1200))
        #expect((3...5).contains(world.samples - samples))
    }

    @Test("answers that cease to come make the check address be asked again, once")
    func checkedAgain() throws {
        var world = try started()
        world.echo = { _ in .reply(milliseconds: 12) }
        world.traffic = (10, 10)
        try world.pass(.seconds(60))
        let asked = world.echoes.count
        world.traffic = (20, 10)
        try world.pass(.seconds(200))
        world.traffic = (30, 10)
        try world.pass(.seconds(200))
        #expect(world.uplink(2)?.path.traffic == .unanswered(packets: 20))
        #expect(world.echoes.count == asked + 1)
    }

    @Test("a prefix through which nothing has ever come back gives way to another, one that has worked does not")
    func arbitrationByTraffic() throws {
        for hasWorked in [false, true] {
            var world = try started(check: false, pref64 + pref64B)
            world.traffic = hasWorked ? (10, 1) : (0, 0)
            try world.pass(.seconds(60))
            world.traffic.outbound += 20
            try world.pass(.seconds(100))
            world.traffic.outbound += 20
            try world.pass(.seconds(200))
            let used = world.uplink(2)?.standing.translator?.mappings.first?.pref64.description
            #expect(used == (hasWorked ? "2001:db8:64::/96" : "2001:db8:65::/96"))
        }
    }

    @Test("counters of before a change of the prefix are no answers through the new one")
    func countersGoOn() throws {
        var world = try started(check: false, pref64)
        world.traffic = (100, 100)
        try world.pass(.seconds(60))
        #expect(world.uplink(2)?.path.traffic == .answered)
        let withdrawn = pref64.replacing("07 08", with: "0000")
        try world.happen(.advertisement(try parse(header + prefix1 + withdrawn + pref64B), uplink: 2))
        try world.pass(.seconds(60))
        #expect(world.uplink(2)?.path.traffic == .unknown)
    }

    @Test("looking costs a wake-up in five minutes at most while nothing goes on")
    func wakeUps() throws {
        var world = try started(check: false)
        try world.pass(.seconds(1500))
        var wakeUps = 0
        let end = world.now + .seconds(3600)
        while let next = world.machine.nextDeadline(after: world.now), next <= end {
            world.now = next + .milliseconds(1)
            try world.happen(.timer)
            wakeUps += 1
            try world.happen(.advertisement(try parse(header + prefix1 + pref64), uplink: 2))
        }
        #expect(wakeUps <= 13)
    }
}
