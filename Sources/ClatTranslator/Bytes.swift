// Reading and writing packets. Numbers on the wire are in network byte order. Every access is checked against its span;
// whole headers are loaded and stored as one tuple of numbers, so that one check covers them.

extension RawSpan {
    /// The octet at `offset`.
    @inline(__always)
    func load8(_ offset: Int) -> UInt8 { unsafeLoad(fromByteOffset: offset, as: UInt8.self) }

    /// The 16 bits at `offset`, which need not be aligned.
    @inline(__always)
    func load16(_ offset: Int) -> UInt16 {
        UInt16(bigEndian: unsafeLoadUnaligned(fromByteOffset: offset, as: UInt16.self))
    }

    /// The 32 bits at `offset`, which need not be aligned.
    @inline(__always)
    func load32(_ offset: Int) -> UInt32 {
        UInt32(bigEndian: unsafeLoadUnaligned(fromByteOffset: offset, as: UInt32.self))
    }

    /// The 64 bits at `offset`, which need not be aligned.
    @inline(__always)
    func load64(_ offset: Int) -> UInt64 {
        UInt64(bigEndian: unsafeLoadUnaligned(fromByteOffset: offset, as: UInt64.self))
    }
}

extension MutableRawSpan {
    /// Writes one octet.
    @inline(__always)
    mutating func store8(_ value: UInt8, _ offset: Int) {
        storeBytes(of: value, toByteOffset: offset, as: UInt8.self)
    }

    /// Writes 16 bits in network order.
    @inline(__always)
    mutating func store16(_ value: UInt16, _ offset: Int) {
        storeBytes(of: value.bigEndian, toByteOffset: offset, as: UInt16.self)
    }

    /// Writes 32 bits in network order.
    @inline(__always)
    mutating func store32(_ value: UInt32, _ offset: Int) {
        storeBytes(of: value.bigEndian, toByteOffset: offset, as: UInt32.self)
    }

    /// Writes 64 bits in network order.
    @inline(__always)
    mutating func store64(_ value: UInt64, _ offset: Int) {
        storeBytes(of: value.bigEndian, toByteOffset: offset, as: UInt64.self)
    }

    /// Copies all of `source` to `offset` and after.
    mutating func copy(_ source: RawSpan, to offset: Int) {
        precondition(offset >= 0 && offset <= byteCount && source.byteCount <= byteCount &- offset)
        withUnsafeMutableBytes { target in
            source.withUnsafeBytes { UnsafeMutableRawBufferPointer(rebasing: target[offset...]).copyMemory(from: $0) }
        }
    }

    /// Writes zeros.
    mutating func clear(_ range: Range<Int>) {
        for offset in range { store8(0, offset) }
    }
}
