import ClatBase
import Glibc

@testable import ClatTranslator

/// Three network namespaces of one test: a host with IPv4 only through us, the CLAT's, and an IPv6 router that is also
/// the server behind PREF64 (2001:db8:64::/96, so 198.51.100.1 for the host) and a native neighbour (2001:db8:ffff::1).
///
///     host: v4 192.0.0.1/32 == veth == host :clat: uplink (macvlan on the host's up0) == veth == r6 :router
final class EngineLab: Sendable {
    static let clat = "2001:db8:1::c1a7"
    static let native = "2001:db8:ffff::1"
    static let server = "198.51.100.1"
    static let serverIPv6 = "2001:db8:64::c633:6401"

    let host: String
    let clat: String
    let router: String
    /// Beyond the router, where there is one.
    private let far: String

    init() throws {
        let id = "clat\(getpid())-\(UInt32.random(in: 0...0xffff))"
        (host, clat, router, far) = (id + "-host", id + "-clat", id + "-router", id + "-far")
        for name in [host, clat, router] { try Self.command(["ip", "netns", "add", name]) }
        try Self.command(
            ["ip", "-batch", "-"],
            input: """
                link add r6 netns \(router) type veth peer name up0 netns \(host)
                link add v4 netns \(host) type veth peer name host netns \(clat)
                """)
        for (name, devices) in [(host, ["up0", "v4"]), (clat, ["host"]), (router, ["r6"])] {
            for device in devices + ["default"] {
                try Self.command(["ip", "netns", "exec", name, "sysctl", "-qw", "net.ipv6.conf.\(device).accept_dad=0"])
            }
        }
        try ip(
            host, "link set lo up", "link set up0 up", "link add link up0 uplink netns \(clat) type macvlan mode bridge"
        )
        try ip(
            router, "link set lo up", "link set r6 up", "addr add 2001:db8:1::1/64 dev r6 nodad",
            "addr add \(Self.serverIPv6)/128 dev lo", "addr add \(Self.native)/128 dev lo")
        try ip(
            clat, "link set lo up", "link set uplink up", "addr add \(Self.clat)/64 dev uplink nodad",
            "route add default via 2001:db8:1::1 dev uplink", "link set host addrgenmode none", "link set host up")
        let hostAddress = try Self.command(
            ["ip", "netns", "exec", clat, "cat", "/sys/class/net/host/address"])
        try ip(
            host, "addr add 192.0.0.1/32 dev v4", "link set v4 addrgenmode none", "link set v4 up",
            "neigh add fe80::1 lladdr \(hostAddress) dev v4 nud permanent",
            "route add 0.0.0.0/0 via inet6 fe80::1 dev v4 onlink mtu 1480")
    }

    /// Behind PREF64, a hop beyond the router.
    static let farServer = "198.51.100.2"

    /// A link of that MTU behind the router, and `farServer` at its other end.
    func extend(mtu: Int) throws {
        try Self.command(["ip", "netns", "add", far])
        try ip(router, "link add f6 mtu \(mtu) type veth peer name r6 netns \(far)")
        for (namespace, device) in [(router, "f6"), (far, "r6")] {
            try run(
                namespace, "sysctl", "-qw", "net.ipv6.conf.\(device).accept_dad=0", "net.ipv6.conf.all.forwarding=1")
        }
        try ip(
            router, "link set f6 up", "addr add 2001:db8:f::1/64 dev f6 nodad",
            "route add 2001:db8:64::c633:6402/128 via 2001:db8:f::2 dev f6")
        try ip(
            far, "link set lo up", "link set r6 mtu \(mtu) up", "addr add 2001:db8:f::2/64 dev r6 nodad",
            "addr add 2001:db8:64::c633:6402/128 dev lo nodad", "route add default via 2001:db8:f::1 dev r6")
    }

    static let tunnelServer = "2001:db8:7::2"

    static let hasUDPLite = (try? command(["grep", "-q", "UDPLITEv6", "/proc/net/protocols"])) != nil

