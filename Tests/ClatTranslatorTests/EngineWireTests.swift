import Glibc
import Testing

@testable import ClatTranslator

/// What only the translator itself can take, on the wire between real stacks.
@Suite(.enabled(if: geteuid() == 0, "needs root"), .serialized)
struct EngineWireTests {
    /// By TUN alone, and with the kernel path beside it.
    static let ways = Array(EngineLiveTests.ways.prefix(2))

    @Test("large pings come back, the largest too", arguments: ways)
    func pings(_ way: EngineLiveTests.Way) throws {
        let lab = try EngineLab()
        let path = try DataPath(in: lab, kernelPath: way.kernelPath, attachment: way.attachment)
        for size in ["8000", "65507"] {
            try lab.run(lab.host, "ping", "-c", "3", "-i", "0.2", "-W", "10", "-s", size, EngineLab.server)
        }
        let counts = path.engine.counters.snapshot()
        #expect(counts.reassembled >= 12 && counts.outbound.icmp > 6 * 6)
    }

    @Test("a large ping finds its way through a link of a smaller MTU behind the router", arguments: ways)
    func narrow(_ way: EngineLiveTests.Way) throws {
        let lab = try EngineLab()
        let path = try DataPath(in: lab, kernelPath: way.kernelPath, attachment: way.attachment)
        try lab.extend(mtu: 1400)
        // The first is lost, and with the Packet Too Big the host sends smaller fragments.
        try lab.run(lab.host, "ping", "-c", "6", "-i", "0.5", "-W", "10", "-s", "2000", EngineLab.farServer)
        let route = try lab.run(lab.host, "ip", "route", "get", EngineLab.farServer)
        #expect(route.contains("mtu 1372"))
        withExtendedLifetime(path) {}
    }

    @Test("UDP without checksum arrives with one, in fragments too", arguments: ways)
    func unchecked(_ way: EngineLiveTests.Way) throws {
        let lab = try EngineLab()
        let path = try DataPath(in: lab, kernelPath: way.kernelPath, attachment: way.attachment)
        let server = try lab.echoServer()
        try lab.run(lab.clat, "ethtool", "-K", "uplink", "tx", "off")
        try lab.python(lab.host, EngineTraffic.unchecked)
        withExtendedLifetime(server) {}
        #expect(path.engine.counters.snapshot().reassembled == 1)
    }

    @Test(
        "UDP-Lite crosses with right checksums", .enabled(if: EngineLab.hasUDPLite, "the kernel has no UDP-Lite"),
        arguments: ways)
    func lite(_ way: EngineLiveTests.Way) throws {
        let lab = try EngineLab()
        let path = try DataPath(in: lab, kernelPath: way.kernelPath, attachment: way.attachment)
        let server = try lab.echoServer(text: EngineTraffic.liteServer)
        try lab.python(lab.host, EngineTraffic.lite)
        withExtendedLifetime((server, path)) {}
    }

    @Test("SCTP, GRE and protocols that nobody knows cross as they are", arguments: ["132", "47", "253"])
    func others(number: String) throws {
        let lab = try EngineLab()
        let path = try DataPath(in: lab, kernelPath: true, attachment: .tcx)
        let server = try lab.echoServer(text: EngineTraffic.otherServer.replacing("PROTOCOL", with: number))
        try lab.python(lab.host, EngineTraffic.other.replacing("PROTOCOL", with: number))
        withExtendedLifetime((server, path)) {}
    }

    @Test("traceroute shows which IPv6 router a hop is", arguments: ways)
    func nodeIdentification(_ way: EngineLiveTests.Way) throws {
        let lab = try EngineLab()
        let path = try DataPath(in: lab, kernelPath: way.kernelPath, attachment: way.attachment)
        try lab.extend(mtu: 1500)
        let hops = try lab.run(lab.host, "traceroute", "-e", "-n", "-q", "1", "-w", "5", EngineLab.farServer)
        // Class 5, an address; of the second family; 2001:db8:1::1, in hexadecimal.
        #expect(hops.filter { $0 != "," }.contains("5/4:0002000020010db8000100000000000000000001"), "\(hops)")
        withExtendedLifetime(path) {}
    }
}
