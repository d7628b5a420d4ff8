import ClatBase
import ClatNetlink
import Glibc
import Logging

/// What the control socket may ask of the agent.
extension Agent: ControlTarget {
    var status: AgentStatus {
        let now = BootInstant.now
        return AgentStatus(
            version: Version.text, pid: Int(getpid()), uptimeSeconds: Int((now - started) / .seconds(1)),
            droppedClients: control?.droppedClients ?? 0, netlinkOverruns: kernel.overruns,
            malformedNetlink: kernel.malformed + kernel.netlink.malformed, lostAdvertisements: Int(routers.lost),
            interfaces: machine.uplinks.sorted { $0.key < $1.key }.compactMap { index, uplink in
                InterfaceStatus(
                    uplink, device: machine.hostDevice(of: index), instances[index], machine.configuration, now: now)
            })
    }

    func renew(_ interface: String) -> Bool {
        guard let index = index(of: interface) else { return false }
        log.log(.debug, interface, "was told to ask its routers anew")
        take(.renew(uplink: index))
        return true
    }

    func setResolvers(_ servers: [IPv6Address], of interface: String) -> Bool {
        guard let index = index(of: interface) else { return false }
        take(.resolvers(servers, .told, uplink: index))
        return true
    }

    func knows(_ interface: String) -> Bool { index(of: interface) != nil }

    func canSwitch(_ interface: String) -> Bool {
        knows(interface) || machine.configuration.disabled.contains(interface)
    }

    private func index(of interface: String) -> Int? {
        machine.uplinks.first { $0.value.uplink?.name == interface }?.key
    }

    func namespaceDescriptor(of interface: String) -> CInt? {
        index(of: interface).flatMap { instances[$0]?.namespaceDescriptor }
    }

    func set(_ interface: String, enabled: Bool, lasting: Bool) throws(SystemError) {
        var new = machine.configuration
        if enabled { new.disabled.remove(interface) } else { new.disabled.insert(interface) }
        log.log(
            .notice, interface,
            "\(enabled ? "enabled" : "disabled") on request\(lasting ? ", for good" : ", until the next boot")")
        configure(new)
        let forGood = DisabledInterfaces(directory: options.stateDirectory)
        var names = forGood.read() ?? []
        if lasting {
            if enabled { names.remove(interface) } else { names.insert(interface) }
            try forGood.write(names)
        }
        let untilBoot = DisabledInterfaces(directory: options.runtimeDirectory)
        if names == new.disabled { untilBoot.remove() } else { try untilBoot.write(new.disabled) }
    }

    /// Reads the configuration anew; where it cannot be used, all stays as it is.
    func reload() {
        guard let read = options.reload else { return }
        manager.reloading()
        defer { manager.ready() }
        do throws(ConfigurationFile.Problems) {
            var new = try read()
            new.disabled = machine.configuration.disabled
            let changes = new.changes(from: machine.configuration)
            log.notice("read the configuration anew\(changes.isEmpty ? ": nothing has changed" : "")")
            for change in changes { log.notice("\(change)") }
            configure(new)
        } catch {
            for line in error.lines { log.error("\(line)") }
            log.error("the configuration stays as it was")
        }
    }

    private func configure(_ new: Configuration) {
        log.logLevel = Logger.Level(new.logLevel)
        take(.configure(new))
    }
}
