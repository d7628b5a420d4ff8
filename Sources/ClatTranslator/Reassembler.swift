/// Puts fragments together (RFC 791 section 3.2, RFC 8200 section 4.5), in bounded room and time.
///
/// At most 64 packets wait, in 1 MiB altogether; the oldest gives way. A packet waits 30 s at most. Fragments that overlap
/// condemn their packet (RFC 5722): it keeps its place, empty, to swallow what is left of it. A fragment that comes again,
/// octet for octet, does not (RFC 8200 section 4.5). The room is allocated with the first fragment ever, and once.
struct Reassembler: ~Copyable, Sendable {
    /// Which packet a fragment is of. IPv4 addresses stand in the low halves.
    struct Key: Equatable {
        var sourceHigh: UInt64 = 0
        var sourceLow: UInt64
        var destinationHigh: UInt64 = 0
        var destinationLow: UInt64
        var identification: UInt32
        var protocolNumber: UInt8
        var version: UInt8
    }

    /// What is kept of the first fragment's IP header.
    struct Head {
        var trafficClass: UInt8
        var hopLimit: UInt8
    }

    private struct Entry {
        var key: Key
        var deadline: UInt64
        var head: Head?
        /// The packet's octets, once the last fragment has come.
        var total: Int?
        /// The end of the fragment that reaches furthest.
        var reach = 0
        /// Octets of the largest fragment.
        var largest = 0
        /// Units of 8 octets that have come.
        var units = 0
        var isCondemned = false
    }

    static let timeout: UInt64 = 30_000_000_000
    static let entryLimit = 64
    static let memory = 1 << 20
    private static let chunkSize = 2048
    private static let chunksPerEntry = 65536 / chunkSize
    /// Of 64 bits, one for each unit of 8 octets.
    private static let wordsPerEntry = 65536 / 8 / 64

    private var entries: [Entry?] = []
    private var count = 0
    /// For each entry: which units have come, one bit each.
    private var maps: [UInt64] = []
    /// For each entry: with which units a fragment began.
    private var starts: [UInt64] = []
    /// For each entry: the chunk of each 2048 octets, or -1.
    private var chunks: [Int16] = []
    private var freeChunks: [Int16] = []
    private var store: [UInt8] = []

    var isEmpty: Bool { count == 0 }

    /// Whether fragments of that packet wait, or it is condemned.
    func holds(_ key: Key) -> Bool { count > 0 && entries.contains { $0?.key == key } }

    /// Takes a fragment, whose place and length have been checked. Gives the entry and the octets of its packet, and of the
    /// largest fragment of that, if it is complete now; it then must be taken out.
    mutating func add(
        _ key: Key, _ fragment: Fragment, _ payload: RawSpan, _ head: Head, now: UInt64, _ counters: TranslatorCounters
    ) throws(Refusal) -> (entry: Int, length: Int, largest: Int)? {
        expire(now, counters)
        let index = try place(of: key, now, counters)
        guard var entry = entries[index] else { return nil }
        guard !entry.isCondemned else { throw Refusal(.reassemblyOverlap) }
        let end = fragment.offset + payload.byteCount
        let units = fragment.offset / 8..<(end + 7) / 8
        if units.contains(where: { Self.isSet(maps, index, $0) }) {
            let last = entry.total.map { ($0 + 7) / 8 }
            guard isFragment(index, units), holds(index, payload, at: fragment.offset),
                fragment.more ? last != units.upperBound : entry.total == end
            else { try condemn(index) }
            throw Refusal(.fragmentDuplicate)
        }
        if !fragment.more {
            if let total = entry.total, total != end { try condemn(index) }
            entry.total = end
        }
        entry.reach = max(entry.reach, end)
        entry.largest = max(entry.largest, payload.byteCount)
        if entry.reach > entry.total ?? .max { try condemn(index) }
        if fragment.offset == 0 { entry.head = head }
        entry.units += units.count
        entries[index] = entry
        for unit in units { Self.set(&maps, index, unit) }
        Self.set(&starts, index, units.lowerBound)
        try write(index, payload, at: fragment.offset, counters)
        guard let total = entry.total, entry.units == (total + 7) / 8 else { return nil }
        return (index, total, entry.largest)
    }

    /// Copies a complete packet out, ends its entry and gives what is known of its IP header.
    mutating func take(_ index: Int, length: Int, into target: inout MutableRawSpan, at offset: Int) -> Head? {
        copy(index, length: length, into: &target, at: offset)
        let head = entries[index]?.head
        release(index)
        return head
    }

    private func copy(_ index: Int, length: Int, into target: inout MutableRawSpan, at offset: Int) {
        let bytes = store.span.bytes
        var done = 0
        while done < length {
            let chunk = Int(chunks[index * Self.chunksPerEntry + done / Self.chunkSize])
            let size = min(Self.chunkSize, length - done)
            target.copy(bytes.extracting(chunk * Self.chunkSize..<chunk * Self.chunkSize + size), to: offset + done)
            done += size
        }
    }

