import ClatBase
import ClatNetlink
import Glibc

/// What is this side of the link: kernel, other programs, routes.
extension Doctor {
    mutating func examineKernel() {
        do throws(RunFailure) {
            try Preconditions.checkKernel()
            tell(.good("kernel", "IPv6 and the TUN device are there"))
        } catch {
            if case .forbidden = error, geteuid() != 0 {
                tell(.notice("kernel", "not all of it can be looked at", remedy: "run the doctor as root"))
            } else {
                tell(.broken("kernel", "\(error)", remedy: "then start the agent again"))
            }
        }
    }

    /// Of root, as which an agent would be started: in containers root may lack some.
    mutating func examineCapabilities() {
        guard geteuid() == 0 else { return }
        do throws(RunFailure) { try Preconditions.checkCapabilities() } catch {
            tell(.broken("capabilities", "\(error)", remedy: "where this is a container, grant them to it"))
        }
    }

    /// Other programs that do the same, or have the same addresses.
    mutating func examineCompetitors(_ status: AgentStatus) {
        let processes = Processes.all(named: ["clatd", "tayga", "xlat464"])
        if !processes.isEmpty {
            let names = Set(processes.map(\.name)).sorted().joined(separator: ", ")
            tell(
                .notice(
                    "competitors", "running besides: \(names)",
                    remedy: "stop a second CLAT, such as: systemctl disable --now clatd; see clat-agent import-clatd"))
        } else if let left = (try? ClatdCleanup(configuration: ClatdCleanup.standardConfiguration))?.items.last {
            tell(
                .notice(
                    "competitors", "a clatd that was killed has left \(left.sentence)",
                    remedy: "clat-agent cleanup --clatd shows all of it, and undoes it"))
        }
        let ours = Set(status.interfaces.compactMap(\.device))
        guard var netlink = try? NetlinkSocket(), let addresses = try? netlink.addresses(.ipv4) else { return }
        for address in addresses {
            guard case .v4(let value) = address.address, value.isServiceContinuity,
                let name = Self.name(of: address.index), !ours.contains(name), !name.hasPrefix(Uplink.hostLinkPrefix)
            else { continue }
            tell(
                .notice(
                    "competitors", "\(value), an address for CLATs (RFC 7335), is on \(name), which is not ours",
                    remedy: "if a CLAT of NetworkManager, systemd-networkd or clatd runs there, keep one of the two"))
        }
    }

    /// Where a host forwards IPv6, its kernel hears no Router Advertisements unless told to.
    mutating func examineForwarding(_ name: String) {
        guard (try? Sysctl.read("ipv6/conf/\(name)/forwarding")) == "1",
            (try? Sysctl.read("ipv6/conf/\(name)/accept_ra")) == "1"
        else { return }
        tell(
            .broken(
                "forwarding",
                "the kernel takes no Router Advertisements on \(name), as this host forwards IPv6 (Docker, libvirt and "
                    + "VPNs switch that on): its addresses and its default route run out",
                remedy: "sysctl -w net.ipv6.conf.\(name.replacing(".", with: "/")).accept_ra=2"))
    }

    /// Whether the host sends IPv4 our way: policy rules, VPNs and other interfaces may be before us.
    mutating func examineRoute(_ entry: InterfaceStatus) {
        guard let device = entry.device, var netlink = try? NetlinkSocket() else { return }
        // For documentation (RFC 5737), and nothing is sent to it: it stands for all of the Internet.
        let somewhere = target ?? IPv4Address(192, 0, 2, 1)
        let found: Route?
        do throws(NetlinkError) { found = try netlink.route(to: .v4(somewhere)) } catch {
            tell(.broken("route", "the host refuses IPv4: \(error)", remedy: "look at: ip -4 rule; ip -4 route"))
            return
        }
        guard let index = found?.outputIndex, let link = try? netlink.link(index: index) else {
            tell(
                .broken(
                    "route", "the host has no IPv4 route to \(somewhere)",
                    remedy: "something removed the agent's route: clat-agent renew \(entry.interface)"))
            return
        }
        if link.name == device {
            tell(.good("route", "IPv4 goes out of \(device), metric \(entry.metric ?? 0), MTU \(entry.mtu ?? 0)"))
        } else {
            tell(
                .notice(
                    "route",
                    "IPv4 to \(somewhere) goes out of \(link.name)\(Self.nature(link)), which wins over \(device)",
                    remedy:
                        "that is as it should be for a VPN or for native IPv4; else look at: ip -4 rule; ip -4 route"))
        }
    }

    /// What kind of device it is, in brackets; empty for hardware.
    private static func nature(_ link: Link) -> String {
        switch link.kind {
        case "wireguard", "tun", "xfrm", "ipip", "gre", "vti": " (\(link.kind ?? ""), a VPN)"
        case "ppp": " (ppp, a VPN or a modem)"
        case "bridge": " (a bridge, as of Docker or of virtual machines)"
        case let kind?: " (\(kind))"
        case nil: ""
        }
    }

    private static func name(of index: UInt32) -> String? {
        var name = [CChar](repeating: 0, count: Int(IF_NAMESIZE))
        guard if_indextoname(index, &name) != nil else { return nil }
        return String(decoding: name.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
    }
}
