import ClatBase
import ClatNetlink
import Glibc
import Testing

@Suite("A network namespace", .enabled(if: geteuid() == 0, "needs root"))
struct NamespaceTests {
    @Test("is born with nothing but lo, down")
    func isEmpty() throws {
        let namespace = try NetworkNamespace.create()
        var socket = try NetlinkSocket(in: namespace)
        let links = try socket.links()
        #expect(links.map(\.name) == ["lo"])
        #expect(links.first?.flags == [.loopback])
        #expect(links.first?.hardwareType == 772)
    }

    @Test("leaves the threads outside where they are")
    func isElsewhere() throws {
        let before = try NetworkNamespace.current().identity()
        let namespace = try NetworkNamespace.create()
        let identity = try namespace.identity()
        #expect(identity != before)
        #expect(try namespace.run { try NetworkNamespace.current().identity() } == identity)
        #expect(try NetworkNamespace.current().identity() == before)
    }

    @Test("hands out what the body throws")
    func throwsOn() throws {
        struct Refusal: Error, Equatable {}
        let namespace = try NetworkNamespace.create()
        #expect(throws: Refusal()) { try namespace.run { throw Refusal() } }
    }

    @Test("that is none is refused")
    func isNone() throws {
        let file = NetworkNamespace(adopting: try OwnedDescriptor(opening: "/dev/null", O_RDONLY))
        #expect(throws: SystemError(call: "setns", code: EINVAL)) { try file.run {} }
        #expect(throws: NetlinkError(operation: "open a netlink socket", code: EINVAL, message: "setns")) {
            _ = try NetlinkSocket(in: file)
        }
    }

    @Test("has sysctls of its own")
    func sysctls() throws {
        let namespace = try NetworkNamespace.create()
        let name = "ipv6/conf/default/accept_ra"
        let outside = try Sysctl.read(name)
        try namespace.run { try Sysctl.write("0", to: name) }
        #expect(try namespace.run { try Sysctl.read(name) } == "0")
        #expect(try Sysctl.read(name) == outside)
    }

    @Test("has no sysctl of a link that is not there")
    func noSysctl() throws {
        let path = "/proc/sys/net/ipv6/conf/absent/accept_ra"
        let namespace = try NetworkNamespace.create()
        #expect(throws: SystemError(call: "open \(path)", code: ENOENT)) {
            try namespace.run { try Sysctl.write("0", to: "ipv6/conf/absent/accept_ra") }
        }
    }

    @Test("takes the host's end of a veth with it when the last descriptor closes")
    func vanishes() throws {
        let host = try NetworkNamespace.create()
        var socket = try NetlinkSocket(in: host)
        var monitor = try NetlinkMonitor(.links, in: host)
        do {
            let inner = try NetworkNamespace.create()
            _ = try socket.createVeth("v4", peer: "up0", in: inner, mtu: 1500)
            #expect(try socket.link(named: "v4") != nil)
        }
        #expect(try eventually { try socket.link(named: "v4") == nil })
        var removed: [String] = []
        while let notice = try monitor.next() {
            if case .link(let link, removed: true) = notice { removed.append(link.name) }
        }
        #expect(removed == ["v4"])
    }

    @Test("takes a macvlan with it, and its parent is free again")
    func freesParent() throws {
        let host = try NetworkNamespace.create()
        let far = try NetworkNamespace.create()
        var socket = try NetlinkSocket(in: host)
        let parent = try socket.createVeth("wan", peer: "isp", in: far, mtu: 1500)
        do {
            let inner = try NetworkNamespace.create()
            try socket.createMacvlan("clat0", on: parent.index, in: inner)
        }
        #expect(
            try eventually {
                let inner = try NetworkNamespace.create()
                try socket.createMacvlan("clat0", on: parent.index, in: inner)
                return true
            })
    }
}
