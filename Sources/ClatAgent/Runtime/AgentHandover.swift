import ClatBase
import ClatTranslator
import Logging

/// From one process to the next without a dropped connection: what stands is left, with its descriptors, and taken over.
extension Agent {
    /// What works now, for a process that comes after this one.
    var handover: Handover {
        Handover(machine) { index in
            instances[index].flatMap { instance in
                instance.steering.map { ($0, instance.uplinkNote) }
            }
        }
    }

    /// Runs the program anew in this process, by the path it was started by; what stands goes on. Returns only where that cannot
    /// be done: why not. All is as before then.
    func reexec() -> String {
        guard let programPath else { return "the path of the program cannot be told" }
        if let reload = options.reload {
            do throws(ConfigurationFile.Problems) { _ = try reload() } catch {
                return error.lines.joined(separator: "; ")
            }
        }
        keep(isLast: true)
        let handover = handover
        do throws(SystemError) {
            let state = try SealedMemory.make(handover.encoded)
            let descriptors = handover.entries.flatMap { entry in
                instances[entry.index]?.descriptors.map { DescriptorStore.names($0, entry.index) } ?? []
            }
            log.notice("beginning anew as \(programPath); CLATs that go on: \(handover.entries.count)")
            // By the name under which the service manager keeps it, where there is one.
            let name = DescriptorStore.state(store?.number ?? 0)
            for instance in instances.values { instance.pause() }
            defer { for instance in instances.values { instance.resume() } }
            try Privileges.passOn(Preconditions.capabilities)
            defer { try? Privileges.keepOnly(Preconditions.capabilities) }
            throw InheritedDescriptors.pass(descriptors + [(name, state.rawValue)], to: programPath)
        } catch {
            log.error("could not begin anew, and all is as before: \(error)")
            return "\(error)"
        }
    }

    /// Takes over what a process before this one has left, as far as it is sound; the rest is closed, and so goes. What came of
    /// it is logged. By interface index.
    func adopt(_ inherited: InheritedDescriptors, on host: Host) -> [Int: Adoption] {
        guard !inherited.names.isEmpty else { return [:] }
        var adoptions: [Int: Adoption] = [:]
        do throws(Handover.Problem) {
            for entry in try Self.state(of: inherited).entries {
                do {
                    adoptions[entry.index] = try adopt(entry, inherited, host)
                } catch {
                    log.log(.warning, entry.name, "what an agent before this one has left is built anew: \(error)")
                }
            }
        } catch {
            log.warning("what an agent before this one has left is built anew: its account of it \(error)")
        }
        for name in inherited.names.sorted() {
            log.debug("a descriptor that nobody needs is closed: \(name)")
            if DescriptorStore.isNamespace(name), let namespace = inherited.take(name) { Instance.dismantle(namespace) }
        }
        return adoptions
    }

    /// The newest account.
    private static func state(of inherited: InheritedDescriptors) throws(Handover.Problem) -> Handover {
        let names = inherited.names.filter(DescriptorStore.isState)
        guard let newest = names.max(by: { DescriptorStore.number(of: $0) ?? 0 < DescriptorStore.number(of: $1) ?? 0 }),
            let descriptor = inherited.take(newest)
        else { throw Handover.Problem(description: "is missing") }
        return try Handover(decoding: SealedMemory.read(descriptor, limit: Handover.maximumSize + 1))
    }

    private func adopt(_ entry: Handover.Entry, _ inherited: InheritedDescriptors, _ host: Host) throws -> Adoption {
        // Whatever becomes of the rest: the guard outlasts a CLAT.
        if let former = inherited.take(DescriptorStore.uplinkGuard(entry.index)) {
            do { try kernel.keepGuard(of: UInt32(clamping: entry.index), inherited: former) } catch {
                log.log(.warning, entry.name, "\(error)")
            }
        }
        guard let uplink = host.links[entry.index], uplink.isRunning else {
            throw Handover.Problem(description: "the interface has gone, or has no carrier")
        }
        guard uplink.carrierLosses == entry.carrierLosses else {
            throw Handover.Problem(description: "the carrier was lost meanwhile, so this may be another network")
        }
        guard (entry.standing.uplinkLink == .relay) == (uplink.attachment == .relay) else {
            throw Handover.Problem(description: "neighbour discovery was switched on or off meanwhile")
        }
        var links: [OwnedLink] = []
        for name in DescriptorStore.links(entry.index) {
            if let link = inherited.take(name) { links.append(OwnedLink(link)) }
        }
        var relay: [OwnedLink] = []
        for name in DescriptorStore.relay(entry.index) {
            if let descriptor = inherited.take(name) { relay.append(OwnedLink(descriptor)) }
        }
        // The namespace last: what is left of it where anything else is missing is dismantled.
        guard let tun = inherited.take(DescriptorStore.tun(entry.index)),
            links.count == (entry.steering == .tcx ? 3 : 0),
            let namespace = inherited.take(DescriptorStore.namespace(entry.index))
        else { throw Handover.Problem(description: "a descriptor is missing") }
        let instance = Instance(host: kernel)
        defer { withExtendedLifetime((links, relay)) {} }
        let adoption: Adoption
        do {
            let found = try instance.adopt(
                entry, namespace: namespace, tun: tun, links: links.map { $0.descriptor.rawValue },
                relay: relay.map { $0.descriptor.rawValue }, datapath: machine.configuration.datapath)
            adoption = try Adoption(entry, found: found)
        } catch {
            instance.abandon()
            throw error
        }
        instances[entry.index] = instance
        let differences = adoption.differences.joined(separator: ", ")
        let verdict = differences.isEmpty ? "all is as it was left" : "to be mended: \(differences)"
        log.log(.notice, entry.name, "took over from the agent before this one; \(verdict)")
        return adoption
    }

    /// A descriptor in an array.
    private final class OwnedLink {
        let descriptor: OwnedDescriptor
        init(_ descriptor: consuming OwnedDescriptor) { self.descriptor = descriptor }
    }
}
