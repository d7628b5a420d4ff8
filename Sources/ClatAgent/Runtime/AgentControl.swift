import ClatBase
import Glibc

/// What the control socket may ask of the agent.
extension Agent: ControlTarget {
    var status: AgentStatus {
        let now = BootInstant.now
        return AgentStatus(
            version: Version.text, pid: Int(getpid()), uptimeSeconds: Int((now - started) / .seconds(1)),
            interfaces: machine.uplinks.sorted { $0.key < $1.key }.compactMap { index, uplink in
                InterfaceStatus(uplink, instances[index], now: now)
            })
    }

    func renew(_ interface: String) -> Bool {
        guard let index = machine.uplinks.first(where: { $0.value.uplink?.name == interface })?.key else {
            return false
        }
        take(.renew(uplink: index))
        return true
    }
}
