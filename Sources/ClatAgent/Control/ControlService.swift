import CLinux
import ClatBase
import Glibc

/// What the control interface asks of the agent.
protocol ControlTarget: AnyObject {
    /// All there is to know.
    var status: AgentStatus { get }
    /// Asks the routers anew; false where there is no such interface.
    func renew(_ interface: String) -> Bool
    /// Takes in the resolvers of a link; false where there is no such interface.
    func setResolvers(_ servers: [IPv6Address], of interface: String) -> Bool
    /// Whether there is such an interface.
    func knows(_ interface: String) -> Bool
    /// Whether there is, or was when it was switched off.
    func canSwitch(_ interface: String) -> Bool
    /// Switches an interface on or off, lasting or until the runtime directory is emptied, as at boot.
    func set(_ interface: String, enabled: Bool, lasting: Bool) throws(SystemError)
    /// Runs the program anew, and does not return; where that cannot be done, why not.
    func reexec() -> String
    /// A descriptor of the namespace of an interface's CLAT, if it has one. It stays the agent's.
    func namespaceDescriptor(of interface: String) -> CInt?
}

/// Answers varlink calls, and tells who monitors of events.
final class ControlService {
    private unowned let target: any ControlTarget
    private let server: ControlServer

    /// Serves at `path`.
    init(reactor: Reactor, path: String, target: any ControlTarget) throws(SystemError) {
        self.target = target
        server = try ControlServer(reactor: reactor, path: path) { [unowned target] request in
            Self.answer(request, target)
        }
    }

    /// Clients that were cut off.
    var droppedClients: Int { server.dropped }

    /// Tells everybody who monitors.
    func publish(_ kind: AgentEvent.Kind, _ interface: String, _ text: String, reason: Reason? = nil) {
        guard server.hasSubscribers else { return }
        let event = AgentEvent(
            time: Self.wallClock, interface: interface, kind: kind, state: reason?.state, code: reason?.code, text: text
        )
        server.publish(Self.reply(event))
    }

    /// Answers one call.
    static func answer(_ request: ControlServer.Request, _ target: any ControlTarget) -> ControlServer.Answer {
        switch request.method {
        case ServiceInterface.getInfo:
            let names = ControlInterface.descriptions.keys.sorted()
            return .reply(Varlink.reply(ServiceInterface.Information(version: Version.text, interfaces: names)))
        case ServiceInterface.getInterfaceDescription:
            return aboutInterface(request) { name in
                guard let description = ControlInterface.descriptions[name] else {
                    return .reply(Varlink.refusal(ServiceInterface.interfaceNotFound, ["interface": name]))
                }
                return .reply(Varlink.reply(ServiceInterface.Description(description: description)))
            }
        case ControlInterface.status: return .reply(Varlink.reply(target.status))
        case ControlInterface.monitor:
            guard request.wantsMore else { return .reply(Varlink.refusal(ServiceInterface.expectedMore)) }
            return .subscribe(first: target.status.interfaces.flatMap { reply(AgentEvent($0, time: wallClock)) })
        case ControlInterface.renew:
            let call = try? Varlink.decode(Varlink.Call<ControlInterface.Renewal>.self, from: request.message)
            let resolvers = call?.parameters?.resolvers
            return changing(request, atLeast: resolvers == nil ? .member : .owner) { name in
                let isKnown = resolvers.map { set($0, of: name, target) } ?? true
                return .reply(isKnown && target.renew(name) ? Varlink.reply(Varlink.None()) : unknown(name))
            }
        case ControlInterface.setResolvers:
            guard
                let call = try? Varlink.decode(
                    Varlink.Call<ControlInterface.Resolvers>.self, from: request.message),
                let servers = call.parameters?.servers
            else { return .reply(Varlink.refusal(ServiceInterface.invalidParameter, ["parameter": "servers"])) }
            return changing(request, atLeast: .owner) { name in
                .reply(set(servers, of: name, target) ? Varlink.reply(Varlink.None()) : unknown(name))
            }
        case ControlInterface.enable, ControlInterface.disable:
            let call = try? Varlink.decode(Varlink.Call<Varlink.Switch>.self, from: request.message)
            let isLasting = call?.parameters?.lasting == true
            return changing(request, atLeast: isLasting ? .owner : .member) { name in
                guard target.canSwitch(name) else { return .reply(unknown(name)) }
                do throws(SystemError) {
                    try target.set(name, enabled: request.method == ControlInterface.enable, lasting: isLasting)
                } catch {
                    return .reply(Varlink.refusal(ControlInterface.notLasting, ["cause": "\(error)"]))
                }
                return .reply(Varlink.reply(Varlink.None()))
            }
        case ControlInterface.reexec:
            guard request.privilege == .owner else { return .reply(Varlink.refusal(ServiceInterface.permissionDenied)) }
            return .reply(Varlink.refusal(ControlInterface.notReexecuted, ["cause": target.reexec()]))
        case ControlInterface.openNamespace:
            // Whoever holds it keeps the namespace alive, and nobody else could enter it.
            return changing(request, atLeast: .owner) { name in
                guard target.knows(name) else { return .reply(unknown(name)) }
                guard let descriptor = target.namespaceDescriptor(of: name) else {
                    return .reply(Varlink.refusal(ControlInterface.noNamespace, ["interface": name]))
                }
                return .descriptor(descriptor, with: Varlink.reply(Varlink.None()))
            }
        default: return .reply(notFound(request.method))
        }
    }

    /// What not everybody may do with a network interface.
    private static func changing(
        _ request: ControlServer.Request, atLeast privilege: ControlServer.Privilege = .member,
        _ body: (String) -> ControlServer.Answer
    ) -> ControlServer.Answer {
        guard request.privilege >= privilege else { return .reply(Varlink.refusal(ServiceInterface.permissionDenied)) }
        return aboutInterface(request, body)
    }

    private static func aboutInterface(
        _ request: ControlServer.Request, _ body: (String) -> ControlServer.Answer
    ) -> ControlServer.Answer {
        guard let call = try? Varlink.decode(Varlink.Call<Varlink.OneInterface>.self, from: request.message),
            let name = call.parameters?.interface
        else { return .reply(Varlink.refusal(ServiceInterface.invalidParameter, ["parameter": "interface"])) }
        return body(name)
    }

    /// False where there is no such interface.
    private static func set(_ resolvers: [String], of interface: String, _ target: any ControlTarget) -> Bool {
        target.setResolvers(resolvers.compactMap { IPv6Address(resolver: $0) }, of: interface)
    }

    private static func unknown(_ interface: String) -> [UInt8] {
        Varlink.refusal(ControlInterface.unknownInterface, ["interface": interface])
    }

    /// No such method, or not even such an interface.
    private static func notFound(_ method: String) -> [UInt8] {
        let interface = method.lastIndex(of: ".").map { String(method[..<$0]) } ?? ""
        return ControlInterface.descriptions[interface] == nil
            ? Varlink.refusal(ServiceInterface.interfaceNotFound, ["interface": interface])
            : Varlink.refusal(ServiceInterface.methodNotFound, ["method": method])
    }

    private static func reply(_ event: AgentEvent) -> [UInt8] {
        Varlink.reply(ControlInterface.Monitored(event: event), continues: true)
    }

    private static var wallClock: Double {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec / 1_000_000) / 1000
    }
}

extension AgentEvent {
    /// The state an interface is in, as the first event about it.
    init(_ status: InterfaceStatus, time: Double) {
        self.init(
            time: time, interface: status.interface, kind: .state, state: status.state, code: status.reason.code,
            text: status.reason.sentence)
    }
}
