import CAres
import CLinux
public import ClatBase
import Glibc

/// Asks resolvers for ipv4only.arpa through one interface each, by UDP and, where an answer was cut, by TCP. Does not block:
/// poll ``descriptor`` for reading, then take ``receive()``.
///
/// A question is sent up to three times, after 1 s and 2 s, and given up 4 s later. DNSSEC checking is left on (CD is 0),
/// without which no DNS64 would synthesise (RFC 7050 section 3), and nothing is validated (RFC 8880 section 5).
public final class DNSClient {
    /// What came of a question.
    public struct Answer: Sendable {
        /// Of which.
        public var question: DNSQuestion
        /// Through which interface it went.
        public var uplink: Int
        /// What came.
        public var outcome: DNSOutcome
    }

    private let epoll: OwnedDescriptor
    private let timer: OwnedDescriptor
    private var queries: [Query] = []

    /// To be polled for reading.
    public var descriptor: CInt { epoll.rawValue }

    /// A client with nothing to ask yet.
    public init() throws(SystemError) {
        epoll = OwnedDescriptor(adopting: try retrying("epoll_create1") { epoll_create1(CInt(EPOLL_CLOEXEC)) })
        timer = OwnedDescriptor(
            adopting: try retrying("timerfd_create") {
                timerfd_create(CLOCK_MONOTONIC, CInt(TFD_CLOEXEC | TFD_NONBLOCK))
            })
        var event = epoll_event(events: EPOLLIN.rawValue, data: epoll_data_t(fd: timer.rawValue))
        try retrying("epoll_ctl") { epoll_ctl(epoll.rawValue, EPOLL_CTL_ADD, timer.rawValue, &event) }
        ares_library_init(ARES_LIB_INIT_ALL)
    }

    deinit {
        // They use the library.
        queries.removeAll()
        ares_library_cleanup()
    }

    /// Asks through an interface. An earlier question to that resolver through that interface gets no answer any more.
    public func ask(_ question: DNSQuestion, uplink: Int) {
        queries.removeAll { $0.uplink == uplink && $0.question.server == question.server }
        let query = Query(question, uplink: uplink, epoll: epoll.rawValue)
        queries.append(query)
        query.start()
        arm()
    }

    /// What has come since.
    public func receive() -> [Answer] {
        var expirations: UInt64 = 0
        _ = read(timer.rawValue, &expirations, 8)
        var events = [epoll_event](repeating: epoll_event(), count: 16)
        let count = epoll_wait(epoll.rawValue, &events, CInt(events.count), 0)
        for event in events.prefix(Int(max(count, 0))) where event.data.fd != timer.rawValue {
            queries.first { $0.sockets.contains(event.data.fd) }?.process(event.data.fd, event.events)
        }
        for query in queries { query.process() }
        let answers = queries.compactMap { query in
            query.outcome.map { Answer(question: query.question, uplink: query.uplink, outcome: $0) }
        }
        queries.removeAll { $0.outcome != nil }
        arm()
        return answers
    }

    /// Wakes up when the next query wants to send again or give up; at once where one is over already.
    private func arm() {
        var value = itimerspec()
        if let microseconds = queries.compactMap(\.wait).min() {
            value.it_value.tv_sec = microseconds / 1_000_000
            value.it_value.tv_nsec = max(microseconds % 1_000_000 * 1000, 1)
        }
        timerfd_settime(timer.rawValue, 0, &value, nil)
    }
}

/// One question under way: a c-ares channel of its own with one server.
private final class Query {
    let question: DNSQuestion
    let uplink: Int
    private(set) var outcome: DNSOutcome?
    private(set) var sockets: Set<CInt> = []
    private let epoll: CInt
    private var channel: ares_channel?

    init(_ question: DNSQuestion, uplink: Int, epoll: CInt) {
        self.question = question
        self.uplink = uplink
        self.epoll = epoll
    }

    /// Milliseconds until the first repetition, and how often it is sent.
    private static let timeout: CInt = 1000
    private static let tries: CInt = 3

