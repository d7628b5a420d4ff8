import CLibMnl
public import ClatBase
import Glibc

/// A policy rule that looks up a table (ip-rule(8), linux/fib_rules.h). Rules are tried by rising priority until one gives a
/// route.
public struct Rule: Hashable, Sendable {
    /// IPv4 or IPv6.
    public var family: AddressFamily
    /// Lower ones come first; each namespace is born with its `local` table at 0 and `main` at 32766.
    public var priority: UInt32
    /// Where the packet comes from; nil for everywhere. Of the rule's family.
    public var source: IPPrefix?
    /// Where the packet goes to; nil for everywhere. Of the rule's family.
    public var destination: IPPrefix?
    /// The name of the interface it came in by; nil for all. `lo` stands for packets of this host.
    public var inputName: String?
    /// The packet's transport (IPPROTO_), past IPv6 extension headers; nil for all. Since Linux 4.17.
    public var transport: UInt8?
    /// The table to look up.
    public var table: RouteTable
    /// Who made it.
    public var origin: RouteOrigin

    /// A rule to be added.
    public init(
        _ family: AddressFamily, priority: UInt32, from source: IPPrefix? = nil, to destination: IPPrefix? = nil,
        by inputName: String? = nil, transport: UInt8? = nil, table: RouteTable, origin: RouteOrigin = .static
    ) {
        self.family = family
        self.priority = priority
        self.source = source
        self.destination = destination
        self.inputName = inputName
        self.transport = transport
        self.table = table
        self.origin = origin
    }
}

// MARK: Verbs

extension NetlinkSocket {
    /// The rules of a family that look up a table, in their order. Selectors that `Rule` does not know are not told of.
    public mutating func rules(_ family: AddressFamily) throws(NetlinkError) -> [Rule] {
        try collect("list the rules", .rules(family)) { type, bytes, body throws(MalformedMessage) in
            type == RTM_NEWRULE ? try Rule(bytes, body) : nil
        }
    }

    /// Adds a rule. One that is there already is EEXIST.
    public mutating func addRule(_ rule: Rule) throws(NetlinkError) {
        try perform("add rule \(rule)", .newRule(rule))
    }

    /// Removes a rule, also one that the namespace was born with. One that is not there is ENOENT.
    public mutating func removeRule(_ rule: Rule) throws(NetlinkError) {
        try perform("remove rule \(rule)", .deleteRule(rule))
    }
}

extension Rule: CustomStringConvertible {
    /// `10: from 64:ff9b::/96 by clat-uplink, transport 58, table 464`
    public var description: String {
        "\(priority):" + (source.map { " from \($0)" } ?? "") + (destination.map { " to \($0)" } ?? "")
            + (inputName.map { " by \($0)," } ?? "")
            + (transport.map { " transport \($0)," } ?? "") + " table \(table.rawValue)"
    }
}

// MARK: Reading

extension Rule {
    /// Reads the body of an RTM_NEWRULE: `struct fib_rule_hdr`, then attributes. Nil for other families and actions.
    init?(_ bytes: RawSpan, _ body: Range<Int>) throws(MalformedMessage) {
        let header = try bytes.load(fib_rule_hdr.self, at: body)
        guard let family = AddressFamily(number: header.family), Int(header.action) == Int(FR_ACT_TO_TBL) else {
            return nil
        }
        // The kernel leaves a priority of 0 out.
        self.init(
            family, priority: 0, table: RouteTable(rawValue: UInt32(header.table)), origin: .unspecified)
        var attributes = AttributeCursor(body, after: fib_rule_hdr.self)
        while let attribute = try attributes.next(in: bytes) {
            let value = attribute.value
            switch attribute.type {
            case FRA_PRIORITY: priority = try bytes.load(UInt32.self, at: value)
            case FRA_SRC: source = IPPrefix(try bytes.address(family, at: value), length: Int(header.src_len))
            case FRA_DST:
                destination = IPPrefix(try bytes.address(family, at: value), length: Int(header.dst_len))
            case FRA_IIFNAME: inputName = bytes.text(at: value)
            case FRA_IP_PROTO: transport = try bytes.load(UInt8.self, at: value)
            case FRA_TABLE: table = RouteTable(rawValue: try bytes.load(UInt32.self, at: value))
            case FRA_PROTOCOL: origin = RouteOrigin(rawValue: try bytes.load(UInt8.self, at: value))
            default: break
            }
        }
    }
}

// MARK: Requests

extension Request {
    static func rules(_ family: AddressFamily) -> Request {
        var body = fib_rule_hdr()
        body.family = family.number
        return Request(RTM_GETRULE, NLM_F_DUMP, body)
    }

    static func newRule(_ rule: Rule) -> Request {
        Request(rule: rule, RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL)
    }

    static func deleteRule(_ rule: Rule) -> Request {
        Request(rule: rule, RTM_DELRULE, 0)
    }

    private init(rule: Rule, _ type: Int, _ flags: CInt) {
        var body = fib_rule_hdr()
        body.family = rule.family.number
        body.src_len = UInt8(clamping: rule.source?.length ?? 0)
        body.dst_len = UInt8(clamping: rule.destination?.length ?? 0)
        body.table = UInt8(exactly: rule.table.rawValue) ?? UInt8(RT_TABLE_COMPAT.rawValue)
        body.action = UInt8(truncatingIfNeeded: FR_ACT_TO_TBL)
        self.init(type, flags, body)
        put(FRA_PRIORITY, rule.priority)
        put(FRA_TABLE, rule.table.rawValue)
        if let source = rule.source { put(FRA_SRC, octets: source.address.bytes) }
        if let destination = rule.destination { put(FRA_DST, octets: destination.address.bytes) }
        if let name = rule.inputName { put(FRA_IIFNAME, text: name) }
        if let transport = rule.transport { put(FRA_IP_PROTO, transport) }
        put(FRA_PROTOCOL, rule.origin.rawValue)
    }
}