    private mutating func expire(_ now: UInt64, _ counters: TranslatorCounters) {
        guard count > 0 else { return }
        for index in entries.indices {
            guard let entry = entries[index], entry.deadline <= now else { continue }
            if !entry.isCondemned { counters.drop(.reassemblyTimeout) }
            release(index)
        }
    }

    /// The entry of that packet, a new one if need be.
    private mutating func place(of key: Key, _ now: UInt64, _ counters: TranslatorCounters) throws(Refusal) -> Int {
        if entries.isEmpty { allocate() }
        if let index = entries.firstIndex(where: { $0?.key == key }) { return index }
        if count == Self.entryLimit { evictOldest(but: nil, counters) }
        guard let index = entries.firstIndex(where: { $0 == nil }) else { throw Refusal(.reassemblyNoRoom) }
        entries[index] = Entry(key: key, deadline: now &+ Self.timeout)
        count += 1
        for word in index * Self.wordsPerEntry..<(index + 1) * Self.wordsPerEntry {
            (maps[word], starts[word]) = (0, 0)
        }
        return index
    }

    private mutating func allocate() {
        entries = Array(repeating: nil, count: Self.entryLimit)
        maps = Array(repeating: 0, count: Self.entryLimit * Self.wordsPerEntry)
        starts = maps
        chunks = Array(repeating: -1, count: Self.entryLimit * Self.chunksPerEntry)
        freeChunks = Array(0..<Int16(Self.memory / Self.chunkSize))
        store = Array(repeating: 0, count: Self.memory)
    }

    private static func isSet(_ map: [UInt64], _ index: Int, _ unit: Int) -> Bool {
        map[index * wordsPerEntry + unit / 64] & 1 << UInt64(unit % 64) != 0
    }

    private static func set(_ map: inout [UInt64], _ index: Int, _ unit: Int) {
        map[index * wordsPerEntry + unit / 64] |= 1 << UInt64(unit % 64)
    }

    /// Whether those units came as one fragment, neither more nor less.
    private func isFragment(_ index: Int, _ units: Range<Int>) -> Bool {
        Self.isSet(starts, index, units.lowerBound) && units.allSatisfy { Self.isSet(maps, index, $0) }
            && !units.dropFirst().contains { Self.isSet(starts, index, $0) }
            && (units.upperBound == Self.wordsPerEntry * 64 || !Self.isSet(maps, index, units.upperBound)
                || Self.isSet(starts, index, units.upperBound))
    }

    /// Whether these octets, which have come, are the same.
    private func holds(_ index: Int, _ payload: RawSpan, at offset: Int) -> Bool {
        for position in 0..<payload.byteCount {
            let slot = index * Self.chunksPerEntry + (offset + position) / Self.chunkSize
            let octet = store[Int(chunks[slot]) * Self.chunkSize + (offset + position) % Self.chunkSize]
            if octet != payload.load8(position) { return false }
        }
        return true
    }

    private mutating func write(
        _ index: Int, _ payload: RawSpan, at offset: Int, _ counters: TranslatorCounters
    ) throws(Refusal) {
        var done = 0
        while done < payload.byteCount {
            let position = offset + done
            let slot = index * Self.chunksPerEntry + position / Self.chunkSize
            if chunks[slot] < 0 {
                while freeChunks.isEmpty {
                    guard evictOldest(but: index, counters) else { throw Refusal(.reassemblyNoRoom) }
                }
                chunks[slot] = freeChunks.removeLast()
            }
            let within = position % Self.chunkSize
            let size = min(Self.chunkSize - within, payload.byteCount - done)
            let target = Int(chunks[slot]) * Self.chunkSize + within
            var span = store.mutableSpan
            var bytes = span.mutableBytes
            bytes.copy(payload.extracting(done..<done + size), to: target)
            done += size
        }
    }

    /// Gives the oldest entry's room to others; false if there is none.
    @discardableResult
    private mutating func evictOldest(but spared: Int?, _ counters: TranslatorCounters) -> Bool {
        var oldest: (index: Int, deadline: UInt64)?
        for index in entries.indices where index != spared {
            guard let entry = entries[index] else { continue }
            if entry.deadline < oldest?.deadline ?? .max { oldest = (index, entry.deadline) }
        }
        guard let oldest else { return false }
        if entries[oldest.index]?.isCondemned == false { counters.drop(.reassemblyNoRoom) }
        release(oldest.index)
        return true
    }

    private mutating func condemn(_ index: Int) throws(Refusal) -> Never {
        releaseChunks(index)
        entries[index]?.isCondemned = true
        throw Refusal(.reassemblyOverlap)
    }

    private mutating func release(_ index: Int) {
        releaseChunks(index)
        entries[index] = nil
        count -= 1
    }

    private mutating func releaseChunks(_ index: Int) {
        for slot in index * Self.chunksPerEntry..<(index + 1) * Self.chunksPerEntry where chunks[slot] >= 0 {
            freeChunks.append(chunks[slot])
            chunks[slot] = -1
        }
    }
}
