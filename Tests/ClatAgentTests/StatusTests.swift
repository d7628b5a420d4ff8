import Testing

@testable import ClatAgent

@Suite("The status in words, in metrics")
struct StatusTests {
    private let on: InterfaceStatus = {
        var status = InterfaceStatus(
            interface: "wlan0", state: .on,
            reason: ReasonStatus(code: "running", sentence: "IPv4 works through the NAT64 at 64:ff9b::/96"),
            sinceSeconds: 320, advertisements: 3, refusedAdvertisements: ["own-advertisement": 2],
            refusedAnswers: ["truncated": 6],
            counters: [
                "packets-out": 1, "octets-out": 84, "packets-in": 1234, "octets-in": 5_678_901, "kernel-packets-in": 7,
                "tcp-in": 5, "drop-igmp": 4, "reassembled": 2, "fragments-made": 0,
            ])
        status.pref64 = "64:ff9b::/96"
        status.pref64Router = "fe80::1"
        status.pref64LifetimeSeconds = 1740
        status.pref64RefreshSeconds = 1560
        status.ipv4Address = "192.0.0.1"
        status.device = "clat-wlan0"
        status.ipv6Address = "2001:db8:1:0:72bc:ff00:58e:ecde"
        status.ipv6AddressState = "preferred"
        status.uplinkKind = .ipvlan
        status.mtu = 1480
        status.metric = 601
        status.datapath = DatapathStatus(
            kind: "userspace",
            detail:
                "steered by routes and rules, as the verifier says something long; TUN with single packets"
        )
        return status
    }()

    private let off = InterfaceStatus(
        interface: "eth0", state: .off, reason: ReasonStatus(code: "no-pref64", sentence: Reason.noPREF64.sentence),
        sinceSeconds: 5, advertisements: 0, refusedAdvertisements: [:], counters: [:])

    private func agent(_ interfaces: InterfaceStatus...) -> AgentStatus {
        AgentStatus(
            version: "1.2", pid: 7, uptimeSeconds: 99, netlinkOverruns: 11, malformedNetlink: 12,
            lostAdvertisements: 13, interfaces: interfaces)
    }

    @Test("the whole of it, in 80 columns")
    func text() {
        let expected = """
            wlan0: IPv4 works through the NAT64 at 64:ff9b::/96 (for 5 min).
                PREF64        64:ff9b::/96 from router fe80::1, 29 min left, refreshed in 26
                              min
                IPv4          192.0.0.1 on clat-wlan0
                IPv6          2001:db8:1:0:72bc:ff00:58e:ecde (preferred)
                carried by    ipvlan
                route         metric 601, MTU 1480
                data path     userspace (steered by routes and rules, as the verifier says
                              something long; TUN with single packets)
                sent          1 packet, 84 B
                received      1234 packets, 5.6 MB
                dropped       igmp 4: IGMP has no translation.
                also          reassembled 2
                RAs refused   own-advertisement 2: This host sends them itself, as the
                              router of that link: nothing is wrong.
                DNS refused   truncated 6: The answer ends in the middle: see whether a
                              firewall or middlebox cuts DNS messages.
            eth0: IPv4 is off because no router on this link announces a NAT64 prefix
                (PREF64); ask the network's operator (for 5 s).
            """
        #expect(StatusText.lines(of: agent(on, off)).joined(separator: "\n") == expected)
        // Who told it is not known while it gives way to another: then nobody is named.
        for (source, words) in [
            ("configuration", "64:ff9b::/96 from the configuration, 29 min left"), (nil, "64:ff9b::/96, 29 min left"),
        ] {
            var status = on
            (status.pref64Router, status.pref64Source) = (nil, source)
            #expect(StatusText.lines(of: agent(status)).contains { $0.contains(words) })
        }
    }

    @Test(
        "each reason why something was not used has a sentence of its own, with what to do; another version's has none")
    func refusals() {
        func check<Problem: CountedProblem & CaseIterable>(_ problems: Problem.Type) {
            let sentences = Problem.allCases.map(\.sentence)
            #expect(Set(sentences).count == sentences.count)
            for sentence in sentences {
                #expect(sentence.wholeMatch(of: #/[A-Z][^.]+[:,] [^.]+\./#) != nil, "\(sentence)")
            }
        }
        check(RouterAdvertisementProblem.self)
        check(DNSProblem.self)
        #expect(DNSProblem.words(of: ["tomorrow's": 3, "unreadable": 0]) == ["tomorrow's 3"])
    }

