import ClatBase
import Glibc
import Testing

@testable import ClatNetlink

/// A generous bound for what the kernel does within a second or two.
var soon: BootInstant { .now + .seconds(20) }

/// Calls until the answer is true or twenty seconds have passed; says which.
func eventually(_ condition: () throws -> Bool) rethrows -> Bool {
    let deadline = soon
    while try !condition() {
        if BootInstant.now > deadline { return false }
        usleep(10_000)
    }
    return true
}

/// What a command prints, run by a shell in that namespace.
func output(of command: String, in namespace: borrowing NetworkNamespace) throws -> String {
    try namespace.run {
        guard let pipe = popen(command, "re") else { throw SystemError.last("popen \(command)") }
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65536)
        while true {
            let count = fread(&buffer, 1, buffer.count, pipe)
            guard count > 0 else { break }
            bytes += buffer.prefix(count)
        }
        let status = pclose(pipe)
        guard status == 0 else { throw SystemError(call: "\(command): status \(status)", code: 0) }
        return String(decoding: bytes, as: UTF8.self)
    }
}

extension IPAddress {
    /// From text, for tables.
    init(_ text: String) throws {
        if let address = IPv4Address(text) {
            self = .v4(address)
        } else {
            self = .v6(try #require(IPv6Address(text)))
        }
    }
}

/// The octets of hexadecimal text; white space does not count, nor what follows `//` in a line.
func hex(_ text: String) throws -> [UInt8] {
    let digits = text.split(separator: "\n").flatMap { line in
        line.prefix(upTo: line.firstRange(of: "//")?.lowerBound ?? line.endIndex).filter { !$0.isWhitespace }
    }
    return try stride(from: 0, to: digits.count, by: 2).map { offset in
        try #require(UInt8(String(digits[offset..<min(offset + 2, digits.count)]), radix: 16))
    }
}

extension [UInt8] {
    /// Hexadecimal text.
    var hex: String { map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined() }
}

/// A namespace for the length of a test; suites cannot hold what is not copyable.
final class NamespaceBox: Sendable {
    let namespace: NetworkNamespace
    init() throws { namespace = try .create() }
}

/// Two namespaces with a veth between them, up at both ends.
final class VethPair: Sendable {
    let near: NetworkNamespace
    let far: NetworkNamespace
    /// `a`, in the near one; without a link-local address of its own.
    let nearLink: Link
    /// `b`, in the far one.
    let farLink: Link

    init() throws {
        near = try .create()
        far = try .create()
        var nearSocket = try NetlinkSocket(in: near)
        var farSocket = try NetlinkSocket(in: far)
        let index = try nearSocket.createVeth("a", peer: "b", in: far, mtu: 1500).index
        try nearSocket.setLink(index, up: true)
        try farSocket.setLink(try #require(try farSocket.link(named: "b")).index, up: true)
        #expect(try eventually { try nearSocket.link(index: index)?.operationalState == .up })
        nearLink = try #require(try nearSocket.link(index: index))
        farLink = try #require(try farSocket.link(named: "b"))
    }
}
