import ClatBase
import Foundation
import Glibc
import Testing

@testable import ClatNetlink

@Suite("Links of a kernel", .enabled(if: geteuid() == 0, "needs root"))
struct LinkTests {
    let host: NamespaceBox
    let far: NamespaceBox
    init() throws {
        host = try NamespaceBox()
        far = try NamespaceBox()
    }

    @Test("A veth has its peer in the other namespace, its MTU at both ends, and makes no link-local address")
    func veth() throws {
        let inner = try NetworkNamespace.create()
        var socket = try NetlinkSocket(in: host.namespace)
        var inside = try NetlinkSocket(in: inner)
        let created = try socket.createVeth("v4-eth0", peer: "up0", in: inner, mtu: 9000)
        #expect(created.name == "v4-eth0")
        #expect(created.kind == "veth")
        #expect(created.mtu == 9000)
        #expect(created.isEthernet)
        let address = try #require(created.hardwareAddress)
        #expect(address.bytes[0] & 0b11 == 0b10)
        #expect(!created.flags.contains(.up))
        #expect(created.linkNamespace != nil)
        let link = try #require(try socket.link(index: created.index))
        #expect(link.ipv6?.addressGenerationMode == AddressGenerationMode.none)
        let peer = try #require(try inside.link(named: "up0"))
        #expect(peer.mtu == 9000)
        #expect(peer.ipv6?.addressGenerationMode == .eui64)
        #expect(created.parent == peer.index)
        #expect(peer.parent == created.index)

        try inside.setLink(peer.index, up: true)
        try socket.setLink(link.index, up: true)
        #expect(try eventually { try socket.link(index: link.index)?.operationalState == .up })
        #expect(try socket.link(index: link.index)?.carrier == true)
        #expect(try socket.link(index: link.index)?.flags.isSuperset(of: [.up, .lowerUp, .running]) == true)
        #expect(try eventually { try !inside.addresses(.ipv6, on: peer.index).isEmpty })
        #expect(try socket.addresses(.ipv6, on: link.index).isEmpty)

        try socket.deleteLink(link.index)
        #expect(try socket.link(index: link.index) == nil)
        #expect(try inside.link(named: "up0") == nil)
    }

    @Test("A macvlan is born down in the other namespace, stacked on its parent")
    func macvlan() throws {
        let inner = try NetworkNamespace.create()
        var socket = try NetlinkSocket(in: host.namespace)
        var inside = try NetlinkSocket(in: inner)
        let parent = try socket.createVeth("wan", peer: "isp", in: far.namespace, mtu: 1500)
        let address = HardwareAddress(bytes: [2, 0, 0, 0xc1, 0xa7, 1])
        try socket.createMacvlan("clat0", on: parent.index, in: inner, hardwareAddress: address)
        #expect(try socket.links().map(\.name).sorted() == ["lo", "wan"])
        let link = try #require(try inside.link(named: "clat0"))
        #expect(link.kind == "macvlan")
        #expect(link.hardwareAddress == address)
        #expect(link.parent == parent.index)
        #expect(link.linkNamespace != nil)
        #expect(!link.flags.contains(.up))
        #expect(link.hardwareAddress != parent.hardwareAddress)
        let text = try output(of: "ip -d link show clat0", in: inner)
        #expect(text.contains("macvlan mode bridge"))
    }

    /// Whether the kernel has ipvlan; that of the development machine has not, that of `Tests/VM` has.
    static let hasIPvlan: Bool = {
        do {
            let (host, far) = (try NamespaceBox(), try NamespaceBox())
            var socket = try NetlinkSocket(in: host.namespace)
            let parent = try socket.createVeth("wan", peer: "isp", in: far.namespace, mtu: 1500)
            try socket.createIPvlan("probe", on: parent.index, in: far.namespace)
            return true
        } catch { return false }
    }()

