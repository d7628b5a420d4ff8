import CLinux
import ClatBase
import Glibc

/// Tells the service manager how the agent is, where there is one that wants to know (sd_notify(3): datagrams of lines to the
/// socket that NOTIFY_SOCKET names).
struct ServiceManager {
    private let path: String?
    /// How often it wants to hear that the agent is alive; nil is never.
    let watchdogInterval: Duration?

    /// By the environment that the manager gave us.
    init(environment: (String) -> String? = { name in getenv(name).map { String(cString: $0) } }) {
        path = environment("NOTIFY_SOCKET")
        let isOurs = environment("WATCHDOG_PID").map { $0 == "\(getpid())" } ?? true
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

    /// Nothing depends on its arrival.
    private func send(_ text: String) {
        guard let path,
            let address = try? path.hasPrefix("@")
                ? UnixAddress(abstract: String(path.dropFirst())) : UnixAddress(path: path)
        else { return }
        let kind = CInt(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue)
        let descriptor = socket(AF_UNIX, kind, 0)
        guard descriptor >= 0 else { return }
        let socket = OwnedDescriptor(adopting: descriptor)
        guard (try? address.connect(socket.rawValue)) != nil else { return }
        let octets = Array(text.utf8)
        _ = Glibc.send(socket.rawValue, octets, octets.count, CInt(MSG_NOSIGNAL | MSG_DONTWAIT))
    }
}
