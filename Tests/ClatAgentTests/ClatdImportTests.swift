import Testing

@testable import ClatAgent

@Suite("Coming from clatd")
struct ClatdImportTests {
    @Test(
        "each key becomes one of ours, or a comment",
        arguments: [
            ("plat-dev = wlan0", "interfaces = [\"wlan0\"]"),
            ("plat-prefix=64:ff9b::/96", "pref64 = \"64:ff9b::/96\""),
            // To clatd all of this is the value, and of no use; and this is one that is.
            ("plat-prefix=64:ff9b::/96 # NAT64", "# plat-prefix=64:ff9b::/96 # NAT64: this value"),
            ("script-up=ip route # x; y // z", "# script-up=ip route # x; y // z: run a program"),
            ("clat-v4-addr=192.0.0.2", "ipv4-address = \"192.0.0.2\""),
            ("clat-v6-addr=2001:db8::c1a7", "ipv6-address = \"2001:db8::c1a7\""),
            ("clat-v6-addr=shared", "# clat-v6-addr=shared: the CLAT always has"),
            ("v4-defaultroute-metric=99", "metric = 99"), ("v4-defaultroute-mtu=1400", "mtu = 1420"),
            ("v4-defaultroute-mtu=1260", "# v4-defaultroute-mtu=1260: the MTU of the link"),
            ("v4-conncheck-enable=no", "native-ipv4 = \"coexist\""),
            ("v4-conncheck-enable=1", "native-ipv4 = \"stand-down\""),
            ("v4-conncheck-enable=junk", "# v4-conncheck-enable=junk: this value is not understood"),
            ("v4-defaultroute-enable=yes", "# v4-defaultroute-enable=yes: it is so without a key"),
            ("v4-defaultroute-enable=junk", "# v4-defaultroute-enable=junk: this value is not understood"),
            ("v4-defaultroute-enable=off", "# v4-defaultroute-enable=off: the route is always set"),
            ("quiet=0", "# quiet=0: it is so"), ("quiet=2", "log-level = \"warning\""),
            ("debug=off", "# debug=off: it is so"), ("debug=junk", "# debug=junk: this value is not understood"),
            ("frob", "# frob: clatd 2.1.0 ignores such a line"),
            ("debug=1", "log-level = \"debug\""), ("quiet=yes", "log-level = \"warning\""),
            ("plat-prefix=junk", "# plat-prefix=junk: this value is not understood"),
            ("frob=1", "# frob=1: clatd 2.1.0 has no such key"),
        ])
    func keys(old: String, new: String) {
        #expect(ClatdImport.toml(old).split(separator: "\n").last?.hasPrefix(new) == true, "\(ClatdImport.toml(old))")
    }

    @Test("every key of clatd 2.1.0 is known, and what comes of them all can be read")
    func whole() throws {
        let keys = [
            "quiet", "debug", "script-up", "script-down", "clat-dev", "clat-v4-addr", "clat-v6-addr", "dns64-servers",
            "cmd-ip", "cmd-networkctl", "cmd-nft", "cmd-tayga", "cmd-ufw", "ctmark", "forwarding-enable", "plat-dev",
            "plat-prefix", "plat-fallback-prefix", "proxynd-enable", "route-table", "tayga-conffile", "tayga-v4-addr",
            "v4-conncheck-enable", "v4-conncheck-delay", "v4-defaultroute-enable", "v4-defaultroute-replace",
            "v4-defaultroute-metric", "v4-defaultroute-mtu", "v4-defaultroute-advmss",
        ]
        for value in ["\"x\\", "", "0", "1", "yes", "no", "192.0.0.3", "2001:db8::/96", "1400"] {
            let text = ClatdImport.toml(keys.map { "\($0)=\(value)" }.joined(separator: "\r\n"))
            #expect(!text.contains("has no such key"))
            #expect(text.split(separator: "\n").count == keys.count + 1, "a line for each key: \(text)")
            _ = try ConfigurationFile.parse(text, path: "f")
        }
        let good = ClatdImport.toml(
            "; a comment\nplat-dev=wlan0\nplat-prefix=64:ff9b::/96\n// more\ndebug=0\nclat-v4-addr=192.0.0.1\nv4-defaultroute-metric=2048"
        )
        let configuration = try ConfigurationFile.parse(good, path: "f")
        #expect(configuration.interfaces == ["wlan0"] && configuration.defaults.metric == 2048)
    }
}
