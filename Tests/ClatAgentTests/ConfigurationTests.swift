import ClatBase
import ClatTranslator
import Glibc
import Testing

@testable import ClatAgent

@Suite("The configuration file")
struct ConfigurationTests {
    private func parse(_ text: String) throws -> Configuration { try ConfigurationFile.parse(text, path: "f.toml") }

    private func problems(_ text: String) -> [String] {
        do throws(ConfigurationFile.Problems) {
            _ = try ConfigurationFile.parse(text, path: "f.toml")
            return []
        } catch { return error.lines }
    }

    @Test("an empty file, and none, mean the defaults")
    func empty() throws {
        #expect(try parse("") == Configuration())
        #expect(try parse("# nothing\n\n") == Configuration())
        #expect(try ConfigurationFile.read("/nonexistent/config.toml") == nil)
    }

    @Test("every key reaches the value")
    func everything() throws {
        let configuration = try parse(
            """
            interfaces = ["wlan0", "en*"]
            exclude = ["en9"]
            log-level = "debug"
            optimistic-dad = false
            datapath = "userspace"
            native-ipv4 = "coexist"
            pref64 = "64:ff9b::/96"
            ipv4-address = "192.0.0.3"
            ipv6-address = "random"
            dns = false
            mtu = 1400
            metric = 7
            ttl = "keep"
            strict-hop-limit = true
            traffic-class = "zero"
            lowest-ipv6-mtu = 1280
            strict-well-known-prefix = true
            node-identification = false
            answer-untranslatable = false
            errors-per-second = 7
            """)
        var policy = LinkPolicy()
        policy.nativeIPv4 = .coexist
        policy.pref64 = .wellKnown
        policy.ipv4Address = IPv4Address(192, 0, 0, 3)
        policy.ipv6Address = .random
        policy.usesDNS = false
        policy.mtu = 1400
        policy.metric = 7
        policy.ttl = .keep
        policy.strictHopLimit = true
        policy.trafficClass = .zero
        policy.lowestIPv6MTU = 1280
        policy.strictWellKnownPrefix = true
        policy.nodeIdentification = false
        policy.answerUntranslatable = false
        policy.errorsPerSecond = 7
        var expected = Configuration()
        expected.interfaces = ["wlan0", "en*"]
        expected.excluded = ["en9"]
        expected.logLevel = .debug
        expected.optimisticDAD = false
        expected.datapath = .userspace
        expected.defaults = policy
        #expect(configuration == expected)
    }

    @Test("it may be written in all the ways of TOML that it needs")
    func notation() throws {
        let configuration = try parse(
            "\"mtu\"=1_400 # octets\r\n\t'metric' = 0x10\r\ninterfaces = [ # who\n 'a\\', \n\"\\u0062\\\"\",\n]"
                + "\n[[ interface ]]\nname='x'")
        #expect(configuration.defaults.mtu == 1400)
        #expect(configuration.defaults.metric == 16)
        #expect(configuration.interfaces == ["a\\", "b\""])
        #expect(configuration.sections.map(\.pattern) == ["x"])
    }

    @Test("the first section that matches holds, over the defaults")
    func sections() throws {
        let configuration = try parse(
            """
            mtu = 1400
            metric = 5

            [[interface]]
            name = "wlan0"
            mtu = 1300

            [[interface]]   # the rest of Wi-Fi
            name = "wlan*"
            ipv6-address = "2001:db8::64"
            ipv4-address = "auto"
            """)
        #expect(configuration.policy(for: "wlan0").mtu == 1300)
        #expect(configuration.policy(for: "wlan0").metric == 5)
        #expect(configuration.policy(for: "wlan0").ipv6Address == .stable)
        #expect(configuration.policy(for: "wlan1").mtu == 1400)
        #expect(configuration.policy(for: "wlan1").fixedIPv6 == IPv6Address("2001:db8::64"))
        #expect(configuration.policy(for: "eth0") == configuration.defaults)
    }