    @Test("An ipvlan is born down in the other namespace, in mode L2", .enabled(if: hasIPvlan, "needs ipvlan"))
    func ipvlan() throws {
        let inner = try NetworkNamespace.create()
        var socket = try NetlinkSocket(in: host.namespace)
        let parent = try socket.createVeth("wan", peer: "isp", in: far.namespace, mtu: 1500)
        try socket.createIPvlan("clat0", on: parent.index, in: inner)
        var inside = try NetlinkSocket(in: inner)
        let link = try #require(try inside.link(named: "clat0"))
        #expect(link.kind == "ipvlan")
        #expect(link.ipvlanMode == .l2)
        #expect(link.ipvlanFlags == 0)
        #expect(link.parent == parent.index)
        #expect(link.linkNamespace != nil)
        #expect(link.hardwareAddress == parent.hardwareAddress)
        #expect(!link.flags.contains(.up))
        #expect(try socket.links().map(\.name).sorted() == ["lo", "wan"])
    }

    @Test("An ipvlan takes its siblings to mode L2 and leaves them private", .enabled(if: hasIPvlan, "needs ipvlan"))
    func ipvlanSiblings() throws {
        var socket = try NetlinkSocket(in: host.namespace)
        let parent = try socket.createVeth("wan", peer: "isp", in: far.namespace, mtu: 1500)
        _ = try output(of: "ip link add link wan name other type ipvlan mode l3 private", in: host.namespace)
        #expect(try socket.link(named: "other")?.ipvlanMode == .l3)
        try socket.createIPvlan("clat0", on: parent.index, in: far.namespace)
        #expect(try socket.link(named: "other")?.ipvlanMode == .l2)
        #expect(try socket.link(named: "other")?.ipvlanFlags == 1)
    }

