import ClatBase

@testable import ClatAgent

// What comes from clients and files.

/// An agent with one interface, which obeys.
private final class Obedient: ControlTarget {
    let status = AgentStatus(version: "0", pid: 1, uptimeSeconds: 2, interfaces: [])
    func renew(_ interface: String) -> Bool { knows(interface) }
    func setResolvers(_ servers: [IPv6Address], of interface: String) -> Bool { knows(interface) }
    func knows(_ interface: String) -> Bool { interface == "eth0" }
    func canSwitch(_ interface: String) -> Bool { knows(interface) }
    func set(_ interface: String, enabled: Bool, lasting: Bool) throws(SystemError) {}
    func reexec() -> String { "" }
    func namespaceDescriptor(of interface: String) -> CInt? { nil }
}

extension Target {
    /// What a client of the control socket sends, and what a client of ours may be answered.
    static let varlink = Target { input in
        for message in input.split(separator: 0) {
            if let call = try? Varlink.decode(Varlink.Head.self, from: message) {
                for privilege in [ControlServer.Privilege.reader, .member, .owner] {
                    let answer = ControlService.answer(
                        ControlServer.Request(
                            method: call.method, message: message, privilege: privilege,
                            wantsMore: call.more == true), Obedient())
                    if case .reply(let reply) = answer { precondition(reply.count > 1 && reply.last == 0) }
                }
            }
            _ = try? Varlink.decode(Varlink.Failure.self, from: message)
            _ = try? Varlink.decode(Varlink.Reply<AgentStatus>.self, from: message)
            _ = try? Varlink.decode(Varlink.Reply<ControlInterface.Monitored>.self, from: message)
        }
    }

    /// A config.toml. What is refused is refused in sentences.
    static let toml = Target { input in
        do throws(ConfigurationFile.Problems) {
            let configuration = try ConfigurationFile.parse(String(decoding: input, as: UTF8.self), path: "f")
            _ = configuration.policy(for: "eth0")
            _ = configuration.changes(from: Configuration())
        } catch {
            precondition(!error.lines.isEmpty && error.lines.allSatisfy { $0.hasPrefix("f:") })
        }
    }

    /// A clatd.conf, which must become a config.toml that can be read.
    static let clatd = Target { input in
        let text = ClatdImport.toml(String(decoding: input, as: UTF8.self))
        do throws(ConfigurationFile.Problems) { _ = try ConfigurationFile.parse(text, path: "f") } catch {
            preconditionFailure("\(error)\n\(text)")
        }
    }

    /// The files of the state directory, and those of the system that list resolvers.
    static let state = Target { input in
        let names = DisabledInterfaces.names(in: input)
        precondition(DisabledInterfaces.names(in: DisabledInterfaces.octets(of: names)) == names)
        let text = String(decoding: input, as: UTF8.self)
        _ = SystemResolvers.parse(assignments: text, key: "DNS")
        _ = SystemResolvers.parse(resolvConf: text)
    }
}
