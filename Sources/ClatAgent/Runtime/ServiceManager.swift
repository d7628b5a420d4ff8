import CLinux
import ClatBase
import Glibc

/// Tells the service manager how the agent is, where there is one that wants to know (sd_notify(3): datagrams of lines to the
/// socket that NOTIFY_SOCKET names).
struct ServiceManager {
    private let path: String?
    /// How often it wants to hear that the agent is alive; nil is never.
    let watchdogInterval: Duration?
    /// Whether it keeps descriptors for the next process of the service while that restarts. systemd says so from version 254
    /// on; before, the unit does.
    let keepsDescriptors: Bool

    /// By the environment that the manager gave us.
    init(environment: (String) -> String? = { name in getenv(name).map { String(cString: $0) } }) {
        path = environment("NOTIFY_SOCKET")
        let isOurs = environment("WATCHDOG_PID").map { $0 == "\(getpid())" } ?? true
        keepsDescriptors = path != nil && environment("FDSTORE").flatMap(Int.init) ?? 0 > 0
        // Twice as often as it must be.
        watchdogInterval = isOurs ? environment("WATCHDOG_USEC").flatMap(Int.init).map { .microseconds($0 / 2) } : nil
    }

    /// The agent serves.
    func ready() { send("READY=1") }
    /// The agent is about to end.
    func stopping() { send("STOPPING=1") }
    /// The agent lives.
    func alive() { send("WATCHDOG=1") }
    /// One line for `systemctl status`.
    func status(_ text: String) { send("STATUS=\(text)") }
    /// The configuration is read anew, until ``ready()``.
    func reloading() {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        send("RELOADING=1\nMONOTONIC_USEC=\(time.tv_sec * 1_000_000 + time.tv_nsec / 1000)")
    }

    /// Gives it a copy of a descriptor to keep; false where that cannot be done.
    func keep(_ descriptor: CInt, as name: String) -> Bool {
        send("FDSTORE=1\nFDNAME=\(name)\nFDPOLL=0", with: descriptor, patiently: true)
    }
    /// Lets it close what it keeps under a name; false where that cannot be done.
    func drop(_ name: String) -> Bool { send("FDSTOREREMOVE=1\nFDNAME=\(name)", patiently: true) }

    /// False where it does not arrive; only of descriptors does anything depend on that.
    @discardableResult
    private func send(_ text: String, with passenger: CInt? = nil, patiently: Bool = false) -> Bool {
        guard let path,
            let address = try? path.hasPrefix("@")
                ? UnixAddress(abstract: String(path.dropFirst())) : UnixAddress(path: path),
            let socket = try? OwnedDescriptor(socket: AF_UNIX, .datagram, blocking: true, named: "a socket"),
            (try? address.connect(socket.rawValue)) != nil
        else { return false }
        let octets = Array(text.utf8)
        func attempt() -> Bool {
            if let passenger { return DescriptorPassing.send(octets, with: passenger, to: socket.rawValue) }
            return Glibc.send(socket.rawValue, octets, octets.count, CInt(MSG_NOSIGNAL | MSG_DONTWAIT)) == octets.count
        }
        if attempt() { return true }
        guard patiently, errno == EAGAIN else { return false }
        // Its queue is full: a second at most, then the next change tries again.
        var room = pollfd(fd: socket.rawValue, events: Int16(POLLOUT), revents: 0)
        return poll(&room, 1, 1000) > 0 && attempt()
    }
}
