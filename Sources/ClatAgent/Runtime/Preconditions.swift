import CLinux
import ClatBase
import Glibc

/// What must hold before the agent touches anything.
enum Preconditions {
    /// What the agent keeps for as long as it lives: any network may want links and routes, a raw socket or a namespace.
    static let capabilities: [Capability] = [.netAdmin, .netRaw, .sysAdmin]

    static func checkCapabilities() throws(RunFailure) {
        let missing: [Capability]
        do throws(SystemError) { missing = try Privileges.missing(of: capabilities) } catch { throw .system(error) }
        if !missing.isEmpty { throw .missingCapabilities(missing.map(\.description)) }
    }

    /// Gives up every other capability, for all threads to come.
    static func settleCapabilities() throws(RunFailure) {
        try checkCapabilities()
        do throws(SystemError) { try Privileges.keepOnly(capabilities) } catch { throw .system(error) }
    }

    static func checkKernel() throws(RunFailure) {
        if access("/proc/net/if_inet6", F_OK) != 0 {
            throw .kernelLacks("IPv6", remedy: "boot it without ipv6.disable=1, or load the module: modprobe ipv6")
        }
        do throws(SystemError) {
            _ = try OwnedDescriptor(opening: "/dev/net/tun", O_RDWR)
        } catch {
            switch error.code {
            case EACCES, EPERM:
                throw .forbidden(
                    "the TUN device (\(error))",
                    remedy:
                        "run it as root, or let it: chmod 666 /dev/net/tun; in a container or a unit, allow the device")
            case ENOENT, ENODEV, ENXIO:
                throw .kernelLacks("TUN device (\(error))", remedy: "load the module: modprobe tun")
            // Such as EMFILE: a little later it may go well.
            default: throw .system(error)
            }
        }
    }
}

/// Marks this network namespace as served: a listening socket with an abstract name, which is known in this namespace
/// only and goes with the process, however it ends.
struct NamespaceLock: ~Copyable {
    private let socket: OwnedDescriptor
    private static let name = "clat-agent"

    init() throws(RunFailure) {
        do throws(SystemError) {
            socket = try Self.listening()
        } catch {
            guard error.code == EADDRINUSE else { throw .system(error) }
            throw Self.refusal(holder: Self.holder())
        }
    }

    private static func listening() throws(SystemError) -> OwnedDescriptor {
        let socket = try open()
        let fd = socket.rawValue
        try UnixAddress(abstract: name).bind(fd)
        try retrying("listen") { listen(fd, 1) }
        return socket
    }

    private static func open() throws(SystemError) -> OwnedDescriptor {
        try OwnedDescriptor(socket: AF_UNIX, .stream, named: "a Unix socket")
    }

    /// Any user can take the name, so only root's word and our own user's are as good as an agent's.
    static func refusal(holder: ucred?) -> RunFailure {
        guard let holder, holder.uid != 0, holder.uid != geteuid() else {
            return .alreadyRunning(pid: Int(holder?.pid ?? 0))
        }
        return .nameTaken(pid: Int(holder.pid), user: holder.uid)
    }

    /// Who listens, by SO_PEERCRED; nil where it cannot be told.
    private static func holder() -> ucred? {
        var credentials = ucred()
        var size = socklen_t(MemoryLayout<ucred>.size)
        guard let client = try? open(), (try? UnixAddress(abstract: name).connect(client.rawValue)) != nil,
            getsockopt(client.rawValue, SOL_SOCKET, SO_PEERCRED, &credentials, &size) == 0
        else { return nil }
        return credentials
    }
}