    @Test(
        "interfaces are chosen by name and pattern",
        arguments: [
            ([], [], "eth0", true), (["eth0"], [], "eth0", true), (["eth0"], [], "eth1", false),
            (["eth*"], ["eth1"], "eth0", true), (["eth*"], ["eth1"], "eth1", false),
            ([], ["docker*"], "docker0", false),
            (["eth?"], [], "eth10", false), (["eth[0-3]"], [], "eth2", true), (["eth"], [], "eth0", false),
        ])
    func selection(interfaces: [String], excluded: [String], name: String, selected: Bool) {
        var configuration = Configuration()
        configuration.interfaces = interfaces
        configuration.excluded = excluded
        #expect((configuration.selects(name) && !configuration.excludes(name)) == selected)
    }

    @Test(
        "what cannot be used is named: file, line, key, and what is allowed",
        arguments: [
            ("mtu = 9", "f.toml:1: mtu: 9 is not allowed here; allowed: a whole number from 1280 to 65535"),
            ("\n\nmtu = \"1400\"", "f.toml:3: mtu: \"1400\" is not allowed here; allowed: a whole number"),
            ("mtu = 1400.5", "f.toml:1: mtu: 1400.5 is not allowed here"),
            ("metric = -1", "f.toml:1: metric: -1 is not allowed here; allowed: a whole number from 0 to 4294967295"),
            ("mtuu = 1400", "f.toml:1: mtuu: there is no such key here; is it mtu?"),
            ("native_ipv4 = \"coexist\"", "f.toml:1: native_ipv4: there is no such key here; is it native-ipv4?"),
            ("frobnicate = 1", "f.toml:1: frobnicate: there is no such key here; allowed here: interfaces, exclude,"),
            (
                "native-ipv4 = \"off\"",
                "f.toml:1: native-ipv4: \"off\" is not allowed here; allowed: one of \"stand-down\""
            ),
            ("interfaces = \"eth0\"", "f.toml:1: interfaces: \"eth0\" is not allowed here; allowed: a list"),
            ("interfaces = [\"eth0\", 3]", "f.toml:1: interfaces: this list is not allowed here"),
            ("interfaces = [\"a/b\"]", "f.toml:1: interfaces:"), ("interfaces = [\"\"]", "f.toml:1: interfaces:"),
            ("interfaces = [\"a-name-of-16-oct\"]", "f.toml:1: interfaces:"),
            ("pref64 = \"64:ff9b::/95\"", "f.toml:1: pref64: \"64:ff9b::/95\" is not allowed here; allowed: an IPv6"),
            (
                "check-address = \"192.0.0.170\"",
                "f.toml:1: check-address: \"192.0.0.170\" is not allowed here; allowed: the IPv4 address of a host"
            ),
            ("check-address = \"192.0.0.171\"", "f.toml:1: check-address:"),
            ("check-address = \"0.0.0.1\"", "f.toml:1: check-address:"),
            ("check-address = \"127.0.0.1\"", "f.toml:1: check-address:"),
            ("check-address = \"224.0.0.1\"", "f.toml:1: check-address:"),
            ("check-address = \"255.255.255.255\"", "f.toml:1: check-address:"),
            ("ipv4-address = \"127.0.0.1\"", "f.toml:1: ipv4-address:"),
            ("ipv6-address = \"fe80::1\"", "f.toml:1: ipv6-address:"),
            ("log-level = \"loud\"", "f.toml:1: log-level: \"loud\" is not allowed here; allowed: one of \"debug\""),
            ("optimistic-dad = 1", "f.toml:1: optimistic-dad: 1 is not allowed here; allowed: true or false"),
            ("ttl = 3", "f.toml:1: ttl: 3 is not allowed here; allowed: one of \"decrement\", \"keep\""),
            ("name = \"eth0\"", "f.toml:1: name: there is no such key here; it belongs in an [[interface]]"),
            ("[[interface]]\nmtu = 1400", "f.toml:1: name: is missing; allowed: an interface name"),
            (
                "[[interface]]\nname = \"a\"\n[[interface]]\nname=\"b\"\nlog-level = \"debug\"",
                "f.toml:5: log-level: there is no such key here; it belongs before the first [[interface]]"
            ),
            ("interface = 3", "f.toml:1: interface: 3 is not allowed here; allowed: sections that begin with"),
            ("[other]\nx = 1", "f.toml:1: other: there is no such key here"),
            ("mtu = 1400\n[interface]", "f.toml:2: interface: [interface] is not allowed here; allowed: sections that"),
            ("ttl = 2026-11-21", "f.toml:1: ttl: 2026-11-21 is not allowed here"),
            ("mtu = ", "f.toml:1: this is not TOML: the line ends too early"),
            ("mtu = 1400\n= 3", "f.toml:2: this is not TOML: \"=\" does not belong here"),
            ("mtu = 1400\nmtu = 1500", "f.toml:2: this is not TOML: mtu is there already"),
            ("mtu = 1400 metric = 3", "f.toml:1: this is not TOML: \"m\" does not belong here"),
            ("ttl = \"keep", "f.toml:1: this is not TOML: a string without its closing"),
            ("\nttl = \"\\q\"", "f.toml:2: this is not TOML: \"q\" does not belong here"),
            ("ttl = \"\\ud800\"", "f.toml:1: this is not TOML: a character number that is none"),
            ("ttl = \"\"\"keep\"\"\"", "f.toml:1: this is not TOML: a string of more than one line"),
            ("interfaces = [\n\"a\"\n", "f.toml:3: this is not TOML: a list without its ]"),
            ("interfaces = [\"a\" \"b\"]", "f.toml:1: this is not TOML:"),
            ("x = {a = 1}", "f.toml:1: this is not TOML:"),
            ("interfaces = [[[[[[[[[[1]]]]]]]]]]", "f.toml:1: this is not TOML:"),
            ("[[interface]", "f.toml:1: this is not TOML: the name of a section ends with ]]"),
            ("# \u{7}", "f.toml:1: this is not TOML:"), ("mtu", "f.toml:1: this is not TOML: mtu is not followed by ="),
        ])
    func problems(text: String, start: String) {
        let lines = problems(text)
        #expect(lines.contains { $0.hasPrefix(start) }, "\(lines)")
        #expect(lines.count == 1, "\(lines)")
    }

