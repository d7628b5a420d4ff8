import CLibMnl
public import ClatBase
import Glibc

extension NetlinkSocket {
    /// All links of the namespace.
    public mutating func links() throws(NetlinkError) -> [Link] {
        try collect("list the links", .links(), Link.read)
    }

    /// The link of that name; nil if there is none.
    public mutating func link(named name: String) throws(NetlinkError) -> Link? {
        try link("look up link \(name)", .link(named: name))
    }

    /// The link of that index; nil if there is none.
    public mutating func link(index: UInt32) throws(NetlinkError) -> Link? {
        try link("look up link \(index)", .link(index: index))
    }

    private mutating func link(_ operation: String, _ request: borrowing Request) throws(NetlinkError) -> Link? {
        do throws(NetlinkError) { return try collect(operation, request, Link.read).first } catch {
            guard error.code == ENODEV else { throw error }
            return nil
        }
    }

    /// How many packets a link has lost on their way out, as with a full queue.
    public mutating func transmitDrops(ofLink index: UInt32) throws(NetlinkError) -> UInt64 {
        let operation = "read the statistics of link \(index)"
        guard let count = try collect(operation, .statistics(of: index), Link.readTransmitDrops).first else {
            throw NetlinkError(operation: operation, code: ENODATA)
        }
        return count
    }

    /// Makes a pair of veths, both down: one here and one in another namespace. The one here gets no link-local address of
    /// its own when it comes up. Either goes when the other does.
    ///
    /// The one here has a random link-layer address by request: udev changes one that the kernel chose, at a moment of its own.
    ///
    /// - Returns: the end that is here.
    public mutating func createVeth(
        _ name: String, peer: String, in namespace: borrowing NetworkNamespace, mtu: Int
    ) throws(NetlinkError) -> Link {
        let operation = "create veth \(name)"
        try perform(
            operation,
            .newVeth(name, peer: peer, namespace: namespace.descriptor, mtu: mtu, hardwareAddress: .random()))
        guard let link = try link(named: name) else { throw NetlinkError(operation: operation, code: ENODEV) }
        // The kernel takes no IFLA_AF_SPEC along with the making of a link.
        try setAddressGenerationMode(.none, ofLink: link.index)
        return link
    }

    /// Makes an ipvlan on a link of this namespace, in mode L2, born down in another namespace by one request.
    ///
    /// All ipvlans of one parent share mode and flags: this turns those that are in L3 mode to L2, and leaves the flags,
    /// which are 0 (bridge) unless someone else's ipvlan has set them. Before Linux 6.13 the name may not exist here either.
    public mutating func createIPvlan(
        _ name: String, on parent: UInt32, in namespace: borrowing NetworkNamespace
    ) throws(NetlinkError) {
        try perform(
            "create ipvlan \(name) on link \(parent)",
            .newIPvlan(name, parent: parent, namespace: namespace.descriptor))
    }

    /// Makes a macvlan on a link of this namespace, in bridge mode with that link-layer address or a random one, born down
    /// in another namespace by one request. Before Linux 6.13 the name may not exist here either.
    public mutating func createMacvlan(
        _ name: String, on parent: UInt32, in namespace: borrowing NetworkNamespace,
        hardwareAddress: HardwareAddress? = nil
    ) throws(NetlinkError) {
        try perform(
            "create macvlan \(name) on link \(parent)",
            .newMacvlan(name, parent: parent, namespace: namespace.descriptor, hardwareAddress: hardwareAddress))
    }

    /// Sets the mode of an ipvlan, which is that of all ipvlans of its parent.
    public mutating func setMode(_ mode: IPvlanMode, ofIPvlan index: UInt32) throws(NetlinkError) {
        try perform("set the mode of ipvlan \(index)", .setIPvlanMode(mode, of: index))
    }

