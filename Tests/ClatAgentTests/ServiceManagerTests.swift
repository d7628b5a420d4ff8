import CLinux
import ClatBase
import Glibc
import Testing

@testable import ClatAgent

@Suite("The service manager")
struct ServiceManagerTests {
    @Test("hears what it asked for, by path and by abstract name", arguments: [true, false])
    func messages(isAbstract: Bool) throws {
        let name = "/tmp/clat-agent-notify-\(getpid())-\(UInt32.random(in: .min ... .max))"
        let kind = CInt(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue)
        let socket = OwnedDescriptor(adopting: Glibc.socket(AF_UNIX, kind, 0))
        try (isAbstract ? UnixAddress(abstract: name) : UnixAddress(path: name)).bind(socket.rawValue)
        defer { unlink(name) }
        let manager = ServiceManager { $0 == "NOTIFY_SOCKET" ? (isAbstract ? "@" : "") + name : nil }
        func next() -> String {
            var octets = [UInt8](repeating: 0, count: 512)
            let count = recv(socket.rawValue, &octets, octets.count, CInt(MSG_DONTWAIT))
            return String(decoding: octets.prefix(max(0, count)), as: UTF8.self)
        }
        manager.ready()
        #expect(next() == "READY=1")
        manager.status("wlan0 on")
        #expect(next() == "STATUS=wlan0 on")
        manager.reloading()
        #expect(next().hasPrefix("RELOADING=1\nMONOTONIC_USEC="))
        manager.alive()
        #expect(next() == "WATCHDOG=1")
        manager.stopping()
        #expect(next() == "STOPPING=1")
    }

    @Test("the watchdog is told twice in its time, and only where it is ours")
    func watchdog() {
        func interval(_ environment: [String: String]) -> Duration? {
            ServiceManager { environment[$0] }.watchdogInterval
        }
        #expect(interval(["WATCHDOG_USEC": "60000000"]) == .seconds(30))
        #expect(interval(["WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "\(getpid())"]) == .seconds(30))
        #expect(interval(["WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"]) == nil)
        #expect(interval(["WATCHDOG_USEC": "soon"]) == nil)
        #expect(interval([:]) == nil)
    }

    @Test("where nobody listens, nothing happens")
    func nobody() {
        ServiceManager { _ in nil }.ready()
        ServiceManager { _ in "/nonexistent/notify" }.ready()
    }
}
