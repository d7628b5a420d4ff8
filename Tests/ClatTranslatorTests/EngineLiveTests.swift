import ClatBase
import Glibc
import Testing

@testable import ClatTranslator

/// A whole data path between three namespaces, once through the TUN and once in the kernel, with both kinds of attachment.
@Suite(.enabled(if: geteuid() == 0, "needs root"), .serialized)
struct EngineLiveTests {
    struct Way: Sendable, CustomTestStringConvertible {
        var kernelPath: Bool
        var attachment: Steering.Attachment
        var testDescription: String { "\(kernelPath ? "kernel" : "TUN"), \(attachment)" }
    }

    static let ways = [
        Way(kernelPath: false, attachment: .tcx), Way(kernelPath: true, attachment: .tcx),
        Way(kernelPath: false, attachment: .clsact), Way(kernelPath: true, attachment: .clsact),
    ]

    @Test("ping, UDP and TCP cross with what was sent, whatever the devices offload", arguments: ways)
    func transfers(_ way: Way) throws {
        let lab = try EngineLab()
        let path = try DataPath(in: lab, kernelPath: way.kernelPath, attachment: way.attachment)
        let server = try lab.echoServer()
        for offloads in [[], ["v4", "tx"], ["r6", "tx"], ["uplink", "tx"], ["up0", "gso"]] {
            if let device = offloads.first, let feature = offloads.last {
                let namespace = device == "r6" ? lab.router : device == "uplink" ? lab.clat : lab.host
                try lab.run(namespace, "ethtool", "-K", device, feature, "off")
            }
            try lab.run(lab.host, "ping", "-c", "3", "-i", "0.01", "-W", "5", EngineLab.server)
            try lab.python(lab.host, EngineTraffic.datagrams)
            if offloads.isEmpty { try expectWholeTrain(path, way) }
            try lab.python(lab.host, EngineTraffic.stream.replacing("OCTETS", with: "2 << 20"))
        }
        withExtendedLifetime(server) {}
        let counts = try path.steering.counts()
        for direction in [counts.outbound, counts.inbound] {
            if way.kernelPath {
                #expect(direction.translated.icmp == 15)
                #expect(direction.translated.udp >= 5 * 10)
                #expect(direction.translated.tcp >= 5 * 20)
                #expect(direction.translated.octets > 5 * 2 << 20)
            } else {
                #expect(direction.translated.packets == 0)
                // Not the same number: before Linux 6.2 the TUN takes no UDP super-packets, and they are cut before it.
                #expect(direction.toTranslator > 5 * 30 && direction.fromTranslator > 5 * 30)
            }
        }
        #expect(counts.failed == 0)
        if way.attachment == .clsact { #expect(path.steering.attachment == .clsact) }
        #expect(path.engine.end == nil)
        #expect(path.engine.faults == .init(reads: 0, writes: 0))
    }

    /// Nine datagrams and a train of ten, there and back: what was a super-packet is one still.
    private func expectWholeTrain(_ path: DataPath, _ way: Way) throws {
        let counts = try path.steering.counts()
        let user = path.engine.counters.snapshot()
        let directions =
            way.kernelPath
            ? [counts.outbound.translated, counts.inbound.translated] : [user.outbound, user.inbound]
        // The sum of the payloads; each of the ten has at most 48 octets of headers, and three pings went before.
        let octets: UInt64 = 19729
        for direction in directions where way.kernelPath || path.takesDatagramTrains {
            #expect(direction.udp == 10)
            #expect(direction.octets > octets && direction.octets < octets + 10 * 48 + 3 * 104 + 1)
        }
    }

    @Test("the kernel itself answers pings and solicitations from outside PREF64", arguments: ways)
    func native(_ way: Way) throws {
        let lab = try EngineLab()
        let path = try DataPath(in: lab, kernelPath: way.kernelPath, attachment: way.attachment)
        try lab.ip(lab.router, "neigh flush dev r6")
        try lab.run(lab.router, "ping", "-c", "2", "-i", "0.1", "-W", "5", "-I", EngineLab.native, EngineLab.clat)
        let neighbours = try lab.run(lab.router, "ip", "neigh", "show", EngineLab.clat)
        #expect(neighbours.contains("REACHABLE"))
        let counts = try path.steering.counts()
        #expect(counts.toStack >= 2)
        #expect(counts.inbound.toTranslator == 0)
        #expect(path.engine.counters.snapshot().inbound.packets == 0)
    }

    @Test("a large echo takes the way through the translator, and the host is told the path's MTU", arguments: ways)
    func large(_ way: Way) throws {
        let lab = try EngineLab()
        let path = try DataPath(in: lab, kernelPath: way.kernelPath, attachment: way.attachment)
        try lab.ip(lab.host, "route replace 0.0.0.0/0 via inet6 fe80::1 dev v4 onlink mtu 1500")
        #expect(throws: EngineLab.Failure.self) {
            try lab.run(lab.host, "ping", "-c", "1", "-W", "2", "-M", "do", "-s", "1472", EngineLab.server)
        }
        let route = try lab.run(lab.host, "ip", "route", "get", EngineLab.server)
        #expect(route.contains("mtu 1480"))
        #expect(try path.steering.counts().outbound.toTranslator == 1)
    }

    @Test("UDP from outside PREF64 gets the translator's refusal", arguments: ways)
    func outsider(_ way: Way) throws {
        let lab = try EngineLab()
        let path = try DataPath(in: lab, kernelPath: way.kernelPath, attachment: way.attachment)
        let answer = try lab.python(
            lab.router,
            EngineTraffic.outsider.replacing("SOURCE", with: EngineLab.native), address: EngineLab.clat)
        #expect(answer == "EACCES")
        #expect(try path.steering.counts().inbound.toTranslator == 1)
    }

