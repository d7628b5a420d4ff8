import CLinux
import ClatBase
import Glibc

/// The measuring end.
struct Client: ~Copyable {
    private let endpoint: Endpoint

    /// Connects to a serving end by so many flows of datagrams; `address` is numeric, IPv4 or IPv6.
    init(address: String, port: String, flows: Int = 1) throws(SystemError) {
        var endpoint = try Endpoint(control: try Self.connected(CInt(SOCK_STREAM.rawValue), address, port))
        for _ in 0..<flows {
            let flow = try Self.connected(CInt(SOCK_DGRAM.rawValue), address, port)
            try Self.greet(endpoint, flow.rawValue)
            try endpoint.add(flow)
        }
        self.endpoint = endpoint
    }

    /// Shows the serving end where the datagrams of a flow come from.
    private static func greet(_ endpoint: borrowing Endpoint, _ flow: CInt) throws(SystemError) {
        try endpoint.write([Operation.hello.rawValue, 0, 0])
        for _ in 0..<25 {
            _ = send(flow, [UInt8(0)], 1, 0)
            if endpoint.isAsked(within: 200) { break }
        }
        guard endpoint.isAsked(), try endpoint.read(2) != nil else {
            throw SystemError(call: "greeting", code: ETIMEDOUT)
        }
    }

    /// The most datagrams a second that arrived with less than 1 % lost, found by halving: each trial takes `seconds`,
    /// and one that fails has a second chance, for the fault may be the machine's.
    func capacity(seconds: Double, down: Bool) throws(SystemError) -> (best: Double, flood: Double) {
        let nanoseconds = UInt64(seconds * 1e9)
        let flood = try trial(rate: 0, nanoseconds, down)
        if flood.received >= 0.99 * flood.sent { return (flood.received, flood.received) }
        var (low, high, best) = (0.0, flood.sent, 0.0)
        var rate = flood.received
        for _ in 0..<6 {
            var result = try trial(rate: rate, nanoseconds, down)
            if result.received < 0.99 * result.sent { result = try trial(rate: rate, nanoseconds, down) }
            if result.received >= 0.99 * result.sent {
                best = max(best, result.received)
                low = rate
            } else {
                high = rate
            }
            rate = low == 0 ? high / 2 : (low * high).squareRoot()
        }
        return (best, flood.received)
    }

    /// Datagrams a second sent, and of those received.
    private func trial(rate: Double, _ nanoseconds: UInt64, _ down: Bool) throws(SystemError) -> (
        sent: Double, received: Double
    ) {
        let rate = UInt64(rate)
        var tally: Tally
        let received: UInt64
        if down {
            endpoint.drain()
            try endpoint.write([Operation.send.rawValue, rate, nanoseconds])
            received = try endpoint.count()
            tally = try answer()
        } else {
            try endpoint.write([Operation.count.rawValue, 0, 0])
            _ = try answer()
            tally = try endpoint.send(rate: rate, nanoseconds: nanoseconds)
            try endpoint.write([Operation.counted.rawValue, 0, 0])
            received = try answer().datagrams
        }
        let sent = tally.rate
        tally.datagrams = received
        return (sent, tally.rate)
    }

    /// The mean of as many round trips of a datagram as fit in the time, in microseconds. A lost one is sent again.
    func datagramRoundTrip(seconds: Double) throws(SystemError) -> Double {
        try endpoint.write([Operation.echoDatagrams.rawValue, 0, 0])
        _ = try answer()
        let fd = endpoint.flows[0]
        var octets = [UInt8](repeating: 0, count: Batch.payload)
        return try mean(seconds) {
            guard send(fd, octets, octets.count, 0) > 0 else { return false }
            return recv(fd, &octets, octets.count, 0) > 0
        }
    }

    /// The same of an octet on the TCP connection.
    func octetRoundTrip(seconds: Double) throws(SystemError) -> Double {
        try endpoint.write([Operation.echoOctets.rawValue, 0, 0])
        let fd = endpoint.control.rawValue
        var octet: UInt8 = 1
        let result = try mean(seconds) {
            send(fd, &octet, 1, CInt(MSG_NOSIGNAL)) == 1 && recv(fd, &octet, 1, 0) == 1
        }
        octet = 0
        guard send(fd, &octet, 1, CInt(MSG_NOSIGNAL)) == 1, recv(fd, &octet, 1, 0) == 1 else {
            throw .last("the last octet")
        }
        return result
    }

    private func mean(_ seconds: Double, _ exchange: () -> Bool) throws(SystemError) -> Double {
        let (start, duration) = (now(), UInt64(seconds * 1e9))
        var count = 0
        while now() - start < duration { count += exchange() ? 1 : 0 }
        guard count > 0 else { throw SystemError(call: "round trip", code: ETIMEDOUT) }
        return Double(now() - start) / Double(count) / 1000
    }

    private func answer() throws(SystemError) -> Tally {
        guard endpoint.isAsked(within: 10_000), let words = try endpoint.read(2) else {
            throw SystemError(call: "answer", code: ETIMEDOUT)
        }
        return Tally(datagrams: words[0], nanoseconds: words[1])
    }

    private static func connected(_ kind: CInt, _ address: String, _ port: String) throws(SystemError)
        -> OwnedDescriptor
    {
        var hints = addrinfo()
        hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV
        hints.ai_socktype = kind
        var found: UnsafeMutablePointer<addrinfo>?
        guard getaddrinfo(address, port, &hints, &found) == 0, let found else {
            throw SystemError(call: "getaddrinfo \(address) \(port)", code: EINVAL)
        }
        defer { freeaddrinfo(found) }
        let info = found.pointee
        let socket = OwnedDescriptor(
            adopting: try retrying("socket") { Glibc.socket(info.ai_family, kind | CInt(SOCK_CLOEXEC.rawValue), 0) })
        let fd = socket.rawValue
        try retrying("connect \(address)") {
            connect(fd, __CONST_SOCKADDR_ARG(__sockaddr__: info.ai_addr), info.ai_addrlen)
        }
        return socket
    }
}
