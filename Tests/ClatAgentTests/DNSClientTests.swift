import CLinux
import ClatBase
import ClatNetlink
import ClatTranslator
import Glibc
import Testing

@testable import ClatAgent

/// Answers on ::1, port 53, of the namespace it is made in.
private struct Responder: ~Copyable {
    private let socket: OwnedDescriptor

    init() throws(SystemError) {
        let kind = CInt(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
        let socket = OwnedDescriptor(adopting: try retrying("open a socket") { Glibc.socket(AF_INET6, kind, 0) })
        var address = sockaddr_in6()
        address.sin6_family = sa_family_t(AF_INET6)
        address.sin6_port = UInt16(53).bigEndian
        address.sin6_addr = IPv6Address(high: 0, low: 1).in6
        let fd = socket.rawValue
        try withUnsafePointer(to: address) { address throws(SystemError) in
            _ = try retrying("bind") {
                bind(
                    fd, __CONST_SOCKADDR_ARG(__sockaddr_in6__: address),
                    socklen_t(MemoryLayout<sockaddr_in6>.size))
            }
        }
        self.socket = socket
    }

    var descriptor: CInt { socket.rawValue }

    /// Answers what waits; `answer` makes an answer of a query.
    func serve(_ answer: ([UInt8]) -> [UInt8]) {
        var client = sockaddr_in6()
        var length = socklen_t(MemoryLayout<sockaddr_in6>.size)
        var query = [UInt8](repeating: 0, count: 1500)
        let fd = socket.rawValue
        withUnsafeMutablePointer(to: &client) { client in
            while true {
                let count = recvfrom(fd, &query, query.count, 0, __SOCKADDR_ARG(__sockaddr_in6__: client), &length)
                guard count > 0 else { return }
                let reply = answer(Array(query.prefix(count)))
                _ = sendto(fd, reply, reply.count, 0, __CONST_SOCKADDR_ARG(__sockaddr_in6__: client), length)
            }
        }
    }
}

@Suite("Questions on the wire", .enabled(if: geteuid() == 0, "needs root"))
struct DNSClientTests {
    /// Asks ::1 in a namespace of its own, and says what came of each question.
    private func outcomes(
        _ count: Int, _ answer: @escaping @Sendable (Int, [UInt8]) -> [UInt8]
    ) throws -> [DNSOutcome] {
        try NetworkNamespace.create().run {
            var netlink = try NetlinkSocket()
            try netlink.setLink(1, up: true)
            let responder = try Responder()
            let client = try DNSClient()
            var outcomes: [DNSOutcome] = []
            for number in 0..<count {
                let question = DNSQuestion(server: IPv6Address(high: 0, low: 1), asked: .now)
                client.ask(question, uplink: 1)
                let end = BootInstant.now + .seconds(30)
                while outcomes.count == number, BootInstant.now < end {
                    var polled = [
                        pollfd(fd: responder.descriptor, events: Int16(POLLIN), revents: 0),
                        pollfd(fd: client.descriptor, events: Int16(POLLIN), revents: 0),
                    ]
                    poll(&polled, 2, 1000)
                    responder.serve { answer(number, $0) }
                    outcomes += client.receive().filter { $0.question == question && $0.uplink == 1 }.map(\.outcome)
                }
                guard outcomes.count == number + 1 else { break }
            }
            return outcomes
        }
    }

    /// The answer of a DNS64 with 64:ff9b::/96 to a query, whose identity and question it takes over.
    private static func good(_ query: [UInt8]) -> [UInt8] {
        Array(query.prefix(2)) + octets("8180 0001 0002 0000 0000")
            + Array(query.dropFirst(12).prefix(DNSAnswer.question.count))
            + octets(aaaa("64:ff9b::c000:aa") + aaaa("64:ff9b::c000:ab"))
    }

    @Test("a query has the octets it should, and its answer is taken")
    func exchange() throws {
        let outcomes = try outcomes(1) { _, query in
            // Recursion desired; CD and all else is zero, and so are the counts of other sections.
            let isRight =
                query.dropFirst(2).elementsEqual(octets("0100 0001 0000 0000 0000") + DNSAnswer.question)
            return isRight ? Self.good(query) : Self.good(query).prefix(4) + [0, 0]
        }
        #expect(outcomes == [.prefixes([.wellKnown], lifetime: 60)])
    }

    @Test("2,000 mutated answers end in an outcome each, and the client goes on")
    func mutations() throws {
        let outcomes = try outcomes(2001) { number, query in
            var random = SeededRandom(seed: UInt64(number))
            var message = Self.good(query)
            guard number < 2000 else { return message }
            // Past identity and question: without those it would be nobody's answer. Nor "cut": there is no TCP here.
            let places = [2, 3] + Array(6..<12) + Array((12 + DNSAnswer.question.count)..<message.count)
            for _ in 0..<Int.random(in: 1...6, using: &random) {
                message[places.randomElement(using: &random) ?? 2] = .random(in: .min ... .max, using: &random)
            }
            message[2] = message[2] & ~2 | 0x80
            message.removeLast(
                Int.random(in: 0...message.count - 12 - DNSAnswer.question.count, using: &random)
                    * Int.random(in: 0...1, using: &random))
            return message
        }
        #expect(outcomes.count == 2001)
        #expect(outcomes.last == .prefixes([.wellKnown], lifetime: 60))
        #expect(!outcomes.contains(.failed(.noAnswer)))
        #expect(outcomes.contains { if case .failed(.malformed) = $0 { true } else { false } })
    }

    @Test("where nobody listens, and where an interface has gone, it is said at once")
    func unreachable() throws {
        let outcomes = try NetworkNamespace.create().run {
            var netlink = try NetlinkSocket()
            try netlink.setLink(1, up: true)
            let client = try DNSClient()
            var outcomes: [DNSOutcome] = []
            for index in [1, 99] {
                client.ask(DNSQuestion(server: IPv6Address(high: 0, low: 1), asked: .now), uplink: index)
                var polled = pollfd(fd: client.descriptor, events: Int16(POLLIN), revents: 0)
                let end = BootInstant.now + .seconds(30)
                while outcomes.count < (index == 1 ? 1 : 2), BootInstant.now < end {
                    poll(&polled, 1, 1000)
                    outcomes += client.receive().map(\.outcome)
                }
            }
            return outcomes
        }
        #expect(outcomes == [.failed(.unreachable), .failed(.unreachable)])
    }

    @Test("a later question takes the place of an earlier one to the same resolver")
    func replaced() throws {
        let answers = try NetworkNamespace.create().run {
            var netlink = try NetlinkSocket()
            try netlink.setLink(1, up: true)
            let responder = try Responder()
            let client = try DNSClient()
            let server = IPv6Address(high: 0, low: 1)
            for nanoseconds in [1, 2] {
                client.ask(DNSQuestion(server: server, asked: BootInstant(nanoseconds: Int64(nanoseconds))), uplink: 1)
            }
            var answers: [Int64] = []
            let end = BootInstant.now + .seconds(2)
            while BootInstant.now < end {
                var polled = [
                    pollfd(fd: responder.descriptor, events: Int16(POLLIN), revents: 0),
                    pollfd(fd: client.descriptor, events: Int16(POLLIN), revents: 0),
                ]
                poll(&polled, 2, 100)
                responder.serve(Self.good)
                answers += client.receive().map(\.question.asked.nanoseconds)
            }
            return answers
        }
        #expect(answers == [2])
    }
}