    /// Whether the kernel has VXLAN.
    static let hasVXLAN: Bool = {
        let name = "clat\(getpid())-vxlan"
        defer { _ = try? command(["ip", "netns", "del", name]) }
        return (try? command(["ip", "netns", "add", name])) != nil
            && (try? command(["ip", "-n", name, "link", "add", "type", "vxlan", "id", "7", "dstport", "4789"])) != nil
    }()

    /// A VXLAN between host and router, with UDP checksums, through the CLAT. What it carries reaches the devices as single
    /// packets.
    func connectTunnel() throws {
        let own = Self.tunnelServer.dropLast() + "1"
        try ip(
            host,
            "link add t0 mtu 1400 type vxlan id 7 local 192.0.0.1 remote \(Self.server) dstport 4789 udpcsum",
            "link set t0 up", "addr add \(own)/64 dev t0 nodad")
        try ip(
            router,
            "link add t0 mtu 1400 type vxlan id 7 local \(Self.serverIPv6) remote \(Self.clat) dstport 4789",
            "link set t0 up", "addr add \(Self.tunnelServer)/64 dev t0 nodad")
        for (namespace, device) in [(host, "v4"), (router, "r6")] {
            try run(
                namespace, "ethtool", "-K", device, "tx-udp_tnl-segmentation", "off", "tx-udp_tnl-csum-segmentation",
                "off")
        }
    }

    deinit {
        for name in [host, clat, router, far] { _ = try? Self.command(["ip", "netns", "del", name]) }
    }

    /// The devices of the CLAT's namespace, with that TUN.
    func devices(tun: UInt32) throws -> Steering.Devices {
        func attribute(_ name: String, of device: String, in namespace: String) throws -> String {
            try Self.command(["ip", "netns", "exec", namespace, "cat", "/sys/class/net/\(device)/\(name)"])
        }
        func address(_ device: String, in namespace: String) throws -> HardwareAddress {
            let text = try attribute("address", of: device, in: namespace)
            let bytes = text.split(separator: ":").compactMap { UInt8($0, radix: 16) }
            guard let address = HardwareAddress(bytes: bytes) else { throw Failure(what: "no address: \(text)") }
            return address
        }
        return Steering.Devices(
            uplink: UInt32(try attribute("ifindex", of: "uplink", in: clat)) ?? 0,
            host: UInt32(try attribute("ifindex", of: "host", in: clat)) ?? 0,
            hostAddress: try address("host", in: clat), peerAddress: try address("v4", in: host), tun: tun)
    }

    /// Runs a body on a thread inside a namespace.
    func inside<Value: Sendable>(_ namespace: String, _ body: @escaping @Sendable () throws -> Value) throws -> Value {
        try onDedicatedThread(name: "lab") { () throws(any Error) in
            let descriptor = try OwnedDescriptor(opening: "/run/netns/\(namespace)", O_RDONLY)
            try retrying("setns") { setns(descriptor.rawValue, CLONE_NEWNET) }
            return try body()
        }
    }

    func ip(_ namespace: String, _ commands: String...) throws {
        try Self.command(["ip", "-n", namespace, "-batch", "-"], input: commands.joined(separator: "\n"))
    }

    /// Runs a program in a namespace to its end, at most 60 seconds; throws where its status is not 0.
    @discardableResult
    func run(_ namespace: String, _ arguments: String...) throws -> String {
        try Self.command(["timeout", "60", "ip", "netns", "exec", namespace] + arguments)
    }

    struct Failure: Error, CustomStringConvertible {
        var what: String
        var description: String { what }
    }

    /// Runs a program to its end and returns what it wrote; throws where its status is not 0.
    @discardableResult
    static func command(_ arguments: [String], input: String = "") throws -> String {
        let child = try ChildProcess(arguments)
        child.send(input)
        let output = child.readToEnd()
        let status = child.wait()
        guard status == 0 else {
            throw Failure(what: "\(arguments.joined(separator: " ")): \(output) (status \(status))")
        }
        return output
    }
}
