import CLibMnl
import Glibc

/// What a device, or its driver, does for the stack: ethtool-netlink, which is a family of generic netlink.
public enum LinkFeatures {
    /// Switches features off by the names that `ethtool -k` shows, on a link of the calling thread's namespace. ENOENT where
    /// the kernel does not speak ethtool-netlink, which came with Linux 5.6.
    public static func switchOff(_ names: [String], ofLink index: UInt32) throws(NetlinkError) {
        let operation = "switch off features of link \(index)"
        var socket = try NetlinkSocket(protocol: NETLINK_GENERIC)
        let families = try socket.collect(operation, .family(named: ETHTOOL_GENL_NAME), Self.readFamily)
        guard let family = families.first else { throw NetlinkError(operation: operation, code: ENOENT) }
        try socket.perform(operation, .switchOff(names, ofLink: index, family: family))
    }

    /// The number of the family that a `CTRL_CMD_NEWFAMILY` tells of: `struct genlmsghdr`, then attributes.
    static func readFamily(_ type: Int, _ bytes: RawSpan, _ body: Range<Int>) throws(MalformedMessage) -> Int? {
        var attributes = AttributeCursor(body, after: genlmsghdr.self)
        while let attribute = try attributes.next(in: bytes) {
            if attribute.type == CTRL_ATTR_FAMILY_ID { return Int(try bytes.load(UInt16.self, at: attribute.value)) }
        }
        return nil
    }
}

extension Request {
    private init(generic family: Int, _ command: Int) {
        self.init(family, 0, genlmsghdr(cmd: UInt8(truncatingIfNeeded: command), version: 1, reserved: 0))
    }

    static func family(named name: String) -> Request {
        var request = Request(generic: Int(GENL_ID_CTRL), CTRL_CMD_GETFAMILY)
        request.put(CTRL_ATTR_FAMILY_NAME, text: name)
        return request
    }

    /// A bit without ETHTOOL_A_BITSET_BIT_VALUE is to be 0; those that are not named stay.
    static func switchOff(_ names: [String], ofLink index: UInt32, family: Int) -> Request {
        var request = Request(generic: family, ETHTOOL_MSG_FEATURES_SET)
        request.nest(ETHTOOL_A_FEATURES_HEADER) {
            $0.put(ETHTOOL_A_HEADER_DEV_INDEX, index)
            $0.put(ETHTOOL_A_HEADER_FLAGS, UInt32(ETHTOOL_FLAG_OMIT_REPLY))
        }
        request.nest(ETHTOOL_A_FEATURES_WANTED) {
            $0.nest(ETHTOOL_A_BITSET_BITS) {
                for name in names {
                    $0.nest(ETHTOOL_A_BITSET_BITS_BIT) { $0.put(ETHTOOL_A_BITSET_BIT_NAME, text: name) }
                }
            }
        }
        return request
    }
}