    /// Removes a link; a link that is gone already is ENODEV.
    public mutating func deleteLink(_ index: UInt32) throws(NetlinkError) {
        try perform("delete link \(index)", .deleteLink(index))
    }

    /// Removes a link of another namespace, which has that id here (IFLA_TARGET_NETNSID).
    public mutating func deleteLink(named name: String, inNamespace id: Int32) throws(NetlinkError) {
        try perform("delete link \(name) of the namespace \(id)", .deleteLink(named: name, inNamespace: id))
    }

    /// Sets a link up or down.
    public mutating func setLink(_ index: UInt32, up: Bool) throws(NetlinkError) {
        try perform("set link \(index) \(up ? "up" : "down")", .setLink(index, up: up))
    }

    /// Sets a link's MTU, in octets.
    public mutating func setMTU(_ mtu: Int, ofLink index: UInt32) throws(NetlinkError) {
        try perform("set the MTU of link \(index) to \(mtu)", .setMTU(mtu, ofLink: index))
    }

    /// Sets how a link that comes up gets its link-local address.
    public mutating func setAddressGenerationMode(
        _ mode: AddressGenerationMode, ofLink index: UInt32
    ) throws(NetlinkError) {
        try perform(
            "set the IPv6 address generation mode of link \(index)", .setAddressGenerationMode(mode, ofLink: index))
    }
}

extension Link {
    static func read(_ type: Int, _ bytes: RawSpan, _ body: Range<Int>) throws(MalformedMessage) -> Link? {
        type == RTM_NEWLINK ? try Link(bytes, body) : nil
    }

    /// Of an RTM_NEWSTATS: `struct if_stats_msg`, then attributes; `struct rtnl_link_stats64` grows at its end.
    static func readTransmitDrops(
        _ type: Int, _ bytes: RawSpan, _ body: Range<Int>
    ) throws(MalformedMessage) -> UInt64? {
        var attributes = AttributeCursor(body, after: if_stats_msg.self)
        while let attribute = try attributes.next(in: bytes) {
            guard attribute.type == IFLA_STATS_LINK_64 else { continue }
            let offset = MemoryLayout<rtnl_link_stats64>.offset(of: \.tx_dropped) ?? 0
            return try bytes.load(UInt64.self, at: attribute.value.dropFirst(offset))
        }
        return nil
    }
}

// MARK: Requests

extension Request {
    private static let creation = NLM_F_CREATE | NLM_F_EXCL

    private init(link type: Int, _ flags: CInt = 0, index: UInt32 = 0) {
        var body = ifinfomsg()
        body.ifi_index = Int32(bitPattern: index)
        self.init(type, flags, body)
    }

    static func links() -> Request {
        var request = Request(link: RTM_GETLINK, NLM_F_DUMP)
        request.put(IFLA_EXT_MASK, UInt32(RTEXT_FILTER_SKIP_STATS))
        return request
    }

    static func link(named name: String) -> Request {
        var request = Request(link: RTM_GETLINK)
        request.put(IFLA_IFNAME, text: name)
        request.put(IFLA_EXT_MASK, UInt32(RTEXT_FILTER_SKIP_STATS))
        return request
    }

    static func link(index: UInt32) -> Request {
        var request = Request(link: RTM_GETLINK, index: index)
        request.put(IFLA_EXT_MASK, UInt32(RTEXT_FILTER_SKIP_STATS))
        return request
    }

    static func statistics(of index: UInt32) -> Request {
        // IFLA_STATS_FILTER_BIT is a macro with an argument.
        let filter = UInt32(1) << UInt32(IFLA_STATS_LINK_64 - 1)
        return Request(
            RTM_GETSTATS, 0, if_stats_msg(family: 0, pad1: 0, pad2: 0, ifindex: index, filter_mask: filter))
    }

