import CLinux
import ClatBase
import Glibc
import Testing

@testable import ClatTranslator

@Suite("The socket for ICMPv6 errors", .enabled(if: geteuid() == 0, "needs root"))
struct ErrorSocketTests {
    @Test("brings errors as the TUN would have, and nothing else")
    func frames() throws {
        let lab = try EngineLab()
        let receiver = try lab.inside(lab.clat) { try ErrorSocketBox() }
        let messages = [UInt8(128), 5, 1, 2, 3, 4, 135].map { type in [type, 0, 0, 0, 0, 0, 5, type] + pattern(100) }
        try lab.inside(lab.router) {
            let kind = CInt(SOCK_RAW.rawValue | SOCK_CLOEXEC.rawValue)
            let sender = OwnedDescriptor(
                adopting: try retrying("socket") { socket(AF_INET6, kind, CInt(IPPROTO_ICMPV6)) })
            let fd = sender.rawValue
            for (option, value) in [(IPV6_UNICAST_HOPS, CInt(33)), (IPV6_TCLASS, 0xb8)] {
                var value = value
                try retrying("setsockopt") {
                    setsockopt(fd, CInt(IPPROTO_IPV6), option, &value, socklen_t(MemoryLayout<CInt>.size))
                }
            }
            var target = sockaddr_in6()
            target.sin6_family = sa_family_t(AF_INET6)
            target.sin6_addr = IPv6Address.text(EngineLab.clat).in6
            for message in messages {
                try withUnsafePointer(to: &target) { target throws(SystemError) in
                    _ = try retrying("sendto") {
                        sendto(
                            fd, message, message.count, 0, __CONST_SOCKADDR_ARG(__sockaddr_in6__: target),
                            socklen_t(MemoryLayout<sockaddr_in6>.size))
                    }
                }
            }
        }
        for type in UInt8(1)...4 {
            let packet = V6(
                source: .text("2001:db8:1::1"), destination: .text(EngineLab.clat), trafficClass: 0xb8, hopLimit: 32
            ).icmp(type, 0, [0, 0, 5, type], pattern(100))
            #expect(hex(try receiver.next()) == hex(zeros(10) + packet.octets))
        }
        var poll = pollfd(fd: receiver.socket.descriptor, events: Int16(POLLIN), revents: 0)
        #expect(Glibc.poll(&poll, 1, 200) == 0)
    }
}

extension ErrorSocketTests {
    @Test("what came before the filter was set is thrown away")
    func before() throws {
        let lab = try EngineLab()
        let heard = try lab.inside(lab.clat) { () -> [Int] in
            let socket = try OwnedDescriptor(
                socket: AF_INET6, .raw, transport: CInt(IPPROTO_ICMPV6), named: "a raw ICMPv6 socket")
            func waits() -> Int {
                var poll = pollfd(fd: socket.rawValue, events: Int16(POLLIN), revents: 0)
                return Int(Glibc.poll(&poll, 1, 200))
            }
            // To itself: request and reply are both heard.
            let request: [UInt8] = [128, 0, 0, 0, 0, 1, 0, 1]
            try socket.send(request, to: .text(EngineLab.clat), scope: 0, "send a request")
            let unfiltered = waits()
            try socket.hearOnly(icmpv6: 1...4)
            let filtered = waits()
            try socket.send(request, to: .text(EngineLab.clat), scope: 0, "send a request")
            return [unfiltered, filtered, waits()]
        }
        #expect(heard == [1, 0, 0])
    }
}

/// What is not copyable, for closures to hold.
private final class ErrorSocketBox: Sendable {
    let socket: ICMPErrorSocket

    init() throws { socket = try ICMPErrorSocket() }

    /// The next frame, within twenty seconds.
    func next() throws -> [UInt8] {
        var poll = pollfd(fd: socket.descriptor, events: Int16(POLLIN), revents: 0)
        #expect(Glibc.poll(&poll, 1, 20_000) == 1)
        var buffer = [UInt8](repeating: 0xa5, count: 2000)
        let count = buffer.withUnsafeMutableBytes { socket.receive(into: $0) }
        return Array(buffer.prefix(try #require(count >= 0 ? count : nil)))
    }
}
