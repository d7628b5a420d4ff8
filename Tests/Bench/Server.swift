import CLinux
import ClatBase
import Glibc

/// The serving end: one measuring end after the other, over IPv6, until it is killed.
enum Server {
    static func run(port: UInt16) throws(SystemError) {
        var address = sockaddr_in6()
        address.sin6_family = sa_family_t(AF_INET6)
        address.sin6_port = port.bigEndian
        let listener = try bound(CInt(SOCK_STREAM.rawValue), to: &address)
        let fd = listener.rawValue
        try retrying("listen") { listen(fd, 4) }
        while true {
            let control = OwnedDescriptor(
                adopting: try retrying("accept") {
                    accept4(fd, __SOCKADDR_ARG(__sockaddr__: nil), nil, CInt(SOCK_CLOEXEC.rawValue))
                })
            do throws(SystemError) { try serve(control) } catch { printError("translator-bench: \(error)") }
        }
    }

    /// Answers until the measuring end closes. Datagrams come from the address that it connected to.
    private static func serve(_ control: consuming OwnedDescriptor) throws(SystemError) {
        let fd = control.rawValue
        var address = sockaddr_in6()
        var size = socklen_t(MemoryLayout<sockaddr_in6>.size)
        try retrying("getsockname") {
            withUnsafeMutablePointer(to: &address) {
                getsockname(fd, __SOCKADDR_ARG(__sockaddr_in6__: $0), &size)
            }
        }
        var endpoint = try Endpoint(control: control)
        while let question = try endpoint.read(3) {
            if question[0] == Operation.hello.rawValue {
                let datagrams = try bound(CInt(SOCK_DGRAM.rawValue), to: &address)
                try learnPeer(datagrams.rawValue)
                try endpoint.add(datagrams)
                try endpoint.write([0, 0])
            } else {
                try answer(question, on: endpoint)
            }
        }
    }

    private static func answer(_ question: [UInt64], on endpoint: borrowing Endpoint) throws(SystemError) {
        switch Operation(rawValue: question[0]) {
        case .count:
            endpoint.drain()
            try endpoint.write([0, 0])
            let total = try endpoint.count()
            guard try endpoint.read(3)?[0] == Operation.counted.rawValue else { return }
            try endpoint.write([total, 0])
        case .send:
            let tally = try endpoint.send(rate: question[1], nanoseconds: question[2])
            try endpoint.write([tally.datagrams, tally.nanoseconds])
        case .echoDatagrams:
            try endpoint.write([0, 0])
            let fd = endpoint.flows[0]
            var octets = [UInt8](repeating: 0, count: Batch.payload)
            while true {
                let count = recv(fd, &octets, octets.count, 0)
                if count > 0 { _ = Glibc.send(fd, octets, count, 0) } else if endpoint.isAsked() { return }
            }
        case .echoOctets:
            let control = endpoint.control.rawValue
            var octet: UInt8 = 1
            while octet != 0, recv(control, &octet, 1, 0) == 1 {
                guard Glibc.send(control, &octet, 1, CInt(MSG_NOSIGNAL)) == 1 else { return }
            }
        case .hello, .counted, nil:
            throw SystemError(call: "question \(question[0])", code: EPROTO)
        }
    }

    /// Connects the UDP socket to where the next datagram comes from.
    private static func learnPeer(_ fd: CInt) throws(SystemError) {
        try set(fd, SOL_SOCKET, SO_RCVTIMEO, timeval(tv_sec: 1, tv_usec: 0))
        let deadline = now() + 5_000_000_000
        while now() < deadline {
            var peer = sockaddr_in6()
            var size = socklen_t(MemoryLayout<sockaddr_in6>.size)
            var octet: UInt8 = 0
            let connected = withUnsafeMutablePointer(to: &peer) { peer in
                recvfrom(fd, &octet, 1, 0, __SOCKADDR_ARG(__sockaddr_in6__: peer), &size) >= 0
                    && connect(fd, __CONST_SOCKADDR_ARG(__sockaddr_in6__: peer), size) == 0
            }
            if connected { return }
        }
        throw SystemError(call: "recvfrom", code: ETIMEDOUT)
    }

    private static func bound(_ kind: CInt, to address: inout sockaddr_in6) throws(SystemError) -> OwnedDescriptor {
        let socket = OwnedDescriptor(
            adopting: try retrying("socket") { Glibc.socket(AF_INET6, kind | CInt(SOCK_CLOEXEC.rawValue), 0) })
        let fd = socket.rawValue
        try set(fd, SOL_SOCKET, SO_REUSEADDR, CInt(1))
        try retrying("bind") {
            withUnsafePointer(to: &address) {
                bind(fd, __CONST_SOCKADDR_ARG(__sockaddr_in6__: $0), socklen_t(MemoryLayout<sockaddr_in6>.size))
            }
        }
        return socket
    }
}
