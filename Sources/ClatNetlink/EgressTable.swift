import CLibMnl
import ClatBase
import Glibc

/// An nftables table that stops IPv4 and ARP with certain sources at egress of one device.
///
/// The table is owned (NFT_TABLE_F_OWNER, Linux 5.12): nobody else can change it, and the kernel removes it with the socket that
/// made it, however the process ends. Chains at egress are as old as Linux 5.16.
public struct EgressTable: ~Copyable, Sendable {
    private let socket: MnlSocket

    /// The socket's, valid as long as this value lives: whoever holds a copy keeps the table.
    public var descriptor: CInt { socket.descriptor }

    /// Makes it in the calling thread's network namespace.
    public init(named name: String, device: String, sources: [IPPrefix]) throws(NetlinkError) {
        let operation = "make nftables table \(name) for \(device)"
        let socket = try MnlSocket.bound(namespace: nil, protocol: NETLINK_NETFILTER)
        socket.setReceiveTimeout(seconds: 10)
        var batch: [UInt8] = []
        var sequence: UInt32 = 0
        func add(_ request: consuming Request) throws(NetlinkError) {
            guard !request.isOverfull else { throw NetlinkError(operation: operation, code: EMSGSIZE) }
            sequence += 1
            request.stamp(sequence: sequence)
            batch += request.bytes
        }
        try add(.batch(NFNL_MSG_BATCH_BEGIN))
        try add(.newTable(name))
        try add(.newEgressChain(in: name, device: device))
        for source in sources {
            // Where the address begins, after the link-layer header: RFC 791 section 3.1; RFC 826 on Ethernet.
            try add(.newDropRule(in: name, protocol: UInt16(ETH_P_IP), offset: 12, source))
            try add(.newDropRule(in: name, protocol: UInt16(ETH_P_ARP), offset: 14, source))
        }
        let last = sequence
        try add(.batch(NFNL_MSG_BATCH_END))
        try batch.span.bytes.withUnsafeBytes { bytes throws(NetlinkError) in try socket.send(bytes, operation) }
        try Self.receive(from: socket, upTo: last, operation)
        self.socket = socket
    }

    /// The kernel answers once it has taken in or refused the whole: each message with an errno that it refuses, else each
    /// with 0.
    private static func receive(
        from socket: borrowing MnlSocket, upTo last: UInt32, _ operation: String
    ) throws(NetlinkError) {
        var buffer = [UInt8](repeating: 0, count: 8192)
        let deadline = BootInstant.now + .seconds(10)
        while BootInstant.now < deadline {
            let count = try socket.receive(into: &buffer, operation)
            let bytes = buffer.span.bytes.extracting(0..<count)
            var cursor = MessageCursor()
            while let message = try? cursor.next(in: bytes) {
                guard message.type == NLMSG_ERROR, message.port == socket.port,
                    let verdict = try? Verdict(bytes, message)
                else { continue }
                guard verdict.code == 0 else {
                    throw NetlinkError(operation: operation, code: verdict.code, message: verdict.message)
                }
                if message.sequence == last { return }
            }
        }
        throw NetlinkError(operation: operation, code: ETIMEDOUT)
    }
}

// MARK: Requests

extension Request {
    /// The first or last message of a transaction.
    fileprivate static func batch(_ type: CInt) -> Request {
        Request(Int(type), 0, nfgenmsg(nfgen_family: 0, version: 0, res_id: UInt16(NFNL_SUBSYS_NFTABLES).bigEndian))
    }

    private init(_ type: nf_tables_msg_types, _ flags: CInt) {
        self.init(
            Int(NFNL_SUBSYS_NFTABLES) << 8 | Int(type.rawValue), flags,
            nfgenmsg(nfgen_family: UInt8(NFPROTO_NETDEV), version: UInt8(NFNETLINK_V0), res_id: 0))
    }

    fileprivate static func newTable(_ name: String) -> Request {
        var request = Request(NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL)
        request.put(NFTA_TABLE_NAME.rawValue, text: name)
        request.put(NFTA_TABLE_FLAGS.rawValue, NFT_TABLE_F_OWNER.rawValue.bigEndian)
        return request
    }

