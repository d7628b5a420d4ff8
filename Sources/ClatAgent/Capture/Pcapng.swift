/// Blocks of a pcapng file (draft-ietf-opsawg-pcapng-03) in the machine's own byte order, which the first block tells.
///
///     block: type (4 octets), whole length (4), body, whole length (4); all of it a multiple of 4 octets
///     option: code (2), length (2), value, filled up to a multiple of 4
public enum Pcapng {
    /// Which way a packet went, as its interface sees it.
    public enum Direction: UInt32, Sendable {
        /// Received by the interface.
        case inbound = 1
        /// Sent by it.
        case outbound = 2
    }

    /// How a file begins: byte-order magic, version 1.0, a section of unknown length, and who wrote it.
    public static func header(writer: String) -> [UInt8] {
        let magic: UInt32 = 0x1a2b_3c4d
        return block(
            0x0a0d_0d0a,
            octets(magic) + octets(UInt16(1)) + octets(UInt16(0)) + octets(UInt64.max)
                + option(4, Array(writer.utf8)) + end)
    }

    /// An Ethernet interface; they are numbered from 0 as they come. Times are in nanoseconds.
    public static func interface(_ name: String, description: String) -> [UInt8] {
        block(
            1,
            octets(UInt16(1)) + octets(UInt16(0)) + octets(UInt32(0)) + option(2, Array(name.utf8))
                + option(3, Array(description.utf8)) + option(9, [9]) + end)
    }

    /// A packet; `time` is in nanoseconds since 1970.
    public static func packet(
        _ data: ArraySlice<UInt8>, length: Int, interface: Int, time: UInt64, _ direction: Direction
    ) -> [UInt8] {
        let head =
            octets(UInt32(interface)) + octets(UInt32(time >> 32)) + octets(UInt32(truncatingIfNeeded: time))
            + octets(UInt32(data.count)) + octets(UInt32(clamping: length))
        return block(6, head + padded(data) + option(2, octets(direction.rawValue)) + end)
    }

    private static let end: [UInt8] = [0, 0, 0, 0]

    private static func option(_ code: UInt16, _ value: [UInt8]) -> [UInt8] {
        octets(code) + octets(UInt16(clamping: value.count)) + padded(value[...])
    }

    private static func block(_ type: UInt32, _ body: [UInt8]) -> [UInt8] {
        let length = octets(UInt32(body.count + 12))
        return octets(type) + length + body + length
    }

    private static func padded(_ octets: ArraySlice<UInt8>) -> [UInt8] {
        Array(octets) + [UInt8](repeating: 0, count: (4 - octets.count % 4) % 4)
    }

    private static func octets(_ value: some FixedWidthInteger) -> [UInt8] {
        withUnsafeBytes(of: value, Array.init)
    }
}