    static func newVeth(
        _ name: String, peer: String, namespace: CInt, mtu: Int, hardwareAddress: HardwareAddress
    ) -> Request {
        var request = Request(link: RTM_NEWLINK, creation)
        request.put(IFLA_IFNAME, text: name)
        request.put(IFLA_ADDRESS, octets: hardwareAddress.bytes)
        request.put(IFLA_MTU, UInt32(clamping: mtu))
        request.nest(IFLA_LINKINFO) {
            $0.put(IFLA_INFO_KIND, text: "veth")
            $0.nest(IFLA_INFO_DATA) {
                $0.nest(VETH_INFO_PEER) {
                    $0.put(ifinfomsg())
                    $0.put(IFLA_IFNAME, text: peer)
                    $0.put(IFLA_MTU, UInt32(clamping: mtu))
                    $0.put(IFLA_NET_NS_FD, namespace)
                }
            }
        }
        return request
    }

    static func newIPvlan(_ name: String, parent: UInt32, namespace: CInt) -> Request {
        newStacked(name, "ipvlan", parent: parent, namespace: namespace) {
            $0.put(IFLA_IPVLAN_MODE, IPvlanMode.l2.rawValue)
        }
    }

    static func newMacvlan(
        _ name: String, parent: UInt32, namespace: CInt, hardwareAddress: HardwareAddress? = nil
    ) -> Request {
        var request = newStacked(name, "macvlan", parent: parent, namespace: namespace) {
            $0.put(IFLA_MACVLAN_MODE, MACVLAN_MODE_BRIDGE.rawValue)
        }
        if let hardwareAddress { request.put(IFLA_ADDRESS, octets: hardwareAddress.bytes) }
        return request
    }

    private static func newStacked(
        _ name: String, _ kind: String, parent: UInt32, namespace: CInt, _ data: (inout Request) -> Void
    ) -> Request {
        var request = Request(link: RTM_NEWLINK, creation)
        request.put(IFLA_IFNAME, text: name)
        request.put(IFLA_LINK, parent)
        request.put(IFLA_NET_NS_FD, namespace)
        request.nest(IFLA_LINKINFO) {
            $0.put(IFLA_INFO_KIND, text: kind)
            $0.nest(IFLA_INFO_DATA, data)
        }
        return request
    }

    static func setIPvlanMode(_ mode: IPvlanMode, of index: UInt32) -> Request {
        var request = Request(link: RTM_NEWLINK, index: index)
        request.nest(IFLA_LINKINFO) {
            $0.put(IFLA_INFO_KIND, text: "ipvlan")
            $0.nest(IFLA_INFO_DATA) { $0.put(IFLA_IPVLAN_MODE, mode.rawValue) }
        }
        return request
    }

    static func deleteLink(_ index: UInt32) -> Request {
        Request(link: RTM_DELLINK, index: index)
    }

    static func deleteLink(named name: String, inNamespace id: Int32) -> Request {
        var request = Request(link: RTM_DELLINK)
        request.put(IFLA_TARGET_NETNSID, id)
        request.put(IFLA_IFNAME, text: name)
        return request
    }

    static func setLink(_ index: UInt32, up: Bool) -> Request {
        var body = ifinfomsg()
        body.ifi_index = Int32(bitPattern: index)
        body.ifi_change = LinkFlags.up.rawValue
        body.ifi_flags = up ? LinkFlags.up.rawValue : 0
        return Request(RTM_NEWLINK, 0, body)
    }

    static func setMTU(_ mtu: Int, ofLink index: UInt32) -> Request {
        var request = Request(link: RTM_NEWLINK, index: index)
        request.put(IFLA_MTU, UInt32(clamping: mtu))
        return request
    }

    static func setAddressGenerationMode(_ mode: AddressGenerationMode, ofLink index: UInt32) -> Request {
        var request = Request(link: RTM_NEWLINK, index: index)
        request.nest(IFLA_AF_SPEC) {
            $0.nest(AF_INET6) { $0.put(IFLA_INET6_ADDR_GEN_MODE, mode.rawValue) }
        }
        return request
    }
}
