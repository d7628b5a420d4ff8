import CLinux
import ClatBase
import Foundation
import Glibc

@testable import ClatTranslator

/// Debian's TAYGA in a network namespace of its own: packets go in and come out at its TUN, through a packet socket.
final class Tayga {
    /// From where it sends its own errors.
    static let ipv4 = IPv4Address(192, 168, 255, 1)
    /// Its prefix for all remote addresses. Its words sum to 0xffff as those of 64:ff9b::/96 do (which TAYGA refuses for
    /// addresses that are not global), so one can stand for the other without changing a checksum.
    static let pref64 = PREF64.text("2001:db8:64:d1e2::/96")
    static let mtu = 1500
    static let isInstalled = ["/usr/sbin", "/usr/bin", "/sbin"].contains { access("\($0)/tayga", X_OK) == 0 }

    private let namespace = "clat\(getpid())-tayga-\(UInt32.random(in: 0...0xffff))"
    private let configuration: String
    private var process: ChildProcess?
    private var socket: CInt = -1
    private var interface: CInt = 0
    private var serial = 0
    private let mapping: Mapping

    init(_ mappings: [Mapping]) throws {
        mapping = mappings[0]
        configuration = NSTemporaryDirectory() + namespace + ".conf"
        let maps = mappings.map { "map \($0.ipv4) \($0.ipv6)\n" }.joined()
        try "tun-device nat64\nipv4-addr \(Self.ipv4)\nprefix \(Self.pref64)\n\(maps)".write(
            toFile: configuration, atomically: true, encoding: .utf8)
        try EngineLab.command(["ip", "netns", "add", namespace])
        try EngineLab.command(["ip", "-n", namespace, "tuntap", "add", "nat64", "mode", "tun"])
        try EngineLab.command(
            ["ip", "netns", "exec", namespace, "sysctl", "-qw", "net.ipv6.conf.nat64.disable_ipv6=1"])
        try EngineLab.command(["ip", "-n", namespace, "link", "set", "nat64", "mtu", "\(Self.mtu)", "up"])
        (socket, interface) = try open()
        process = try ChildProcess(["ip", "netns", "exec", namespace, "tayga", "--nodetach", "--config", configuration])
        try waitUntilItTranslates()
    }

    deinit {
        process = nil
        if socket >= 0 { close(socket) }
        unlink(configuration)
        _ = try? EngineLab.command(["ip", "netns", "del", namespace])
    }

    /// What comes out for each list of packets. A marker follows each list; TAYGA keeps the order.
    func translate(_ lists: [[[UInt8]]]) throws -> [[[UInt8]]] {
        var result: [[[UInt8]]] = []
        // So many that the device's queue of 500 holds them.
        for start in stride(from: 0, to: lists.count, by: 32) {
            let batch = lists[start..<min(start + 32, lists.count)]
            let first = serial
            for list in batch {
                for packet in list { try send(packet) }
                try send(marker(serial).octets)
                serial += 1
            }
            for number in first..<serial {
                var packets: [[UInt8]] = []
                while true {
                    let packet = try receive()
                    if isMarker(packet, number) { break }
                    packets.append(packet)
                }
                result.append(packets)
            }
        }
        return result
    }

    /// From an address and a port that no other packet has.
    private func marker(_ number: Int) -> V4 {
        V4(source: mapping.ipv4, destination: IPv4Address(203, 0, 113, 250)).with { packet in
            packet.checksummed(word(9) + word(9) + word(12) + [0, 0] + long(number), 17, at: 6)
        }
    }

    private func isMarker(_ packet: [UInt8], _ number: Int) -> Bool {
        packet.count == 52 && Array(packet[24..<40]) == Self.pref64.embed(IPv4Address(203, 0, 113, 250)).bytes
            && Array(packet[48...]) == long(number)
    }

    /// A socket bound to the device, both made in the namespace, and the device's index.
    private func open() throws -> (CInt, CInt) {
        let namespace = namespace
        return try onDedicatedThread(name: "tayga") { () throws(any Error) in
            let home = try OwnedDescriptor(opening: "/run/netns/\(namespace)", O_RDONLY)
            try retrying("setns") { setns(home.rawValue, CLONE_NEWNET) }
            let all = CInt(UInt16(ETH_P_ALL).bigEndian)
            let fd = try retrying("socket") { Glibc.socket(AF_PACKET, CInt(SOCK_DGRAM.rawValue) | O_CLOEXEC, all) }
            let index = CInt(bitPattern: if_nametoindex("nat64"))
            var timeout = timeval(tv_sec: 20, tv_usec: 0)
            try retrying("setsockopt") {
                setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
            }
            var room: CInt = 1 << 24
            try retrying("setsockopt") {
                setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, socklen_t(MemoryLayout<CInt>.size))
            }
            _ = try Self.with(address: index, UInt16(ETH_P_ALL)) { address, size in
                try retrying("bind") { bind(fd, address, size) }
            }
            return (fd, index)
        }
    }

    private static func with<Result>(
        address interface: CInt, _ kind: UInt16, _ body: (__CONST_SOCKADDR_ARG, socklen_t) throws -> Result
    ) rethrows -> Result {
        var address = sockaddr_ll()
        address.sll_family = UInt16(AF_PACKET)
        address.sll_protocol = kind.bigEndian
        address.sll_ifindex = interface
        return try withUnsafePointer(to: &address) { pointer in
            try pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                try body(__CONST_SOCKADDR_ARG(__sockaddr__: $0), socklen_t(MemoryLayout<sockaddr_ll>.size))
            }
        }
    }

    private func send(_ packet: [UInt8]) throws {
        let kind = UInt16(packet[0] >> 4 == 6 ? ETH_P_IPV6 : ETH_P_IP)
        _ = try Self.with(address: interface, kind) { address, size in
            try retrying("sendto") { sendto(socket, packet, packet.count, 0, address, size) }
        }
    }

    private func receive() throws -> [UInt8] {
        var buffer = [UInt8](repeating: 0, count: 65536)
        var address = sockaddr_ll()
        var size = socklen_t(MemoryLayout<sockaddr_ll>.size)
        while true {
            let count = try withUnsafeMutablePointer(to: &address) { pointer in
                try pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
                    try retrying("recvfrom TAYGA") {
                        recvfrom(socket, &buffer, buffer.count, 0, __SOCKADDR_ARG(__sockaddr__: pointer), &size)
                    }
                }
            }
            if Int32(address.sll_pkttype) != PACKET_OUTGOING { return Array(buffer[..<count]) }
        }
    }

    private func waitUntilItTranslates() throws {
        // Until TAYGA has the device open, the kernel drops what is sent to it.
        for _ in 0..<100 {
            var poll = pollfd(fd: socket, events: Int16(POLLIN), revents: 0)
            try send(marker(serial).octets)
            serial += 1
            if Glibc.poll(&poll, 1, 200) > 0 { break }
        }
        while !isMarker(try receive(), serial - 1) {}
    }
}
