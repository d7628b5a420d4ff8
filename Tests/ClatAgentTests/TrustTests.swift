import ClatBase
import ClatTranslator
import Testing

@testable import ClatAgent

@Suite("What strangers can cost, and what a thread may do")
struct TrustTests {
    private static func advertisement(_ router: UInt64, prefixes: Int) throws -> RouterAdvertisement {
        let head: [UInt8] = [134, 0, 0, 0, 64, 0, 0x07, 0x08] + [UInt8](repeating: 0, count: 8)
        let options = (0..<prefixes).flatMap { number -> [UInt8] in
            [
                3, 4, 64, 0xc0, 0, 0, 14, 16, 0, 0, 14, 16, 0, 0, 0, 0, 0x20, 0x01, 0x0d, 0xb8, UInt8(number),
                UInt8(router),
            ]
                + [UInt8](repeating: 0, count: 10)
        }
        return try RouterAdvertisement(
            message: head + options, from: IPv6Address(high: 0xfe80_0000_0000_0000, low: router), hopLimit: 255)
    }

    @Test("what of an advertisement there is no room for is counted")
    func room() throws {
        var knowledge = LinkKnowledge()
        func surplus(_ router: UInt64, prefixes: Int) throws -> Int {
            knowledge.hear(try Self.advertisement(router, prefixes: prefixes), now: BootInstant(nanoseconds: 1))
        }
        #expect(try surplus(1, prefixes: 30) == 0)
        #expect(try surplus(2, prefixes: 5) == 3)
        for router in 3...16 { #expect(try surplus(UInt64(router), prefixes: 0) == 0) }
        #expect(try surplus(17, prefixes: 1) == 1)
        #expect(knowledge.routers.count == LinkKnowledge.routerCapacity)
        #expect(knowledge.prefixes.count == LinkKnowledge.prefixCapacity)
        // Those that are known are heard still.
        #expect(try surplus(16, prefixes: 0) == 0)
    }

    @Test("advertisements that were too many are counted by the machine")
    func surplus() {
        var machine = AgentMachine(configuration: Configuration(), secret: [1])
        let now = BootInstant(nanoseconds: 1)
        let link = Uplink(
            index: 2, name: "eth0", medium: .ethernet, kind: "", isUp: true, isRunning: true, mtu: 1500,
            hardwareAddress: nil, master: nil)
        _ = machine.handle(.link(link), now: now)
        _ = machine.handle(.refusedAdvertisement(.tooMany, count: 7, uplink: 2), now: now)
        _ = machine.handle(.refusedAdvertisement(.hopLimit, uplink: 2), now: now)
        #expect(machine.uplinks[2]?.refused == [.tooMany: 7, .hopLimit: 1])
    }

    @Test("a thread's privileges are read from its status file")
    func threads() throws {
        func status(_ name: String, _ effective: String, _ noNew: Int, _ seccomp: Int) -> String {
            "Name:\t\(name)\nUmask:\t0022\nCapInh:\t0000000000000000\nCapPrm:\t\(effective)\nCapEff:\t\(effective)\n"
                + "CapBnd:\t000001ffffffffff\nCapAmb:\t0000000000000000\nNoNewPrivs:\t\(noNew)\nSeccomp:\t\(seccomp)\n"
        }
        let main = try #require(ThreadPrivileges(status: status("clat-agent", "0000000000203000", 1, 0)))
        #expect(main.excess.isEmpty)
        #expect(main.words == "clat-agent: CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN")
        let packets = try #require(ThreadPrivileges(status: status("clat-packets", "0000000000000000", 1, 2)))
        #expect(packets.excess.isEmpty && packets.words == "clat-packets: no capability, system calls filtered")
        let root = try #require(ThreadPrivileges(status: status("clat-packets", "0000000000000001", 0, 0)))
        #expect(
            root.excess == [
                "clat-packets has CAP_CHOWN", "clat-packets may get more from programs it starts",
                "clat-packets has no filter of system calls",
            ])
        #expect(ThreadPrivileges(status: "") == nil)
        #expect(ThreadPrivileges(status: "Name:\tx\nCapInh:\tnonsense\n") == nil)
    }

    @Test("files with CR LF are read as others, as fuzzing found they were not")
    func lines() {
        #expect(DisabledInterfaces.names(in: Array("eth0\r\nwlan0\r\n".utf8)) == ["eth0", "wlan0"])
        #expect(
            SystemResolvers.parse(resolvConf: "# x\r\nnameserver 2001:db8::53\r\nnameserver ::1\r\n").map(\.description)
                == ["2001:db8::53"])
    }

    @Test(
        "what fuzzing found in clatd.conf becomes a file that can be read",
        arguments: [
            "quiet=yes\ndebug=1", "plat-dev=a/b", "plat-dev=a-name-of-16-oct", "v4-defaultroute-metric=-1",
            "clat-v6-addr=fe80::1", "clat-v4-addr=127.0.0.1", "frob=\u{1}\u{7f}", "plat-prefix=::/96",
        ])
    func clatd(old: String) throws {
        _ = try ConfigurationFile.parse(ClatdImport.toml(old), path: "f")
    }
}

@Suite struct RateLimitTests {
    @Test func aSecondsWorthAtOnceAndThenEvenly() {
        var limit = RateLimit()
        let start: UInt64 = 5_000_000_000
        #expect((0..<150).filter { _ in limit.allows(100, now: start) }.count == 100)
        let (early, due) = (limit.allows(100, now: start + 9_000_000), limit.allows(100, now: start + 10_000_000))
        #expect(!early && due)
        #expect((0..<500).filter { limit.allows(100, now: start + 20_000_000 + UInt64($0) * 2_000_000) }.count <= 101)
        #expect(!RateLimit().allowing(0))
    }
}

extension RateLimit {
    fileprivate func allowing(_ perSecond: UInt32) -> Bool {
        var copy = self
        return copy.allows(perSecond, now: 1)
    }
}
