import CLibMnl
import Glibc

/// The answer to one request, as its datagrams come in.
struct Answer<Value> {
    /// Makes a value of a message's body, or nil of one it has no interest in.
    typealias Reader = (_ type: Int, RawSpan, _ body: Range<Int>) throws(MalformedMessage) -> Value?

    /// The request's.
    let sequence: UInt32
    /// The asking socket's.
    let port: UInt32
    /// What was read so far.
    private(set) var values: [Value] = []
    /// False once the kernel says that the table changed while it was listed (NLM_F_DUMP_INTR).
    private(set) var isConsistent = true
    /// Messages that could not be read.
    private(set) var malformed = 0

    init(sequence: UInt32, port: UInt32) {
        self.sequence = sequence
        self.port = port
    }

    /// Reads the messages of a datagram; gives the verdict if it is among them. Messages of another sequence number or
    /// port are the tail of an answer that came too late.
    mutating func take(_ bytes: RawSpan, _ read: Reader) -> Verdict? {
        var cursor = MessageCursor()
        while true {
            do throws(MalformedMessage) {
                guard let message = try cursor.next(in: bytes) else { return nil }
                guard message.sequence == sequence, message.port == port else { continue }
                if message.flags & NLM_F_DUMP_INTR != 0 { isConsistent = false }
                if message.type == NLMSG_ERROR || message.type == NLMSG_DONE { return try Verdict(bytes, message) }
                if let value = try read(message.type, bytes, message.body) { values.append(value) }
            } catch { malformed += 1 }
        }
    }
}

/// What ends an answer: NLMSG_ERROR, which is also the ACK, or NLMSG_DONE.
struct Verdict: Equatable {
    /// An errno, or 0 for success.
    let code: CInt
    /// The kernel's words (NLMSGERR_ATTR_MSG).
    let message: String?

    /// NLMSG_ERROR: `struct nlmsgerr` (errno, negated, and the request's header), the rest of the request unless
    /// NLM_F_CAPPED, attributes if NLM_F_ACK_TLVS. NLMSG_DONE: errno, negated; attributes if NLM_F_ACK_TLVS.
    ///
    /// The errno counts even where the words cannot be read.
    init(_ bytes: RawSpan, _ end: Message) throws(MalformedMessage) {
        // The least of CInt has no negative.
        code = 0 &- (try bytes.load(CInt.self, at: end.body))
        message = end.flags & NLM_F_ACK_TLVS != 0 ? try? Self.words(bytes, end) : nil
    }

    private static func words(_ bytes: RawSpan, _ end: Message) throws(MalformedMessage) -> String? {
        var skipped = MemoryLayout<CInt>.size
        if end.type == NLMSG_ERROR {
            let request = try bytes.load(nlmsgerr.self, at: end.body).msg
            skipped = MemoryLayout<nlmsgerr>.size
            if end.flags & NLM_F_CAPPED == 0 {
                let length = min(Int(clamping: request.nlmsg_len), end.body.count)
                skipped += aligned(max(0, length - MemoryLayout<nlmsghdr>.size))
            }
        }
        var attributes = AttributeCursor(end.body.dropFirst(skipped))
        while let attribute = try attributes.next(in: bytes) {
            if attribute.type == Int(NLMSGERR_ATTR_MSG.rawValue) { return bytes.text(at: attribute.value) }
        }
        return nil
    }

    init(code: CInt, message: String? = nil) {
        self.code = code
        self.message = message
    }
}