    @Test("all problems are told at once, in the order of the file")
    func several() {
        let lines = problems("metric = true\nfoo = 1\n[[interface]]\nname = \"x\"\nmtu = 3\nttl = 4\n")
        #expect(lines.map { $0.split(separator: ":")[1] } == ["1", "2", "5", "6"])
    }

    @Test("what is no text, or no file, is said so")
    func unreadable() throws {
        let path = "/tmp/clat-agent-test-\(getpid()).toml"
        let file = try OwnedDescriptor(opening: path, O_WRONLY | O_CREAT, mode: 0o600)
        defer { unlink(path) }
        _ = write(file.rawValue, [0xff, 0xfe] as [UInt8], 2)
        #expect(throws: ConfigurationFile.Problems.self) { try ConfigurationFile.read(path) }
        #expect(throws: ConfigurationFile.Problems.self) { try ConfigurationFile.read("/tmp") }
    }

    @Test("random octets and mutated files are refused or read, and no more")
    func mutations() {
        let good = Array(
            "interfaces = [\"a\"]\nmtu = 1400\n[[interface]]\nname = \"b\"\npref64 = \"64:ff9b::/96\"\n".utf8)
        var generator = SystemRandomNumberGenerator()
        var refused = 0
        for _ in 0..<2000 {
            var text = good
            for _ in 0..<Int.random(in: 1...4, using: &generator) {
                text[Int.random(in: 0..<text.count, using: &generator)] = .random(in: 0...127, using: &generator)
            }
            let lines = problems(String(decoding: text, as: UTF8.self))
            if !lines.isEmpty { refused += 1 }
            #expect(lines.allSatisfy { $0.hasPrefix("f.toml") }, "\(text)")
        }
        #expect(refused > 1000)
    }

    @Test("a change is told key by key, and when it does not hold at once")
    func changes() throws {
        let old = try parse("mtu = 1400\n[[interface]]\nname = \"wlan*\"")
        #expect(old.changes(from: old).isEmpty)
        let new = try parse("log-level = \"debug\"\n[[interface]]\nname = \"wlan*\"\nipv6-address = \"random\"")
        #expect(
            new.changes(from: old) == [
                "log-level: was info, is debug", "mtu: was 1400, is that of the link",
                "wlan*: ipv6-address: was stable, is random; an address that stands is kept while its prefix is valid",
                "wlan*: mtu: was 1400, is that of the link",
            ])
        #expect(Configuration().changes(from: old).last == "interface: the sections are now for none")
    }
}
