import CSeccomp
import Glibc

/// A filter of system calls (seccomp(2)) for one thread. A call that no rule lets through is not made: it ends the process,
/// with a sentence that names the call.
///
/// The kernel's other ways to refuse would not do. To kill the process tells nobody which call it was, and an error lets a
/// thread go on that does what it never should; the signal (SECCOMP_RET_TRAP) lets us do both in order.
public struct SystemCallFilter: Sendable {
    /// A system call that is let through, where its arguments are as they should be.
    public struct Rule: Sendable {
        fileprivate var call: CInt
        fileprivate var conditions: [Condition]

        /// That call, when all conditions hold.
        public init(_ call: CInt, _ conditions: Condition...) {
            self.call = call
            self.conditions = conditions
        }
    }

    /// What an argument (0 to 5) must be; the lower 32 bits of it, which is all that descriptors and flags have.
    public enum Condition: Sendable {
        /// One of these.
        case oneOf(argument: Int, [CInt])
        /// All of these bits set.
        case all(argument: Int, CInt)
        /// None of these bits set.
        case none(argument: Int, CInt)
    }

    /// The exit status of a process whose thread broke its filter (EX_SOFTWARE).
    public static let exitStatus: CInt = 70

    private var program: [sock_filter] = []

    /// A filter.
    ///
    /// - Parameters:
    ///   - rules: what may be called; the most frequent first.
    ///   - denied: what fails with EACCES and has no other consequence, as the C library asks for it and can do without.
    public init(allowing rules: [Rule], denying denied: [CInt] = []) {
        load(at: MemoryLayout<seccomp_data>.offset(of: \.arch) ?? 4)
        skip(1, unlessEqual: clat_audit_arch(), negated: true)
        verdict(SECCOMP_RET_TRAP)
        load(at: MemoryLayout<seccomp_data>.offset(of: \.nr) ?? 0)
        for rule in rules { append(rule) }
        for call in denied {
            skip(1, unlessEqual: CUnsignedInt(bitPattern: call))
            verdict(SECCOMP_RET_ERRNO | CUnsignedInt(EACCES))
        }
        verdict(SECCOMP_RET_TRAP)
    }

    /// Puts the calling thread under the filter, for good. ENOSYS on a processor whose numbers are not known here, EINVAL
    /// where the kernel has no filters.
    public func confineThread() throws(SystemError) {
        guard clat_audit_arch() != 0 else { throw SystemError(call: "seccomp on this processor", code: ENOSYS) }
        _ = Self.handler
        try retrying("prctl PR_SET_NO_NEW_PRIVS") { clat_no_new_privileges() }
        var instructions = program
        try instructions.withUnsafeMutableBufferPointer { instructions throws(SystemError) in
            var program = sock_fprog(len: CUnsignedShort(instructions.count), filter: instructions.baseAddress)
            // Before Linux 5.16 a filter would slow the processor's speculation down, lest what is confined spy on the rest of
            // the process. This thread runs no code but ours.
            _ = try retrying("seccomp") { clat_seccomp_filter(&program, CUnsignedInt(SECCOMP_FILTER_FLAG_SPEC_ALLOW)) }
        }
    }

    // MARK: The program

    private mutating func append(_ rule: Rule) {
        var body = SystemCallFilter()
        for condition in rule.conditions { body.append(condition) }
        body.verdict(SECCOMP_RET_ALLOW)
        skip(body.program.count, unlessEqual: CUnsignedInt(bitPattern: rule.call))
        program += body.program
    }

    /// Goes on where it holds, and refuses where not.
    private mutating func append(_ condition: Condition) {
        func lower(_ argument: Int) -> Int {
            (MemoryLayout<seccomp_data>.offset(of: \.args) ?? 16) + argument * 8
                + (CInt(1).littleEndian == 1 ? 0 : 4)
        }
        switch condition {
        case .oneOf(let argument, let values):
            load(at: lower(argument))
            for (position, value) in values.enumerated() {
                // Over the rest of the values, and over the refusal.
                skip(values.count - position, unlessEqual: CUnsignedInt(bitPattern: value), negated: true)
            }
        case .all(let argument, let bits):
            load(at: lower(argument))
            add(BPF_ALU | BPF_AND | BPF_K, CUnsignedInt(bitPattern: bits))
            skip(1, unlessEqual: CUnsignedInt(bitPattern: bits), negated: true)
        case .none(let argument, let bits):
            load(at: lower(argument))
            add(BPF_JMP | BPF_JSET | BPF_K, CUnsignedInt(bitPattern: bits), 0, 1)
        }
        verdict(SECCOMP_RET_TRAP)
    }

    private init() {}

    private mutating func load(at offset: Int) { add(BPF_LD | BPF_W | BPF_ABS, CUnsignedInt(offset)) }

    /// Jumps over so many instructions unless the value that was loaded is that one; negated: if it is.
    private mutating func skip(_ count: Int, unlessEqual value: CUnsignedInt, negated: Bool = false) {
        let count = UInt8(count)
        add(BPF_JMP | BPF_JEQ | BPF_K, value, negated ? count : 0, negated ? 0 : count)
    }

    private mutating func verdict(_ value: some BinaryInteger) { add(BPF_RET | BPF_K, CUnsignedInt(value)) }

    private mutating func add(_ code: CInt, _ value: CUnsignedInt, _ ifTrue: UInt8 = 0, _ ifFalse: UInt8 = 0) {
        program.append(sock_filter(code: CUnsignedShort(code), jt: ifTrue, jf: ifFalse, k: value))
    }

    // MARK: The end

    /// Says what was called, and ends the process. Whatever it uses is safe in a signal handler: no memory is asked for.
    private static let handler: Void = {
        var action = sigaction()
        action.sa_flags = SA_SIGINFO
        action.__sigaction_handler.sa_sigaction = { _, information, _ in
            var number = information?.pointee._sifields._sigsys._syscall ?? -1
            SystemCallFilter.say("clat-agent: a thread that only moves packets made system call ")
            var digits: (UInt64, UInt64) = (0, 0)
            withUnsafeMutableBytes(of: &digits) { digits in
                var position = digits.count
                repeat {
                    position -= 1
                    digits[position] = UInt8(ascii: "0") &+ UInt8(truncatingIfNeeded: number.magnitude % 10)
                    number /= 10
                } while number != 0 && position > 0
                _ = write(STDERR_FILENO, digits.baseAddress?.advanced(by: position), digits.count &- position)
            }
            SystemCallFilter.say(
                ", which its filter forbids; the agent ends. Either somebody has broken in by a packet, or this ")
            SystemCallFilter.say(
                "C library works in a way that clat-agent does not know: please report it with this line and the ")
            SystemCallFilter.say("output of: uname -a\n")
            _exit(SystemCallFilter.exitStatus)
        }
        sigaction(SIGSYS, &action, nil)
    }()

    private static func say(_ text: StaticString) { _ = write(STDERR_FILENO, text.utf8Start, text.utf8CodeUnitCount) }
}