    @Test("A kernel without ipvlan says that it knows no such type", .enabled(if: !hasIPvlan, "needs no ipvlan"))
    func noIPvlan() throws {
        var socket = try NetlinkSocket(in: host.namespace)
        let parent = try socket.createVeth("wan", peer: "isp", in: far.namespace, mtu: 1500)
        let error = #expect(throws: NetlinkError.self) {
            try socket.createIPvlan("clat0", on: parent.index, in: far.namespace)
        }
        let sentence = "create ipvlan clat0 on link \(parent.index): Operation not supported (Unknown device type)"
        #expect(error?.description == sentence)
    }

    @Test("MTU, address generation and the up flag change one by one")
    func changes() throws {
        var socket = try NetlinkSocket(in: host.namespace)
        let index = try socket.createVeth("a", peer: "b", in: far.namespace, mtu: 1500).index
        try socket.setMTU(1280, ofLink: index)
        try socket.setAddressGenerationMode(.eui64, ofLink: index)
        try socket.setLink(index, up: true)
        let link = try #require(try socket.link(index: index))
        #expect(link.mtu == 1280)
        #expect(link.ipv6?.addressGenerationMode == .eui64)
        #expect(link.ipv6?.mtu == 1280)
        #expect(link.flags.contains(.up))
        try socket.setLink(index, up: false)
        #expect(try socket.link(index: index)?.flags.contains(.up) == false)
    }

    @Test("The sysctls of IPv6 are seen in the link")
    func sysctls() throws {
        var socket = try NetlinkSocket(in: host.namespace)
        let index = try socket.createVeth("a", peer: "b", in: far.namespace, mtu: 1500).index
        try host.namespace.run {
            try Sysctl.write("2", to: "ipv6/conf/a/accept_ra")
            try Sysctl.write("1", to: "ipv6/conf/a/forwarding")
            try Sysctl.write("1", to: "ipv6/conf/a/disable_ipv6")
            try Sysctl.write("1400", to: "ipv6/conf/a/mtu")
        }
        let state = try #require(try socket.link(index: index)?.ipv6)
        #expect(state.acceptRA == 2)
        #expect(state.forwarding == 1)
        #expect(state.disabled == 1)
        #expect(state.mtu == 1400)
    }

    @Test("Features are switched off by their names, and the others stay")
    func features() throws {
        var socket = try NetlinkSocket(in: host.namespace)
        let index = try socket.createVeth("a", peer: "b", in: far.namespace, mtu: 1500).index
        let names = ["tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation"]
        func features() throws -> [String] {
            try output(of: "ethtool -k a", in: host.namespace).split(separator: "\n").map(String.init)
        }
        let before = try features()
        try host.namespace.run { try LinkFeatures.switchOff(names, ofLink: index) }
        let changed = try zip(before, features()).filter { $0 != $1 }
        #expect(changed.map(\.1) == names.map { "\($0): off" })
        let error = #expect(throws: NetlinkError.self) {
            try host.namespace.run { try LinkFeatures.switchOff(["no-such"], ofLink: index) }
        }
        #expect(error?.code == EOPNOTSUPP && error?.operation == "switch off features of link \(index)")
    }

    @Test("What the kernel refuses comes with its words")
    func refusals() throws {
        var socket = try NetlinkSocket(in: host.namespace)
        let index = try socket.createVeth("a", peer: "b", in: far.namespace, mtu: 1500).index
        #expect(throws: NetlinkError(operation: "delete link 99", code: ENODEV)) { try socket.deleteLink(99) }
        let error = #expect(throws: NetlinkError.self) { try socket.setMTU(60, ofLink: index) }
        #expect(error?.code == EINVAL)
        #expect(error?.message == "mtu less than device minimum")
        let long = #expect(throws: NetlinkError.self) {
            _ = try socket.createVeth("sixteen-octets--", peer: "c", in: far.namespace, mtu: 1500)
        }
        #expect(long?.code == ERANGE)
        #expect(long?.message?.isEmpty == false)
        #expect(throws: NetlinkError(operation: "create veth a", code: EEXIST)) {
            _ = try socket.createVeth("a", peer: "c", in: far.namespace, mtu: 1500)
        }
        #expect(try socket.transmitDrops(ofLink: index) == 0)
        #expect(throws: NetlinkError(operation: "read the statistics of link 99", code: ENODEV)) {
            _ = try socket.transmitDrops(ofLink: 99)
        }
        #expect(try socket.link(named: "absent") == nil)
        #expect(try socket.link(index: 99) == nil)
        #expect(socket.malformed == 0)
    }

    @Test("The list says what ip says")
    func secondOpinion() throws {
        var socket = try NetlinkSocket(in: host.namespace)
        let index = try socket.createVeth("a", peer: "b", in: far.namespace, mtu: 1400).index
        try socket.createMacvlan("m", on: index, in: host.namespace)
        _ = try output(
            of: """
                ip link add br0 type bridge && ip tuntap add t mode tun && ip link set lo up && ip link set br0 up &&
                ip link add v type veth peer name w && ip link set v master br0
                """, in: host.namespace)

        struct Row: Decodable {
            struct Info: Decodable { var info_kind: String? }
            var ifindex: UInt32
            var ifname: String
            var mtu: Int
            var operstate: String
            var flags: [String]
            var address: String?
            var linkinfo: Info?
            var txqlen: Int?
            var master: String?
            var link: String?
            var link_index: UInt32?
            var inet6_addr_gen_mode: String?
        }
        let text = try output(of: "ip -j -d link", in: host.namespace)
        let rows = try JSONDecoder().decode([Row].self, from: Data(text.utf8))
        let links = try socket.links()
        #expect(links.map(\.name) == rows.map(\.ifname))
        #expect(links.count == 7)
        let names = Dictionary(uniqueKeysWithValues: links.map { ($0.index, $0.name) })
        let states: [OperationalState: String] = [
            .unknown: "UNKNOWN", .down: "DOWN", .lowerLayerDown: "LOWERLAYERDOWN", .up: "UP",
        ]
        let modes: [AddressGenerationMode: String] = [.eui64: "eui64", .none: "none", .random: "random"]
        for (link, row) in zip(links, rows) {
            #expect(link.index == row.ifindex)
            #expect(link.mtu == row.mtu)
            #expect(states[link.operationalState] == row.operstate)
            #expect(link.kind == row.linkinfo?.info_kind)
            #expect(link.hardwareAddress?.description == row.address)
            #expect(link.transmitQueueLength == row.txqlen)
            #expect(link.master.flatMap { names[$0] } == row.master)
            #expect(link.parent == row.link_index ?? links.first { $0.name == row.link }?.index)
            #expect(link.ipv6?.addressGenerationMode.flatMap { modes[$0] } == row.inet6_addr_gen_mode)
            #expect(link.flags.contains(.up) == row.flags.contains("UP"))
            #expect(link.flags.contains(.lowerUp) == row.flags.contains("LOWER_UP"))
            #expect(link.flags.contains(.loopback) == row.flags.contains("LOOPBACK"))
            #expect(link.flags.contains(.noARP) == row.flags.contains("NOARP"))
            #expect(link.flags.contains(.pointToPoint) == row.flags.contains("POINTOPOINT"))
        }
    }
}