    fileprivate static func newEgressChain(in table: String, device: String) -> Request {
        var request = Request(NFT_MSG_NEWCHAIN, NLM_F_CREATE | NLM_F_EXCL)
        request.put(NFTA_CHAIN_TABLE.rawValue, text: table)
        request.put(NFTA_CHAIN_NAME.rawValue, text: chain)
        request.nest(NFTA_CHAIN_HOOK.rawValue) { hook in
            hook.put(NFTA_HOOK_HOOKNUM.rawValue, UInt32(NF_NETDEV_EGRESS.rawValue).bigEndian)
            hook.put(NFTA_HOOK_PRIORITY.rawValue, UInt32(0))
            hook.put(NFTA_HOOK_DEV.rawValue, text: device)
        }
        request.put(NFTA_CHAIN_TYPE.rawValue, text: "filter")
        return request
    }

    /// `meta protocol P; payload 4 octets at OFFSET of the network header, & mask, == PREFIX; drop`.
    fileprivate static func newDropRule(
        in table: String, protocol number: UInt16, offset: UInt32, _ prefix: IPPrefix
    ) -> Request {
        let mask = prefix.length == 0 ? 0 : UInt32.max << UInt32(32 - prefix.length)
        var request = Request(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND)
        request.put(NFTA_RULE_TABLE.rawValue, text: table)
        request.put(NFTA_RULE_CHAIN.rawValue, text: chain)
        request.nest(NFTA_RULE_EXPRESSIONS.rawValue) { rule in
            rule.expression("meta") { meta in
                meta.put(NFTA_META_DREG.rawValue, register)
                meta.put(NFTA_META_KEY.rawValue, UInt32(NFT_META_PROTOCOL.rawValue).bigEndian)
            }
            rule.compare(octets(number))
            rule.expression("payload") { payload in
                payload.put(NFTA_PAYLOAD_DREG.rawValue, register)
                payload.put(NFTA_PAYLOAD_BASE.rawValue, UInt32(NFT_PAYLOAD_NETWORK_HEADER.rawValue).bigEndian)
                payload.put(NFTA_PAYLOAD_OFFSET.rawValue, offset.bigEndian)
                payload.put(NFTA_PAYLOAD_LEN.rawValue, UInt32(4).bigEndian)
            }
            rule.expression("bitwise") { bitwise in
                bitwise.put(NFTA_BITWISE_SREG.rawValue, register)
                bitwise.put(NFTA_BITWISE_DREG.rawValue, register)
                bitwise.put(NFTA_BITWISE_LEN.rawValue, UInt32(4).bigEndian)
                bitwise.value(NFTA_BITWISE_MASK.rawValue, octets(mask))
                bitwise.value(NFTA_BITWISE_XOR.rawValue, octets(UInt32(0)))
            }
            rule.compare(prefix.address.bytes)
            rule.expression("immediate") { immediate in
                immediate.put(NFTA_IMMEDIATE_DREG.rawValue, UInt32(NFT_REG_VERDICT.rawValue).bigEndian)
                immediate.nest(NFTA_IMMEDIATE_DATA.rawValue) { data in
                    data.nest(NFTA_DATA_VERDICT.rawValue) { verdict in
                        verdict.put(NFTA_VERDICT_CODE.rawValue, UInt32(NF_DROP).bigEndian)
                    }
                }
            }
        }
        return request
    }

    private static var chain: String { "egress" }
    private static var register: UInt32 { UInt32(NFT_REG_1.rawValue).bigEndian }

    /// A number in network order.
    private static func octets(_ number: some FixedWidthInteger) -> [UInt8] {
        withUnsafeBytes(of: number.bigEndian, Array.init)
    }

    private mutating func expression(_ name: String, _ body: (inout Request) -> Void) {
        nest(NFTA_LIST_ELEM.rawValue) { element in
            element.put(NFTA_EXPR_NAME.rawValue, text: name)
            element.nest(NFTA_EXPR_DATA.rawValue, body)
        }
    }

    private mutating func compare(_ octets: [UInt8]) {
        expression("cmp") { compare in
            compare.put(NFTA_CMP_SREG.rawValue, Self.register)
            compare.put(NFTA_CMP_OP.rawValue, UInt32(NFT_CMP_EQ.rawValue).bigEndian)
            compare.value(NFTA_CMP_DATA.rawValue, octets)
        }
    }

    private mutating func value(_ type: UInt32, _ octets: [UInt8]) {
        nest(type) { $0.put(NFTA_DATA_VALUE.rawValue, octets: octets) }
    }
}
