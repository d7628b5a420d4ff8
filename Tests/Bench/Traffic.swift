import CLinux
import ClatBase
import Glibc

// What iperf3 cannot do: small datagrams at a pace, in batches, with their loss; and round trips. One end serves in the
// router's namespace, the other measures in the laptop's; they talk over a TCP connection through what is measured.

/// What the measuring end asks of the serving end. Both are on one machine, so words go as they lie in memory.
enum Operation: UInt64 {
    /// Learn where the datagrams of the measuring end's next flow come from.
    case hello = 1
    /// Count datagrams until `counted` is asked.
    case count
    case counted
    /// Send datagrams at the pace, for the time, that follow.
    case send
    /// Return each datagram, until the next question.
    case echoDatagrams
    /// Return each octet, until a zero.
    case echoOctets
}

/// A number of datagrams, and the nanoseconds they took to be sent.
struct Tally {
    var datagrams: UInt64 = 0
    var nanoseconds: UInt64 = 0

    var rate: Double { nanoseconds == 0 ? 0 : Double(datagrams) * 1e9 / Double(nanoseconds) }
}

/// One end: the TCP connection for questions, and a UDP socket for each flow.
struct Endpoint: ~Copyable {
    /// Milliseconds. After this silence on the UDP sockets nothing more is expected, once the other end has said that it is
    /// done.
    static let silence: CInt = 50

    let control: OwnedDescriptor
    private(set) var flows: [CInt] = []
    private let batch = Batch()

    init(control: consuming OwnedDescriptor) throws(SystemError) {
        try set(control.rawValue, CInt(IPPROTO_TCP), TCP_NODELAY, CInt(1))
        self.control = control
    }

    deinit { flows.forEach { close($0) } }

    /// Adds the socket of one more flow.
    mutating func add(_ datagrams: consuming OwnedDescriptor) throws(SystemError) {
        // No loss is to be the receiver's.
        try set(datagrams.rawValue, SOL_SOCKET, SO_RCVBUFFORCE, CInt(8 << 20))
        try set(datagrams.rawValue, SOL_SOCKET, SO_RCVTIMEO, timeval(tv_sec: 0, tv_usec: Int(Self.silence) * 1000))
        flows.append(datagrams.release())
    }

    borrowing func write(_ words: [UInt64]) throws(SystemError) {
        let fd = control.rawValue
        let size = words.count * MemoryLayout<UInt64>.size
        let count = try retrying("send") {
            words.withUnsafeBytes { Glibc.send(fd, $0.baseAddress, size, CInt(MSG_NOSIGNAL)) }
        }
        guard count == size else { throw SystemError(call: "send", code: EPIPE) }
    }

    /// The other end's next words; nil when it closed.
    borrowing func read(_ count: Int) throws(SystemError) -> [UInt64]? {
        let fd = control.rawValue
        var words = [UInt64](repeating: 0, count: count)
        let size = count * MemoryLayout<UInt64>.size
        let got = try retrying("recv") {
            words.withUnsafeMutableBytes { recv(fd, $0.baseAddress, size, CInt(MSG_WAITALL)) }
        }
        return got == size ? words : nil
    }

    borrowing func isAsked(within milliseconds: CInt = 0) -> Bool {
        var state = pollfd(fd: control.rawValue, events: Int16(POLLIN), revents: 0)
        return poll(&state, 1, milliseconds) > 0
    }

    /// Sends at a pace (datagrams a second, 0 for as fast as can be) for a time. Between batches it sleeps: the core may
    /// be the translator's. What it could not send in time is not made up for, so that a pause ends in no flood. Flows take
    /// turns within a batch.
    borrowing func send(rate: UInt64, nanoseconds: UInt64) throws(SystemError) -> Tally {
        let (batch, most) = (UInt64(32), UInt64(128))
        let start = now()
        var origin = start
        var (sent, sinceOrigin) = (UInt64(0), UInt64(0))
        while true {
            let time = now()
            if time - start >= nanoseconds { return Tally(datagrams: sent, nanoseconds: time - start) }
            var due = UInt64(Batch.capacity)
            if rate > 0 {
                due = UInt64(Double(time - origin) * Double(rate) / 1e9)
                if due < sinceOrigin + batch {
                    sleep(until: origin + UInt64(Double(sinceOrigin + batch) * 1e9 / Double(rate)))
                    continue
                }
                due -= sinceOrigin
                if due > most { (origin, sinceOrigin, due) = (time, 0, batch) }
            }
            let share = max(1, Int(due) / flows.count)
            for flow in flows {
                let count = UInt64(try self.batch.send(share, on: flow))
                sent += count
                sinceOrigin += count
            }
        }
    }

    /// Counts datagrams until the other end speaks and no more come.
    borrowing func count() throws(SystemError) -> UInt64 {
        var total: UInt64 = 0
        var states = flows.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
        while true {
            if poll(&states, nfds_t(states.count), Self.silence) == 0, isAsked() { return total }
            for state in states where state.revents != 0 { total += UInt64(try batch.receive(on: state.fd)) }
        }
    }

    /// Throws away what is still in the UDP sockets.
    borrowing func drain() {
        var octet: UInt8 = 0
        for flow in flows { while recv(flow, &octet, 1, CInt(MSG_DONTWAIT)) >= 0 {} }
    }
}

func now() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}

func sleep(until nanoseconds: UInt64) {
    var time = timespec(tv_sec: Int(nanoseconds / 1_000_000_000), tv_nsec: Int(nanoseconds % 1_000_000_000))
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, nil)
}

func set<Value: BitwiseCopyable>(_ socket: CInt, _ level: CInt, _ option: CInt, _ value: Value) throws(SystemError) {
    var value = value
    try retrying("setsockopt \(option)") {
        setsockopt(socket, level, option, &value, socklen_t(MemoryLayout<Value>.size))
    }
}

func printError(_ text: String) {
    let octets = Array((text + "\n").utf8)
    _ = Glibc.write(STDERR_FILENO, octets, octets.count)
}