    @Test("colours add escape sequences and nothing else")
    func colours() {
        let coloured = StatusText.lines(of: agent(on, off), coloured: true).joined(separator: "\n")
        #expect(coloured.contains("\u{1b}[1;32mwlan0\u{1b}[0m: IPv4"))
        #expect(coloured.contains("\u{1b}[1;31meth0\u{1b}[0m: IPv4"))
        let plain = coloured.replacing(/\u{1b}\[[0-9;]*m/, with: "")
        #expect(plain == StatusText.lines(of: agent(on, off)).joined(separator: "\n"))
    }

    @Test("one line for a status bar")
    func short() {
        var other = off
        other.reason.code = "not-selected"
        #expect(StatusText.short(agent(on, off, other)) == "wlan0 on, eth0 off (no-pref64)")
        #expect(StatusText.short(agent(other)) == "no interface")
    }

    @Test("a bridge on which no router was ever heard is told of only where there is nothing else")
    func virtualLinks() {
        var bridge = off
        (bridge.interface, bridge.linkKind, bridge.reason.code) = ("docker0", "bridge", "no-router-advertisement")
        #expect(StatusText.short(agent(on, bridge)) == "wlan0 on")
        var silent = off
        silent.reason.code = "no-router-advertisement"
        #expect(StatusText.short(agent(silent, bridge)) == "eth0 off (no-router-advertisement)")
        #expect(StatusText.short(agent(bridge)) == "docker0 off (no-router-advertisement)")
        // One that a router serves is an uplink.
        bridge.advertisements = 1
        #expect(StatusText.short(agent(on, bridge)) == "wlan0 on, docker0 off (no-router-advertisement)")
    }

    @Test("every reason's sentence fits the width once it is broken")
    func width() {
        for reason in [
            Reason.noRouter, .nativeIPv4(via: gateway, metric: 100), .suspended, .addressesTaken(),
            .duplicateAddress(tries: 3), .disabled,
        ] {
            for line in StatusText.wrapped("wlan0: \(reason.sentence)", indent: 4) { #expect(line.count <= 80) }
        }
    }

    @Test(
        "sizes have one decimal",
        arguments: [
            (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1999, "1.9 kB"), (999_999, "999.9 kB"),
            (1_000_000, "1.0 MB"),
            (UInt64.max, "18.4 EB"),
        ])
    func sizes(octets: UInt64, text: String) {
        #expect(StatusText.size(octets) == text)
    }

    @Test("metrics are OpenMetrics")
    func metrics() {
        let text = Metrics.text(of: agent(on, off), as: .openMetrics)
        for line in [
            "clat_agent_info{version=\"1.2\"} 1", "clat_agent_uptime_seconds 99",
            "clat_state{clat_state=\"on\",interface=\"wlan0\"} 1", "clat_state{clat_state=\"on\",interface=\"eth0\"} 0",
            "clat_state{clat_state=\"off\",interface=\"eth0\"} 1",
            "clat_reason_info{code=\"no-pref64\",interface=\"eth0\"} 1",
            "clat_packets_total{direction=\"in\",interface=\"wlan0\"} 1234",
            "clat_kernel_packets_total{direction=\"in\",interface=\"wlan0\"} 7",
            "clat_bytes_total{direction=\"out\",interface=\"wlan0\"} 84",
            "clat_tcp_packets_total{direction=\"in\",interface=\"wlan0\"} 5",
            "clat_dropped_packets_total{interface=\"wlan0\",reason=\"igmp\"} 4",
            "clat_events_total{event=\"reassembled\",interface=\"wlan0\"} 2",
            "clat_refused_advertisements_total{interface=\"wlan0\",reason=\"own-advertisement\"} 2",
            "clat_refused_answers_total{interface=\"wlan0\",reason=\"truncated\"} 6",
            "clat_netlink_overruns_total 11", "clat_malformed_netlink_total 12", "clat_lost_advertisements_total 13",
            "clat_pref64_lifetime_seconds{interface=\"wlan0\"} 1740",
        ] {
            #expect(text.split(separator: "\n").contains { $0 == line }, "\(line)")
        }
        #expect(text.hasSuffix("\n# EOF\n"))
        // The samples of a family stand together, after its TYPE and HELP, and no family comes twice.
        var types: [Substring] = []
        for line in text.split(separator: "\n") where line.hasPrefix("# TYPE ") {
            types.append(line.split(separator: " ")[2])
        }
        #expect(Set(types).count == types.count)
        var family: Substring = ""
        for line in text.split(separator: "\n").dropLast() {
            if line.hasPrefix("# TYPE ") { family = line.split(separator: " ")[2] }
            #expect(
                line.hasPrefix("# HELP \(family) ") || line.hasPrefix("# TYPE \(family) ") || line.hasPrefix(family))
        }
    }

    @Test("the older format has the same samples, and of types only those it knows")
    func olderFormat() {
        func lines(_ format: Metrics.Format, comments: Bool) -> [Substring] {
            Metrics.text(of: agent(on, off), as: format).split(separator: "\n").filter { $0.hasPrefix("#") == comments }
        }
        #expect(lines(.prometheus, comments: false) == lines(.openMetrics, comments: false))
        let types = lines(.prometheus, comments: true).filter { $0.hasPrefix("# TYPE ") }.map {
            $0.split(separator: " ")
        }
        #expect(Set(types.map(\.[3])) == ["counter", "gauge"])
        let families = Set(types.map(\.[2]))
        for sample in lines(.prometheus, comments: false) {
            #expect(families.contains(sample.prefix { $0 != "{" && $0 != " " }), "\(sample)")
        }
    }

    @Test("quotes and ends of line in a label are escaped")
    func escaping() {
        var odd = off
        odd.interface = "a\"b\\c\nd"
        #expect(Metrics.text(of: agent(odd), as: .openMetrics).contains("interface=\"a\\\"b\\\\c\\nd\""))
    }
}