    @Test(
        "TCP crosses in a tunnel with checksums of its own, though only those within are left to the devices",
        .enabled(if: EngineLab.hasVXLAN, "the kernel has no VXLAN"), arguments: ways)
    func tunnel(_ way: Way) throws {
        let lab = try EngineLab()
        let path = try DataPath(in: lab, kernelPath: way.kernelPath, attachment: way.attachment)
        try lab.connectTunnel()
        let server = try lab.echoServer(at: EngineLab.tunnelServer)
        // Whoever finishes the checksum within makes the receiver look at the one without.
        for (namespace, device) in [(lab.clat, "uplink"), (lab.clat, "host"), (lab.router, "r6"), (lab.host, "v4")] {
            try lab.run(namespace, "ethtool", "-K", device, "tx", "off")
            try lab.python(
                lab.host, EngineTraffic.stream.replacing("OCTETS", with: "1 << 18"), address: EngineLab.tunnelServer)
        }
        withExtendedLifetime(server) {}
        if way.kernelPath {
            #expect(try path.steering.counts().outbound.translated.udp > 4 * 200)
            #expect(try path.steering.counts().inbound.translated.udp > 4 * 200)
        }
    }

    @Test("a new configuration holds from the next packet on")
    func update() throws {
        let lab = try EngineLab()
        let path = try DataPath(in: lab, kernelPath: true, attachment: .tcx)
        func ping() throws { try lab.run(lab.host, "ping", "-c", "1", "-W", "1", EngineLab.server) }
        try ping()
        var without = DataPath.configuration
        without.mappings = []
        try path.update(without)
        #expect(throws: EngineLab.Failure.self) { try ping() }
        #expect(path.engine.counters.snapshot()[.sourceNotOurs] == 1)
        try path.update(DataPath.configuration)
        try ping()
    }

    @Test("a TUN that is deleted ends the thread, and the engine says so")
    func deviceGone() throws {
        let lab = try EngineLab()
        let path = try DataPath(in: lab, kernelPath: false, attachment: .tcx)
        try lab.ip(lab.clat, "link del tun")
        for _ in 0..<500 where path.engine.end == nil { usleep(10_000) }
        guard case .deviceGone(let error)? = path.engine.end else {
            Issue.record("\(String(describing: path.engine.end))")
            return
        }
        // EFAULT is what a reader gets that already waits (tun_ring_recv in drivers/net/tun.c).
        #expect([EBADFD, EIO, EFAULT].contains(error.code), "\(error)")
    }

    @Test("a device that does not exist is an error, not a missing tcx")
    func noDevice() throws {
        var devices = Steering.Devices.any
        devices.host = 0x7fff_fff0
        let lab = try EngineLab()
        #expect(throws: SteeringError.self) {
            try lab.inside(lab.clat) { [devices] in
                _ = try Steering(devices, configuration: DataPath.configuration, kernelPath: false)
            }
        }
    }
}

/// TUN, engine and steering in a lab's CLAT namespace.
final class DataPath: Sendable {
    let engine: TranslatorEngine
    let steering: Steering
    /// Whether the TUN takes super-packets of UDP, which those of Linux before 6.2 do not.
    let takesDatagramTrains: Bool

    static let configuration = TranslatorConfiguration(
        mappings: [EngineSteeringTests.mapping(1, EngineLab.clat, "2001:db8:64::/96")], ipv6MTU: 1500)

    init(in lab: EngineLab, kernelPath: Bool, attachment: Steering.Attachment) throws {
        let box = Box()
        try lab.inside(lab.clat) {
            let tun = try TUNDevice()
            box.takesDatagramTrains = tun.offloads.contains(.udp)
            let devices = try lab.devices(tun: tun.interfaceIndex)
            box.steering = try Steering(
                devices, configuration: Self.configuration, kernelPath: kernelPath, attachment: attachment)
            box.engine = try TranslatorEngine(tun, configuration: Self.configuration)
        }
        guard let engine = box.engine.take(), let steering = box.steering.take() else {
            throw EngineLab.Failure(what: "no data path")
        }
        self.engine = engine
        self.steering = steering
        takesDatagramTrains = box.takesDatagramTrains
    }

    func update(_ configuration: TranslatorConfiguration) throws {
        try steering.update(configuration)
        engine.update(configuration)
    }

    /// Carries what cannot be copied out of a thread that is waited for.
    private final class Box: @unchecked Sendable {
        var engine: TranslatorEngine?
        var steering: Steering?
        var takesDatagramTrains = false
    }
}

extension EngineLab {
    /// The echo server behind PREF64, listening; it lives as long as the value.
    func echoServer(
        at address: String = EngineLab.serverIPv6, text: String = EngineTraffic.server
    ) throws -> ChildProcess {
        let server = try ChildProcess([
            "ip", "netns", "exec", router, "/usr/bin/python3", "-c", text.replacing("ADDRESS", with: address),
        ])
        let line = server.read()
        guard line.hasPrefix("listening") else { throw Failure(what: "echo server: \(line)") }
        return server
    }

    /// Runs a Python text to its end.
    @discardableResult
    func python(_ namespace: String, _ text: String, address: String = EngineLab.server) throws -> String {
        try run(namespace, "/usr/bin/python3", "-c", text.replacing("ADDRESS", with: address))
    }
}