    func start() {
        let me = Unmanaged.passUnretained(self).toOpaque()
        var options = ares_options()
        // An error of the server is an answer, and what it means is for others to say.
        options.flags = ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES | ARES_FLAG_NOCHECKRESP
        options.timeout = Self.timeout
        options.tries = Self.tries
        options.sock_state_cb = { context, socket, readable, writable in
            Query.from(context)?.watch(socket, readable: readable != 0, writable: writable != 0)
        }
        options.sock_state_cb_data = me
        // Neither the host's resolvers nor its search list are wanted.
        options.resolvconf_path = strdup("/dev/null")
        options.lookups = strdup("b")
        defer {
            free(options.resolvconf_path)
            free(options.lookups)
        }
        let mask =
            ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB | ARES_OPT_RESOLVCONF
            | ARES_OPT_LOOKUPS
        var status = ares_init_options(&channel, &options, mask)
        guard status == ARES_SUCCESS else { return give(status) }
        ares_set_socket_configure_callback(
            channel, { socket, _, context in Query.from(context)?.bind(socket) ?? -1 }, me)
        let server = "[\(question.server)]:53"
        // From c-ares 1.24 on a link-local server without a zone is left out without a word; before, none could be named.
        status = ares_set_servers_ports_csv(channel, server + (question.server.isLinkLocal ? "%\(uplink)" : ""))
        if status == ARES_EBADSTR { status = ares_set_servers_ports_csv(channel, server) }
        guard status == ARES_SUCCESS else { return give(status) }
        ares_query(
            channel, "ipv4only.arpa", CInt(ns_c_in.rawValue), CInt(ns_t_aaaa.rawValue),
            { context, status, _, bytes, count in
                let message = UnsafeBufferPointer(start: bytes, count: Int(count))
                Query.from(context)?.take(status, Array(message))
            }, me)
    }

    private static func from(_ context: UnsafeMutableRawPointer?) -> Query? {
        context.map { Unmanaged<Query>.fromOpaque($0).takeUnretainedValue() }
    }

    /// Whatever the routing table says, the question leaves by the uplink.
    private func bind(_ socket: CInt) -> CInt {
        var index = CInt(truncatingIfNeeded: uplink)
        return setsockopt(socket, SOL_SOCKET, SO_BINDTOIFINDEX, &index, socklen_t(MemoryLayout<CInt>.size))
    }

    private func watch(_ socket: CInt, readable: Bool, writable: Bool) {
        let events = (readable ? EPOLLIN.rawValue : 0) | (writable ? EPOLLOUT.rawValue : 0)
        var event = epoll_event(events: events, data: epoll_data_t(fd: socket))
        if events == 0 {
            sockets.remove(socket)
            epoll_ctl(epoll, EPOLL_CTL_DEL, socket, &event)
        } else if sockets.insert(socket).inserted {
            epoll_ctl(epoll, EPOLL_CTL_ADD, socket, &event)
        } else {
            epoll_ctl(epoll, EPOLL_CTL_MOD, socket, &event)
        }
    }

    func process(_ socket: CInt = CAres.ARES_SOCKET_BAD, _ events: UInt32 = 0) {
        guard outcome == nil, let channel else { return }
        let broken = EPOLLERR.rawValue | EPOLLHUP.rawValue
        ares_process_fd(
            channel, events & (EPOLLIN.rawValue | broken) != 0 ? socket : CAres.ARES_SOCKET_BAD,
            events & (EPOLLOUT.rawValue | broken) != 0 ? socket : CAres.ARES_SOCKET_BAD)
    }

    /// Microseconds until ``process(_:_:)`` is due again without any event.
    var wait: Int? {
        if outcome != nil { return 0 }
        var time = timeval()
        guard let channel, ares_timeout(channel, nil, &time) != nil else { return nil }
        return time.tv_sec * 1_000_000 + time.tv_usec
    }

    private func take(_ status: CInt, _ message: [UInt8]) {
        guard !message.isEmpty else { return give(status) }
        do throws(DNSProblem) {
            outcome = DNSOutcome(try DNSAnswer(message: message))
        } catch {
            outcome = .failed(.malformed(error))
        }
    }

    /// The outcome where there is no message.
    private func give(_ status: CInt) {
        let failure: DNSOutcome.Failure =
            switch status {
            case ARES_ETIMEOUT: .noAnswer
            case ARES_ECONNREFUSED: .unreachable
            // From c-ares 1.28 on it parses answers itself, and keeps what it cannot.
            case ARES_EBADRESP: .malformed(.unreadable)
            default: .client(String(cString: ares_strerror(status)))
            }
        outcome = .failed(failure)
    }

    deinit {
        if let channel { ares_destroy(channel) }
    }
}
